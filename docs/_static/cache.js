// The cache: which block is whose in which step of an engine. Nothing is fetched, and no number stands here.
(() => {
"use strict";
const holder = document.getElementById("caches"), grid = document.getElementById("grid"), books = document.getElementById("books");
if (!holder || !grid || !books) return;
const { element, drawn } = explainer, LEFT = 62, HIGH = 15, TOP = 6;
let move = () => {}, wide = 0;

const holders = (record, step, block) => record.requests.filter(({ name }) => (step.held[name] || []).includes(block));
const names = found => found.map(one => one.name).join("");

// A block in a step: a stripe for each holder, and their letters where they begin to hold it
function cell(record, number, block) {
  const step = record.steps[number], x = wide * number, y = TOP + HIGH * (block - 1), found = holders(record, step, block);
  const before = number ? names(holders(record, record.steps[number - 1], block)) : "", high = (HIGH - 2) / (found.length || 1), parts = [];
  found.forEach((one, i) => parts.push(drawn("rect", { x, y: y + 1 + high * i, width: wide, height: high, fill: one.colour })));
  if (step.kept.includes(block)) parts.push(drawn("rect", { x, y: y + HIGH / 2 - 1.5, width: wide, height: 3, class: "kept" }));
  if (names(found) !== before && found.length) parts.push(drawn("text", { x: x + wide / 2, y: y + HIGH / 2 + 4, class: "letter", "text-anchor": "middle" }, names(found)));
  if (step.evicted.includes(block)) parts.push(drawn("text", { x: x - 5, y: y + HIGH / 2 + 4.5, class: "evicted", "text-anchor": "middle" }, "×"));
  return parts;
}

function lay(record, go) {
  wide = stepper.width(record.steps.length, LEFT);
  const { steps, blocks } = record, numbers = [...Array(blocks).keys()].map(one => one + 1);
  const cells = numbers.flatMap(block => steps.flatMap((step, number) => cell(record, number, block)));
  const rows = numbers.map(one => [`block ${one}`, TOP + HIGH * (one - 0.5) + 4]);
  const label = `${blocks} blocks over ${steps.length} steps: whose each is. The table below has the same.`;
  move = stepper.columns({ steps: steps.length, rows, left: LEFT, wide, height: TOP + HIGH * blocks, label, cells, go });
}

// Of each request the blocks in the order of its tokens, and how full the last one is
function book(record, step, { name, colour }) {
  const own = step.held[name], last = step.stored[name] - (own.length - 1) * record.block_tokens;
  const boxes = own.map((block, i) => {
    const others = holders(record, step, block).length > 1, full = i < own.length - 1 ? record.block_tokens : last;
    const more = full < record.block_tokens ? `: ${full} of ${record.block_tokens} tokens` : "";
    return element("li", { class: others ? "shared" : "", style: `border-color:${colour}` }, `${block}${more}`);
  });
  return [element("dt", {}, name), element("dd", {}, element("ol", {}, ...boxes))];
}

function show(record, number) {
  const step = record.steps[number], running = record.requests.filter(one => step.held[one.name]);
  const whole = new Set(Object.values(step.held).flat()).size;
  document.getElementById("counts").textContent = `Held: ${whole} of ${record.blocks} blocks. Kept: ${step.kept.length}. The block table of each request; a double frame: shared.`;
  books.replaceChildren(...running.flatMap(one => book(record, step, one)));
  move(number);
}

stepper.stepper(JSON.parse(holder.textContent), lay, show);
})();
