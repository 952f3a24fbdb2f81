// Relevance feedback: results are marked, and the next round searches with them too.

import { getJson } from "./api.js";
import { keyOf } from "./address.js";
import { byId, element, icon } from "./elements.js";
import { frameAddress } from "./frames.js";
import { counted, kindOf } from "./wording.js";

const SIGNS = { plus: "Relevant", minus: "Not relevant" };

/** Marks that wait for the next round, and the rounds so far. */
export class Feedback {
  #marks = new Map(); // key -> {sign, example}
  #frames = new Map(); // key -> {frame, name}: what a marked example looks like
  #isShown;
  #changed;
  #go;

  /**
   * @param {(key: string) => boolean} isShown whether an example is among the results in view
   * @param {() => void} changed called when a mark was set or taken away
   * @param {(round: {plus: object[], minus: object[]}, rounds: object[]) => void} go called when
   *   another round is to be shown, with it and all rounds up to it
   */
  constructor(isShown, changed, go) {
    this.#isShown = isShown;
    this.#changed = changed;
    this.#go = go;
    byId("clear-marks").addEventListener("click", () => this.clear());
    byId("search-again").addEventListener("click", () => this.searchAgain());
  }

  /** "plus", "minus" or undefined. */
  signOf = (key) => this.#marks.get(key)?.sign;

  /** Set a mark; the same one again takes it away. */
  toggle(result, example, sign) {
    const key = keyOf(example);
    if (this.#marks.get(key)?.sign === sign) this.#marks.delete(key);
    else {
      this.#marks.set(key, { sign, example });
      this.#frames.set(key, { frame: result, name: kindOf(result) });
    }
    this.#tell();
  }

  /** Take all marks away. */
  clear() {
    this.#marks.clear();
    this.#tell();
  }

  /** Start the next round. */
  searchAgain() {
    if (!this.#marks.size) return;
    const { plus, minus } = this.rounds.at(-1);
    const of = (sign) =>
      [...this.#marks.values()].filter((mark) => mark.sign === sign).map((mark) => mark.example);
    const next = { plus: [...plus, ...of("plus")], minus: [...minus, ...of("minus")] };
    this.#marks.clear();
    this.#tell();
    this.#go(next, [...this.rounds, next]);
  }

  #tell() {
    const count = this.#marks.size;
    byId("marks-bar").hidden = !count;
    const positive = [...this.#marks.values()].filter(({ sign }) => sign === "plus").length;
    const parts = [];
    if (positive) parts.push(`${positive} relevant`);
    if (count > positive) parts.push(`${count - positive} not relevant`);
    const hasRelevant = positive + (this.rounds?.at(-1).plus.length ?? 0) > 0;
    if (!hasRelevant) parts.push("a relevant one helps more");
    byId("marks-count").textContent = parts.join(", ");
    this.showLost();
    byId("search-again").textContent = `Search again with ${counted(count, "mark")}`;
    this.#changed();
  }

  /** Show the marks whose results are not in view, as those of another level or beyond a filter. */
  showLost() {
    const lost = [...this.#marks].filter(([key]) => !this.#isShown(key));
    const chips = lost.map(([key, { sign, example }]) =>
      this.#example(example, sign, "Take the mark away", () => {
        this.#marks.delete(key);
        this.#tell();
      }),
    );
    byId("marks-lost").replaceChildren(...chips);
    byId("marks-lost").hidden = !chips.length;
  }

  /**
   * Show the rounds; the last is the current one.
   *
   * @param {{plus: object[], minus: object[]}[]} rounds the first without marks
   */
  show(rounds) {
    this.rounds = rounds;
    const panel = byId("rounds");
    panel.hidden = rounds.length < 2;
    if (panel.hidden) {
      panel.replaceChildren();
      return;
    }
    const steps = rounds.map((round, index) => {
      const current = index === rounds.length - 1;
      const name = index ? `Round ${index}` : "First search";
      const step = element(
        "button",
        { class: "button plain", type: "button", disabled: current },
        name,
      );
      if (current) step.setAttribute("aria-current", "step");
      step.addEventListener("click", () => this.#go(round, rounds.slice(0, index + 1)));
      return element("li", {}, step);
    });
    const undo = element(
      "button",
      { class: "button", type: "button", data: { testid: "undo" } },
      "Undo",
    );
    undo.addEventListener("click", () => this.#go(rounds.at(-2), rounds.slice(0, -1)));
    panel.replaceChildren(
      element("ol", { class: "steps" }, ...steps),
      element(
        "ul",
        { class: "examples", "aria-label": "Searched with" },
        ...["plus", "minus"].flatMap((sign) =>
          rounds
            .at(-1)
            [sign].map((one) =>
              this.#example(one, sign, "Search without it", () => this.#without(keyOf(one))),
            ),
        ),
      ),
      undo,
    );
  }

  #example(example, sign, meaning, pressed) {
    const picture = element("img", { alt: "" });
    const name = element("span", { class: "visually-hidden" }, SIGNS[sign]);
    const remove = element(
      "button",
      {
        class: "example-remove",
        type: "button",
        "aria-label": `${SIGNS[sign]} example: ${meaning.toLowerCase()}`,
        title: meaning,
      },
      picture,
      icon(sign),
    );
    remove.addEventListener("click", pressed);
    this.#describe(example).then(
      (known) => {
        picture.src = frameAddress(known.frame, "thumbnail");
        remove.title = `${SIGNS[sign]}: ${known.name}. ${meaning}`;
      },
      () => picture.remove(),
    );
    return element("li", { class: `example ${sign}` }, name, remove);
  }

  async #describe(example) {
    const key = keyOf(example);
    if (!this.#frames.has(key)) {
      const subject = await getJson(`api/subjects/${example.level}/${example.uid}`);
      const name = kindOf({ ...subject.predictions?.[0], ...subject });
      this.#frames.set(key, { frame: subject, name });
    }
    return this.#frames.get(key);
  }

  #without(key) {
    const last = this.rounds.at(-1);
    const left = {
      plus: last.plus.filter((example) => keyOf(example) !== key),
      minus: last.minus.filter((example) => keyOf(example) !== key),
    };
    const earlier = this.rounds.slice(0, -1);
    this.#go(left, left.plus.length + left.minus.length ? [...earlier, left] : earlier.slice(0, 1));
  }
}
