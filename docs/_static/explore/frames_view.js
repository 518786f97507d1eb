// The frames explorer on the site: recorded walks to the next frame at once, others by models in the browser.

import { element, linePlot, numberFrom, oneOf, playBar, readHash, short, stateBox, integerFrom, writeHash } from "./common.js";
import { canvasOf, choice, legend, paintGrey, picture, seedBox, slide, upTo, walksTable } from "./frames_draw.js";
import { bytesOf, FrameModels } from "./frames_model.js";

const MOST_STEPS = 16, MOST_WALKS = 4, MOST_SEED = 9999, FACTORS = [0.25, 4];
const COMPUTED = ["clip", "position", "seed", "steps", "walks", "factor"]; // settings of which walks depend; others only show
const REMEDY = { true: "open the site from a web server (python -m http.server)", false: "build the site with npm and ebwm[onnx]" };

const unique = (values) => [...new Set(values)].sort((a, b) => a - b);
const keyOf = (state) => JSON.stringify(COMPUTED.map((name) => state[name]));

// Possible values of the settings: those that the models can compute, or those that are recorded.
const allowedOf = (data, clips, live) => {
  const recorded = (name) => unique(data.states.map((state) => state[name]));
  const steps = live ? MOST_STEPS : data.steps, walks = live ? MOST_WALKS : data.walks;
  return { clip: live ? integerFrom(0, clips - 1) : oneOf(recorded("clip")),
    position: live ? integerFrom(1, data.frames - 1) : oneOf(recorded("position")),
    seed: live ? integerFrom(0, MOST_SEED) : oneOf([0]), factor: live ? numberFrom(...FACTORS) : oneOf([1]),
    steps: integerFrom(1, steps), step: integerFrom(0, steps), walks: integerFrom(1, walks), walk: integerFrom(0, walks - 1) };
};

class FramesExplorer {
  constructor(root, data) {
    const pixels = data.size[0] * data.size[1], frames = bytesOf(data.clips, pixels);
    this.clips = upTo(frames.length / data.frames - 1).map((clip) => frames.slice(clip * data.frames, (clip + 1) * data.frames));
    this.live = data.bytes > 0 && location.protocol !== "file:";
    Object.assign(this, { data, pixels, allowed: allowedOf(data, this.clips.length, this.live) });
    this.folder = new URL(`${document.documentElement.dataset.content_root ?? "../"}_static/explore/frames/`, location.href);
    this.state = { clip: 0, position: data.states[1].position, seed: 0, steps: data.steps, walks: data.walks, factor: 1,
      walk: 0, step: data.steps };
    root.classList.add("explore");
    root.replaceChildren(...this.skeleton());
    this.show(this.recorded(this.state), keyOf(this.state));
    this.restore();
    addEventListener("hashchange", () => this.restore());
  }

  skeleton() {
    const { data, allowed, live } = this, change = (name) => (value) => this.change({ [name]: value });
    const numbers = (name, last) => upTo(last).filter((value) => allowed[name].includes(value));
    this.controls = {
      clip: choice("Clip", numbers("clip", this.clips.length), (value) => `clip ${value + 1}`, change("clip")),
      position: choice("Frames seen", numbers("position", data.frames), String, change("position")),
      seed: seedBox("Seed", MOST_SEED, change("seed")),
      walks: slide("Walks", [1, live ? MOST_WALKS : data.walks, 1], change("walks")),
      steps: slide("Steps: think longer", [1, live ? MOST_STEPS : data.steps, 1], change("steps")),
      factor: slide("Step size ×", [...FACTORS, 0.25], change("factor"),
        { to: Math.log2, from: (place) => Number((2 ** place).toPrecision(3)) }),
      walk: choice("Large picture", [], (value) => `walk ${value + 1}`, change("walk")),
    };
    for (const name of ["seed", "factor"]) this.controls[name].input.disabled = !live;
    this.bar = playBar((step) => this.change({ step }, true));
    this.box = stateBox(allowed, (state) => this.accept(state), (text) => this.say(text));
    this.message = element("p", { role: "status", class: "explore-message" });
    this.note = element("p", { class: "explore-caption explore-note" });
    [this.seen, this.scroll, this.drawn] = ["seen", "scroll", "plots"].map((name) => element("div", { class: `explore-${name}` }));
    this.large = ["last frame", "candidate", "true next frame", "Transformer++"].map((name) => picture(data.size, name));
    return [element("div", { class: "explore-choices" }, ...Object.values(this.controls).map((item) => item.root)), this.bar.root,
      this.note, element("div", { class: "explore-frames" }, ...this.large.map((item) => item.root)),
      element("p", { class: "explore-caption" }, "The numbers are SmoothL1 to the true frame. Frames that the models see:"), this.seen,
      this.scroll, this.drawn, legend({ walk: "walks of the EBT", last: "repeating the last frame", baseline: "Transformer++" }),
      this.box.root, this.message, element("p", { class: "explore-caption" }, `${data.note}.`)];
  }

