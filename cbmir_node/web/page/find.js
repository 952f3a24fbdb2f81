// Finding a study to start from, by QIDO-RS (PS3.18 10.6), while one types.

import { getJson } from "./api.js";
import { addressOf } from "./address.js";
import { text, values } from "./dicom_json.js";
import { byId, debounced, element, icon } from "./elements.js";
import { messageOf, standingMessage } from "./notices.js";
import { counted, patientOf, readableAge, readableDate, readableSex } from "./wording.js";

const LIMIT = 50;
const TYPING_MS = 250;
const NOTHING = "No study matches";
const FIELDS = [
  "StudyDescription",
  "PatientSex",
  "PatientBirthDate",
  "AccessionNumber",
  "ModalitiesInStudy",
  "NumberOfStudyRelatedInstances",
];

/** Matching tells capitals from small letters (PS3.4 C.2.2.2.1), people do not: any usual spelling. */
function containing(typed) {
  const term = typed.trim().replaceAll("\\", "");
  const capitalized = term.charAt(0).toUpperCase() + term.slice(1).toLowerCase();
  const spellings = new Set([term, term.toUpperCase(), term.toLowerCase(), capitalized]);
  return [...spellings].map((spelling) => `*${spelling}*`).join("\\");
}

function parametersOf(find) {
  const parameters = new URLSearchParams({ limit: LIMIT });
  for (const field of FIELDS) parameters.append("includefield", field);
  if (find.accession) parameters.set("AccessionNumber", find.accession.trim());
  if (find.description) parameters.set("StudyDescription", containing(find.description));
  if (find.modality) parameters.set("ModalitiesInStudy", find.modality);
  if (find.from || find.to) {
    const plain = (date) => (date ?? "").replaceAll("-", "");
    parameters.set("StudyDate", `${plain(find.from)}-${plain(find.to)}`);
  }
  return parameters;
}

/** One request, or two for a patient: what was typed may be the name or the ID. */
function requestsOf(find) {
  const patient = find.patient?.trim();
  if (!patient) return [parametersOf(find)];
  const byName = parametersOf(find);
  byName.set("PatientName", patient);
  byName.set("fuzzymatching", "true");
  const byIdentifier = parametersOf(find);
  byIdentifier.set("PatientID", containing(patient));
  return [byName, byIdentifier];
}

function ageAt(birth, date) {
  if (!/^\d{8}$/.test(birth) || !/^\d{8}$/.test(date)) return null;
  const day = (t) => Date.UTC(Number(t.slice(0, 4)), Number(t.slice(4, 6)) - 1, Number(t.slice(6)));
  return Math.max((day(date) - day(birth)) / 86400000 / 365.25, 0);
}

function studyOf(dataset) {
  const date = text(dataset, "00080020");
  return {
    uid: text(dataset, "0020000D"),
    study_date: date,
    accession_number: text(dataset, "00080050"),
    modalities: values(dataset, "00080061").join(", "),
    study_description: text(dataset, "00081030"),
    patient_name: text(dataset, "00100010"),
    patient_id: text(dataset, "00100020"),
    patient_sex: text(dataset, "00100040"),
    age_years: ageAt(text(dataset, "00100030"), date),
    images: Number(text(dataset, "00201208")) || 0,
  };
}

/**
 * Studies that match what was typed, newest first.
 *
 * @param {object} find patient, accession, description, modality, from, to; all optional
 * @param {AbortSignal} [signal]
 * @returns {Promise<{studies: object[], more: boolean}>} `more` when the node may have further ones
 */
export async function findStudies(find, signal) {
  const answers = await Promise.all(
    requestsOf(find).map((parameters) => getJson(`dicom-web/studies?${parameters}`, { signal })),
  );
  const studies = new Map();
  for (const study of answers.flatMap((answer) => (answer ?? []).map(studyOf))) {
    studies.set(study.uid, study);
  }
  return {
    studies: [...studies.values()].sort((a, b) => b.study_date.localeCompare(a.study_date)),
    more: answers.some((answer) => answer?.length >= LIMIT),
  };
}

/** A study may hold only objects such as a report. */
function showNoPicture(image) {
  image.closest("a").querySelector(".study-images").textContent = "no picture";
  image.replaceWith(icon("document"));
}

