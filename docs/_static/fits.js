// Does it fit? Multiplies and compares what the page holds as JSON; the arithmetic of helpers/weights/capacity.py.
(() => {
"use strict";
const holder = document.getElementById("models-known"), form = document.getElementById("choices");
if (!holder || !form) return;
const { element, select } = explainer;
const DATA = JSON.parse(holder.textContent), GIB = 2 ** 30;

const cache_bytes = (cache, tokens) =>
  cache.bytes_per_layer * (cache.full * tokens + cache.windowed * Math.min(tokens, cache.window)) + cache.state_bytes;

// The answer in numbers: bytes, whether they fit, and how many users would.
function fit(name, dtype, kv_dtype, memory_gib, users, context) {
  const model = DATA.models.find(one => one.name === name), weights = model.weights_bytes[dtype];
  const usable = Math.trunc(memory_gib * GIB * DATA.usable), each = cache_bytes(model.cache[kv_dtype], context);
  return {
    weights_bytes: weights, kv_bytes: users * each, usable_bytes: usable, fits: weights + users * each <= usable,
    most_users: Math.floor(Math.max(0, usable - weights) / each),
  };
}
globalThis.fit = fit;

const gib = bytes => `${(bytes / GIB).toLocaleString("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 })} GiB`;
const value = id => document.getElementById(id).value;

function bar(found) {
  const whole = Math.max(found.usable_bytes, found.weights_bytes + found.kv_bytes), share = bytes => `${100 * bytes / whole}%`;
  const parts = [["weights", found.weights_bytes], ["cache", found.kv_bytes]];
  const drawn = parts.map(([name, bytes]) => element("span", { class: name, style: `width:${share(bytes)}` }));
  const limit = element("span", { class: "limit", style: `left:${share(found.usable_bytes)}` });
  return element("div", { class: "memory", "aria-hidden": "true" }, ...drawn, limit);
}

function show() {
  const numbers = ["memory", "users", "context"].map(id => Number(value(id)));
  const said = document.getElementById("answer");
  if (!numbers.every(number => number > 0)) { said.replaceChildren(element("p", {}, "Memory, users and tokens are numbers above 0.")); return; }
  const found = fit(value("model"), value("dtype"), value("kv"), ...numbers), known = DATA.models.find(one => one.name === value("model")).context;
  const most = found.most_users.toLocaleString("en");
  said.replaceChildren(
    element("p", {}, element("strong", {}, found.fits ? "It fits." : "It does not fit.")),
    bar(found),
    element("p", {}, element("span", { class: "swatch weights" }), ` Weights ${gib(found.weights_bytes)} and `,
      element("span", { class: "swatch cache" }), ` KV cache ${gib(found.kv_bytes)}, of ${gib(found.usable_bytes)} that are kept for them. ` +
      `At most ${most} such users fit.` + (numbers[2] > known ? ` This model knows ${known.toLocaleString("en")} tokens.` : "")));
}

const number = (id, label, start) => element("label", { for: id }, label, element("input", { id, type: "number", min: 0, step: "any", value: start }));

document.getElementById("explainer").hidden = false;
form.replaceChildren(
  select("model", "Model", DATA.models.map(one => [one.name, one.name])),
  select("dtype", "Weights", Object.entries(DATA.types)), select("kv", "KV cache", Object.entries(DATA.kv_types)),
  number("memory", "Memory, GiB", 80), number("users", "Users at once", 100), number("context", "Tokens of each, prompt and answer", 4096));
document.getElementById("model").value = "Llama-3.1-8B";
form.addEventListener("input", show);
show();
})();
