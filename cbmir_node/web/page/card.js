// One result of the grid: its picture, what is known of it, and its two marks.

import { bar, element, icon } from "./elements.js";
import { frameAddress } from "./frames.js";
import { explain } from "./saliency.js";
import {
  inOneLine,
  kindOf,
  patientOf,
  percent,
  readableClass,
  readableSimilarity,
} from "./wording.js";

const UIDS = {
  study: "study_instance_uid",
  series: "series_instance_uid",
  image: "sop_instance_uid",
};
const MARKS = [
  ["plus", "Relevant"],
  ["minus", "Not relevant"],
];

/** What a result is as an example of a further search. */
export function exampleOf(result, level) {
  return { level, uid: result[UIDS[level]] };
}

/** How similar a result is to what is looked for; what it shall not look like says nothing here. */
export function similarityOf(result) {
  return result.similarity_to_examples ?? result.similarity;
}

/** The two toggle buttons of a result; `marked(sign)` is called with "plus" or "minus". */
export function markButtons(marked, describedAs) {
  return MARKS.map(([sign, name]) =>
    element(
      "button",
      {
        class: `button icon mark ${sign}`,
        type: "button",
        "aria-pressed": "false",
        "aria-label": `${name}: ${describedAs}`,
        title: `${name} (${sign === "plus" ? "+" : "−"})`,
        data: { testid: `mark-${sign}` },
        on: { click: () => marked(sign) },
      },
      icon(sign),
    ),
  );
}

/** Show on these buttons which one is pressed. */
export function showMark(buttons, sign) {
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(Boolean(sign) && button.classList.contains(sign)));
  }
}

/** Draw the thumbnail that came with a result, or fetch it. */
function showThumbnail(image, { thumbnail, ...frame }) {
  if (!thumbnail) {
    image.src = frameAddress(frame, "thumbnail");
    return;
  }
  const bytes = Uint8Array.from(atob(thumbnail), (character) => character.charCodeAt(0));
  image.src = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
  image.addEventListener("load", () => URL.revokeObjectURL(image.src), { once: true });
}

/** A result in the grid. */
export class Card {
  /**
   * @param {(result: object) => void} open
   * @param {(result: object, sign: "plus"|"minus") => void} mark
   */
  constructor(open, mark) {
    this.picture = element("button", {
      class: "picture",
      type: "button",
      on: { click: () => open(this.result) },
    });
    this.rank = element("span", { class: "rank" });
    this.similarity = element("span", { class: "similarity", data: { testid: "similarity" } });
    this.buttons = markButtons((sign) => mark(this.result, sign), "");
    this.kind = element("strong", { class: "kind", data: { testid: "kind" } });
    this.line = element("p", { class: "line", data: { testid: "facts" } });
    this.label = element("span", { data: { testid: "class" } });
    this.probability = element("span", { class: "probability" });
    this.network = element(
      "p",
      { class: "card-class quiet" },
      element("span", { class: "ellipsis" }, "network: ", this.label),
      this.probability,
    );
    this.bar = element("div");
    this.patient = element("bdi");
    this.about = element("p", { class: "ellipsis quiet" }, this.patient);
    this.item = element(
      "li",
      { class: "card", data: { testid: "result" } },
      element(
        "div",
        { class: "card-picture" },
        this.picture,
        this.rank,
        this.similarity,
        element("span", { class: "marks" }, ...this.buttons),
      ),
      element(
        "div",
        { class: "card-text" },
        this.kind,
        this.line,
        this.about,
        this.network,
        this.bar,
      ),
    );
  }

  /** Show a result of a search at a level. */
  show(result, level) {
    const frame = `${result.sop_instance_uid} ${result.frame_number}`;
    if (frame !== this.frame) this.#showPicture(result);
    this.frame = frame;
    this.result = result;
    const kind = kindOf(result);
    const similarity = readableSimilarity(similarityOf(result));
    this.item.dataset.rank = result.rank;
    this.item.dataset.image = result.sop_instance_uid;
    this.rank.textContent = String(result.rank);
    this.similarity.textContent = similarity;
    this.similarity.title = "Similarity to what you look for, 0 to 1";
    this.kind.textContent = kind;
    this.network.hidden = !result.label;
    this.label.textContent = readableClass(result.label);
    this.probability.textContent = percent(result.probability);
    this.bar.replaceChildren(...(result.label ? [bar(result.probability ?? 0)] : []));
    this.line.textContent = inOneLine(result);
    const described = (level !== "study" && result.series_description) || result.study_description;
    this.patient.textContent = patientOf(result);
    this.about.replaceChildren(this.patient, described ? ` · ${described}` : "");
    this.about.title = this.about.textContent;
    this.picture.setAttribute(
      "aria-label",
      `Result ${result.rank}: ${kind}, similarity ${similarity}, ${inOneLine(result)}. Open`,
    );
    this.buttons[0].setAttribute("aria-label", `Result ${result.rank} is relevant`);
    this.buttons[1].setAttribute("aria-label", `Result ${result.rank} is not relevant`);
  }

  #showPicture(result) {
    const none = () => {
      image.replaceWith(element("span", { class: "no-picture" }, "No picture"));
    };
    const image = element("img", { alt: "", decoding: "async", on: { error: none } });
    showThumbnail(image, result);
    this.picture.replaceChildren(image);
    explain(this.picture, frameAddress(result, "saliency"));
  }

  /** Show its mark: "plus", "minus" or none. */
  mark(sign) {
    this.item.classList.toggle("plus", sign === "plus");
    this.item.classList.toggle("minus", sign === "minus");
    showMark(this.buttons, sign);
  }

  /** Only the current card is in the tab order; arrow keys change which that is. */
  set current(current) {
    for (const button of [this.picture, ...this.buttons]) button.tabIndex = current ? 0 : -1;
  }
}
