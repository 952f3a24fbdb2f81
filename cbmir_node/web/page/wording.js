// How values of DICOM and of the network read to people.

const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const MODALITIES = {
  CR: "Computed radiography",
  CT: "Computed tomography",
  DX: "Digital radiography",
  ES: "Endoscopy",
  IO: "Intra-oral radiography",
  MG: "Mammography",
  MR: "Magnetic resonance",
  NM: "Nuclear medicine",
  OP: "Ophthalmic photography",
  OPT: "Ophthalmic tomography",
  OT: "Other",
  PT: "Positron emission tomography",
  PX: "Panoramic radiography",
  RF: "Fluoroscopy",
  SM: "Slide microscopy",
  US: "Ultrasound",
  XA: "Angiography",
  XC: "Photography",
};
// Body Part Examined (PS3.16 Annex L) and classes run together what people write apart
const BODY_PARTS = {
  ABDOMENPELVIS: "abdomen and pelvis",
  CHESTABDOMEN: "chest and abdomen",
  CHESTABDPELVIS: "chest, abdomen and pelvis",
  CSPINE: "C-spine",
  CTSPINE: "C-spine/T-spine",
  HEADNECK: "head and neck",
  IAC: "IAC",
  LSPINE: "L-spine",
  LSSPINE: "L-spine/sacrum",
  SSPINE: "sacrum",
  TLSPINE: "T-spine/L-spine",
  TMJ: "TMJ",
  TSPINE: "T-spine",
  TSPINELSPINE: "T-spine/L-spine",
  WHOLEBODY: "whole body",
};
const TRUSTED_PROBABILITY = 0.5;
const SEXES = { F: "female", M: "male", O: "other" };

/** A DICOM or ISO date as "12 Mar 2024"; what is no date comes back as it is. */
export function readableDate(text) {
  const parts = /^(\d{4})[-.]?(\d\d)[-.]?(\d\d)$/.exec(text ?? "");
  if (!parts) return text ?? "";
  const date = new Date(Number(parts[1]), Number(parts[2]) - 1, Number(parts[3]));
  // joined by no-break spaces
  return DATE.format(date).replaceAll("Sept", "Sep").replaceAll(" ", "\u00a0");
}

/** Age in years as "63 y", small children's in months, weeks or days; "" when unknown. */
export function readableAge(years) {
  if (years === null || years === undefined) return "";
  if (years >= 2) return `${Math.floor(years)}\u00a0y`;
  if (years >= 2 / 12) return `${Math.floor(years * 12)}\u00a0mo`;
  const days = Math.round(years * 365.25);
  return days >= 14 ? `${Math.floor(days / 7)}\u00a0wk` : `${days}\u00a0d`;
}

/** PatientSex (C.7.1.1) as a word. */
export function readableSex(sex) {
  return SEXES[sex] ?? "";
}

/** A modality (C.7.3.1.1.1) with its name, "CT, computed tomography", where it has one here. */
export function namedModality(code) {
  return MODALITIES[code] ? `${code}, ${MODALITIES[code].toLowerCase()}` : code;
}

function readableGroup(group, index) {
  const [family = "", given = "", middle = ""] = group.split("^").map((part) => part.trim());
  const names = [family, [given, middle].filter(Boolean).join(" ")].filter(Boolean);
  return names.join(index ? " " : ", "); // the comma is a custom of the alphabetic group
}

/**
 * A person name (PS3.5 6.2.1) as "Family, Given Middle"; its ideographic and phonetic groups follow
 * in brackets.
 */
export function readableName(name) {
  const [first = "", ...others] = (name ?? "").split("=").map(readableGroup).filter(Boolean);
  return others.length ? `${first} (${others.join(", ")})` : first;
}

function lowerCase(words) {
  return words === words.toUpperCase() ? words.toLowerCase() : words;
}

/** A body part's code as people write it in a sentence: "knee", "L-spine". */
function bodyPart(code) {
  const parts = (code ?? "").replaceAll("_", " ").trim().split("/");
  const named = (words) => BODY_PARTS[words.replaceAll(" ", "").toUpperCase()] ?? lowerCase(words);
  return parts.map(named).join("/");
}

/** A coded word in capitals, as BodyPartExamined has them, as "Chest". */
export function readableCode(code) {
  const words = bodyPart(code);
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** A class of the network, "CR_CHEST" as "CR chest". */
export function readableClass(label) {
  if (!label) return "";
  const [first, ...rest] = label.split(/[_\s]+/);
  return rest.length ? `${first} ${bodyPart(rest.join(" "))}` : readableCode(label);
}

/** Whether the network has seen enough of this kind of image to be believed. */
export function isTrusted(probability) {
  return (probability ?? 0) >= TRUSTED_PROBABILITY;
}

/**
 * What kind of image it is, in a few words: "MR knee".
 *
 * DICOM says it; the body part, which is often missing there, else comes from the class that the
 * network is fairly sure of, and that is of the same modality.
 */
export function kindOf({ modality, body_part_examined: part, label, probability }) {
  if (modality && part) return `${modality} ${bodyPart(part)}`;
  const named = isTrusted(probability) && (!modality || label?.startsWith(`${modality}_`));
  return (named && readableClass(label)) || modality || readableCode(part) || "Unknown kind";
}

/** A share of one as "87 %", never rounded up to certainty. */
export function percent(share) {
  if (share === null || share === undefined) return "";
  const rounded = Math.round(share * 100);
  if (rounded === 100 && share < 0.9995) return "99\u00a0%";
  if (rounded === 0 && share > 0) return "<\u00a01\u00a0%";
  return `${rounded}\u00a0%`;
}

/** A similarity in [0, 1]; more digits would promise more than it means. */
export function readableSimilarity(similarity) {
  return similarity.toFixed(2);
}

/** "1 image", "2 images"; a plural of its own as third value. */
export function counted(number, singular, plural = `${singular}s`) {
  return `${number.toLocaleString("en-GB")} ${number === 1 ? singular : plural}`;
}

/** What stands for a patient: the name, else the ID, else "No name". */
export function patientOf(subject) {
  return readableName(subject.patient_name) || subject.patient_id || "No name";
}

/** "female · 63 y · 12 Mar 2024": what is known of patient and study, in one line. */
export function inOneLine(subject) {
  return [
    readableSex(subject.patient_sex),
    readableAge(subject.age_years),
    readableDate(subject.study_date),
  ]
    .filter(Boolean)
    .join("\u00a0· ");
}
