// What is searched for: its picture, its facts, what the network takes it for.

import { getJson, postJson } from "./api.js";
import { keyOf } from "./address.js";
import { text } from "./dicom_json.js";
import { bar, byId, element, facts } from "./elements.js";
import { coverOf, frameAddress } from "./frames.js";
import { messageOf, notice, noticeOf, standingMessage } from "./notices.js";
import { explain } from "./saliency.js";
import {
  counted,
  patientOf,
  percent,
  readableAge,
  readableClass,
  readableCode,
  readableDate,
  readableSex,
} from "./wording.js";

/** The page's lists of facts about a patient and a study. */
export function factsOf(subject) {
  return [
    ["Patient ID", subject.patient_name ? subject.patient_id : ""],
    [
      "Sex, age",
      [readableSex(subject.patient_sex), readableAge(subject.age_years)].filter(Boolean).join(", "),
    ],
    ["Modality", subject.modality],
    ["Body part", readableCode(subject.body_part_examined)],
    ["Study", readableDate(subject.study_date)],
    // a picture that becomes DICOM is described by its file's name, which stands there already
    ["Description", subject.study_description === subject.name ? "" : subject.study_description],
    ["Series", subject.series_description],
    ["Accession", subject.accession_number],
  ];
}

/** UIDs, each with a button that copies it; the `details` around the list goes when there are none. */
export function showIdentifiers(list, subject) {
  const picture = subject.kind && subject.kind !== "dicom"; // its UIDs are made up for the moment
  const identifiers = [
    ["Study Instance UID", subject.study_instance_uid],
    ["Series Instance UID", subject.series_instance_uid],
    ["SOP Instance UID", subject.sop_instance_uid],
  ].filter(([, uid]) => uid && !(picture && !subject.known));
  list.closest("details").hidden = !identifiers.length;
  list.replaceChildren(
    ...identifiers.flatMap(([name, uid]) => {
      const copy = element(
        "button",
        { class: "button plain", type: "button", "aria-label": `Copy the ${name}` },
        "Copy",
      );
      copy.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(uid);
          notice(`${name} copied`);
        } catch {
          notice("The browser does not let the page copy; select the text instead.", "warning");
        }
      });
      return [element("dt", {}, name), element("dd", {}, element("code", {}, uid), copy)];
    }),
  );
}

function classRow({ label, probability }) {
  return element(
    "li",
    {},
    element("span", {}, readableClass(label)),
    element("span", { class: "number" }, percent(probability)),
    bar(probability),
  );
}

/** The panel of the query. */
export class QueryPanel {
  #mayStore;
  #choose;
  #stored;

  /**
   * @param {boolean} mayStore
   * @param {(subject: object) => void} choose called when another part of the study is to be compared
   * @param {(subject: object) => void} stored called when a dropped file has become part of the node
   */
  constructor(mayStore, choose, stored) {
    this.#mayStore = mayStore;
    this.#choose = choose;
    this.#stored = stored;
    byId("query-part").addEventListener("change", (event) => {
      const [level, uid] = event.target.value.split(":");
      this.#choose({ level, uid });
    });
  }

  /** Fetch what the node knows of the query; rejects when it knows nothing. */
  async fetch(subject, signal) {
    const path = subject.token
      ? `api/examples/${encodeURIComponent(subject.token)}`
      : `api/subjects/${subject.level}/${subject.uid}`;
    return { ...(await getJson(path, { signal })), ...subject };
  }

  /** Show that it is being fetched. */
  showWaiting() {
    const picture = byId("query-picture");
    picture.replaceChildren();
    picture.classList.add("skeleton");
    byId("query-name").replaceChildren();
    byId("query-facts").replaceChildren();
    byId("query-message").replaceChildren();
    showIdentifiers(byId("query-identifiers"), {});
    byId("query-classes-section").hidden = true;
    byId("query-part-field").hidden = true;
  }

