// The batch: who computes in which step of an engine. Nothing is fetched, and no number stands here.
(() => {
"use strict";
const holder = document.getElementById("batches"), grid = document.getElementById("grid");
if (!holder || !grid) return;
const { drawn } = explainer, LEFT = 112, HIGH = 24, BARS = 64, TOP = BARS + 22;
let move = () => {}, wide = 0;

const middle = number => wide * (number + 0.5);

// A bar for the time of each step, and the longest one's time beside it
function bars(steps) {
  const longest = Math.max(...steps.map(step => step.took_ms)), slowest = steps.findIndex(step => step.took_ms === longest);
  const made = steps.map((step, number) => {
    const high = BARS * step.took_ms / longest, kind = Object.keys(step.prefill).length ? "prefill" : "decode";
    return drawn("rect", { x: wide * number + 3, y: 16 + BARS - high, width: wide - 6, height: high, class: kind });
  });
  const side = slowest < 2 ? "start" : slowest > steps.length - 3 ? "end" : "middle";
  const x = { start: wide * slowest, middle: middle(slowest), end: wide * (slowest + 1) }[side];
  const told = drawn("text", { x, y: 11, class: "longest", "text-anchor": side }, `${longest.toLocaleString("en")} ms`);
  return [...made, told];
}

function cell(step, number, name, row) {
  const x = wide * number, y = TOP + HIGH * row;
  if (name in step.prefill) return [
    drawn("rect", { x: x + 0.5, y: y + 2, width: wide - 1, height: HIGH - 4, class: "prefill" }),
    drawn("text", { x: middle(number), y: y + HIGH / 2 + 3.5, class: "count", "text-anchor": "middle" }, String(step.prefill[name])),
  ];
  if (step.decode.includes(name)) return [drawn("rect", { x: x + 5, y: y + 7, width: wide - 10, height: HIGH - 14, class: "decode" })];
  if (step.waiting.includes(name)) return [drawn("line", { x1: x + 3, x2: x + wide - 3, y1: y + HIGH / 2, y2: y + HIGH / 2, class: "waits" })];
  return [];
}

function lay(record, go) {
  const { requests, steps } = record;
  wide = stepper.width(steps.length, LEFT);
  const cells = requests.flatMap(({ name }, row) => steps.flatMap((step, number) => cell(step, number, name, row)));
  const names = requests.map((one, row) => [`${one.name}: ${one.prompt_tokens} in, ${one.output_tokens} out`, TOP + HIGH * row + HIGH / 2 + 4]);
  const rows = [["time of the step", 16 + BARS], ...names];
  const label = `${requests.length} requests in ${steps.length} steps: who waits, is in prefill or in decode. The table below has the same.`;
  move = stepper.columns({ steps: steps.length, rows, left: LEFT, wide, height: TOP + HIGH * requests.length, above: 14, label, cells: [...bars(steps), ...cells], go });
}

stepper.stepper(JSON.parse(holder.textContent), lay, (record, number) => move(number));
})();
