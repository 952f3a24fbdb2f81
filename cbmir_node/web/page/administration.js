// The administration page: asks every few seconds, and changes only what changed.

import { getJson, getNode, postJson } from "./api.js";
import { showDestinations } from "./destinations.js";
import { byId, element, facts } from "./elements.js";
import { fillHeader } from "./header.js";
import { messageOf, notice, noticeOf, sentence, standingMessage } from "./notices.js";
import { ratePlot } from "./plot.js";
import { counted } from "./wording.js";

const PAUSE_MS = 4000;
const STATES = [
  ["embedded", "Embedded"],
  ["pending", "Pending"],
  ["failed", "Failed"],
  ["no_pixels", "Without pixels"],
  ["skipped", "Skipped in long series"],
];
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const TIME = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

const formats = {
  count: (value) => Number(value).toLocaleString("en-GB"),
  text: (value) => String(value),
  capitals: (value) => String(value).toUpperCase(),
  bytes: (value) => {
    const unit = Math.min(Math.floor(Math.log2(Math.max(value, 1)) / 10), UNITS.length - 1);
    const amount = value / 1024 ** unit;
    return `${amount.toFixed(unit && amount < 10 ? 1 : 0)} ${UNITS[unit]}`;
  },
  duration: (seconds) => {
    const minutes = Math.floor(seconds / 60);
    const parts = [[Math.floor(minutes / 1440), "d"], [Math.floor(minutes / 60) % 24, "h"]];
    const shown = [...parts, [minutes % 60, "min"]].filter(([amount]) => amount).slice(0, 2);
    return shown.map(([amount, unit]) => `${amount} ${unit}`).join(" ") || "under 1 min";
  },
};

const plots = { received: ratePlot("Received"), embedded: ratePlot("Embedded"), queries: ratePlot("Queries") };
byId("rates").append(...Object.values(plots).map((plot) => plot.panel));

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Fill every `data-field="disk.free_bytes"` by its `data-format`. */
function fillFields(told) {
  for (const target of document.querySelectorAll("[data-field]")) {
    const value = target.dataset.field.split(".").reduce((part, name) => part?.[name], told);
    const known = value !== undefined && value !== null;
    setText(target, known ? formats[target.dataset.format ?? "count"](value) : "–");
  }
}

const stateParts = new Map(
  STATES.map(([state, name]) => {
    const share = element("span", { class: `state-${state}` });
    const number = element("dd", { data: { testid: `state-${state}` } });
    byId("states-bar").append(share);
    byId("states").append(
      element("div", {}, element("dt", {}, element("span", { class: `swatch state-${state}` }), name), number),
    );
    return [state, { share, number }];
  }),
);

function fillStates(states, rates) {
  for (const [state, { share, number }] of stateParts) {
    const instances = states[state] ?? 0;
    share.style.setProperty("--instances", String(instances));
    share.hidden = !instances;
    setText(number, formats.count(instances));
  }
  const recent = rates.embedded.slice(-5);
  const perSecond = recent.reduce((sum, count) => sum + count, 0) / (recent.length * rates.interval_s);
  const left = states.pending && perSecond ? formats.duration(states.pending / perSecond) : "";
  setText(byId("left"), left ? `done in about ${left.replace("under 1 min", "a minute")}` : "");
}

function fillModel({ name, version, sha256, provider, dimension, next }) {
  facts(byId("model-facts"), [
    ["Name", `${name} ${version}`],
    ["Computes on", provider?.replace("ExecutionProvider", "")],
    ["Vector", dimension ? `${dimension} numbers` : ""],
    ["SHA-256", element("code", { title: sha256 }, `${(sha256 ?? "").slice(0, 16)}…`)],
  ]);
  byId("next-model").hidden = !next;
  if (!next) return;
  const rest = `${counted(next.pending, "object")} to embed before it takes over`;
  setText(byId("next-model").firstElementChild, `Next: ${next.name} ${next.version}, ${rest}`);
}

function fillDisk({ free_bytes: free, total_bytes: total, reserve_bytes: reserve }) {
  const kind = free < reserve ? "bad" : free < 2 * reserve ? "warning" : "";
  byId("disk").className = `bar disk ${kind}`;
  byId("disk").style.setProperty("--share", String(total ? 1 - free / total : 0));
  byId("disk").style.setProperty("--limit", String(total ? Math.max(1 - reserve / total, 0) : 1));
}

/**
 * Make the rows of a table body what `items` says, keeping those that stay: the focus and a
 * selection in them survive a refresh.
 */
function fillRows(body, items, keyOf, make, update = () => {}) {
  const kept = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const rows = items.map((item) => {
    const key = keyOf(item);
    const row = kept.get(key) ?? make(item);
    kept.delete(key); // of two alike, the second gets a row of its own
    row.dataset.key = key;
    update(row, item);
    return row;
  });
  for (const row of [...body.rows]) if (!rows.includes(row)) row.remove();
  rows.forEach((row, place) => {
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] ?? null);
  });
}

