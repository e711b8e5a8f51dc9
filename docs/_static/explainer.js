// What the explainers share; it comes before the script of a page.
globalThis.explainer = (() => {
"use strict";
const SVG = "http://www.w3.org/2000/svg";

function filled(made, attributes, inside) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...inside);
  return made;
}

const element = (tag, attributes = {}, ...inside) => filled(document.createElement(tag), attributes, inside);
const drawn = (tag, attributes = {}, ...inside) => filled(document.createElementNS(SVG, tag), attributes, inside);

// A labelled list to choose from: options are pairs of a value and its text
function select(id, label, options, changed = () => {}) {
  const made = element("select", { id }, ...options.map(([value, text]) => element("option", { value }, text)));
  made.addEventListener("change", () => changed(made.value));
  return element("label", { for: id }, `${label} `, made);
}

// Pairs of a name and a value, those without a value left out, below a heading in the place for where a figure comes from
function facts(heading, rows) {
  const told = rows.filter(([, value]) => value).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  document.getElementById("provenance").replaceChildren(element("h2", {}, heading), element("dl", {}, ...told));
}

const hint = text => document.getElementById("provenance").replaceChildren(element("p", {}, text));

// Of the tables those of one group
function tables(group) {
  for (const table of document.querySelectorAll(".levels[data-group]")) table.hidden = Number(table.dataset.group) !== group;
}

return { element, drawn, select, facts, hint, tables };
})();
