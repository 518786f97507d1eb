// Page of the training explorer: recorded runs, replayed update by update.
import { element, choice, button, checkbox, labelled, Clock, onTheme, pageTheme, still } from "./parts.js";
import { SavedSettings } from "./saved.js";
import { RUNS } from "./training_data.js";
import { checkedView, indexAt, rangeOf, smoothed, ticks } from "./training.js";

const COLOURS = {  // Okabe and Ito, as in the figures
  light: ["#0072b2", "#d55e00", "#009e73", "#b5588f", "#6b7280", "#111827"],
  dark: ["#56b4e9", "#f08a3c", "#2fc79a", "#dd9bc0", "#9ca3af", "#f9fafb"],
};
const LAST = Math.max(...RUNS.flatMap((run) => run.curves.loss[0]));
const QUANTITIES = [...new Set(RUNS.flatMap((run) => Object.keys(run.curves)))];
const KNOWN = { runs: RUNS.map((run) => run.name), quantities: QUANTITIES, last: LAST };
const FIRST = ["loss", "energy gap", "inner gradient norm", "step size"];
const SPEED = 40;  // updates per second
const PRESETS = {
  "A step too small": { runs: ["step size 0.03", "step size auto"], log: true,
    lesson: "With a step size of 0.03 the walks hardly leave the noise. Training has to make the energy steep first: watch the gradient." },
  "A step too large": { runs: ["step size auto", "step size 300"], log: true,
    lesson: "With a step size of 300 the walks overshoot: the loss starts high, and falls as training makes the energy flatter." },
  "All step sizes": { runs: KNOWN.runs.slice(0, 5), log: true,
    lesson: "Five step sizes of one model. The step size is learned too, but slowly: mostly the gradients adapt to it." },
  "Beside a Transformer": { runs: ["step size auto", "Transformer"],
    lesson: "A Transformer of the same size predicts the next frame in one pass; it has no energy and no step size." },
};
const SIZE = { width: 420, height: 250, left: 52, right: 18, top: 8, bottom: 44 };

/** Settings of a preset, as those of a page. */
function chosenBy(name) {
  const { runs, log = false } = PRESETS[name];
  return { runs: [...runs], log };
}

class TrainingPage {
  constructor(root) {
    this.root = root;
    root.classList.add("explorer");
    this.clock = new Clock(root, (seconds) => this.frame(seconds));
    this.saved = new SavedSettings("training", (given) => this.restore(given), (line) => {
      this.play(false);
      this.message.textContent = line;
    }, 3);
    this.build();
    this.saved.open(() => this.start({ quantities: [...FIRST], smoothing: 0.5, ...chosenBy("A step too small") }));
    onTheme(() => this.draw());
  }

  /** Show settings, checked. */
  apply(settings) {
    this.settings = checkedView(settings, KNOWN);
    this.place = this.settings.update;
    this.draw();
    this.saved.show(this.settings);
  }

  restore(given) {
    this.apply(given);
    this.play(false);
  }

  /** Replay with changed settings, or show the end if motion is reduced. */
  start(changes) {
    this.apply({ ...this.settings, ...changes, update: still() ? LAST : 0 });
    this.play(!still());
  }

  // Controls

