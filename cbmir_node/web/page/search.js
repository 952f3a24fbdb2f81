// Asking for similar cases: the newest question alone counts, and what cannot be answered is told.

import { postJson } from "./api.js";
import { askedBy } from "./choices.js";
import { byId, element } from "./elements.js";
import { filtersAsked } from "./filters.js";
import { messageOf, standingMessage } from "./notices.js";
import { counted } from "./wording.js";

/** Plurals of the levels. */
export const PLURALS = { study: "studies", series: "series", image: "images" };

const LOOK_AGAIN_MS = 2000; // while the query waits to be embedded
const FORGOTTEN = [
  "The file is forgotten",
  "Nobody used it for an hour, or the node was restarted. Drop it again.",
];
const STATES = {
  pending: () => [
    "Still being prepared",
    "Usually this takes seconds; the results come by themselves.",
  ],
  no_pixels: () => [
    "This study has no pictures to compare",
    "It holds only objects such as a report (SR). Choose another study.",
  ],
  failed: (reason) => ["Could not be read", reason],
  skipped: (reason) => ["Not prepared itself", reason],
};

/** The question that is under way or answered, and its answer. */
export class SimilaritySearch {
  /** The node's answer, `null` until there is one. */
  answer = null;
  #asked = "";
  #request = null;
  #lookAgain = 0;
  #failure = null;
  #subject = null; // what is known of the query by now; it may come before or after the answer
  #count;
  #grid;
  #on;

  /**
   * @param {number} count results that are awaited, for the place they will take
   * @param {ResultsGrid} grid
   * @param {{answered: () => void, again: () => void, unfiltered: () => void, anew: () => void}} on
   *   called with a new answer, and when the reader wants to ask again, to ask without filters, or
   *   to begin anew
   */
  constructor(count, grid, on) {
    this.#count = count;
    this.#grid = grid;
    this.#on = on;
  }

  /**
   * Ask, unless it was asked already.
   *
   * @param {object} state as `readAddress` returns it, its level filled in
   * @param {?object} subject what the node says of the query, `null` while it is not known
   * @returns {Promise<void>} resolves once it is answered, refused or overtaken
   */
  async ask(state, subject) {
    if (state.filters.same_class && !subject) return; // asked once its class is known
    const question = {
      examples: [state.subject, ...state.plus],
      negative_examples: state.minus,
      level: state.level,
      ...askedBy(state.choices),
      ...filtersAsked(state.filters, subject?.predictions?.[0]?.label),
      thumbnails: true,
    };
    const asked = JSON.stringify(question);
    if (asked === this.#asked) return;
    clearTimeout(this.#lookAgain);
    this.#request?.abort();
    this.#asked = asked;
    this.#failure = null;
    const request = new AbortController();
    this.#request = request;
    this.#grid.showWaiting(this.#count);
    try {
      const answer = await postJson("api/similar", question, { signal: request.signal });
      if (request !== this.#request) return;
      this.answer = answer;
      this.#summarize(Object.keys(state.filters).length > 0, state.minus.length > 0);
      this.#on.answered();
    } catch (error) {
      if (error.name === "AbortError" || request !== this.#request) return;
      this.answer = null;
      this.#asked = "";
      this.#failure = Object.assign(error, { isForgotten: this.#failure?.isForgotten });
      this.#grid.clear();
      byId("answers-summary").textContent = "";
      this.explain(this.#subject ?? subject);
    }
  }

  /** Say that the file that was dropped is not kept any longer. */
  tellForgotten() {
    this.#failure ??= new Error();
    this.#failure.isForgotten = true;
    this.explain(null);
  }

  /** Say why there is no answer, as well as it can be said of this query. */
  explain(subject) {
    this.#subject = subject;
    clearTimeout(this.#lookAgain);
    if (!this.#failure) return;
    byId("answers-message").replaceChildren(this.#explained(this.#failure, subject));
  }

  /** Give up what is under way and forget the answer. */
  forget() {
    clearTimeout(this.#lookAgain);
    this.#request?.abort();
    this.#request = null;
    this.#asked = "";
    this.answer = null;
    this.#failure = null;
    this.#subject = null;
    this.#grid.clear();
  }

  #summarize(filtered, hasNegatives) {
    const { results, level, seconds } = this.answer;
    const found = counted(results.length, level, PLURALS[level]);
    // what is marked as not relevant changes the order, and not the similarity that is shown
    const order = hasNegatives ? "best first, away from what is not relevant" : "best first";
    byId("answers-summary").textContent = results.length
      ? `${found}, ${order} · ${seconds.toFixed(2)} s`
      : "";
    byId("answers-message").replaceChildren(...(results.length ? [] : [this.#nothing(filtered)]));
  }

  #nothing(filtered) {
    if (!filtered) {
      return standingMessage(
        "Nothing similar found",
        "The node has no other case yet, or the method leaves out what there is.",
      );
    }
    return standingMessage("No case passes the filters", "Widen them, or take them away.", {
      button: "Clear the filters",
      action: this.#on.unfiltered,
    });
  }

  #explained(error, subject) {
    if ([404, 409].includes(error.status) && subject?.state in STATES) {
      return this.#withoutVector(subject);
    }
    const anew = { kind: "warning", button: "New search", action: this.#on.anew };
    if (error.isForgotten) return standingMessage(...FORGOTTEN, anew);
    if (error.status === 404) {
      return messageOf(error, anew);
    }
    if (error.status !== 409) {
      return messageOf(error, { button: "Try again", action: this.#on.again });
    }
    // embedded since it was asked: worth another look
    if (subject?.embedded) this.#lookAgain = setTimeout(this.#on.again, LOOK_AGAIN_MS);
    return messageOf(error, { kind: "warning" });
  }

  #withoutVector({ state, reason }) {
    const message = standingMessage(...STATES[state](reason), { kind: "warning" });
    if (state === "pending") {
      message.append(element("span", { class: "spinner" }));
      this.#lookAgain = setTimeout(this.#on.again, LOOK_AGAIN_MS);
    }
    return message;
  }
}
