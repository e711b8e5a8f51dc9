// The race: recorded answers grow at their recorded stamps. Nothing is fetched, and no number stands here.
(() => {
"use strict";
const holder = document.getElementById("races"), track = document.getElementById("track");
if (!holder || !track) return;
const { element, select } = explainer;
const RACES = JSON.parse(holder.textContent), PACES = { "as it was": 1, "4 times slower": 0.25, "10 times slower": 0.1, "4 times faster": 4 };
const still = matchMedia("(prefers-reduced-motion: reduce)");
const state = { race: 0, way: 0, at_s: 0, pace: 1, playing: false, last: 0 };
let lanes = [];

const way = () => RACES[state.race].ways[state.way];
const end_s = () => Math.max(0.001, ...way().lanes.flatMap(lane => lane.at_s));

// A lane keeps how many pieces it shows, so that a frame adds only what has come since the last one.
function laid(lane) {
  const text = element("span"), figures = element("span", { class: "figures" });
  const bar = element("span", { class: "bar", style: `background:${lane.colour}` });
  const box = element("li", {}, element("strong", {}, lane.label), figures, element("span", { class: "rail" }, bar), element("p", {}, text));
  return { lane, text, figures, bar, box, shown: 0 };
}

function update() {
  const whole = end_s();
  for (const one of lanes) {
    const { lane } = one;
    if (one.shown && lane.at_s[one.shown - 1] > state.at_s) { one.shown = 0; one.text.textContent = ""; }
    const from = one.shown;
    while (one.shown < lane.at_s.length && lane.at_s[one.shown] <= state.at_s) one.shown++;
    if (one.shown > from) one.text.append(lane.pieces.slice(from, one.shown).join(""));
    const done = one.shown === lane.at_s.length;
    one.bar.style.width = `${100 * (one.shown ? lane.at_s[one.shown - 1] : 0) / whole}%`;
    one.figures.textContent = done ? (lane.error || lane.figures) : one.shown ? "" : "reads the prompt";
  }
  document.getElementById("time").value = String(state.at_s);
  document.getElementById("clock").textContent = `${state.at_s.toFixed(2)} s of ${whole.toFixed(2)} s`;
}

function frame(now) {
  if (!state.playing) return;
  state.at_s = Math.min(end_s(), state.at_s + (now - state.last) / 1000 * state.pace);
  state.last = now;
  update();
  if (state.at_s >= end_s()) stop(); else requestAnimationFrame(frame);
}

function stop() { state.playing = false; document.getElementById("play").textContent = "Play"; }

function play() {
  if (state.playing) { stop(); return; }
  if (still.matches) { state.at_s = end_s(); update(); return; }
  if (state.at_s >= end_s()) state.at_s = 0;
  state.playing = true;
  state.last = performance.now();
  document.getElementById("play").textContent = "Pause";
  requestAnimationFrame(frame);
}

function choose(race, number) {
  stop();
  Object.assign(state, { race: Number(race), way: Number(number), at_s: 0 });
  lanes = way().lanes.map(laid);
  document.getElementById("prompt").textContent = way().prompt;
  document.getElementById("time").max = String(end_s());
  track.replaceChildren(...lanes.map(one => one.box));
  update();
}

const numbered = names => [...names.entries()];

function controls() {
  const button = element("button", { type: "button", id: "play" }, "Play");
  button.addEventListener("click", play);
  const time = element("input", { type: "range", id: "time", min: 0, step: "any", "aria-label": "Seconds since the request was sent" });
  time.addEventListener("input", () => { stop(); state.at_s = Number(time.value); update(); });
  document.getElementById("choices").replaceChildren(
    select("race", "Recorded", numbered(RACES.map(one => one.title)), value => choose(value, state.way)),
    select("way", "Race", numbered(RACES[0].ways.map(one => one.title)), value => choose(state.race, value)),
    select("pace", "Pace", numbered(Object.keys(PACES)), value => { state.pace = Object.values(PACES)[value]; }),
    element("div", { class: "play" }, button, time, element("span", { id: "clock" })));
}

document.getElementById("explainer").hidden = false;
controls();
choose(0, 0);
})();
