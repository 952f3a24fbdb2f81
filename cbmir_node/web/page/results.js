// The grid of what was found, best first; arrow keys walk it.

import { keyOf } from "./address.js";
import { bar, byId, element, icon } from "./elements.js";
import { frameAddress } from "./frames.js";
import { explain } from "./saliency.js";
import { inOneLine, patientOf, percent, readableClass, readableSimilarity } from "./wording.js";

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

class Card {
  constructor(open, mark) {
    this.picture = element("button", {
      class: "picture",
      type: "button",
      on: { click: () => open(this.result) },
    });
    this.rank = element("span", { class: "rank" });
    this.similarity = element("span", { class: "similarity", data: { testid: "similarity" } });
    this.buttons = markButtons((sign) => mark(this.result, sign), "");
    this.label = element("strong", { class: "class", data: { testid: "class" } });
    this.probability = element("span", { class: "probability" });
    this.bar = element("div");
    this.line = element("p", { class: "line", data: { testid: "facts" } });
    this.about = element("p", { class: "about quiet small" });
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
        element("p", { class: "card-class" }, this.label, this.probability),
        this.bar,
        this.line,
        this.about,
      ),
    );
  }

  show(result, level) {
    const frame = `${result.sop_instance_uid} ${result.frame_number}`;
    if (frame !== this.frame) this.#showPicture(result);
    this.frame = frame;
    this.result = result;
    const name = readableClass(result.label) || "No class";
    this.item.dataset.rank = result.rank;
    this.item.dataset.image = result.sop_instance_uid;
    this.rank.textContent = String(result.rank);
    this.similarity.textContent = readableSimilarity(result.similarity);
    this.similarity.title = "Similarity, 0 to 1";
    this.label.textContent = name;
    this.probability.textContent = percent(result.probability);
    this.bar.replaceChildren(bar(result.probability ?? 0));
    this.line.textContent = inOneLine(result);
    const described = (level !== "study" && result.series_description) || result.study_description;
    this.about.textContent = [patientOf(result), described].filter(Boolean).join(" · ");
    this.about.title = this.about.textContent;
    this.picture.setAttribute(
      "aria-label",
      `Result ${result.rank}: ${name} ${percent(result.probability)}, similarity ` +
        `${readableSimilarity(result.similarity)}, ${inOneLine(result)}. Open`,
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

/** The grid. */
export class ResultsGrid {
  #list = byId("results");
  #cards = new Map(); // by key, in order; cards that stay are moved, so that pictures do not flicker
  #open;
  #mark;

  /**
   * @param {(result: object) => void} open
   * @param {(result: object, sign: "plus"|"minus") => void} mark
   */
  constructor(open, mark) {
    this.#open = open;
    this.#mark = mark;
    this.#list.addEventListener("keydown", (event) => this.#onKey(event));
    this.#list.addEventListener("focusin", (event) => {
      const item = event.target.closest(".card");
      for (const card of this.#cards.values()) card.current = card.item === item;
    });
  }

  /** Show that an answer is awaited: what was there stays, else grey cards hold the place. */
  showWaiting(count) {
    this.#list.setAttribute("aria-busy", "true");
    if (this.#cards.size) return;
    this.#list.replaceChildren(
      ...Array.from({ length: count }, () =>
        element(
          "li",
          { class: "card waiting", "aria-hidden": "true" },
          element("div", { class: "card-picture skeleton" }),
          element("div", { class: "card-text" }, element("div", { class: "skeleton" })),
        ),
      ),
    );
  }

  /** Show the results of a search at a level, with the marks they have. */
  show(results, level, signOf) {
    const before = this.#cards;
    this.#cards = new Map();
    for (const result of results) {
      const key = keyOf(exampleOf(result, level));
      const card = before.get(key) ?? new Card(this.#open, this.#mark);
      card.show(result, level);
      card.current = !this.#cards.size;
      this.#cards.set(key, card);
    }
    this.#list.removeAttribute("aria-busy");
    this.#list.replaceChildren(...[...this.#cards.values()].map((card) => card.item));
    this.showMarks(signOf);
  }

  /** Show the marks. */
  showMarks(signOf) {
    for (const [key, card] of this.#cards) card.mark(signOf(key));
  }

  /** Show nothing. */
  clear() {
    this.#cards = new Map();
    this.#list.removeAttribute("aria-busy");
    this.#list.replaceChildren();
  }

  /** Put the keyboard's focus onto a result; the first without a rank. */
  focus(rank = 1) {
    [...this.#cards.values()].find((card) => card.result.rank === rank)?.picture.focus();
  }

  #onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const cards = [...this.#cards.values()];
    const at = cards.findIndex((card) => card.item === event.target.closest(".card"));
    if (at < 0) return;
    const top = cards[0].item.offsetTop;
    const columns = cards.filter((card) => card.item.offsetTop === top).length;
    const steps = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: columns,
      ArrowUp: -columns,
      Home: -at,
      End: cards.length - 1 - at,
    };
    const sign = { "+": "plus", "=": "plus", "-": "minus", "−": "minus" }[event.key];
    if (sign) this.#mark(cards[at].result, sign);
    else if (event.key in steps) {
      const to = cards[Math.min(Math.max(at + steps[event.key], 0), cards.length - 1)];
      to.picture.focus({ preventScroll: true });
      to.item.scrollIntoView({ block: "nearest" });
    } else return;
    event.preventDefault();
  }
}
