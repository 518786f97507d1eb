// The tokens explorer on a page: recorded walks at once, other texts and seeds by models in the browser.

import { button, element, labelled } from "./parts.js";
import { SavedSettings } from "./saved.js";
import { ticks } from "./training.js";
import { Tokenizer } from "./tokens_bpe.js";
import { Models, STEPS, WALKS } from "./tokens_model.js";

const DATA = window.ebwmTokens, PACE = 800, PAUSE = 400;  // ms for a step while playing; ms after the last key before a run
const MOST = 2000, MAX_SEED = 9999, ROWS = 10;  // characters of a text
const DEFAULT = { example: 2, text: "", steps: 2, walks: 4, seed: 0 };
const LIMITS = { example: [0, DATA?.examples.length ?? 0], steps: [0, STEPS], walks: [1, WALKS], seed: [0, MAX_SEED] };

/** Settings that are complete and in their ranges; throws an error of one line. */
export function checkedState(given) {
  if (given === null || typeof given !== "object" || Array.isArray(given)) throw new Error("settings: must be a JSON object");
  const state = { ...DEFAULT, ...given };
  for (const name of Object.keys(state)) {
    if (!(name in DEFAULT)) throw new Error(`${name}: unknown setting; must be one of ${Object.keys(DEFAULT).join(", ")}`);
  }
  for (const [name, [low, high]] of Object.entries(LIMITS)) {
    const ok = Number.isInteger(state[name]) && state[name] >= low && state[name] <= high;
    if (!ok) throw new Error(`${name}=${JSON.stringify(state[name])}: must be an integer from ${low} to ${high}`);
  }
  if (typeof state.text !== "string" || state.text.length > MOST) throw new Error(`text: must have at most ${MOST} characters`);
  if (state.example) state.text = "";
  return state;
}

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
const signed = (value, digits = 3) => value.toFixed(digits).replace("-", "−");

/** A range of integers, and its value beside it. */
function integerSlider(text, [low, high], onchange) {
  const output = element("span", { class: "ex-value", "aria-hidden": "true" });
  const input = element("input", { type: "range", min: low, max: high, step: 1, oninput: () => onchange(Number(input.value)) });
  return Object.assign(labelled(text, input, output), { set: (value, shown = value) => {
    input.value = value;
    output.textContent = shown;
    input.setAttribute("aria-valuetext", shown);
  } });
}

// Bars

/** The most likely tokens of a model, each a button that appends it to the text. */
class Bars {
  constructor(name, kind, onchoose) {
    this.head = element("h3", { class: "tk-name", textContent: name });
    this.facts = element("p", { class: "tk-facts" });
    this.rows = Array.from({ length: ROWS }, () => {
      const parts = ["tk-token", "tk-bar", "tk-share"].map((part) => element("span", { class: part }));
      const row = element("button", { type: "button", class: "tk-row" }, ...parts);
      row.onclick = () => onchoose(row.token);
      return Object.assign(row, { parts });
    });
    const list = element("ol", { class: "tk-rows" }, ...this.rows.map((row) => element("li", {}, row)));
    this.root = element("section", { class: `tk-model tk-${kind}`, "aria-label": name }, this.head, this.facts, list);
  }

  show(facts, likely, truth, labelOf, enabled) {
    this.facts.textContent = facts;
    this.rows.forEach((row, index) => {
      const [token, share] = likely[index], [label, bar, number] = row.parts, right = token === truth;
      Object.assign(row, { token, disabled: !enabled, title: enabled ? "Append this token to the context" : "" });
      label.textContent = labelOf(token) + (right ? " ✓" : "");
      bar.style.setProperty("--share", share);
      number.textContent = percent(share);
      row.classList.toggle("tk-right", right);
      row.setAttribute("aria-label", `${labelOf(token)}, ${percent(share)}${right ? ", the true next token" : ""}`);
    });
  }
}

// Energies

const SVG = "http://www.w3.org/2000/svg";