  build() {
    const range = (text, properties) => {
      const input = element("input", { type: "range", ...properties }), value = element("span", { class: "ex-value" });
      return { input, value, field: labelled(text, input, value) };
    };
    const presets = Object.keys(PRESETS).map((name) => button(name, name, () => this.start(chosenBy(name))));
    this.presets = element("div", { class: "ex-presets" }, ...presets);
    this.lessonLine = element("p", { class: "ex-lesson" });
    this.update = range("update", { min: 0, max: LAST, step: 1, oninput: () => {
      this.play(false);
      this.change({ update: Number(this.update.input.value) });
    } });
    this.smoothing = range("smoothing", { min: 0, max: 0.99, step: 0.01,
      oninput: () => this.change({ smoothing: Number(this.smoothing.input.value) }) });
    this.log = checkbox("logarithmic", false, (log) => this.change({ log }));
    this.playButton = button("Play", "Play or pause", () => this.play(!this.clock.playing));
    this.playButton.classList.add("ex-play");
    this.runs = RUNS.map((run) => this.runBox(run.name));
    const choices = element("fieldset", { class: "ex-checks ex-runs" }, element("legend", {}, "runs"), ...this.runs);
    const buttons = element("div", { class: "ex-buttons" }, this.playButton, this.log);
    this.panels = FIRST.map((_, index) => this.panel(index));
    this.message = element("p", { class: "ex-message", role: "status" });
    this.root.replaceChildren(this.presets, this.lessonLine,
      element("div", { class: "ex-bar" }, buttons, this.update.field, this.smoothing.field), choices, this.message,
      element("div", { class: "ex-panels" }, ...this.panels.map((panel) => panel.figure)), this.saved.root);
  }

  runBox(name) {
    const swatch = element("i", { class: "ex-swatch" });
    const box = checkbox(name, false, (checked) => {
      const wanted = (one) => (one === name ? checked : this.settings.runs.includes(one));
      this.change({ runs: KNOWN.runs.filter(wanted) });
    });
    box.firstChild.after(" ", swatch);
    return box;
  }

