// What is known of a patient, a study and an image, as lists.

import { element } from "./elements.js";
import { notice } from "./notices.js";
import { readableAge, readableCode, readableDate, readableSex } from "./wording.js";

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