async function retry(reason) {
  try {
    const { instances } = await postJson("api/administration/retry", { reason });
    notice(`${counted(instances, "object")} will be tried again.`, "good");
    await refresh();
    if (document.activeElement === document.body) byId("failures-title").focus();
  } catch (error) {
    noticeOf(error);
  }
}

function failureRow({ reason, example_study_instance_uid: study, example_sop_instance_uid: image }) {
  const press = element(
    "button",
    { class: "button", type: "button", "aria-label": `Try again: ${reason}` },
    "Try again",
  );
  press.addEventListener("click", () => retry(reason));
  const without = element("span", { class: "quiet" }, "Send the images again");
  const link = study
    ? element("a", { href: `./?study=${encodeURIComponent(study)}`, title: image }, "Show the study")
    : null;
  return element(
    "tr",
    {},
    element("td", {}, reason || "no reason recorded"),
    element("td", { class: "number" }),
    element("td", {}, link),
    element("td", { class: "number" }, press, without),
  );
}

function fillFailures(failures) {
  byId("no-failures").hidden = failures.length > 0;
  byId("failures-table").hidden = failures.length === 0;
  byId("failures-told").hidden = failures.length === 0;
  byId("retry-all").hidden = failures.filter((failure) => failure.can_be_retried !== false).length < 2;
  fillRows(byId("failures"), failures, (failure) => failure.reason ?? "", failureRow, (row, failure) => {
    setText(row.cells[1], formats.count(failure.instances));
    const [press, without] = row.cells[3].children;
    press.hidden = failure.can_be_retried === false;
    without.hidden = !press.hidden;
  });
}

function errorRow({ level, source, message }) {
  const kind = /warn/i.test(level) ? "warning" : "bad";
  return element(
    "tr",
    {},
    element("td", {}, element("time")),
    element("td", {}, element("span", { class: `badge ${kind}` }, level.toLowerCase())),
    element("td", { class: "quiet" }, source),
    element("td", {}, message, " ", element("span", { class: "badge" })),
  );
}

function fillErrors(errors) {
  byId("no-errors").hidden = errors.length > 0;
  byId("errors-table").hidden = errors.length === 0;
  const keyOf = ({ level, source, message }) => [level, source, message].join("\n");
  fillRows(byId("errors"), errors, keyOf, errorRow, (row, { time, times }) => {
    const when = row.cells[0].firstElementChild;
    when.dateTime = time;
    setText(when, TIME.format(new Date(time)));
    const often = row.cells[3].lastElementChild;
    often.hidden = !(times > 1);
    setText(often, `${formats.count(times ?? 1)} times`);
  });
}

let shownProblems = "";

function fillProblems(messages) {
  const key = messages.map((message) => message.textContent).join("\n");
  if (key === shownProblems) return; // said once, not at every refresh
  shownProblems = key;
  byId("problems").replaceChildren(...messages);
}

function fill(told) {
  fillFields(told);
  fillStates(told.states, told.rates);
  for (const [name, plot] of Object.entries(plots)) plot.show(told.rates[name], told.rates.interval_s);
  fillFailures(told.failures);
  fillModel(told.model ?? {});
  fillDisk(told.disk);
  showDestinations(told.destinations ?? []);
  fillErrors(told.errors);
  fillProblems([
    ...told.problems.map((text) => standingMessage("The node is not ready", text, { kind: "bad" })),
    ...(told.notices ?? []).map((text) => standingMessage(sentence(text), "", { kind: "warning" })),
  ]);
}

let paused = false;
let timer = 0;

function wait() {
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(refresh, PAUSE_MS);
}

function forbid() {
  paused = true;
  byId("loading").hidden = true;
  byId("overview").hidden = true;
  byId("pause").hidden = true;
  setText(byId("freshness"), "");
  byId("problems").replaceChildren(
    element(
      "div",
      { class: "empty" },
      element("h2", {}, "You may not see this page"),
      element("p", {}, "It needs the right “administer”. Ask whoever runs this node, or log in as somebody who has it."),
      element("a", { class: "button", href: "./" }, "Back to similar cases"),
    ),
  );
}

async function refresh() {
  try {
    fill(await getJson("api/administration"));
    byId("loading").hidden = true;
    byId("overview").hidden = false;
    const time = new Date().toLocaleTimeString("en-GB");
    setText(byId("freshness"), paused ? `Paused at ${time}` : `As of ${time}`);
  } catch (error) {
    if (error.status === 403) {
      forbid();
      return;
    }
    if (error.status === 401) return;
    byId("loading").hidden = true;
    fillProblems([messageOf(error, { button: "Try again", action: refresh })]);
  }
  wait();
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  if (paused) setText(byId("freshness"), byId("freshness").textContent.replace("As of", "Paused at"));
  if (paused) clearTimeout(timer);
  else refresh();
});
byId("retry-all").addEventListener("click", () => retry(null));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(timer);
  else if (!paused) refresh();
});

getNode().then(fillHeader, noticeOf);
refresh();
