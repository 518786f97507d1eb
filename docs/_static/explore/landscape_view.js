// The landscape explorer on a page: controls, panels, and settings in the address.

import {
  ENERGIES, MAX_WALKS, RANGES, SAMPLERS, THERMAL, advance, checkedSettings, startedWalk, variation,
} from "./landscape.js";
import {
  PALETTES, drawEnergies, drawPanel, drawScale, energyGrid, expectedShares, panelLayout,
} from "./landscape_draw.js";
import { PRESETS } from "./landscape_presets.js";
import {
  Clock, button, checkbox, choice, element, holdTouches, labelled, number, onTheme, pageTheme, slider, still,
} from "./parts.js";
import { SavedSettings } from "./saved.js";

// Up to this speed arrows are shown; so many steps are repeated after a change; milliseconds for the steps of a frame
const SLOW = 12, REPLAYED = 300, BUDGET = 25;

const TIP = 'M1 8H21M15 3L21 8L15 13';
const MARKS = {  // shapes of the legend in a box of 24 by 16
  start: '<circle cx="12" cy="8" r="6" class="ex-ink"/>',
  known: '<path d="M12 1l2 5h5l-4 3.2 1.6 5.3L12 11.4l-4.6 3.1L9 9.2 5 6h5z" class="ex-ink"/>',
  gradient: `<path d="${TIP}" class="ex-ink"/>`,
  noise: `<path d="${TIP}" class="ex-case"/><path d="${TIP}" class="ex-noise"/>`,
  proposal: '<path d="M0 8H12" class="ex-ink" stroke-dasharray="3 3"/><circle cx="18" cy="8" r="5" class="ex-ink"/>',
  rejected: '<path d="M7 3L17 13M7 13L17 3" class="ex-ink"/>',
};

/** A shape of the legend. */
function markOf(kind) {
  const shape = document.createElement("template");
  shape.innerHTML = `<svg viewBox="0 0 24 16" aria-hidden="true">${MARKS[kind]}</svg>`;
  return shape.content;
}

// The explorer

class Explorer {
  constructor(root) {
    Object.assign(this, { root, lesson: "", due: 0, part: 1, arrows: true, message: "" });
    root.classList.add("explorer");
    root.tabIndex = -1;
    root.replaceChildren(...this.skeleton());
    this.clock = new Clock(root, (seconds) => this.tick(seconds));
    this.saved.open(() => this.choosePreset(PRESETS[0]));
    this.listen();
    if (!still()) this.play(true);
  }

  skeleton() {
    this.presets = element("div", { class: "ex-presets", role: "group", "aria-label": "Examples" },
      ...PRESETS.map((preset) => element("button", { type: "button", textContent: preset.name,
        onclick: () => this.choosePreset(preset) })));
    this.lessonLine = element("p", { class: "ex-lesson" });
    this.bar = element("div", { class: "ex-bar" });
    this.legend = element("div", { class: "ex-legend" });
    this.panels = element("div", { class: "ex-panels" });
    this.status = element("p", { class: "ex-message", role: "status" });
    this.saved = new SavedSettings("landscape", (given) => this.restore(given), (line) => {
      this.say(line);
      this.status.scrollIntoView({ block: "nearest" });
    }, 3);
    const label = "Energy of each walk by step";
    this.energies = element("canvas", { class: "ex-energies", role: "img", "aria-label": label });
    return [this.presets, this.lessonLine, this.bar, this.legend, this.status, this.panels,
      element("p", { class: "ex-title", textContent: "Energy by step" }), this.energies, this.saved.root, this.keys()];
  }

  keys() {
    const key = (name) => element("kbd", {}, name);
    return element("p", { class: "ex-keys" }, key("Space"), " play or pause · ", key("→"), " one step · ", key("R"),
      " start again · click or drag on a map to move the start");
  }

  // Settings

  choosePreset(preset) {
    this.lesson = preset.name;
    this.apply(checkedSettings({ seed: this.settings?.seed ?? 0, ...preset.settings }));
    if (!still()) this.play(true);
  }