function studyRow(study) {
  const picture = element("img", {
    src: `dicom-web/studies/${study.uid}/thumbnail`,
    alt: "",
    loading: "lazy",
    decoding: "async",
    on: { error: (event) => showNoPicture(event.target) },
  });
  const about = [study.patient_id, readableSex(study.patient_sex), readableAge(study.age_years)];
  const accession = study.accession_number && `Accession ${study.accession_number}`;
  return element(
    "li",
    {},
    element(
      "a",
      {
        class: "study",
        href: addressOf({ subject: { level: "study", uid: study.uid } }),
        data: { study: study.uid },
      },
      element("span", { class: "study-picture" }, picture),
      element(
        "span",
        { class: "study-patient" },
        element("strong", {}, element("bdi", {}, patientOf(study))),
        element("span", { class: "quiet small" }, about.filter(Boolean).join(" · ")),
      ),
      element(
        "span",
        { class: "study-description" },
        element("span", {}, study.study_description || "No description"),
        element("span", { class: "quiet small" }, accession),
      ),
      element("span", { class: "study-modality" }, study.modalities),
      element("span", { class: "study-date" }, readableDate(study.study_date)),
      element("span", { class: "study-images quiet small" }, counted(study.images, "image")),
    ),
  );
}

/** The first view of the page: fields, and the studies that match them. */
export class StudyFinder {
  #form = byId("find-form");
  #request = null;
  #shown = "";
  #changed;

  /** @param {(find: object) => void} changed called with what was typed */
  constructor(changed) {
    this.#changed = changed;
    const typed = debounced(() => this.#changed(this.#read()), TYPING_MS);
    this.#form.addEventListener("input", typed);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      typed.cancel();
      this.#shown = "";
      this.#changed(this.#read());
    });
    byId("start").addEventListener("keydown", (event) => this.#onKey(event));
    this.#form.addEventListener("reset", () => {
      typed.cancel();
      this.#changed({});
    });
  }

  #read() {
    return Object.fromEntries([...new FormData(this.#form)].filter(([, value]) => value));
  }

  /** Show the studies that match; resolves to them. */
  async show(find) {
    for (const field of this.#form.elements) {
      if (field.name && field !== document.activeElement) field.value = find[field.name] ?? "";
    }
    const asked = JSON.stringify(find);
    if (asked === this.#shown) return [];
    this.#shown = asked;
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    byId("studies").setAttribute("aria-busy", "true");
    try {
      const { studies, more } = await findStudies(find, request.signal);
      this.#draw(studies, more, Object.keys(find).length > 0);
      return studies;
    } catch (error) {
      if (error.name === "AbortError") return [];
      this.#shown = "";
      const again = { button: "Try again", action: () => this.show(find) };
      byId("studies").replaceChildren();
      byId("studies-count").textContent = "";
      byId("studies-problem").replaceChildren(messageOf(error, again));
      return [];
    } finally {
      if (this.#request === request) byId("studies").removeAttribute("aria-busy");
    }
  }

  /** Put the keyboard's focus onto a study; onto the heading when it is not in the list. */
  focus(study) {
    const row = [...byId("studies").querySelectorAll("a")].find(
      (link) => link.dataset.study === study,
    );
    (row ?? byId("start-title")).focus();
  }

  /** Draw the rows; whoever has walked to one stays there, although typing went on until just now. */
  #drawRows(studies) {
    const list = byId("studies");
    const before = document.activeElement?.dataset.study;
    list.replaceChildren(...studies.map(studyRow));
    if (before) list.querySelector(`[data-study="${before}"]`)?.focus({ preventScroll: true });
  }

  /** Up and down walk the studies, from the fields too. */
  #onKey(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const target = event.target;
    const walks = target.dataset.study || (step === 1 && /^(search|text)$/.test(target.type));
    if (!step || !walks || event.altKey || event.ctrlKey || event.metaKey) return;
    const links = [...byId("studies").querySelectorAll("a")];
    const to = links[links.indexOf(target) + step];
    event.preventDefault();
    (to ?? (step < 0 ? this.#form.elements.patient : target)).focus();
  }

  #draw(studies, more, narrowed) {
    this.#drawRows(studies);
    const found = studies.length ? counted(studies.length, "study", "studies") : NOTHING;
    byId("studies-count").textContent = more
      ? `The first ${found}; type more to narrow them down`
      : found;
    // a screen reader hears it in any case; eyes read the message below
    byId("studies-count").classList.toggle("visually-hidden", !studies.length);
    const problem = byId("studies-problem");
    problem.replaceChildren();
    if (studies.length) return;
    const [title, told] = narrowed
      ? [NOTHING, "Leave out a field, or shorten a name."]
      : ["There is no study yet", "Send images to the node by DICOM, or drop a file to try it."];
    problem.append(
      narrowed
        ? standingMessage(title, told, { button: "Clear", action: () => this.#form.reset() })
        : standingMessage(title, told),
    );
  }
}