  say(text) {
    this.message.textContent = text;
  }

  // Settings

  // Change by a control: what cannot be is set to what can.
  change(changes, playing = false) {
    const state = { ...this.state, ...changes };
    if ("steps" in changes) state.step = state.steps;
    state.walk = Math.min(state.walk, state.walks - 1);
    const wrong = Object.keys(changes).find((name) => !this.allowed[name].includes(state[name]));
    if (wrong) {
      this.say(`${wrong}=${JSON.stringify(state[wrong])}: must be ${this.allowed[wrong]}.`);
      return void this.show();
    }
    if (!playing) this.bar.stop();
    this.apply(state);
  }

  // Take a state from the address or the field; throws an error of one line.
  accept(given) {
    const state = { ...this.state, ...given };
    if (state.step > state.steps) throw new Error(`step=${state.step}: must be at most steps=${state.steps}.`);
    if (state.walk >= state.walks) throw new Error(`walk=${state.walk}: must be less than walks=${state.walks}.`);
    this.bar.stop();
    this.apply(state);
  }

  restore() {
    try {
      const given = readHash(this.allowed);
      if (Object.keys(given).length) this.accept(given);
    } catch (error) {
      this.say(error.message);
    }
  }

  apply(state) {
    this.state = state;
    this.say("");
    writeHash(state);
    const key = keyOf(state), found = this.recorded(state);
    if (key === this.key) this.show();
    else if (found) this.show(found, key);
    else this.compute(key);
  }

  // Walks

  // The recorded walks of a state, as `predict` of frames_model.js; undefined if there are none.
  recorded({ clip, position, seed, factor, steps, walks }) {
    const { data, pixels } = this, found = data.states.find((one) => one.clip === clip && one.position === position);
    if (!found || seed !== 0 || factor !== 1 || steps > data.steps || walks > data.walks) return undefined;
    const images = bytesOf(found.candidates, pixels), cut = (values) => values.slice(0, walks).map((walk) => walk.slice(0, steps + 1));
    return { ...found, energies: cut(found.energies), errors: cut(found.errors), baseline: bytesOf(found.baseline, pixels)[0],
      candidates: upTo(steps).flatMap((step) => images.slice(step * data.walks, step * data.walks + walks)),
      source: "Recorded with PyTorch when this site was built." };
  }

  // Walks of the present state by the models; a newer request replaces this one.
  async compute(key) {
    this.controlsShow();
    try {
      if (!this.models) this.note.textContent = `Loading the models, ${(this.data.bytes / 1e6).toFixed(0)} MB, once …`;
      this.models ??= FrameModels.load(this.folder, this.data);
      const models = await this.models;
      this.queue = (this.queue ?? Promise.resolve()).then(async () => {
        if (key !== keyOf(this.state)) return;
        const { state } = this, clip = this.clips[state.clip], began = performance.now();
        const found = await models.predict(clip.slice(0, state.position), clip[state.position], state);
        found.source = `Computed in this browser in ${(performance.now() - began).toFixed(0)} ms.`;
        if (key === keyOf(this.state)) this.show(found, key);
      });
      await this.queue;
    } catch (error) {
      this.queue = this.models = undefined;
      this.failed(String(error.message ?? error).split("\n")[0].slice(0, 120));
    }
  }

