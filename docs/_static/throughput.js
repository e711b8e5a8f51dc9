// Throughput against latency: draws the levels that the page holds as JSON. Nothing is fetched, and no number stands here.
(() => {
"use strict";
const holder = document.getElementById("curves"), chart = document.getElementById("chart");
if (!holder || !chart) return;
const { element, drawn, select, facts, hint, tables } = explainer;
const DATA = JSON.parse(holder.textContent);
const WIDTH = 760, HEIGHT = 460, LEFT = 70, RIGHT = 150, TOP = 16, BOTTOM = 52;
const state = { group: 0, latency: Object.keys(DATA.latencies)[0], hidden: new Set() };

const brief = value => Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
// a figure with its spread; what was measured once has none
const told = (point, key, unit) => point.repeats === 1 ? `${brief(point[key].median)} ${unit}`
  : `${brief(point[key].median)} ${unit} (${brief(point[key].low)} to ${brief(point[key].high)})`;

// The ticks 1, 2, 5 of each decade between two values
function ticks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const step of [1, 2, 5]) {
      const value = step * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  return found;
}

function scale(values, from, to) {
  const low = Math.min(...values) / 1.25, high = Math.max(...values) * 1.25, span = Math.log(high / low);
  const at = value => from + (to - from) * Math.log(value / low) / span;
  return { at, ticks: ticks(low, high) };
}

const shown = () => DATA.groups[state.group].curves.filter(curve => !state.hidden.has(curve.label));

function axes(x, y) {
  const parts = [], bottom = HEIGHT - BOTTOM, right = WIDTH - RIGHT;
  for (const value of x.ticks) {
    parts.push(drawn("line", { x1: x.at(value), x2: x.at(value), y1: TOP, y2: bottom, class: "grid" }));
    parts.push(drawn("text", { x: x.at(value), y: bottom + 18, "text-anchor": "middle" }, brief(value)));
  }
  for (const value of y.ticks) {
    parts.push(drawn("line", { x1: LEFT, x2: right, y1: y.at(value), y2: y.at(value), class: "grid" }));
    parts.push(drawn("text", { x: LEFT - 8, y: y.at(value) + 4, "text-anchor": "end" }, brief(value)));
  }
  parts.push(drawn("text", { x: (LEFT + right) / 2, y: HEIGHT - 10, "text-anchor": "middle" }, "output tokens/s, all users together →"));
  const side = `rotate(-90) translate(${-(TOP + bottom) / 2}, 16)`;
  parts.push(drawn("text", { transform: side, "text-anchor": "middle" }, `← ${DATA.latencies[state.latency].toLowerCase()}, s`));
  return parts;
}

function whiskers(point, x, y) {
  const rate = point.output_tokens_per_s, wait = point[state.latency];
  return [
    drawn("line", { x1: x.at(rate.low), x2: x.at(rate.high), y1: y.at(wait.median), y2: y.at(wait.median), class: "spread" }),
    drawn("line", { x1: x.at(rate.median), x2: x.at(rate.median), y1: y.at(wait.low), y2: y.at(wait.high), class: "spread" }),
  ];
}

function mark(curve, point, x, y) {
  const label = `${curve.label}, ${point.load}: ${told(point, "output_tokens_per_s", "tokens/s")}, ` +
    `${DATA.latencies[state.latency].toLowerCase()} ${told(point, state.latency, "s")}`;
  const made = drawn("circle", {
    cx: x.at(point.output_tokens_per_s.median), cy: y.at(point[state.latency].median), r: 7,
    fill: curve.colour, class: "mark", tabindex: 0, role: "button", "aria-label": label,
  }, drawn("title", {}, label));
  const open = () => { explain(curve, point); };
  made.addEventListener("click", open);
  made.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } });
  return made;
}

function line(curve, x, y) {
  const at = curve.points.map(point => [x.at(point.output_tokens_per_s.median), y.at(point[state.latency].median)]);
  const last = at[at.length - 1];
  return {
    path: drawn("polyline", { points: at.join(" "), stroke: curve.colour, "stroke-dasharray": curve.dashes, class: "curve" }),
    name: { x: last[0] + 12, y: last[1] + 4, text: curve.label },
  };
}

