// One picture of the larger view: window and level by mouse, frames by wheel, zoom, overlay.

import { element, facts, openWhere } from "./elements.js";
import { FrameValues, coverOf, frameAddress, framesOf } from "./frames.js";
import { messageOf } from "./notices.js";
import { similarityOf } from "./card.js";
import { saliency } from "./saliency.js";
import { Stage } from "./stage.js";
import { factsOf, showIdentifiers } from "./subject_facts.js";
import { CT_WINDOWS } from "./window_level.js";
import { patientOf, percent, readableClass, readableSimilarity } from "./wording.js";

const AIR = -200; // HU
const ROOM_FOR_FACTS = "(min-width: 48rem), (orientation: landscape)";

const remembered = new FrameValues();

function sameFrame(one, other) {
  return (
    one.token === other.token &&
    one.sop_instance_uid === other.sop_instance_uid &&
    one.frame_number === other.frame_number
  );
}

/** Half of the larger view. */
export class Pane {
  #request = null;
  #frames = [];
  #at = 0;
  #overlays = new Map();
  #isTomography = false;

  /** @param {string} heading "Query" or "Result" */
  constructor(heading) {
    this.heading = element("h2", {}, heading);
    this.about = element("span", { class: "quiet small" });
    this.canvas = element("canvas", { class: "stage", tabIndex: 0, role: "img" });
    this.readout = element("span", { class: "readout" });
    this.message = element("div", { class: "pane-message" });
    this.explaining = element("span", { class: "explaining-note", role: "status" });
    this.windows = element(
      "select",
      { "aria-label": "Window", title: "Window" },
      element("option", { value: "" }, "Window"),
      ...CT_WINDOWS.map(({ name }, index) => element("option", { value: String(index) }, name)),
    );
    this.slider = element("input", {
      type: "range",
      class: "frame-slider",
      min: "1",
      step: "1",
      "aria-label": `${heading}: image`,
    });
    this.position = element("span", { class: "number small frame-position" });
    this.facts = element("dl", { class: "facts" });
    this.identifiers = element("dl", { class: "identifiers" });
    this.actions = element("div", { class: "row pane-actions" });
    const tool = (name, title, action) =>
      element(
        "button",
        { class: "button plain", type: "button", title, on: { click: action } },
        name,
      );
    this.tools = element(
      "div",
      { class: "row pane-tools" },
      this.windows,
      tool("−", "Smaller", () => this.stage.zoomBy(0.8)),
      tool("+", "Larger", () => this.stage.zoomBy(1.25)),
      tool("Reset", "Window, size and place as at first (r)", () => this.reset()),
    );
    this.tools.children[1].setAttribute("aria-label", "Smaller");
    this.tools.children[2].setAttribute("aria-label", "Larger");
    this.paging = element("div", { class: "row paging" }, this.slider, this.position);
    this.stageBox = element(
      "div",
      { class: "stage-box" },
      this.canvas,
      this.readout,
      this.explaining,
      this.message,
    );
    this.owner = element("span");
    this.foot = element(
      "details",
      { class: "pane-foot" },
      element("summary", {}, this.owner),
      this.facts,
      this.actions,
      element("details", {}, element("summary", {}, "Identifiers"), this.identifiers),
    );
    openWhere(this.foot, ROOM_FOR_FACTS);
    this.section = element(
      "section",
      { class: "pane", "aria-label": heading },
      element(
        "div",
        { class: "pane-head" },
        element("div", {}, this.heading, this.about),
        this.tools,
      ),
      this.stageBox,
      this.paging,
      this.foot,
    );
    this.stage = new Stage(this.canvas, {
      wheel: (steps) => this.step(steps),
      told: (text) => {
        this.readout.textContent = text;
      },
    });
    this.windows.addEventListener("change", () => {
      const chosen = CT_WINDOWS[Number(this.windows.value)];
      if (this.windows.value && chosen) this.stage.window = chosen;
      else this.stage.resetWindow();
    });
    this.slider.addEventListener("input", () => this.#go(Number(this.slider.value) - 1));
  }

  /**
   * Show a subject or a result.
   *
   * @param {object} subject
   * @param {string} heading
   * @param {Element[]} actions
   */
  show(subject, heading, actions) {
    this.#request?.abort();
    this.#request = new AbortController();
    this.heading.textContent = heading;
    this.section.setAttribute("aria-label", heading);
    this.about.textContent = this.#judgement(subject);
    const name = subject.token ? subject.name : patientOf(subject);
    this.owner.replaceChildren(`${heading}: `, element("bdi", {}, name));
    const whose = [subject.token ? "File" : "Patient", element("bdi", {}, name)];
    facts(this.facts, [whose, ...factsOf(subject)]);
    showIdentifiers(this.identifiers, subject);
    this.actions.replaceChildren(...actions);
    this.windows.hidden = true;
    this.#isTomography = subject.modality === "CT";
    this.canvas.setAttribute(
      "aria-label",
      `${heading}: ${name}. Drag to change window and level, wheel or up and down arrows to change the image.`,
    );
    this.stage.clear();
    this.reset();
    this.#overlays.clear();
    const cover = coverOf(subject);
    this.#frames = [cover];
    this.#at = 0;
    this.#showPosition();
    this.#load();
    this.#page(subject, cover, this.#request.signal);
  }

  #judgement(subject) {
    const [best] = subject.predictions ?? [];
    const label = subject.label ?? best?.label;
    const probability = subject.label ? subject.probability : best?.probability;
    const similarity = similarityOf(subject);
    const similar = similarity === undefined ? "" : `similarity ${readableSimilarity(similarity)}`;
    return [label && `network: ${readableClass(label)} ${percent(probability)}`, similar]
      .filter(Boolean)
      .join(" · ");
  }

