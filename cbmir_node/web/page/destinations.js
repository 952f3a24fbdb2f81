// How sending on stands for each destination, as the administration page shows it.

import { byId, element } from "./elements.js";

const COUNTS = [
  ["pending", "waiting"],
  ["sent", "sent"],
  ["refused", "refused"],
  ["given_up", "given up"],
];
const TIME = new Intl.DateTimeFormat("en-GB", { timeStyle: "short" });

function row(destination) {
  const { destination: name, last_reason: reason, next_try: next } = destination;
  const counts = COUNTS.filter(([key]) => destination[key]).map(
    ([key, word]) => `${destination[key].toLocaleString("en-GB")} ${word}`,
  );
  const state = next ? `tried again at ${TIME.format(new Date(next))}` : "";
  return element(
    "li",
    {},
    element("strong", {}, name),
    ` ${[...counts, state].filter(Boolean).join(", ")}`,
    reason ? element("div", { class: "quiet" }, reason) : null,
  );
}

let shown = "";

/**
 * Show a line for each destination.
 *
 * @param {object[]} destinations of `GET /api/administration`
 */
export function showDestinations(destinations) {
  const told = JSON.stringify(destinations);
  if (told === shown) return; // a selection in it survives a refresh
  shown = told;
  byId("destinations").hidden = !destinations.length;
  byId("destinations").replaceChildren(...destinations.map(row));
}