  /** Show new settings; `replay`: walk again to the same step. */
  apply(settings, replay = false) {
    const steps = replay ? Math.min(this.walks[0].steps, REPLAYED) : 0;
    this.settings = settings;
    this.begin(steps);
    const selects = () => [...this.root.querySelectorAll("select")], focused = selects().indexOf(document.activeElement);
    this.build();
    selects()[focused]?.focus();  // the new one instead of the one that was replaced
    this.saved.show(this.settings);
  }

  /** Change some settings of all walks, and keep the controls as they are. */
  change(changes) {
    this.settings = { ...this.settings, ...changes };
    this.begin(Math.min(this.walks[0].steps, REPLAYED));
    this.saved.show(this.settings);
  }

  changeWalk(index, changes, rebuild = false) {
    const linked = this.settings.linked && !rebuild;
    const walks = this.settings.walks.map((walk, i) => (i === index || linked ? { ...walk, ...changes } : walk));
    if (rebuild) this.apply({ ...this.settings, walks }, true);
    else this.change({ walks });
    for (const [name, value] of Object.entries(linked ? changes : {})) {
      this.root.querySelectorAll(`[data-name="${name}"]`).forEach((field) => field.show(value));
    }
  }

  restore(given) {
    const settings = checkedSettings(given);
    this.lesson = "";
    this.apply(settings);
  }

  say(text) {
    this.message = text;
    this.status.textContent = text;
  }

  // Walks

  begin(steps = 0) {
    Object.assign(this, { due: 0, part: 1 });
    this.say("");
    this.walks = this.settings.walks.map((_, index) => startedWalk(this.settings, index));
    for (let i = 0; i < steps; i++) this.walks.forEach(advance);
    this.clock.wake();
  }

  play(playing) {
    this.clock.playing = playing;
    this.playButton.textContent = playing ? "❚❚ Pause" : "▶ Play";
    this.playButton.setAttribute("aria-pressed", String(playing));
    if (!playing) this.part = 1;
    this.clock.wake();
  }

  step() {
    if (this.clock.playing) this.play(false);
    this.walks.forEach(advance);
    this.part = still() ? 1 : 0;
    this.clock.wake();
  }

  /** Take the steps that are due, and draw; whether there is more to animate. */
  tick(seconds) {
    const { clock, settings: { speed } } = this;
    if (clock.playing) {
      const smooth = speed <= SLOW && !still(), end = performance.now() + BUDGET;
      this.due = this.walks[0].steps ? this.due + seconds * speed : 1;
      for (; this.due >= 1 && performance.now() < end; this.due -= 1) this.walks.forEach(advance);
      this.due = Math.min(this.due, 1);
      this.part = smooth ? Math.min(this.due, 1) : 1;
    } else if (this.part < 1) this.part = Math.min(this.part + seconds * 1.6, 1);
    this.draw();
    return clock.playing || this.part < 1;
  }

  // Drawing

  draw() {
    const theme = pageTheme(), palette = PALETTES[theme], slow = this.settings.speed <= SLOW, { part } = this;
    const fading = this.clock.playing ? Math.min(2 - 2 * part, 1) : 1;
    this.walks.forEach((walk, index) => {
      const thermal = THERMAL.includes(walk.settings.sampler);
      const expected = thermal ? expectedShares(walk, this.settings.energy) : null;
      const arrows = this.arrows && (slow || !this.clock.playing) ? (still() ? 1 : fading) : 0;
      drawPanel(this.canvases[index], walk, { theme, colour: palette.walks[index], part, arrows, expected,
        start: [this.settings.x, this.settings.y] });
      this.facts[index].textContent = factsOf(walk, expected);
    });
    drawEnergies(this.energies, this.walks, { theme, colours: palette.walks });
    drawScale(this.scale, theme);
    const lost = this.walks.findIndex((walk) => walk.diverged);
    if (lost >= 0 && !this.message) {
      const { sampler, step_size } = this.walks[lost].settings;
      this.say(`step_size=${step_size}: ${sampler} diverged at step ${this.walks[lost].steps}; lower the step size`);
    }
  }

  // Controls

