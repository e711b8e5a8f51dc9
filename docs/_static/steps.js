// What the pages of an engine's steps share: a step that is chosen, and steps played at their times. It comes after explainer.js.
globalThis.stepper = (() => {
"use strict";
const { element, drawn, select, tables } = explainer;
const PACES = { "10 times slower": 0.1, "30 times slower": 1 / 30, "4 times slower": 0.25, "as it was": 1 };
const still = matchMedia("(prefers-reduced-motion: reduce)");

// RECORDS have a title and steps. `lay(record)` draws a record, `show(record, number)` shows one of its steps.
function stepper(RECORDS, lay, show) {
  const state = { record: 0, step: 0, pace: Object.values(PACES)[0], playing: false, from_ms: 0, since: 0 };
  const record = () => RECORDS[state.record], last = () => record().steps.length - 1;
  const said = document.getElementById("said");
  const button = (id, text, press) => { const made = element("button", { type: "button", id }, text); made.addEventListener("click", press); return made; };
  const slider = element("input", { type: "range", id: "step", min: 0, step: 1, "aria-label": "Step" });
  const clock = element("span", { id: "clock" });

  function update() {
    const step = record().steps[state.step];
    slider.value = String(state.step);
    slider.setAttribute("aria-valuetext", `Step ${state.step} of ${last()}`);
    clock.textContent = `Step ${state.step} of ${last()}`;
    said.setAttribute("aria-live", state.playing ? "off" : "polite");
    said.replaceChildren(element("strong", {}, `Step ${state.step}, ${step.took} ms.`), ` ${step.said}`);
    show(record(), state.step);
  }

  function stop() { state.playing = false; document.getElementById("play").textContent = "Play"; }
  function go(number) { stop(); state.step = Math.max(0, Math.min(last(), number)); update(); }

  function frame(now) {
    if (!state.playing) return;
    const at_ms = state.from_ms + (now - state.since) * state.pace, from = state.step;
    while (state.step < last() && record().steps[state.step + 1].at_ms <= at_ms) state.step++;
    if (state.step >= last()) stop();
    if (state.step !== from) update();
    if (state.playing) requestAnimationFrame(frame);
  }

  function play() {
    if (state.playing) { go(state.step); return; }
    if (still.matches) { go(last()); return; }
    if (state.step >= last()) state.step = 0;
    Object.assign(state, { playing: true, from_ms: record().steps[state.step].at_ms, since: performance.now() });
    document.getElementById("play").textContent = "Pause";
    update();
    requestAnimationFrame(frame);
  }

  function choose(number) {
    state.record = Number(number);
    slider.max = String(last());
    tables(state.record);
    lay(record(), go);
    go(0);
  }

  slider.addEventListener("input", () => go(Number(slider.value)));
  document.getElementById("choices").replaceChildren(
    select("record", "Recorded", RECORDS.map((one, i) => [i, one.title]), choose),
    select("pace", "Pace", Object.keys(PACES).map((name, i) => [i, name]), value => { stop(); state.pace = Object.values(PACES)[value]; }),
    element("div", { class: "play" }, button("back", "Back", () => go(state.step - 1)), button("play", "Play", play),
      button("next", "Next", () => go(state.step + 1)), slider, clock));
  document.getElementById("explainer").hidden = false;
  choose(0);
}

// How wide a column is, so that the whole picture fits beside names that are `left` wide; narrow windows scroll
const PAGE = 736, NARROW = 16, BROAD = 22;
const width = (steps, left) => Math.max(NARROW, Math.min(BROAD, Math.floor((PAGE - left) / steps)));

// A picture with a column for each step and a name for each row, which stays where the columns are scrolled: what `cells` draws,
// and a frame around the step that is shown. A click into a column shows its step. Returns what moves the frame.
function columns({ steps, rows, left, wide, height, above = 1, label, cells, go }) {
  const whole = wide * steps, high = height + 22, holder = document.getElementById("grid");
  const name = (text, y) => drawn("text", { x: left - 6, y, "text-anchor": "end" }, text);
  const names = rows.map(([text, y]) => name(text, y));
  const frame = drawn("rect", { class: "frame", y: above, width: wide - 2, height: height - above, rx: 2 });
  const ticks = [...Array(steps).keys()].filter(number => number % 5 === 0)
    .map(number => drawn("text", { x: wide * (number + 0.5), y: high - 6, "text-anchor": "middle" }, String(number)));
  const made = drawn("svg", { width: whole, height: high, role: "img", "aria-label": label }, ...ticks, ...cells, frame);
  made.addEventListener("click", event => go(Math.floor((event.clientX - made.getBoundingClientRect().left) / wide)));
  holder.replaceChildren(drawn("svg", { width: left, height: high, class: "names", "aria-hidden": true }, ...names, name("step", high - 6)), made);
  return number => {
    frame.setAttribute("x", wide * number + 1);
    const x = wide * number, seen = holder.clientWidth - left;
    if (x < holder.scrollLeft || x + wide > holder.scrollLeft + seen) holder.scrollLeft = x - seen / 2;
  };
}

return { stepper, columns, width };
})();
