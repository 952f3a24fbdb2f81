// The page's keys, and the list of them.

import { byId, element } from "./elements.js";
import { toggleSaliency } from "./saliency.js";

const LISTED = [
  [["←", "→", "↑", "↓"], "Walk studies and results; in the larger view: other result, other image"],
  [["Enter"], "Open the result beside the query"],
  [["+", "−"], "Mark the result as relevant, as not relevant"],
  [["a"], "Search again with the marks"],
  [["s"], "Show why: what the network looked at"],
  [["r"], "In the larger view: window and size as at first"],
  [["/"], "Go to the patient field, or to the filters"],
  [["g"], "Go to the results"],
  [["Esc"], "Close"],
  [["?"], "These keys"],
];
const STORED = "cbmir-keys";

function allowed() {
  try {
    return localStorage.getItem(STORED) !== "off";
  } catch {
    return true;
  }
}

function typing(target) {
  if (target.isContentEditable || ["TEXTAREA", "SELECT"].includes(target.tagName)) return true;
  return (
    target.tagName === "INPUT" && !["checkbox", "radio", "range", "button"].includes(target.type)
  );
}

/**
 * Listen to the keys that work everywhere on the page. They can be switched off, as WCAG 2.1.4
 * asks of single characters.
 *
 * @param {{find: () => void, results: () => void, again: () => void}} on
 */
export function startKeys(on) {
  const dialog = byId("keys");
  byId("key-list").replaceChildren(
    ...LISTED.flatMap(([keys, meaning]) => [
      element("dt", {}, ...keys.map((key) => element("kbd", {}, key))),
      element("dd", {}, meaning),
    ]),
  );
  const showKeys = () => !dialog.open && dialog.showModal();
  byId("show-keys").addEventListener("click", showKeys);
  const box = byId("keys-on");
  box.checked = allowed();
  box.addEventListener("change", () => {
    try {
      localStorage.setItem(STORED, box.checked ? "on" : "off");
    } catch {
      // holds until the page is closed
    }
  });
  const actions = { s: toggleSaliency, "/": on.find, g: on.results, a: on.again, "?": showKeys };
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.ctrlKey || event.metaKey) return;
    if (!box.checked || typing(event.target) || document.querySelector("dialog[open]")) return;
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