  build() {
    this.buildBar();
    this.buildLegend();
    for (const one of this.presets.children) one.setAttribute("aria-pressed", String(one.textContent === this.lesson));
    const preset = PRESETS.find(({ name }) => name === this.lesson);
    this.lessonLine.textContent = preset?.lesson ?? ENERGIES[this.settings.energy].note;
    this.canvases = [];
    this.facts = [];
    this.panels.replaceChildren(...this.settings.walks.map((walk, index) => this.panel(walk, index)));
    this.panels.dataset.count = this.settings.walks.length;
    this.clock.wake();
  }

  buildBar() {
    const { settings } = this, full = settings.walks.length >= MAX_WALKS;
    this.playButton = button("", "Play or pause", () => this.play(!this.clock.playing));
    this.playButton.classList.add("ex-play");
    const add = button("+ Sampler", "Add a sampler", () => {
      this.lesson = "";
      this.apply({ ...this.settings, walks: [...this.settings.walks, { ...this.settings.walks.at(-1) }] }, true);
    });
    add.disabled = full;
    const start = (axis) => number(`start ${axis}`, settings[axis], 0.1, (value) => this.moveStart({ [axis]: value }));
    this.bar.replaceChildren(
      element("div", { class: "ex-buttons" }, this.playButton, button("Step", "One step", () => this.step()),
        button("Reset", "Start again", () => this.begin()), add, element("div", { class: "ex-checks" },
          checkbox("same settings for all", settings.linked, (linked) => this.change({ linked })),
          checkbox("arrows", this.arrows, (arrows) => {
            this.arrows = arrows;
            this.clock.wake();
          }))),
      slider("speed (steps/s)", [1, 1000], settings.speed, (speed) => {
        this.settings = { ...this.settings, speed };
        this.saved.show(this.settings);
        this.clock.wake();
      }),
      labelled("energy", choice(Object.keys(ENERGIES), settings.energy, (energy) => {
        const [x, y] = ENERGIES[energy].start;
        this.lesson = "";
        this.apply({ ...this.settings, energy, x, y });
      })),
      start("x"), start("y"),
      number("seed", settings.seed, 1, (seed) => this.tryChange({ seed })));
    this.starts = [...this.bar.querySelectorAll("input[type=number]")];
    this.play(this.clock.playing);
  }

  tryChange(changes) {
    try {
      checkedSettings({ ...this.settings, ...changes });
    } catch (error) {
      this.say(error.message);
      return;
    }
    this.change(changes);
  }

  buildLegend() {
    const { low, high } = energyGrid(ENERGIES[this.settings.energy]), known = ENERGIES[this.settings.energy].knownName;
    const shown = (value) => value.toFixed(1).replace(/\.0$/, "").replace("-", "−");
    const entry = (kind, text) => element("span", { class: "ex-entry" }, markOf(kind), text);
    this.scale = element("canvas", { class: "ex-scale", role: "img", "aria-label": "Colour scale of the energy" });
    this.legend.replaceChildren(
      element("span", { class: "ex-entry" }, `energy ${shown(low)}`, this.scale, `${shown(high)} or more`),
      entry("start", "start"), entry("known", known), entry("gradient", "gradient"), entry("noise", "noise, momentum"),
      entry("proposal", "proposal"), entry("rejected", "rejected"));
  }

  panel(walk, index) {
    const colour = PALETTES[pageTheme()].walks[index], thermal = THERMAL.includes(walk.sampler);
    const canvas = element("canvas", { role: "img", "aria-label": `Walk of ${walk.sampler} on the energy` });
    const facts = element("figcaption", { class: "ex-facts" });
    const change = (name) => (value) => this.changeWalk(index, { [name]: value });
    const own = thermal ? "temperature" : "noise", remove = button("×", `Remove ${walk.sampler}`, () => {
      this.lesson = "";
      this.apply({ ...this.settings, walks: this.settings.walks.filter((_, i) => i !== index) }, true);
    });
    const sampler = choice(Object.keys(SAMPLERS), walk.sampler,
      (name) => this.changeWalk(index, { sampler: name }, true));
    sampler.setAttribute("aria-label", `Sampler ${index + 1}`);
    const fields = [slider("step size", RANGES.step_size, walk.step_size, change("step_size")),
      slider(own, RANGES[own], walk[own], change(own))];
    fields.forEach((field, i) => field.setAttribute("data-name", ["step_size", own][i]));
    this.canvases.push(canvas);
    this.facts.push(facts);
    this.pointer(canvas);
    const swatch = element("i", { class: "ex-swatch" });
    swatch.style.background = colour;
    return element("figure", { class: "ex-panel" },
      element("div", { class: "ex-head" }, swatch, sampler, ...(this.settings.walks.length > 1 ? [remove] : [])),
      canvas, facts, element("div", { class: "ex-own" }, ...fields));
  }