  /** Show that it cannot be had, and why. */
  showProblem(error) {
    byId("query-picture").classList.remove("skeleton");
    // that there is no such thing is told where the results would be
    if (error.status !== 404) byId("query-message").replaceChildren(messageOf(error));
  }

  /** Show it. */
  show(subject) {
    const picture = byId("query-picture");
    picture.classList.remove("skeleton");
    const frame = coverOf(subject);
    const image = element("img", { src: frameAddress(frame, "thumbnail"), alt: "" });
    image.addEventListener("error", () =>
      image.replaceWith(element("span", { class: "no-picture" }, "No picture")),
    );
    picture.replaceChildren(image);
    explain(picture, frameAddress(frame, "saliency"));

    byId("query-name").replaceChildren(
      element("strong", {}, subject.token ? subject.name : patientOf(subject)),
    );
    const own = subject.token ? [["Patient", subject.patient_name ? patientOf(subject) : ""]] : [];
    facts(byId("query-facts"), [...own, ...factsOf(subject)]);
    showIdentifiers(byId("query-identifiers"), subject);

    this.showClasses(subject.predictions ?? []);
    this.#showState(subject);
  }

  /** Show what the network takes it for, best first. */
  showClasses(predictions) {
    byId("query-classes-section").hidden = !predictions.length;
    byId("query-classes").replaceChildren(...predictions.slice(0, 5).map(classRow));
  }

  #showState(subject) {
    const place = byId("query-message");
    place.replaceChildren();
    if (subject.token) place.append(this.#notStored(subject));
    else if (subject.kept === false) {
      place.append(
        standingMessage(
          "Only the small pictures are kept here",
          "They are compared as ever. To see the images, open the study in the PACS.",
          { kind: "warning" },
        ),
      );
    }
  }

  #notStored(subject) {
    if (subject.known) {
      return element(
        "p",
        { class: "row" },
        element("span", { class: "badge good" }, "Stored in the node"),
      );
    }
    const badge = element(
      "span",
      { class: "badge warning", data: { testid: "not-stored" } },
      "Not stored",
    );
    const line = element("div", { class: "row" }, badge);
    if (!this.#mayStore) return line;
    const store = element(
      "button",
      { class: "button", type: "button", data: { testid: "store" } },
      "Store it",
    );
    store.addEventListener("click", async () => {
      store.disabled = true;
      try {
        await postJson(`api/examples/${encodeURIComponent(subject.token)}/store`, {});
        notice("Stored. It can be found as soon as it is embedded.", "good");
        this.#stored({ ...subject, known: true });
        line.replaceWith(this.#notStored({ ...subject, known: true }));
      } catch (error) {
        store.disabled = false;
        noticeOf(error);
      }
    });
    line.append(store);
    return line;
  }

  /** Offer the study's series, and the study as a whole, to compare by. */
  async showParts(subject, signal) {
    const field = byId("query-part-field");
    if (subject.token) return;
    const study = subject.study_instance_uid;
    const parameters = new URLSearchParams({ includefield: "SeriesDescription" });
    const series =
      (await getJson(`dicom-web/studies/${study}/series?${parameters}`, { signal })) ?? [];
    const chosen = keyOf(subject);
    const options = [[`study:${study}`, "The whole study"]];
    for (const one of series) {
      const name = [text(one, "00080060"), text(one, "0008103E")].filter(Boolean).join(" ");
      const images = Number(text(one, "00201209")) || 0;
      options.push([
        `series:${text(one, "0020000E")}`,
        `Series: ${name || "no description"}${images ? `, ${counted(images, "image")}` : ""}`,
      ]);
    }
    if (subject.level === "image") options.push([chosen, "This image"]);
    byId("query-part").replaceChildren(
      ...options.map(([value, name]) =>
        element("option", { value, selected: value === chosen }, name),
      ),
    );
    field.hidden = options.length < 3;
  }
}
