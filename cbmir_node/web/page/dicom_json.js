// Reading the DICOM JSON model (PS3.18 Annex F).

/** First value of an attribute as text; a person name as its groups joined by "=". */
export function text(dataset, tag) {
  const value = dataset[tag]?.Value?.[0];
  if (value === undefined || value === null) return "";
  if (typeof value === "object") {
    return [value.Alphabetic, value.Ideographic, value.Phonetic]
      .map((part) => part ?? "")
      .join("=");
  }
  return String(value);
}

/** All values of an attribute. */
export function values(dataset, tag) {
  return dataset[tag]?.Value ?? [];
}
