// What is searched for: its picture, its facts, what the network takes it for.

import { getJson, postJson } from "./api.js";
import { keyOf } from "./address.js";
import { text } from "./dicom_json.js";
import { bar, byId, element, facts, openWhere } from "./elements.js";
import { coverOf, frameAddress } from "./frames.js";
import { messageOf, notice, noticeOf, standingMessage } from "./notices.js";
import { explain } from "./saliency.js";
import { factsOf, showIdentifiers } from "./subject_facts.js";
import { counted, isTrusted, kindOf, patientOf, percent, readableClass } from "./wording.js";

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
    openWhere(byId("query-more"), "(min-width: 60rem)");
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
    picture.hidden = false;
    picture.disabled = true;
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
    byId("query-picture").hidden = true;
    // that there is no such thing is told where the results would be
    if (error.status !== 404) byId("query-message").replaceChildren(messageOf(error));
  }

  /** Show it. */
  show(subject) {
    const picture = byId("query-picture");
    picture.classList.remove("skeleton");
    this.#showPicture(picture, subject);
    const [best] = subject.predictions ?? [];
    byId("query-name").replaceChildren(
      element("strong", {}, element("bdi", {}, subject.token ? subject.name : patientOf(subject))),
      element("p", { class: "quiet small" }, kindOf({ ...best, ...subject })),
    );
    const patient = subject.patient_name && element("bdi", {}, patientOf(subject));
    const own = subject.token ? [["Patient", patient]] : [];
    facts(byId("query-facts"), [...own, ...factsOf(subject)]);
    showIdentifiers(byId("query-identifiers"), subject);

    this.showClasses(subject.predictions ?? []);
    this.#showState(subject);
  }

  #showPicture(picture, subject) {
    const none = () => {
      picture.replaceChildren(element("span", { class: "no-picture" }, "No picture"));
    };
    picture.disabled = subject.state === "no_pixels" || subject.images === 0;
    if (picture.disabled) {
      none();
      return;
    }
    const frame = coverOf(subject);
    const image = element("img", { src: frameAddress(frame, "thumbnail"), alt: "" });
    image.addEventListener("error", none);
    picture.replaceChildren(image);
    if (!subject.state) explain(picture, frameAddress(frame, "saliency"));
  }

  /** Show what the network takes it for, best first. */
  showClasses(predictions) {
    byId("query-unknown").hidden = !predictions.length || isTrusted(predictions[0].probability);
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
