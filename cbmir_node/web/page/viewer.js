// The larger view: the query and one result side by side.

import { byId, element } from "./elements.js";
import { exampleOf, markButtons, showMark } from "./card.js";
import { Pane } from "./pane.js";
import { onSaliency, toggleSaliency } from "./saliency.js";
import { waysOut } from "./send.js";

const STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 };

function inField(target) {
  return ["SELECT", "INPUT", "TEXTAREA"].includes(target.tagName);
}

/** The dialog of the larger view. */
export class Viewer {
  #dialog = byId("viewer");
  #query = new Pane("Query");
  #result = new Pane("Result");
  #buttons = [];
  #shown = null;
  #queryShown = null;
  #node;
  #on;

  /**
   * @param {object} node the answer of `GET /api/node`
   * @param {{closed: () => void, turned: (rank: number) => void, marked: (result: object, sign: string) => void,
   *   searched: (example: object) => void}} on what the reader does
   */
  constructor(node, on) {
    this.#node = node;
    this.#on = on;
    byId("panes").replaceChildren(this.#query.section, this.#result.section);
    this.#buttons = markButtons(
      (sign) => this.#shown && on.marked(this.#shown.result, sign),
      "this result",
    );
    byId("viewer-marks").replaceChildren(...this.#buttons);
    byId("viewer-close").addEventListener("click", () => on.closed());
    byId("viewer-previous").addEventListener("click", () => this.#turn(-1));
    byId("viewer-next").addEventListener("click", () => this.#turn(1));
    this.#dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      on.closed();
    });
    this.#dialog.addEventListener("keydown", (event) => this.#onKey(event));
    onSaliency(() => {
      if (!this.#dialog.open) return;
      this.#query.showOverlay();
      this.#result.showOverlay();
    });
  }

  /**
   * Show a result beside the query; without a result the query alone.
   *
   * @param {object} subject the query
   * @param {?object} result
   * @param {object[]} results
   * @param {string} level
   */
  show(subject, result, results, level) {
    this.#dialog.classList.toggle("alone", !result);
    const opening = !this.#dialog.open;
    if (opening) this.#dialog.showModal();
    if (this.#queryShown !== subject) {
      this.#query.show(subject, "Query", this.#queryActions(subject));
      this.#queryShown = subject;
    }
    this.#result.section.hidden = !result;
    for (const part of ["viewer-previous", "viewer-next", "viewer-marks"])
      byId(part).hidden = !result;
    this.#shown = result && { result, results, level };
    if (!result) {
      byId("viewer-position").textContent = "Query";
      this.#result.close();
      if (opening) this.#query.canvas.focus();
      return;
    }
    this.#result.show(result, `Result ${result.rank}`, [
      this.#searchButton("Search from this case", "search-from-result", () =>
        exampleOf(result, level),
      ),
      ...waysOut(this.#node, result.study_instance_uid),
    ]);
    byId("viewer-position").textContent = `Result ${result.rank} of ${results.length}`;
    byId("viewer-previous").disabled = result === results[0];
    byId("viewer-next").disabled = result === results.at(-1);
    // a button that is disabled loses the focus, and keys would reach the dialog no longer
    if (opening || document.activeElement.disabled) this.#result.canvas.focus();
  }

  #searchButton(name, testid, example) {
    const search = element("button", { class: "button", type: "button", data: { testid } }, name);
    search.addEventListener("click", () => this.#on.searched(example()));
    return search;
  }

  #queryActions(subject) {
    if (subject.token) return subject.known ? waysOut(this.#node, subject.study_instance_uid) : [];
    const image = () => ({ level: "image", uid: this.#query.frame.sop_instance_uid });
    return [
      this.#searchButton("Search by this image only", "search-by-image", image),
      ...waysOut(this.#node, subject.study_instance_uid),
    ];
  }

  /** Show the mark of the result that is looked at. */
  showMark(signOf, keyOf) {
    if (!this.#shown) return;
    showMark(this.#buttons, signOf(keyOf(exampleOf(this.#shown.result, this.#shown.level))));
  }

  /** Close it. */
  close() {
    if (!this.#dialog.open) return;
    this.#dialog.close();
    this.#query.close();
    this.#result.close();
    this.#shown = null;
    this.#queryShown = null;
  }

  /** Whether it shows a result, and not the query alone. */
  get showsResult() {
    return this.#shown !== null;
  }

  #turn(step) {
    if (!this.#shown) return;
    const { result, results } = this.#shown;
    const next = results[results.indexOf(result) + step];
    if (next) this.#on.turned(next.rank);
  }

  #onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || inField(event.target)) return;
    const pane =
      this.#query.section.contains(event.target) || !this.#shown ? this.#query : this.#result;
    const actions = {
      ArrowLeft: () => this.#turn(-1),
      ArrowRight: () => this.#turn(1),
      "+": () => this.#shown && this.#on.marked(this.#shown.result, "plus"),
      "=": () => this.#shown && this.#on.marked(this.#shown.result, "plus"),
      "-": () => this.#shown && this.#on.marked(this.#shown.result, "minus"),
      r: () => [this.#query, this.#result].forEach((one) => one.reset()),
      s: toggleSaliency,
    };
    const action = event.key in STEPS ? () => pane.step(STEPS[event.key]) : actions[event.key];
    if (!action) return;
    event.preventDefault();
    event.stopPropagation(); // the page's own keys must not hear it too
    action();
  }
}
