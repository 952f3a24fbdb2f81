// Which results may be shown; every change asks anew, a little after the last key or slide.

import { FILTERS } from "./address.js";
import { byId, debounced, element, openWhere } from "./elements.js";
import { percent, readableClass, readableCode } from "./wording.js";

const SETTLED_MS = 200;
const SAME_CLASS = "yes";

const PROBLEMS = {
  age: "Ages are whole years from 0 to 130.",
  ages: "The second age is below the first.",
  dates: "The second date is before the first.",
};

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
  #bodyParts = new Map(); // as it reads -> DICOM's code
  #sameClassIsDefault;

  /**
   * @param {boolean} sameClassIsDefault whether other classes are left out without a filter
   * @param {(filters: object) => void} changed called with those that are set
   */
  constructor(sameClassIsDefault, changed) {
    this.#sameClassIsDefault = sameClassIsDefault;
    const settled = debounced(() => changed(this.#read()), SETTLED_MS);
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#form.addEventListener("input", () => {
      this.#tellSimilarity();
      if (this.#isSound()) settled();
      else settled.cancel(); // or the last change would be asked with this one
    });
    this.#form.addEventListener("reset", () => {
      settled.cancel();
      changed({});
    });
    openWhere(byId("filters-box"), "(min-width: 60rem)");
  }

  /** Say in words what is wrong; the browser would only when a form is sent. */
  #isSound() {
    const { age_from: young, age_to: old, date_from: early, date_to: late } = this.#form.elements;
    const reversed = young.value && old.value && Number(old.value) < Number(young.value);
    old.setCustomValidity(reversed ? PROBLEMS.ages : "");
    const backwards = early.value && late.value && late.value < early.value;
    late.setCustomValidity(backwards ? PROBLEMS.dates : "");
    const wrong = [...this.#form.elements].filter((field) => field.name && !field.validity.valid);
    for (const field of this.#form.elements) {
      if (field.name) field.setAttribute("aria-invalid", String(wrong.includes(field)));
    }
    const told = wrong.map((field) => {
      if (field.validity.customError) return field.validationMessage;
      return field.name.startsWith("age") ? PROBLEMS.age : field.validationMessage;
    });
    byId("filters-problem").textContent = [...new Set(told)].join(" ");
    return !wrong.length;
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
      } else if (name === "body_part" && field.value) {
        read[name] = this.#bodyParts.get(field.value) ?? field.value;
      } else if (field.value) read[name] = field.value;
    }
    return read;
  }

  #tellSimilarity() {
    const share = Number(this.#form.elements.similarity.value);
    byId("similarity-value").textContent = share ? `≥ ${share.toFixed(2)}` : "any";
    const spoken = share ? `at least ${share.toFixed(2)}` : "any";
    this.#form.elements.similarity.setAttribute("aria-valuetext", spoken);
  }

  /** Show which are set. */
  show(filters) {
    for (const name of FILTERS) {
      const field = this.#form.elements[name];
      if (name === "same_class") field.checked = filters[name] === SAME_CLASS;
      else if (field !== document.activeElement) {
        const text = filters[name] ?? (name === "similarity" ? "0" : "");
        field.value = name === "body_part" ? readableCode(text) : text;
      }
    }
    this.#tellSimilarity();
    this.#isSound();
    const set = Object.keys(filters).length;
    byId("filters-count").textContent = String(set);
    byId("filters-count").hidden = !set;
    this.#form.querySelector("[type=reset]").disabled = !set;
  }

  /** Offer "same class" only where the query has one, named. */
  showClass(label, probability) {
    const field = byId("same-class-field");
    field.hidden = this.#sameClassIsDefault;
    field.classList.toggle("absent", !label); // it keeps its place, so that nothing moves
    field.title = label
      ? `Only what the network takes for ${readableClass(label)} too (${percent(probability)})`
      : "";
  }

  /** Offer the body parts that were seen so far. */
  offerBodyParts(parts) {
    for (const part of parts) {
      const named = readableCode(part);
      if (!named || this.#bodyParts.has(named)) continue;
      this.#bodyParts.set(named, part);
      byId("body-parts").append(element("option", { value: named }));
    }
  }

  /** Remove them all. */
  clear() {
    this.#form.reset();
  }
}