function drawn(tag, attributes, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

/** Energy by step of each walk, as SVG of the element's size. */
function drawWalks(svg, energies, chosen, steps) {
  const width = svg.clientWidth || 600, height = svg.clientHeight || 180, [left, right, top, bottom] = [52, 12, 10, 36];
  const all = energies.flat(), low = Math.min(...all), high = Math.max(...all), range = high - low || 1;
  const x = (step) => left + (step / STEPS) * (width - left - right);
  const y = (energy) => top + ((high - energy) / range) * (height - top - bottom);
  const path = (values) => values.map((value, step) => `${step ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const marks = [drawn("line", { x1: x(steps), x2: x(steps), y1: top, y2: height - bottom, class: "tk-now" })];
  for (const value of ticks([low, high], 4, false)) {
    marks.push(drawn("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "tk-grid" }),
      drawn("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(Number(value.toPrecision(3))).replace("-", "−")));
  }
  for (let step = 0; step <= STEPS; step++) marks.push(drawn("text", { x: x(step), y: height - bottom + 16, "text-anchor": "middle" }, step));
  marks.push(drawn("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, "step"));
  const order = [...energies.keys()].sort((a, b) => (a === chosen) - (b === chosen));  // the chosen one on top
  for (const walk of order) {
    const values = energies[walk], kind = walk === chosen ? " tk-chosen" : "";
    marks.push(drawn("path", { d: path(values), class: `tk-line tk-later${kind}` }),
      drawn("path", { d: path(values.slice(0, steps + 1)), class: `tk-line${kind}` }),
      drawn("circle", { cx: x(steps), cy: y(values[steps]), r: kind ? 5.5 : 3.5, class: `tk-dot${kind}` }));
  }
  svg.replaceChildren(...marks);
}

// The explorer

class TokensExplorer {
  constructor(root) {
    this.tokenizer = new Tokenizer(DATA.tokenizer, DATA.end);
    Object.assign(this, { root, runs: 0, playing: 0, folder: new URL(root.dataset.files ?? this.files(), location.href) });
    root.classList.add("explorer", "tk");
    root.tabIndex = -1;
    root.replaceChildren(...this.skeleton());
    this.saved.open(() => this.apply(DEFAULT));
    document.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  files() {
    return `${document.documentElement.dataset.content_root ?? ""}_static/explore/tokens/`;
  }

  /** Whether texts of one's own can be predicted. */
  get alive() {
    return DATA.bytes > 0 && location.protocol !== "file:";
  }

  skeleton() {
    this.sliders = {
      example: integerSlider("example, from easy to hard", [1, DATA.examples.length], (example) => this.change({ example })),
      steps: integerSlider("steps", [0, STEPS], (steps) => this.stopAt(steps)),
      walks: integerSlider("walks, best of N", [1, WALKS], (walks) => this.change({ walks })),
    };
    this.text = element("textarea", { rows: 3, maxLength: MOST, spellcheck: false, readOnly: !this.alive,
      oninput: () => this.typed() });
    this.seed = element("input", { type: "number", min: 0, max: MAX_SEED, step: 1, disabled: !this.alive,
      onchange: () => this.change({ seed: Number(this.seed.value) }) });
    this.playButton = button("▶ Play", "Play or pause the steps", () => this.play(!this.playing));
    this.playButton.classList.add("ex-play");
    this.note = element("p", { class: "tk-note", role: "status" });
    this.status = element("p", { class: "ex-message", role: "alert" });
    this.saved = new SavedSettings("tokens", (given) => this.apply(checkedState(given)), (line) => { this.status.textContent = line; });
    this.ebt = new Bars("EBT", "ebt", (token) => this.append(token));
    this.transformer = new Bars("Transformer", "transformer", (token) => this.append(token));
    this.svg = drawn("svg", { class: "tk-energies", role: "img" });
    const box = labelled("context", this.text);
    box.classList.add("tk-context");
    return [this.sliders.example, box, element("div", { class: "ex-bar" },
      element("div", { class: "ex-buttons" }, this.playButton), this.sliders.steps, this.sliders.walks, labelled("seed of the starts", this.seed)),
    this.note, this.status, element("div", { class: "tk-models" }, this.ebt.root, this.transformer.root),
    element("p", { class: "ex-title", textContent: "Energy of each walk by step" }), this.svg, this.saved.root, this.keys()];
  }

  keys() {
    const key = (name) => element("kbd", {}, name);
    return element("p", { class: "ex-keys" }, key("Space"), " play or pause · ", key("←"), " ", key("→"),
      " one step · a click on a token appends it to the context");
  }

  // Settings

  change(changes) {
    try {
      this.apply(checkedState({ ...this.state, ...changes }));
    } catch (error) {
      this.status.textContent = error.message;
    }
  }

  apply(state) {
    this.state = state;
    const { example, text, seed } = state, shown = example ? DATA.examples[example - 1].text : text;
    for (const [name, slider] of Object.entries(this.sliders)) slider.set(state[name]);
    if (!example) this.sliders.example.set(1, "own");
    this.sliders.example.classList.toggle("tk-unused", !example);
    if (this.text.value !== shown) this.text.value = shown;
    if (Number(this.seed.value) !== seed || !this.seed.value) this.seed.value = seed;
    this.saved.show(state);
    this.status.textContent = "";
    clearTimeout(this.typing);
    const key = JSON.stringify([shown, seed]);
    this.wantedKey = key;
    if (key === this.shownKey) return void this.draw();
    const recorded = DATA.examples.find((one) => one.text === shown);
    if (recorded && seed === 0) this.show(key, recorded, recorded.truth, "Recorded with PyTorch when this site was built.");
    else this.compute(key, shown, seed, recorded?.truth);
  }

  typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.change({ example: 0, text: this.text.value }), PAUSE);
  }

  append(token) {
    this.change({ example: 0, text: this.text.value + this.tokenizer.decode([token]) });
  }

  // Walks

  /** Predict by the models in the browser; a newer request replaces this one. */
  async compute(key, text, seed, truth) {
    const say = (words) => { this.note.textContent = words; };
    if (!this.alive) {
      const remedy = DATA.bytes ? "open it from a web server: python -m http.server" : "build it with npm and ebwm[onnx]";
      this.status.textContent = `This site cannot run the models; ${remedy}. Examples with seed 0 are recorded.`;
      return;
    }
    try {
      if (!this.models) say(`Loading the models, ${(DATA.bytes / 1e6).toFixed(0)} MB, once …`);
      this.models ??= Models.load(this.folder, DATA.stepSize);
      const models = await this.models, numbers = [DATA.end, ...this.tokenizer.encode(text)];
      this.queue = (this.queue ?? Promise.resolve()).then(async () => {
        if (key !== this.wantedKey) return;
        const began = performance.now(), found = await models.predict(numbers.slice(-DATA.window), seed);
        const dropped = Math.max(numbers.length - DATA.window, 0), time = `${(performance.now() - began).toFixed(0)} ms`;
        const seen = dropped ? `the last ${DATA.window} of ${numbers.length - 1} tokens` : `${numbers.length - 1} tokens`;
        if (key === this.wantedKey) this.show(key, found, truth, `Computed in this browser from ${seen} in ${time}.`);
      });
      await this.queue;
    } catch (error) {
      this.queue = undefined;
      this.models = undefined;
      say("");
      this.status.textContent = `The models cannot run here (${String(error.message ?? error).split("\n")[0].slice(0, 120)}); the last result stays.`;
    }
  }

  show(key, result, truth, note) {
    Object.assign(this, { shownKey: key, result, truth });
    this.note.textContent = note;
    this.draw();
  }

  draw() {
    if (!this.result) return;
    const { result, truth, state: { steps, walks } } = this, energies = result.energies.slice(0, walks);
    const last = energies.map((values) => values[steps]), chosen = last.indexOf(Math.min(...last));
    const labelOf = (token) => this.tokenizer.label(token), bits = (value) => `entropy ${value.toFixed(2)} bits`;
    const which = walks > 1 ? `walk ${chosen + 1} of ${walks}, ` : "";
    this.ebt.show(`step ${steps}: ${which}energy ${signed(last[chosen])}, ${bits(result.entropies[chosen][steps])}`,
      result.likely[chosen][steps], truth, labelOf, this.alive);
    this.transformer.show(`one pass: ${bits(result.transformer.entropy)}`, result.transformer.likely, truth, labelOf, this.alive);
    drawWalks(this.svg, energies, chosen, steps);
    this.svg.setAttribute("aria-label", `Energy by step; the lowest after ${steps} steps is ${signed(last[chosen])}`);
  }

  // Play and keys

  play(playing) {
    clearInterval(this.playing);
    this.playing = 0;
    this.playButton.textContent = playing ? "❚❚ Pause" : "▶ Play";
    this.playButton.setAttribute("aria-pressed", String(playing));
    if (!playing) return;
    if (this.state.steps >= STEPS) this.change({ steps: 0 });
    this.playing = setInterval(() => {
      this.change({ steps: Math.min(this.state.steps + 1, STEPS) });
      if (this.state.steps >= STEPS) this.play(false);
    }, PACE);
  }

  stopAt(steps) {
    this.play(false);
    this.change({ steps: Math.min(Math.max(steps, 0), STEPS) });
  }

  key(event) {
    const { target } = event, typing = target.tagName === "TEXTAREA" || /^(number|range)$/.test(target.type);
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    if (target !== document.body && !this.root.contains(target)) return;
    const actions = { " ": () => this.play(!this.playing), ArrowRight: () => this.stopAt(this.state.steps + 1),
      ArrowLeft: () => this.stopAt(this.state.steps - 1) };
    if (!(event.key in actions) || (event.key === " " && /^(BUTTON|SUMMARY)$/.test(target.tagName))) return;
    event.preventDefault();
    actions[event.key]();
  }
}

for (const root of document.querySelectorAll("[data-explorer=tokens]")) {
  if (DATA) new TokensExplorer(root);
  else root.textContent = "tokens_data.js is missing: build the site with python docs/build.py sphinx.";
}