  failed(reason) {
    this.state = this.shown;
    writeHash(this.state);
    this.show();
    this.say(`The models cannot run here (${reason}); the last result stays.`);
  }

  // Drawing

  // Show the present step and walk, after new walks if there are any.
  show(result, key) {
    if (result) {
      Object.assign(this, { result, key });
      this.shown = this.state;
      this.drawResult();
    }
    this.controlsShow();
    if (this.key !== keyOf(this.state)) return;
    const { state: { step, walk }, result: { errors, lastError, baselineError, source } } = this;
    this.shown = this.state;
    this.note.textContent = [source, this.warning(), this.live ? "" : `Only recorded walks are here; for others ${REMEDY[this.data.bytes > 0]}.`]
      .filter(Boolean).join(" ");
    paintGrey(this.large[1].canvas, this.at(step, walk));
    [`last frame: ${short(lastError)}`, `walk ${walk + 1}, step ${step}: ${short(errors[walk][step])}`, "true next frame",
      `Transformer++: ${short(baselineError)}`].forEach((text, index) => this.large[index].say(text));
    this.table.mark(step, walk);
    for (const plot of this.plots) {
      plot.show(step);
      plot.root.querySelectorAll(".walk").forEach((line) => line.classList.toggle("chosen", line.classList.contains(`walk-${walk}`)));
    }
  }

  controlsShow() {
    const { state, controls } = this;
    controls.walk.fill(upTo(state.walks - 1));
    for (const [name, { show }] of Object.entries(controls)) show(state[name]);
    this.bar.show(state.step, state.steps);
    this.box.show(state);
  }

  at(step, walk) {
    return this.result.candidates[step * this.state.walks + walk];
  }

  warning() {
    const { energies, errors } = this.result, ends = energies.map((walk, index) => [...walk, ...errors[index]]);
    if (!ends.flat().every(Number.isFinite)) return "Some energies are not finite: lower the step size.";
    const rising = energies.filter((walk) => walk.at(-1) > walk[0]).length;
    return rising ? `${rising} of ${energies.length} walks increased the energy: lower the step size.` : "";
  }

  drawResult() {
    const { state, result, data, large } = this, clip = this.clips[state.clip], { position } = state;
    this.seen.replaceChildren(...clip.slice(0, position).map((image, index) => {
      const canvas = canvasOf(data.size, `frame ${index + 1} of ${position}`);
      paintGrey(canvas, image);
      return canvas;
    }));
    [clip[position - 1], null, clip[position], result.baseline].forEach((image, index) => {
      if (image) paintGrey(large[index].canvas, image);
    });
    this.table = walksTable(data.size, (step, walk) => this.at(step, walk), [state.steps, state.walks - 1], (changes) => this.change(changes));
    this.scroll.replaceChildren(this.table.root);
    const lines = (values) => values.map((heights, walk) => ({ name: `walk walk-${walk}`, values: heights }));
    this.plots = [linePlot("Energy", lines(result.energies)),
      linePlot("SmoothL1 to the true frame", [...lines(result.errors), { name: "last", values: [result.lastError] },
        { name: "baseline", values: [result.baselineError] }], { from: 0 })];
    this.drawn.replaceChildren(...this.plots.map((plot, index) => element("figure", {},
      element("figcaption", {}, ["Energy of the walks", "SmoothL1 to the true frame"][index]), plot.root)));
  }
}

for (const root of document.querySelectorAll("[data-explorer=frames]")) {
  if (window.ebwmFrames) new FramesExplorer(root, window.ebwmFrames);
  else root.textContent = "frames_data.js is missing: build the site with python docs/build.py sphinx.";
}