  // Pointer, keyboard, theme

  moveStart(place) {
    const round = (value) => Number(value.toFixed(3));
    const kept = Object.fromEntries(Object.entries(place).map(([axis, value]) => [axis, round(value)]));
    this.tryChange(kept);
    ["x", "y"].forEach((axis, i) => { this.starts[i].value = this.settings[axis]; });
  }

  pointer(canvas) {
    const energy = ENERGIES[this.settings.energy];
    const offset = ({ clientX, clientY }) => {
      const { left, top } = canvas.getBoundingClientRect();
      return [clientX - left, clientY - top];
    };
    const inside = (event) => {
      const { left, top, side } = panelLayout(canvas, energy), [px, py] = offset(event);
      return px >= left && px <= left + side && py >= top && py <= top + side;
    };
    const move = (event) => {
      const [x, y] = panelLayout(canvas, energy).point(...offset(event));
      if (inside(event)) this.moveStart({ x, y });
    };
    const near = (touch) => {
      const [px, py] = panelLayout(canvas, energy).pixel([this.settings.x, this.settings.y]), [x, y] = offset(touch);
      return Math.hypot(px - x, py - y) < 28;
    };
    let dragging = false;
    canvas.addEventListener("pointerdown", (event) => {
      dragging = event.pointerType === "mouse" || near(event);
      if (dragging && inside(event)) canvas.setPointerCapture(event.pointerId);
      if (dragging) move(event);
    });
    canvas.addEventListener("pointermove", (event) => { if (dragging && event.buttons) move(event); });
    canvas.addEventListener("pointerup", () => { dragging = false; });
    canvas.addEventListener("click", (event) => { if (event.pointerType !== "mouse") move(event); });
    holdTouches(canvas, near);
  }

  key(event) {
    const { target } = event, typing = /^(TEXTAREA|SELECT)$/.test(target.tagName) || target.type === "number";
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    if (target !== document.body && !this.root.contains(target)) return;
    const pressable = /^(BUTTON|SUMMARY)$/.test(target.tagName) || target.type === "checkbox";
    const actions = { " ": () => this.play(!this.clock.playing), ArrowRight: () => this.step(), r: () => this.begin() };
    if (!(event.key in actions) || (event.key === " " && pressable)) return;
    if (event.key === "ArrowRight" && target.type === "range") return;
    event.preventDefault();
    actions[event.key]();
  }

  listen() {
    document.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.clock.wake()).observe(this.root);
    onTheme(() => {
      const { walks } = PALETTES[pageTheme()];
      this.root.querySelectorAll(".ex-swatch").forEach((one, index) => { one.style.background = walks[index]; });
      this.clock.wake();
    });
  }
}

function shortNumber(value) {
  return (Math.abs(value) < 1000 ? value.toFixed(2) : value.toExponential(1)).replace("-", "−");
}

/** One line about a walk. */
function factsOf(walk, expected) {
  const parts = [`step ${walk.steps}`, walk.diverged ? "diverged" : `energy ${shortNumber(walk.value)}`];
  const rejects = /guarded|MALA|HMC/.test(walk.settings.sampler);
  if (walk.steps && rejects) parts.push(`accepted ${Math.round((100 * walk.accepted) / walk.steps)} %`);
  if (walk.steps && expected) parts.push(`total variation ${variation(walk, expected).toFixed(2)}`);
  return parts.join(" · ");
}

for (const root of document.querySelectorAll("[data-explorer=landscape]")) new Explorer(root);
