// The page as a whole: the address says what is shown, everything a reader does changes the address.

import { getNode } from "./api.js";
import { addressOf, keyOf, readAddress } from "./address.js";
import { exampleOf } from "./card.js";
import { ChoicesForm } from "./choices.js";
import { startDropping } from "./drop.js";
import { byId, element } from "./elements.js";
import { Feedback } from "./feedback.js";
import { FiltersForm } from "./filters.js";
import { StudyFinder } from "./find.js";
import { fillHeader } from "./header.js";
import { startKeys } from "./keys.js";
import { messageOf } from "./notices.js";
import { QueryPanel } from "./query.js";
import { ResultsGrid } from "./results.js";
import { startSaliency } from "./saliency.js";
import { PLURALS, SimilaritySearch } from "./search.js";
import { DescribedSubject } from "./subject.js";
import { Viewer } from "./viewer.js";
import { kindOf, namedModality } from "./wording.js";

const TITLE = "Similar cases · cbmir-node";

/** The page. */
class Page {
  #state = readAddress(location.search);
  #rounds = [{ plus: [], minus: [] }];
  #shown = null; // key of the query that is shown
  #searching = null; // settles when the newest question is answered
  #linked = false;
  #focusesAnswer = false;
  #lastLookedAt = 0;

  constructor(node) {
    this.node = node;
    const rights = node.user?.rights ?? [];
    this.finder = new StudyFinder((find) => this.#go({ find }, { replace: true }));
    this.panel = new QueryPanel(
      rights.includes("store"),
      (subject) => this.#start(subject),
      (subject) => this.subject.replace(subject),
    );
    this.subject = new DescribedSubject(this.panel, {
      described: (subject) => this.#takeSubject(subject),
      failed: (error) => this.#loseSubject(error),
      rest: () => this.#searching,
    });
    this.choices = new ChoicesForm(node, (choices) => this.#go({ choices, view: 0 }));
    this.filters = new FiltersForm(node.defaults.by_class, (filters) =>
      this.#go({ filters, view: 0 }, { replace: true }),
    );
    this.grid = new ResultsGrid(
      (result) => this.#go({ view: result.rank }),
      (result, sign) => this.#mark(result, sign),
    );
    this.search = new SimilaritySearch(node.defaults.results, this.grid, {
      answered: () => this.#showAnswer(),
      again: () => {
        this.subject.update();
        this.#search();
      },
      unfiltered: () => this.filters.clear(),
      anew: () => this.#go({ subject: null, find: {}, plus: [], minus: [], view: 0 }),
    });
    this.feedback = new Feedback(
      this.grid.has,
      () => this.#showMarks(),
      (round, rounds) => {
        this.#focusesAnswer = true; // what had the focus is gone
        this.#go({ ...round, view: 0 }, { rounds });
        byId("answers-title").scrollIntoView({ block: "nearest" }); // the best come first
      },
    );
    this.viewer = new Viewer(node, {
      closed: () => this.#closeViewer(),
      turned: (rank) => this.#go({ view: rank }, { replace: true }),
      marked: (result, sign) => this.#mark(result, sign),
      searched: (subject) => this.#start(subject),
    });
    byId("level").addEventListener("change", (event) =>
      this.#go({ level: event.target.value, view: 0 }),
    );
    byId("query-picture").addEventListener("click", () => {
      if (this.subject.known) this.viewer.show(this.subject.known, null, [], this.#level());
    });
    startSaliency(Boolean(node.model?.has_saliency));
    startDropping(node.max_example_bytes, (example) => this.#start({ token: example.token }, {}));
    startKeys({
      find: () => this.#focusFields(),
      results: () => this.grid.focus(),
      again: () => this.feedback.searchAgain(),
    });
    addEventListener("popstate", () => this.arrive());
    // a RIS links by accession number: the one study that it names is opened at once
    this.#linked = Boolean(!this.#state.subject && this.#state.find.accession);
    this.arrive();
  }

  #level() {
    return this.#state.level || this.node.defaults.level;
  }

  /** Start from another query: choices stay, marks and rounds do not. */
  #start(subject, filters = this.#state.filters) {
    const round = { plus: [], minus: [] };
    this.feedback.clear();
    this.viewer.close();
    this.#go({ subject, filters, ...round, view: 0 }, { rounds: [round] });
    scrollTo(0, 0);
  }

  /** Change the state, and with it the address. */
  #go(changes, { replace = false, rounds = this.#rounds } = {}) {
    this.#state = { ...this.#state, ...changes };
    this.#rounds = rounds;
    const remembered = {
      rounds,
      opened: Boolean(changes.view) && (!replace || history.state?.opened),
    };
    history[replace ? "replaceState" : "pushState"](remembered, "", addressOf(this.#state));
    this.#show();
  }

  /** Take over what the address says, after loading and after Back and Forward. */
  arrive() {
    this.#state = readAddress(location.search);
    const { plus, minus } = this.#state;
    const first = { plus: [], minus: [] };
    const here = plus.length + minus.length ? [first, { plus, minus }] : [first];
    this.#rounds = history.state?.rounds ?? here;
    this.#show();
  }

  #show() {
    const { subject, find, filters, choices } = this.#state;
    byId("start").hidden = Boolean(subject);
    byId("workspace").hidden = !subject;
    byId("skip-to-results").hidden = !subject;
    const key = subject ? keyOf(subject) : "";
    const [before, moved] = [this.#shown, ![null, key].includes(this.#shown)];
    this.#shown = key;
    if (!subject) {
      this.#leave();
      this.finder.show(find).then((studies) => {
        this.#followLink(studies);
        if (moved) this.finder.focus(before.replace("study:", ""));
      });
      return;
    }
    this.filters.show(filters);
    this.choices.show(choices);
    byId("level").querySelector(`[value=${this.#level()}]`).checked = true;
    byId("answers-title").textContent = `Similar ${PLURALS[this.#level()]}`;
    this.feedback.show(this.#rounds);
    if (this.subject.show(subject)) {
      byId("workspace").classList.remove("gone");
      this.search.forget();
    }
    this.#search();
    this.#showViewer();
    if (moved) byId("answers-title").focus({ preventScroll: true });
  }

  #leave() {
    this.subject.forget();
    this.search.forget();
    this.viewer.close();
    this.feedback.clear();
    document.title = TITLE;
  }

  #takeSubject(subject) {
    const [best] = subject.predictions ?? [];
    document.title = `${kindOf({ ...best, ...subject })} · ${TITLE}`; // no names: titles are logged
    this.filters.showClass(best?.label, best?.probability);
    this.filters.offerBodyParts([subject.body_part_examined]);
    this.search.explain(subject);
    this.#showViewer();
    if (this.#state.filters.same_class) this.#search();
  }

  #loseSubject({ status }) {
    if (status !== 404) return;
    byId("workspace").classList.add("gone");
    if (this.#state.subject.token) this.search.tellForgotten();
  }

  #search() {
    this.#searching = this.search.ask({ ...this.#state, level: this.#level() }, this.subject.known);
  }

  #showAnswer() {
    const { results, level } = this.search.answer;
    this.grid.show(results, level, this.feedback.signOf);
    this.filters.offerBodyParts(results.map((result) => result.body_part_examined));
    if (this.#focusesAnswer) this.grid.focus();
    this.#focusesAnswer = false;
    this.feedback.showLost();
    if (this.subject.known?.embedded === false) this.subject.update();
    this.#showViewer();
  }

  #mark(result, sign) {
    this.feedback.toggle(result, exampleOf(result, this.#level()), sign);
  }

  #showMarks() {
    this.grid.showMarks(this.feedback.signOf);
    this.viewer.showMark(this.feedback.signOf, keyOf);
  }

  #showViewer() {
    const { view } = this.#state;
    if (!view) {
      if (this.viewer.showsResult) this.viewer.close();
      if (this.#lastLookedAt) this.grid.focus(this.#lastLookedAt);
      this.#lastLookedAt = 0;
      return;
    }
    const { results = [], level } = this.search.answer ?? {};
    const result = results.find(({ rank }) => rank === view);
    if (!result || !this.subject.known) return;
    this.viewer.show(this.subject.known, result, results, level);
    this.viewer.showMark(this.feedback.signOf, keyOf);
  }

  #closeViewer() {
    this.#lastLookedAt = this.#state.view;
    if (!this.#lastLookedAt) this.viewer.close();
    else if (history.state?.opened) history.back();
    else this.#go({ view: 0 }, { replace: true });
  }

  #focusFields() {
    if (!this.#state.subject) byId("find-form").elements.patient.focus();
    else {
      byId("filters-box").open = true;
      byId("filters").elements.modality.focus();
    }
  }

  #followLink(studies) {
    if (this.#linked && studies.length === 1 && !this.#state.subject) {
      this.#go({ subject: { level: "study", uid: studies[0].uid } }, { replace: true });
    }
    this.#linked = false;
  }
}

function followLinks(page) {
  byId("skip-to-content").addEventListener("click", (event) => {
    event.preventDefault(); // a fragment would be another address, and a step back
    byId("main").focus();
  });
  byId("skip-to-results").addEventListener("click", (event) => {
    event.preventDefault();
    page.grid.focus();
  });
  // links of the page are followed without loading it anew; with Ctrl they open a tab as ever
  addEventListener("click", (event) => {
    const link = event.target.closest("a[data-study], #new-search, #brand");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    history.pushState(null, "", link.getAttribute("href"));
    page.arrive();
    scrollTo(0, 0);
  });
}

async function start() {
  try {
    const node = await getNode();
    fillHeader(node);
    for (const select of document.querySelectorAll("[data-modalities]")) {
      const named = select.id === "file-modality" ? namedModality : String;
      select.append(...node.modalities.map((value) => element("option", { value }, named(value))));
    }
    followLinks(new Page(node));
  } catch (error) {
    byId("main").prepend(
      messageOf(error, { button: "Try again", action: () => location.reload() }),
    );
  }
}

start();
