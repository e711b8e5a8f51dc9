// Who does what: a grid of the cells that the page holds as JSON. Nothing is fetched, and no verdict stands here.
(() => {
"use strict";
const holder = document.getElementById("verdicts"), place = document.getElementById("grid");
if (!holder || !place) return;
const { element, select, facts, hint, tables } = explainer;
const DATA = JSON.parse(holder.textContent), ALL = "";
const state = { record: 0, framework: ALL, feature: ALL };

const record = () => DATA.records[state.record];
const wanted = cell => [ALL, cell.framework].includes(state.framework) && [ALL, cell.feature].includes(state.feature);

function explain(cell, button) {
  for (const one of place.querySelectorAll("button")) one.setAttribute("aria-pressed", one === button);
  const { date, file, features, frameworks } = record(), { versions, arguments: started } = frameworks[cell.framework];
  facts(`${cell.feature}, ${cell.framework}: ${cell.verdict}`, [
    ["What was asked", features[cell.feature]], ["What came back", cell.detail], ["The ready-made wheel", cell.wheel],
    ["Versions", versions], ["Started with", started], ["Measured", date], ["Record", file], ["Place in it", cell.at],
  ]);
}

function button(cell) {
  const label = `${cell.feature}, ${cell.framework}: ${cell.verdict}`;
  const made = element("button", {
    type: "button", class: "verdict", "aria-pressed": false, "aria-label": label, style: `background:${DATA.colours[cell.verdict]}`,
  }, cell.verdict);
  made.addEventListener("click", () => explain(cell, made));
  return made;
}

function row(feature, frameworks, cells) {
  const found = frameworks.map(name => cells.find(cell => cell.feature === feature && cell.framework === name));
  return element("tr", {}, element("th", { scope: "row" }, feature),
    ...found.map(cell => element("td", {}, ...(cell ? [button(cell)] : []))));
}

function draw() {
  const { frameworks, features, cells } = record(), shown = cells.filter(wanted);
  const columns = Object.keys(frameworks).filter(name => [ALL, name].includes(state.framework));
  const rows = Object.keys(features).filter(name => [ALL, name].includes(state.feature));
  const heads = element("tr", {}, element("td"), ...columns.map(name => element("th", { scope: "col" }, name)));
  place.replaceChildren(element("div", { class: "levels", tabindex: 0, role: "region", "aria-label": "Features and frameworks" },
    element("table", {}, element("thead", {}, heads), element("tbody", {}, ...rows.map(name => row(name, columns, shown))))));
  hint("Choose a cell: what was asked and what came back stands here.");
}

// The rows of the tables stand in the order of the cells; a table without a row goes
function filter() {
  tables(state.record);
  const own = [...document.querySelectorAll(`.levels[data-group="${state.record}"]`)];
  const rows = own.flatMap(table => [...table.querySelectorAll("tbody tr")]);
  record().cells.forEach((cell, i) => { rows[i].hidden = !wanted(cell); });
  for (const table of own) table.hidden = !table.querySelector("tbody tr:not([hidden])");
}

function show(changes) { Object.assign(state, changes); draw(); filter(); }

function controls() {
  const named = names => [[ALL, "all"], ...names.map(name => [name, name])];
  document.getElementById("choices").replaceChildren(
    select("record", "Recorded", DATA.records.map((one, i) => [i, `${one.where}, ${one.date}`]), value => { show({ record: Number(value), framework: ALL, feature: ALL }); controls(); }),
    select("framework", "Framework", named(Object.keys(record().frameworks)), value => show({ framework: value })),
    select("feature", "Feature", named(Object.keys(record().features)), value => show({ feature: value })));
  document.getElementById("record").value = state.record;
}

document.getElementById("explainer").hidden = false;
controls();
show({});
})();