  panel(index) {
    const select = choice(QUANTITIES, FIRST[index], (name) => {
      this.change({ quantities: this.settings.quantities.map((old, i) => (i === index ? name : old)) });
    });
    select.setAttribute("aria-label", `Quantity ${index + 1}`);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${SIZE.width} ${SIZE.height}`);
    svg.setAttribute("role", "img");
    const figure = element("figure", { class: "ex-panel" }, element("div", { class: "ex-head" }, select), svg);
    return { select, svg, figure };
  }

  change(changes) { this.apply({ ...this.settings, ...changes }); }

  play(playing) {
    if (playing && this.settings.update >= LAST) this.change({ update: 0 });
    this.clock.playing = playing;
    this.playButton.textContent = playing ? "Pause" : "Play";
    if (playing) this.clock.wake();
  }

  frame(seconds) {
    if (!this.clock.playing) return false;
    this.place = Math.min(this.place + SPEED * seconds, LAST);
    this.settings.update = Math.floor(this.place);
    this.draw();
    this.saved.show(this.settings);
    if (this.place >= LAST) this.play(false);
    return this.clock.playing;
  }

  // Drawing

  draw() {
    const { update, smoothing, log, runs, quantities } = this.settings, colours = COLOURS[pageTheme()];
    const preset = Object.keys(PRESETS).find((name) => String(PRESETS[name].runs) === String(runs));
    this.lessonLine.textContent = PRESETS[preset]?.lesson ?? "";
    for (const one of this.presets.children) one.setAttribute("aria-pressed", String(one.title === preset));
    Object.assign(this.update.input, { value: update });
    Object.assign(this.smoothing.input, { value: smoothing });
    this.update.value.textContent = update;
    this.smoothing.value.textContent = smoothing;
    this.log.firstChild.checked = log;
    this.runs.forEach((box, index) => {
      box.firstChild.checked = runs.includes(RUNS[index].name);
      box.querySelector("i").style.background = colours[index];
    });
    this.panels.forEach((panel, index) => {
      panel.select.value = quantities[index];
      panel.svg.innerHTML = picture(quantities[index], this.settings, colours);
      panel.svg.setAttribute("aria-label", `${quantities[index]} by update: ${valuesAt(quantities[index], this.settings)}`);
    });
    this.message.textContent = faultAt(runs, update);
  }
}

const chosen = ({ runs }, quantity) => RUNS.map((run, index) => ({ run, index }))
  .filter(({ run }) => runs.includes(run.name) && quantity in run.curves);

function short(value) {
  const size = Math.abs(value);
  return (size && (size < 1e-3 || size >= 1e5) ? value.toExponential(0) : String(Number(value.toPrecision(3)))).replace("-", "−");
}

function valuesAt(quantity, settings) {
  return chosen(settings, quantity).map(({ run }) => {
    const [updates, values] = run.curves[quantity], index = indexAt(updates, settings.update);
    return index < 0 ? `${run.name} none` : `${run.name} ${short(values[index])}`;
  }).join(", ") || "no run has it";
}

/** The last fault until an update. */
function faultAt(names, update) {
  const faults = RUNS.filter((run) => names.includes(run.name))
    .flatMap((run) => run.faults.filter(([when]) => when <= update).map(([when, what]) => [when, `${run.name}, update ${when}: ${what}`]));
  return faults.sort((one, other) => one[0] - other[0]).at(-1)?.[1] ?? "";
}

/** The curves of a quantity as SVG: the part after the shown update is faint. */
function picture(quantity, { update, smoothing, log, runs }, colours) {
  const { width, height, left, right, top, bottom } = SIZE, shown = chosen({ runs }, quantity);
  const middle = (text) => `<text x="${width / 2}" y="${height / 2}" text-anchor="middle" fill="currentColor">${text}</text>`;
  if (!shown.length) return middle(runs.length ? "no chosen run logs it" : "choose a run");
  const scale = (value) => (log ? Math.log10(value) : value), allowed = (value) => value !== null && (!log || value > 0);
  const lines = shown.map(({ run, index }) => ({
    index, valid: quantity === "loss" ? run.valid : [[], []], updates: run.curves[quantity][0],
    raw: run.curves[quantity][1], smooth: smoothed(run.curves[quantity][1], smoothing) }));
  const range = rangeOf(lines.flatMap(({ raw, valid }) => [...raw, ...valid[1]]).filter(allowed).map(scale));
  const x = (at) => left + (at / LAST) * (width - left - right);
  const y = (value) => top + ((range[1] - scale(value)) / (range[1] - range[0])) * (height - top - bottom);
  const path = (updates, values, keep) => {
    let pen = "M";
    return updates.map((at, i) => {
      if (!keep(at) || !allowed(values[i])) return "";
      const part = `${pen}${x(at).toFixed(1)} ${y(values[i]).toFixed(1)}`;
      pen = "L";
      return part;
    }).join("");
  };
  const line = (d, colour, more) => `<path d="${d}" fill="none" stroke="${colour}" ${more}/>`;
  const curve = ({ index, updates, raw, smooth, valid }) => {
    const colour = colours[index], past = (at) => at <= update;
    const marks = valid[0].map((at, i) => past(at)
      ? `<rect x="-3.2" y="-3.2" width="6.4" height="6.4" fill="${colour}" transform="translate(${x(at)} ${y(valid[1][i])}) rotate(45)"/>` : "");
    return line(path(updates, smooth, () => true), colour, 'stroke-width="1.2" opacity="0.25"') +
      (smoothing ? line(path(updates, raw, past), colour, 'stroke-width="1" opacity="0.35"') : "") +
      line(path(updates, smooth, past), colour, 'stroke-width="2.2"') + marks.join("");
  };
  const label = (value) => short(log ? 10 ** value : value);
  const horizontal = ticks(range, 4, log).map((value) => {
    const at = top + ((range[1] - value) / (range[1] - range[0])) * (height - top - bottom);
    return `<path d="M${left} ${at}H${width - right}" stroke="currentColor" opacity="0.12"/>` +
      `<text x="${left - 6}" y="${at + 4}" text-anchor="end" fill="currentColor">${label(value)}</text>`;
  });
  const vertical = ticks([0, LAST], 4, false).map((value) =>
    `<text x="${x(value)}" y="${height - 26}" text-anchor="middle" fill="currentColor">${value}</text>`);
  const title = `<text x="${(left + width - right) / 2}" y="${height - 7}" text-anchor="middle" fill="currentColor">update</text>`;
  return horizontal.join("") + vertical.join("") + title + lines.map(curve).join("") +
    `<path d="M${x(update)} ${top}V${height - bottom}" stroke="currentColor" stroke-dasharray="4 4" opacity="0.6"/>`;
}

for (const root of document.querySelectorAll("[data-explorer=training]")) new TrainingPage(root);
