// Why a result was found: where the network looked, laid over pictures, on and off everywhere at once.

import { byId, element } from "./elements.js";

const SWITCHES = [
  ["saliency", "saliency-strength", "saliency-tools"],
  ["viewer-saliency", "viewer-strength", "viewer-saliency-tools"],
];

let on = false;
let strength = 0.6;
const listeners = new Set();
const waiting = new WeakMap(); // element in view -> address of its overlay
const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      entry.target.inView = entry.isIntersecting;
      if (on && entry.isIntersecting) load(entry.target);
    }
  },
  { rootMargin: "200px" },
);

function load(holder) {
  const address = waiting.get(holder);
  if (!address) return;
  waiting.delete(holder);
  const overlay = element("img", { class: "overlay", alt: "", src: address });
  holder.classList.add("explaining");
  const done = () => holder.classList.remove("explaining");
  overlay.addEventListener("load", done);
  overlay.addEventListener("error", () => {
    done();
    overlay.replaceWith(element("span", { class: "overlay no-overlay" }, "No explanation"));
  });
  holder.append(overlay);
}

function tell() {
  const root = document.documentElement;
  root.toggleAttribute("data-saliency", on);
  root.style.setProperty("--strength", String(strength));
  for (const [button, slider] of SWITCHES) {
    byId(button).setAttribute("aria-pressed", String(on));
    byId(slider).hidden = !on;
    byId(slider).value = String(strength);
    byId(slider).setAttribute("aria-valuetext", `${Math.round(strength * 100)} percent`);
  }
  if (on) {
    for (const holder of document.querySelectorAll("[data-explained]")) {
      if (holder.inView) load(holder);
    }
  }
  for (const listener of listeners) listener();
}

/** Whether overlays are shown, and how strongly (0 to 1). */
export function saliency() {
  return { on, strength };
}

/** Have `listener` called at every change. */
export function onSaliency(listener) {
  listeners.add(listener);
}

/** Show the overlays or no longer. */
export function toggleSaliency() {
  if (byId("saliency-tools").hidden) return;
  on = !on;
  tell();
}

/**
 * Lay the overlay at `address` over what `holder` shows as soon as it is wanted and in view.
 *
 * @param {Element} holder
 * @param {string} address
 */
export function explain(holder, address) {
  for (const old of holder.querySelectorAll(".overlay")) old.remove();
  holder.dataset.explained = "";
  waiting.set(holder, address);
  seen.unobserve(holder); // observed anew, it is reported at once
  seen.observe(holder);
}

/** Show the switches when the model can explain itself. */
export function startSaliency(hasSaliency) {
  for (const [button, slider, tools] of SWITCHES) {
    byId(tools).hidden = !hasSaliency;
    byId(button).addEventListener("click", toggleSaliency);
    byId(slider).addEventListener("input", (event) => {
      strength = Number(event.target.value);
      tell();
    });
  }
  tell();
}
