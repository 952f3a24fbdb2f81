// A small plot of a rate over the last hour: an SVG whose path is changed in place.

import { element } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 40;

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const perMinute = (value) =>
  value.toLocaleString("en-GB", { maximumFractionDigits: value < 10 ? 1 : 0 });

/**
 * A panel with the rate now, its course, and its highest point.
 *
 * @param {string} name what is counted, as "Received"
 * @returns {{panel: HTMLElement, show: (counts: number[], intervalSeconds: number) => void}}
 *   `show` takes counts of equal intervals, oldest first
 */
export function ratePlot(name) {
  const area = shape("path", { class: "area" });
  const line = shape("path", { class: "line" });
  const axis = shape("path", { class: "axis" });
  const plot = shape("svg", { class: "plot", role: "img", preserveAspectRatio: "none" });
  plot.append(axis, area, line);
  const now = element("span", { class: "figure-number" });
  const highest = element("span");
  const since = element("span");
  const panel = element(
    "div",
    { class: "panel stack" },
    element("h3", {}, name),
    element("p", {}, now, " per minute"),
    plot,
    element("p", { class: "plot-scale quiet small", "aria-hidden": "true" }, since, highest, element("span", {}, "now")),
  );

  const show = (counts, intervalSeconds) => {
    const rates = counts.map((count) => (count * 60) / intervalSeconds);
    const top = Math.max(...rates, 0);
    const last = rates.at(-1) ?? 0;
    const width = Math.max(rates.length - 1, 1);
    const scale = (HEIGHT - 2) / (top || 1);
    const points = rates.map((rate, at) => `${at},${(HEIGHT - 1 - rate * scale).toFixed(2)}`);
    plot.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    axis.setAttribute("d", `M0,${HEIGHT - 1}H${width}`);
    line.setAttribute("d", points.length ? `M${points.join("L")}` : "");
    area.setAttribute("d", points.length ? `M0,${HEIGHT}L${points.join("L")}V${HEIGHT}Z` : "");
    now.textContent = perMinute(last);
    highest.textContent = `highest ${perMinute(top)}`;
    since.textContent = `${Math.round((rates.length * intervalSeconds) / 60)} min ago`;
    plot.setAttribute(
      "aria-label",
      `${name} in the last hour: ${perMinute(last)} per minute now, at most ${perMinute(top)}`,
    );
  };
  return { panel, show };
}
