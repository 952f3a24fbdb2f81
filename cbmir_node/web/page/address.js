// The state of the page is its address: a RIS can link to it, Back and Forward work.

const UID = /^[0-9.]{1,64}$/;
const LEVELS = ["study", "series", "image"];
const FIND = ["patient", "accession", "description", "modality", "from", "to"];
const CHOICES = ["method", "space", "by_class", "same_patient"];
export const FILTERS = [
  "modality",
  "body_part",
  "sex",
  "age_from",
  "age_to",
  "date_from",
  "date_to",
  "similarity",
  "same_class",
];

const some = (parameters, names) =>
  Object.fromEntries(
    names.filter((name) => parameters.get(name)).map((name) => [name, parameters.get(name)]),
  );

const examples = (parameters, name) =>
  parameters
    .getAll(name)
    .map((text) => text.split(":"))
    .filter(([level, uid]) => LEVELS.includes(level) && UID.test(uid ?? ""))
    .map(([level, uid]) => ({ level, uid }));

function subjectOf(parameters) {
  if (parameters.get("example")) return { token: parameters.get("example") };
  const level = [...LEVELS].reverse().find((name) => UID.test(parameters.get(name) ?? ""));
  return level ? { level, uid: parameters.get(level) } : null;
}

/**
 * Read an address.
 *
 * @param {string} search the query part of it
 * @returns {{subject: ?object, find: object, level: string, choices: object, filters: object,
 *   plus: object[], minus: object[], view: number}} `subject` is {level, uid}, {token} or null;
 *   `level` "" stands for the node's default, `view` is the rank looked at, 0 for none
 */
export function readAddress(search) {
  const parameters = new URLSearchParams(search);
  const subject = subjectOf(parameters);
  const level = parameters.get("level") ?? "";
  return {
    subject,
    find: subject ? {} : some(parameters, FIND),
    level: LEVELS.includes(level) ? level : "",
    choices: some(parameters, CHOICES),
    filters: subject ? some(parameters, FILTERS) : {},
    plus: examples(parameters, "plus"),
    minus: examples(parameters, "minus"),
    view: Math.max(Number.parseInt(parameters.get("view") ?? "0", 10) || 0, 0),
  };
}

/** The address of a state, the reverse of `readAddress`. */
export function addressOf(state) {
  const parameters = new URLSearchParams();
  if (!state.subject) {
    for (const [name, value] of Object.entries(state.find ?? {})) {
      if (value) parameters.set(name, value);
    }
  } else {
    if (state.subject.token) parameters.set("example", state.subject.token);
    else parameters.set(state.subject.level, state.subject.uid);
    if (state.level) parameters.set("level", state.level);
    for (const [name, value] of Object.entries({ ...state.choices, ...state.filters })) {
      if (value) parameters.set(name, value);
    }
    for (const sign of ["plus", "minus"]) {
      for (const { level, uid } of state[sign] ?? []) parameters.append(sign, `${level}:${uid}`);
    }
    if (state.view) parameters.set("view", state.view);
  }
  const text = parameters.toString().replaceAll("%3A", ":");
  return text ? `?${text}` : "./";
}

/** What tells one example or result from another. */
export function keyOf({ token, level, uid }) {
  return token ? `token:${token}` : `${level}:${uid}`;
}
