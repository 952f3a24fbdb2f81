// Elements made by script: text is always text, never markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element.
 *
 * @param {string} tag
 * @param {object} [properties] `class`, `data` and `on` (listeners by event); names with a dash,
 *   `role` and `for` become attributes, anything else a property; `undefined` is left out
 * @param {...(Node|string|null|undefined|false)} children
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "class") made.className = value;
    else if (name === "data") Object.assign(made.dataset, value);
    else if (name === "on") {
      for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    } else if (name.includes("-") || name === "role" || name === "for") {
      made.setAttribute(name, value);
    } else made[name] = value;
  }
  made.append(...children.filter((child) => child || child === 0));
  return made;
}

/** An icon of the page's sprite; it says nothing aloud. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** The element with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Keep a `details` open where there is room, folded where there is not; readers may change it. */
export function openWhere(details, media) {
  const room = matchMedia(media);
  const fold = () => {
    details.open = room.matches;
  };
  room.addEventListener("change", fold);
  fold();
}

/** Pairs of a definition list; pairs without a value are left out. */
export function facts(list, pairs) {
  list.replaceChildren(
    ...pairs
      .filter(([, value]) => value)
      .flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]),
  );
}

/** A bar of length `share` (0 to 1); its number stands beside it as text. */
export function bar(share) {
  const made = element("div", { class: "bar", "aria-hidden": "true" });
  made.style.setProperty("--share", Math.min(Math.max(share, 0), 1).toFixed(4));
  return made;
}

/** Call `action` once `wait` ms have passed without another call; `.cancel()` forgets it. */
export function debounced(action, wait) {
  let timer = 0;
  const later = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(action, wait, ...values);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}
