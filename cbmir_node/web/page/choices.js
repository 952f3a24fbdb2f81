// How the images are compared: distance, vector space, class restriction, the same patient.

import { byId, element } from "./elements.js";

const METHODS = {
  cosine: "Cosine",
  euclidean: "Euclidean",
  hamming: "Hash codes (Hamming)",
  "hamming-rerank": "Hash codes, re-ranked",
};

function spaceName(space) {
  return space === "embedding" ? "Last layer" : `Layer ${space.replace("embedding.", "")}`;
}

/**
 * What a request asks, from what was chosen and what the node does by default.
 *
 * @param {object} choices texts of the address: method, space, by_class, same_patient
 * @returns {object} method, rerank, space, by_class, same_patient; only those that were chosen
 */
export function askedBy(choices) {
  const asked = {};
  if (choices.method) {
    asked.method = choices.method.replace("-rerank", "");
    asked.rerank = choices.method.endsWith("-rerank");
  }
  if (choices.space) asked.space = choices.space;
  if (choices.by_class) asked.by_class = choices.by_class === "yes";
  if (choices.same_patient) asked.same_patient = choices.same_patient === "yes";
  return asked;
}

/** The form of the choices. */
export class ChoicesForm {
  #form = byId("choices-form");
  #defaults;
  #hasClasses;

  /**
   * @param {object} node the answer of `GET /api/node`
   * @param {(choices: object) => void} changed called with what differs from the defaults
   */
  constructor(node, changed) {
    const { defaults, model } = node;
    this.#defaults = {
      method: defaults.method + (defaults.rerank ? "-rerank" : ""),
      space: defaults.space,
      by_class: defaults.by_class ? "yes" : "no",
      same_patient: defaults.same_patient ? "yes" : "no",
    };
    const { method, space, by_class: byClass } = this.#form.elements;
    for (const [value, name] of Object.entries(METHODS)) {
      if (model?.code_bits || !value.startsWith("hamming")) {
        method.append(element("option", { value }, name));
      }
    }
    for (const value of model?.spaces ?? []) {
      space.append(element("option", { value }, spaceName(value)));
    }
    byId("space-field").hidden = (model?.spaces ?? []).length < 2;
    this.#hasClasses = Boolean(model?.labels?.length);
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#form.addEventListener("change", () => changed(this.#read()));
  }

  #read() {
    const { method, space, by_class: byClass, same_patient: samePatient } = this.#form.elements;
    const now = {
      method: method.value,
      space: space.value,
      by_class: byClass.checked ? "yes" : "no",
      same_patient: samePatient.checked ? "yes" : "no",
    };
    return Object.fromEntries(
      Object.entries(now).filter(([name, value]) => value && value !== this.#defaults[name]),
    );
  }

  /** Show what is chosen. */
  show(choices) {
    const now = { ...this.#defaults, ...choices };
    const { method, space, by_class: byClass, same_patient: samePatient } = this.#form.elements;
    method.value = now.method;
    space.value = now.space;
    byClass.checked = now.by_class === "yes";
    // the filters offer the same; here it can be taken back where the configuration asks for it
    const asked = this.#defaults.by_class === "yes" || Boolean(choices.by_class);
    byClass.closest("label").hidden = !(this.#hasClasses && asked);
    samePatient.checked = now.same_patient === "yes";
  }
}