  /** Let the wheel reach the other images of the series. */
  async #page(subject, cover, signal) {
    try {
      const frames = await framesOf(subject, signal);
      const at = frames.findIndex((frame) => sameFrame(frame, cover));
      if (at < 0) return;
      this.#frames = frames;
      this.#at = at;
      this.#showPosition();
      this.#fetchNeighbours(signal);
    } catch {
      // without the others this one image is shown; #load tells what is wrong with it
    }
  }

  /** The frame that is shown. */
  get frame() {
    return this.#frames[this.#at];
  }

  /** Go some images on, or back. */
  step(steps) {
    this.#go(this.#at + steps);
  }

  #go(to) {
    const at = Math.min(Math.max(to, 0), this.#frames.length - 1);
    if (at === this.#at) return;
    this.#at = at;
    this.#showPosition();
    this.#load();
  }

  #showPosition() {
    const count = this.#frames.length;
    this.paging.classList.toggle("single", count < 2);
    this.slider.max = String(count);
    this.slider.value = String(this.#at + 1);
    this.position.textContent = `${this.#at + 1} / ${count}`;
    this.slider.setAttribute("aria-valuetext", `image ${this.#at + 1} of ${count}`);
  }

  async #load() {
    const frame = this.#frames[this.#at];
    const { signal } = this.#request;
    this.stageBox.classList.add("loading");
    try {
      const values = await remembered.get(frame, signal);
      if (frame !== this.#frames[this.#at] && !sameFrame(frame, this.#frames[this.#at])) return;
      this.message.replaceChildren();
      // below this lies only air: the values are Hounsfield units, and the windows fit
      this.windows.hidden = !this.#isTomography || values.minimum > AIR;
      this.stage.show(values);
      this.stageBox.classList.remove("loading");
      this.showOverlay();
      this.#fetchNeighbours(signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      this.stageBox.classList.remove("loading");
      this.#showThumbnail(frame, error);
    }
  }

  /** Pixels that are not kept leave the small picture, with a word on where the large one is. */
  #showThumbnail(frame, error) {
    const picture = element("img", { alt: "", src: frameAddress(frame, "thumbnail") });
    picture.addEventListener("error", () => picture.remove());
    this.stage.clear();
    this.message.replaceChildren(picture, messageOf(error, { kind: "warning" }));
  }

  #fetchNeighbours(signal) {
    for (const step of [1, -1]) {
      const frame = this.#frames[this.#at + step];
      if (frame) remembered.get(frame, signal).catch(() => {});
    }
  }

  /** Show or hide the overlay, as the page's switch says. */
  showOverlay() {
    const { on, strength } = saliency();
    const frame = this.#frames[this.#at];
    this.explaining.textContent = "";
    if (!on || !frame) {
      this.stage.overlay(null, 0);
      return;
    }
    const address = frameAddress(frame, "saliency");
    let image = this.#overlays.get(address);
    if (!image) {
      image = element("img", { src: address });
      this.#overlays.set(address, image);
    }
    const settled = (tell) => () => {
      if (saliency().on && frame === this.#frames[this.#at]) tell();
    };
    if (image.complete && image.naturalWidth) this.stage.overlay(image, strength);
    else {
      this.stage.overlay(null, 0);
      this.explaining.textContent = "Working out where the network looked…";
      image.addEventListener("load", settled(() => this.showOverlay()), { once: true });
      const fail = () => {
        this.explaining.textContent = "No explanation for this image";
      };
      if (image.complete) fail();
      else image.addEventListener("error", settled(fail), { once: true });
    }
  }

  /** Window, size and place as at first. */
  reset() {
    this.windows.value = "";
    this.stage.reset();
  }

  /** Stop what is under way. */
  close() {
    this.#request?.abort();
    this.stage.clear();
  }
}
