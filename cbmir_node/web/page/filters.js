// Which results may be shown; every change asks anew, a little after the last key or slide.

import { FILTERS } from "./address.js";
import { byId, debounced, element } from "./elements.js";
import { percent, readableCode } from "./wording.js";

const SETTLED_MS = 200;
const SAME_CLASS = "yes";

const plainDate = (date) => (date ?? "").replaceAll("-", "");

/**
 * What a request asks for these filters.
 *
 * @param {object} filters texts of the address
 * @param {string} queryClass what the network takes the query for, for `same_class`
 */
export function filtersAsked(filters, queryClass) {
  const tags = {};
  if (filters.modality) tags.Modality = filters.modality;
  if (filters.sex) tags.PatientSex = filters.sex;
  if (filters.body_part) tags.BodyPartExamined = `*${filters.body_part.trim().toUpperCase()}*`;
  if (filters.date_from || filters.date_to) {
    tags.StudyDate = `${plainDate(filters.date_from)}-${plainDate(filters.date_to)}`;
  }
  const asked = { filters: tags };
  if (filters.age_from) asked.minimum_age = Number(filters.age_from);
  // "to 60" means up to the day before the 61st birthday, as people count
  if (filters.age_to) asked.maximum_age = Number(filters.age_to) + 0.999;
  if (filters.similarity) asked.minimum_similarity = Number(filters.similarity);
  if (filters.same_class && queryClass) asked.predicted_class = queryClass;
  return asked;
}

/** The form of the filters. */
export class FiltersForm {
  #form = byId("filters");
  #bodyParts = new Set();

  /** @param {(filters: object) => void} changed called with those that are set */
  constructor(changed) {
    const settled = debounced(() => changed(this.#read()), SETTLED_MS);
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#form.addEventListener("input", () => {
      this.#tellSimilarity();
      if (this.#isSound()) settled();
    });
    this.#form.addEventListener("reset", () => {
      settled.cancel();
      changed({});
    });
    const wide = matchMedia("(min-width: 60rem)");
    const unfold = () => {
      byId("filters-box").open = wide.matches;
    };
    wide.addEventListener("change", unfold);
    unfold();
  }

  #isSound() {
    let sound = true;
    for (const field of this.#form.elements) {
      if (!field.name) continue;
      const { valid } = field.validity;
      field.setAttribute("aria-invalid", String(!valid));
      sound &&= valid;
    }
    return sound;
  }

  #read() {
    const { elements } = this.#form;
    const read = {};
    for (const name of FILTERS) {
      const field = elements[name];
      if (name === "same_class") {
        if (field.checked) read[name] = SAME_CLASS;
      } else if (name === "similarity") {
        if (Number(field.value) > 0) read[name] = field.value;
      } else if (field.value) read[name] = field.value;
    }
    return read;
  }

  #tellSimilarity() {
    const share = Number(this.#form.elements.similarity.value);
    byId("similarity-value").textContent = share ? `≥ ${share.toFixed(2)}` : "any";
  }

  /** Show which are set. */
  show(filters) {
    for (const name of FILTERS) {
      const field = this.#form.elements[name];
      if (name === "same_class") field.checked = filters[name] === SAME_CLASS;
      else if (field !== document.activeElement) {
        field.value = filters[name] ?? (name === "similarity" ? "0" : "");
      }
    }
    this.#tellSimilarity();
    const set = Object.keys(filters).length;
    byId("filters-count").textContent = String(set);
    byId("filters-count").hidden = !set;
    this.#form.querySelector("[type=reset]").disabled = !set;
  }

  /** Offer "same class" only where the query has one, named. */
  showClass(label, probability) {
    const field = byId("same-class-field");
    field.classList.toggle("absent", !label); // it keeps its place, so that nothing moves
    field.title = label
      ? `Only what the network takes for ${label} too (${percent(probability)})`
      : "";
  }

  /** Offer the body parts that were seen so far. */
  offerBodyParts(parts) {
    for (const part of parts) {
      if (!part || this.#bodyParts.has(part)) continue;
      this.#bodyParts.add(part);
      byId("body-parts").append(element("option", { value: readableCode(part) }));
    }
  }

  /** Remove them all. */
  clear() {
    this.#form.reset();
  }
}
