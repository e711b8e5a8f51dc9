// Your client's error: clients ordered by how far off they were. Nothing is fetched, and no number stands here.
(() => {
"use strict";
const holder = document.getElementById("clients"), list = document.getElementById("clients-in-order");
if (!holder || !list) return;
const { element, select, facts, hint, tables } = explainer;
const DATA = JSON.parse(holder.textContent);
const state = { group: 0, figure: Object.keys(DATA.figures)[0], older: false };

const group = () => DATA.groups[state.group];
const figure = row => row.figures[state.figure];
const size = row => figure(row).off ? Math.abs(figure(row).off.median) : Infinity;
const named = row => `${row.client}, ${row.versions || "version unknown"}, ${row.date}`;

// The newest rows by the size of their error; below each the older rows of the same client
function ordered() {
  const { rows } = group(), newest = rows.filter(row => row.newest).sort((one, other) => size(one) - size(other) || 0);
  return newest.flatMap(row => [row, ...(state.older ? rows.filter(one => !one.newest && one.name === row.name) : [])]);
}

// From the left end to the right end of the track as shares of it: zero and every error lie inside
function scale(rows) {
  const ends = rows.flatMap(row => figure(row).off ? [figure(row).off.low, figure(row).off.high] : []);
  const low = Math.min(0, ...ends), span = Math.max(0, ...ends) - low || 1;
  return value => 2 + 96 * (value - low) / span;
}

function track(row, at) {
  const { off } = figure(row), zero = element("span", { class: "zero", style: `left:${at(0)}%` });
  if (!off) return element("span", { class: "track", "aria-hidden": true }, zero);
  const spread = element("span", { class: "range", style: `left:${at(off.low)}%;width:${at(off.high) - at(off.low)}%` });
  return element("span", { class: "track", "aria-hidden": true }, zero, spread, element("span", { class: "median", style: `left:${at(off.median)}%` }));
}

function told(row) {
  const { why, told: text } = figure(row), { unit, off_unit } = DATA.figures[state.figure];
  if (why) return [element("span", {}, why)];
  return [element("strong", {}, `${text.off} ${off_unit}`), element("span", {}, `said ${text.said}, was ${text.was} ${unit}`)];
}

function explain(row, button) {
  for (const one of list.querySelectorAll("button")) one.setAttribute("aria-pressed", one === button);
  const figures = Object.entries(DATA.figures).map(([key, { title, unit, off_unit }]) => {
    const { told: text, why } = row.figures[key];
    return [title, why || `said ${text.said}, was ${text.was} ${unit}: off by ${text.off} ${off_unit}`];
  });
  facts(named(row), [
    ["Load", group().title], ...figures, ["ITL of this client", row.itl], ["Rounds", String(row.rounds)],
    ["Failed rounds", row.failures.join("; ")], ["Record", row.file], ["Place in it", row.at],
  ]);
}

function item(row, at) {
  const button = element("button", { type: "button", "aria-pressed": false }, row.client);
  button.addEventListener("click", () => explain(row, button));
  const name = element("span", { class: "named" }, button, element("span", {}, `${row.versions}, ${row.date}`));
  return element("li", { class: row.newest ? "newest" : "older" }, name, track(row, at), element("span", { class: "told" }, ...told(row)));
}

function draw() {
  const rows = ordered(), at = scale(rows);
  list.replaceChildren(...rows.map(row => item(row, at)));
  hint("Choose a client: what it said and what the server did stands here.");
}

function show(changes) { Object.assign(state, changes); tables(state.group); draw(); }

const older = element("input", { type: "checkbox", id: "older" });
older.addEventListener("change", () => show({ older: older.checked }));
document.getElementById("choices").replaceChildren(
  select("group", "Streams at once", DATA.groups.map((one, i) => [i, one.title]), value => show({ group: Number(value) })),
  select("figure", "Figure", Object.entries(DATA.figures).map(([key, one]) => [key, one.title]), value => show({ figure: value })));
if (DATA.groups.some(one => one.rows.some(row => !row.newest)))
  document.getElementById("choices").append(element("label", { for: "older" }, older, "Earlier records, too"));
document.getElementById("explainer").hidden = false;
show({});
})();
