// What the node says of the query, as far as it is known by now.

import { getJson } from "./api.js";
import { keyOf } from "./address.js";
import { coverOf, frameAddress } from "./frames.js";

/** The query of the page: fetched once, completed later. */
export class DescribedSubject {
  /** What the node says, `null` while it has not. */
  known = null;
  #request = null;
  #panel;
  #on;

  /**
   * @param {QueryPanel} panel
   * @param {{described: (subject: object) => void, failed: (error: Error) => void,
   *   rest: () => Promise<void>}} on `rest` settles when what is more urgent is done
   */
  constructor(panel, on) {
    this.#panel = panel;
    this.#on = on;
  }

  /** Show another query; the one that is shown already stays. Returns whether it is another. */
  show(subject) {
    const key = keyOf(subject);
    if (this.#request?.key === key) return false;
    this.forget();
    const request = Object.assign(new AbortController(), { key, subject });
    this.#request = request;
    this.#panel.showWaiting();
    this.#describe(request);
    return true;
  }

  /** Show none. */
  forget() {
    this.#request?.abort();
    this.#request = null;
    this.known = null;
  }

  async #describe(request) {
    try {
      const known = await this.#panel.fetch(request.subject, request.signal);
      if (request === this.#request) this.#take(known);
    } catch (error) {
      if (error.name === "AbortError" || request !== this.#request) return;
      this.#panel.showProblem(error);
      this.#on.failed(error);
    }
  }

  /** Ask again how it stands: a query that was waiting may be embedded by now, or have failed. */
  async update() {
    const request = this.#request;
    try {
      const known = await this.#panel.fetch(request.subject, request.signal);
      if (request === this.#request && known.state !== this.known?.state) this.#take(known);
    } catch {
      // it stays as it was described
    }
  }

  /** Take over what has become of it. */
  replace(known) {
    this.known = known;
  }

  #take(known) {
    this.known = known;
    this.#panel.show(known);
    this.#on.described(known);
    this.#complete(known, this.#request.signal);
  }

  /** What may come later: all class probabilities, and the series of the study. */
  async #complete(subject, signal) {
    await this.#on.rest(); // the results come first: both take the node's processors
    if (signal.aborted) return;
    this.#panel.showParts(subject, signal).catch(() => {
      // the study can be compared as a whole without them
    });
    if (subject.token || subject.predictions?.length !== 1 || subject.kept === false) return;
    getJson(frameAddress(coverOf(subject), "predictions"), { signal }).then(
      (predictions) => {
        subject.predictions = predictions;
        this.#panel.showClasses(predictions);
      },
      () => {}, // the best class is shown already
    );
  }
}
