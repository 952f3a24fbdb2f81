// The grid of what was found, best first; arrow keys walk it.

import { keyOf } from "./address.js";
import { Card, exampleOf } from "./card.js";
import { byId, element } from "./elements.js";

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

  /** Whether a result is there. */
  has = (key) => this.#cards.has(key);

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
