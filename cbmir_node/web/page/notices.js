// Messages: those that pass by in the corner, and those that stand where something is missing.

import { byId, element, icon } from "./elements.js";

const SHOWN_MS = 6000;
const TITLES = {
  400: "The node cannot answer that",
  403: "Not allowed",
  404: "Not found",
  409: "Not possible yet",
  410: "Only the small picture is kept here",
  413: "The file is too large",
  422: "The image cannot be read",
  503: "Not possible at the moment",
  507: "The disk is full",
};

/** The node's messages begin small, as they follow a name in its log. */
export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * Show a message in the corner; errors stay until closed.
 *
 * @param {string} text
 * @param {"good"|"warning"|"bad"|""} [kind]
 */
export function notice(text, kind = "") {
  const close = element(
    "button",
    { class: "button plain icon", type: "button", "aria-label": "Close the message" },
    icon("close"),
  );
  const shown = element("div", { class: `message ${kind}` }, element("span", {}, text), close);
  close.addEventListener("click", () => shown.remove());
  // A modal dialog makes everything else inert: the notice must lie in it to be reached.
  (document.querySelector("dialog[open] .notices") ?? byId("notices")).append(shown);
  if (kind !== "bad") setTimeout(() => shown.remove(), SHOWN_MS);
}

/** Take away what is shown: it spoke of something else than what is done now. */
export function clearNotices() {
  for (const shown of document.querySelectorAll(".notices > *")) shown.remove();
}

/** Show an error in the corner, unless it is only a request that was given up. */
export function noticeOf(error) {
  if (error.name === "AbortError" || error.status === 401) return;
  notice(sentence(error.message), "bad");
}

/**
 * A message for the place of what is missing, with a button where something can be done.
 *
 * @param {string} title
 * @param {string} text
 * @param {{kind?: string, button?: string, action?: () => void}} [options]
 */
export function standingMessage(title, text, { kind = "", button = "", action } = {}) {
  const body = element(
    "div",
    {},
    element("strong", {}, title),
    text && text !== title ? element("p", {}, text) : null,
  );
  const press = button
    ? element("button", { class: "button", type: "button", on: { click: action } }, button)
    : null;
  return element("div", { class: `message ${kind}` }, body, press);
}

/** The message that stands for an error. */
export function messageOf(error, options = {}) {
  const title = TITLES[error.status] ?? error.title ?? "Something went wrong";
  return standingMessage(title, sentence(error.message), {
    kind: "bad",
    ...options,
  });
}