// Names at the ends of lines; one that would lie on another goes below it, or above where the picture ends
function names(lines) {
  const placed = [], wide = name => name.text.length * 7;
  for (const name of lines.map(one => one.name).sort((one, other) => one.y - other.y)) {
    name.x = Math.min(name.x, WIDTH - wide(name));
    const beside = placed.filter(other => name.x < other.x + wide(other) && other.x < name.x + wide(name));
    for (const other of beside.sort((one, another) => one.y - another.y))
      if (Math.abs(name.y - other.y) < 15) name.y = other.y + 15;
    placed.push(name);
  }
  return placed.map(name => drawn("text", { x: name.x, y: name.y, class: "name" }, name.text));
}

function draw() {
  const curves = shown(), points = curves.flatMap(curve => curve.points);
  if (!points.length) { chart.replaceChildren(element("p", {}, "Every engine is switched off: switch one on.")); return; }
  const x = scale(points.flatMap(point => [point.output_tokens_per_s.low, point.output_tokens_per_s.high]), LEFT, WIDTH - RIGHT);
  const y = scale(points.flatMap(point => [point[state.latency].low, point[state.latency].high]), HEIGHT - BOTTOM, TOP);
  const lines = curves.map(curve => line(curve, x, y));
  const title = `${DATA.groups[state.group].title}: ${DATA.latencies[state.latency].toLowerCase()} over output tokens per second. The table below has the same figures.`;
  chart.replaceChildren(drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": title },
    ...axes(x, y), ...lines.map(one => one.path),
    ...points.flatMap(point => whiskers(point, x, y)),
    ...curves.flatMap(curve => curve.points.map(point => mark(curve, point, x, y))), ...names(lines)));
}

function origin(curve, point) {
  const error = point.client_error, list = value => Array.isArray(value) ? value.join(" ") : JSON.stringify(value);
  const versions = Object.entries(point.versions).map(pair => pair.join(" ")).join(", ");
  return [
    ["Output tokens/s", told(point, "output_tokens_per_s", "tokens/s")],
    ...Object.entries(DATA.latencies).map(([key, name]) => [name, told(point, key, "s")]),
    ["Measured", `${point.date} on ${point.machine}`], ["Versions", versions],
    ["Repeats", `${point.repeats}, of ${point.requests} requests each; ${point.errors} failed`],
    ["Weights", point.weights], ["Setting", point.option], ["No measurement", point.no_measurement],
    ["Client's own error", error && `TTFT ${brief(error.ttft_error_s * 1000)} ms, rate ${brief(error.rate_error * 100)} %`],
    ["Started with", point.arguments && list(point.arguments)], ["Record", point.file], ["Place in it", point.at],
  ];
}

function explain(curve, point) {
  facts(`${curve.label}, ${point.load}`, origin(curve, point));
}

function choose(group) {
  state.group = Number(group);
  state.hidden.clear();
  const boxes = DATA.groups[state.group].curves.map(curve => {
    const box = element("input", { type: "checkbox", checked: "" });
    box.addEventListener("change", () => { box.checked ? state.hidden.delete(curve.label) : state.hidden.add(curve.label); draw(); });
    const swatch = element("span", { class: "swatch", style: `background:${curve.colour}` });
    return element("label", {}, box, swatch, curve.label);
  });
  document.getElementById("engines").replaceChildren(element("legend", {}, "Engines"), ...boxes);
  tables(state.group);
  hint("Choose a mark: where it comes from stands here.");
  draw();
}

function controls() {
  document.getElementById("choices").replaceChildren(
    select("group", "What was measured", DATA.groups.map((group, i) => [i, group.title]), choose),
    select("latency", "Latency", Object.entries(DATA.latencies), value => { state.latency = value; draw(); }),
    element("fieldset", { id: "engines" }));
}

document.getElementById("explainer").hidden = false;
controls();
choose(0);
})();
