// The frames explorer on the site: recorded walks to the next frame at once, others by models in the browser.

import { checked, integerFrom, linePlot, numberFrom, oneOf, playBar, short } from "./common.js";
import { canvasOf, legend, menu, paintImage, picture, seedBox, slide, upTo, walksTable } from "./frames_draw.js";
import { bytesOf, FrameModels } from "./frames_model.js";
import { element } from "./parts.js";
import { SavedSettings } from "./saved.js";

const MOST_STEPS = 16, MOST_WALKS = 4, MOST_SEED = 9999, FACTORS = [0.25, 4];
const PLAYED = "as played"; // the action of the recorded episode
const COMPUTED = ["source", "clip", "position", "action", "seed", "steps", "walks", "factor"]; // settings of which walks depend; others only show
const REMEDY = { true: "open the site from a web server (python -m http.server)", false: "build the site with npm and ebwm[onnx]" };

const unique = (values) => [...new Set(values)].sort((a, b) => a - b);
const keyOf = (state) => JSON.stringify(COMPUTED.map((name) => state[name]));

// A source of clips: its frames, and whether its models can run here.
const sourceOf = (data) => {
  const bytes = data.size[0] * data.size[1] * data.channels, frames = bytesOf(data.clips, bytes);
  const clips = upTo(frames.length / data.frames - 1).map((clip) => frames.slice(clip * data.frames, (clip + 1) * data.frames));
  const live = data.bytes > 0 && location.protocol !== "file:";
  return { data, bytes, clips, live, after: bytesOf(data.after, bytes), actions: [PLAYED, ...data.actions],
    steps: live ? MOST_STEPS : data.steps, walks: live ? MOST_WALKS : data.walks };
};

// Possible values of the settings: those that the models can compute, or those that are recorded.
const allowedOf = ({ data, clips, live, actions, steps, walks }, names) => {
  const recorded = (name) => unique(data.states.map((state) => state[name]));
  return { source: oneOf(names), clip: live ? integerFrom(0, clips.length - 1) : oneOf(recorded("clip")),
    position: live ? integerFrom(1, data.frames - 1) : oneOf(recorded("position")), action: oneOf(actions),
    seed: live ? integerFrom(0, MOST_SEED) : oneOf([0]), factor: live ? numberFrom(...FACTORS) : oneOf([1]),
    steps: integerFrom(1, steps), step: integerFrom(0, steps), walks: integerFrom(1, walks), walk: integerFrom(0, walks - 1) };
};

class FramesExplorer {
  constructor(root, data) {
    const names = Object.keys(data);
    this.sources = Object.fromEntries(names.map((name) => [name, sourceOf(data[name])]));
    this.allowedFor = Object.fromEntries(names.map((name) => [name, allowedOf(this.sources[name], names)]));
    this.scripts = `${document.documentElement.dataset.content_root ?? "../"}_static/explore/`;
    this.state = this.first(names[0]);
    root.classList.add("explore");
    root.replaceChildren(...this.skeleton());
    this.show(this.recorded(this.state), keyOf(this.state));
    this.saved.open(() => {});
  }

  get source() {
    return this.sources[this.state.source];
  }

  get allowed() {
    return this.allowedFor[this.state.source];
  }

  // The first state of a source.
  first(source) {
    const { data } = this.sources[source], middle = data.states[Math.floor(data.states.filter(({ clip }) => clip === 0).length / 2)];
    return { source, clip: 0, position: middle.position, action: PLAYED, seed: 0, steps: data.steps, walks: data.walks, factor: 1,
      walk: 0, step: data.steps };
  }

  skeleton() {
    const change = (name) => (value) => this.change({ [name]: value }), { sources } = this;
    this.controls = {
      source: menu("Source", Object.keys(sources), String, (source) => this.change(this.first(source)), String),
      clip: menu("Clip", [], (value) => `clip ${value + 1}`, change("clip")),
      position: menu("Frames seen", [], String, change("position")),
      action: menu("Action", [], (value) => this.named(value), change("action"), String),
      seed: seedBox("Seed", MOST_SEED, change("seed")),
      walks: slide("Walks", [1, MOST_WALKS, 1], change("walks")),
      steps: slide("Steps: think longer", [1, MOST_STEPS, 1], change("steps")),
      factor: slide("Step size ×", [...FACTORS, 0.25], change("factor"),
        { to: Math.log2, from: (place) => Number((2 ** place).toPrecision(3)) }),
      walk: menu("Large picture", [], (value) => `walk ${value + 1}`, change("walk")),
    };
    this.bar = playBar((step) => this.change({ step }, true));
    this.saved = new SavedSettings("frames", (given) => this.accept(given), (line) => this.say(line), 3);
    this.message = element("p", { role: "status", class: "explore-message" });
    this.note = element("p", { class: "explore-caption explore-note" });
    this.about = element("p", { class: "explore-caption explore-about" });
    this.before = element("p", { class: "explore-caption" });
    [this.seen, this.scroll, this.drawn] = ["seen", "scroll", "plots"].map((name) => element("div", { class: `explore-${name}` }));
    this.large = ["last frame", "candidate", "true next frame", "Transformer++"].map((name) => picture([1, 1], name));
    return [element("div", { class: "explore-choices" }, ...Object.values(this.controls).map((item) => item.root)), this.bar.root,
      this.note, element("div", { class: "explore-frames" }, ...this.large.map((item) => item.root)), this.before, this.seen,
      this.scroll, this.drawn, legend({ walk: "walks of the EBT", last: "repeating the last frame", baseline: "Transformer++" }),
      this.message, this.about, this.saved.root];
  }

  // The name of an action; the one that was played is named too.
  named(action) {
    const { state: { clip, position }, source: { data } } = this;
    return action === PLAYED && data.actions.length ? `${PLAYED}: ${data.actions[data.taken[clip][position - 1]]}` : action;
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
    const allowed = this.allowedIn(state), wrong = Object.keys(changes).find((name) => !allowed[name].includes(state[name]));
    if (wrong) {
      this.say(`${wrong}=${JSON.stringify(state[wrong])}: must be ${allowed[wrong]}.`);
      return void this.show();
    }
    if (!playing) this.bar.stop();
    this.apply(state);
  }

  // Possible values of a given state, which may name another source.
  allowedIn({ source = this.state.source }) {
    return this.allowedFor[Object.hasOwn(this.allowedFor, source) ? source : this.state.source];
  }

  // Take settings from the address or the box; throws an error of one line.
  accept(settings) {
    const given = checked(settings, (one) => this.allowedIn(one)), { source = this.state.source } = given;
    const state = { ...(source === this.state.source ? this.state : this.first(source)), ...given };
    if (state.step > state.steps) throw new Error(`step=${state.step}: must be at most steps=${state.steps}.`);
    if (state.walk >= state.walks) throw new Error(`walk=${state.walk}: must be less than walks=${state.walks}.`);
    this.bar.stop();
    this.apply(state);
  }

  apply(state) {
    this.state = state;
    this.say("");
    const key = keyOf(state), found = this.recorded(state);
    if (key === this.key) this.show();
    else if (found) this.show(found, key);
    else this.compute(key);
  }

  // Walks

  // The recorded walks of a state, as `predict` of frames_model.js; undefined if there are none.
  recorded({ source, clip, position, action, seed, factor, steps, walks }) {
    const { data, bytes } = this.sources[source];
    const found = data.states.find((one) => one.clip === clip && one.position === position && one.action === action);
    if (!found || seed !== 0 || factor !== 1 || steps > data.steps || walks > data.walks) return undefined;
    const images = bytesOf(found.candidates, bytes), cut = (values) => values.slice(0, walks).map((walk) => walk.slice(0, steps + 1));
    return { ...found, energies: cut(found.energies), errors: cut(found.errors), baseline: bytesOf(found.baseline, bytes)[0],
      candidates: upTo(steps).flatMap((step) => images.slice(step * data.walks, step * data.walks + walks)),
      source: "Recorded with PyTorch when this site was built." };
  }

  // The indices of the actions after the frames that are seen; none without a game.
  chosen({ source, clip, position, action }) {
    const { data } = this.sources[source], taken = data.actions.length ? data.taken[clip].slice(0, position) : [];
    return action === PLAYED ? taken : [...taken.slice(0, -1), data.actions.indexOf(action)];
  }

  // The true next frame: of the clip, or of the game after the action.
  truth(state) {
    const { data, clips, after } = this.sources[state.source], { clip, position, action } = state;
    if (action === PLAYED) return clips[clip][position];
    return after[(clip * (data.frames - 1) + position - 1) * data.actions.length + data.actions.indexOf(action)];
  }

  // Walks of the present state by the models; a newer request replaces this one.
  async compute(key) {
    this.controlsShow();
    const { source } = this;
    try {
      if (!source.models) this.note.textContent = `Loading the models, ${(source.data.bytes / 1e6).toFixed(0)} MB, once …`;
      source.models ??= FrameModels.load(new URL(`${this.scripts}${source.data.folder}/`, location.href), source.data);
      const models = await source.models;
      this.queue = (this.queue ?? Promise.resolve()).then(async () => {
        if (key !== keyOf(this.state)) return;
        const { state } = this, began = performance.now();
        const found = await models.predict(source.clips[state.clip].slice(0, state.position), this.truth(state), state, this.chosen(state));
        found.source = `Computed in this browser in ${(performance.now() - began).toFixed(0)} ms.`;
        if (key === keyOf(this.state)) this.show(found, key);
      });
      await this.queue;
    } catch (error) {
      this.queue = source.models = undefined;
      this.failed(String(error.message ?? error).split("\n")[0].slice(0, 120));
    }
  }

  failed(reason) {
    this.state = this.shown;
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
    this.note.textContent = [source, this.warning(), this.source.live ? "" : `Only recorded walks are here; for others ${REMEDY[this.source.data.bytes > 0]}.`]
      .filter(Boolean).join(" ");
    paintImage(this.large[1].canvas, this.at(step, walk));
    [`last frame: ${short(lastError)}`, `walk ${walk + 1}, step ${step}: ${short(errors[walk][step])}`, "true next frame",
      `Transformer++: ${short(baselineError)}`].forEach((text, index) => this.large[index].say(text));
    this.table.mark(step, walk);
    for (const plot of this.plots) {
      plot.show(step);
      plot.root.querySelectorAll(".walk").forEach((line) => line.classList.toggle("chosen", line.classList.contains(`walk-${walk}`)));
    }
  }

  controlsShow() {
    const { state, controls, source, allowed } = this, numbers = (name, last) => upTo(last).filter((value) => allowed[name].includes(value));
    controls.clip.fill(numbers("clip", source.clips.length));
    controls.position.fill(numbers("position", source.data.frames));
    controls.action.fill(source.actions);
    controls.action.root.hidden = !source.data.actions.length;
    controls.walk.fill(upTo(state.walks - 1));
    for (const name of ["walks", "steps"]) controls[name].input.max = source[name];
    for (const name of ["seed", "factor"]) controls[name].input.disabled = !source.live;
    for (const [name, { show }] of Object.entries(controls)) show(state[name]);
    this.bar.show(state.step, state.steps);
    this.saved.show(state);
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
    const { state, result, large, source: { data, clips } } = this, clip = clips[state.clip], { position } = state;
    const actions = this.chosen(state).map((action) => data.actions[action]);
    const about = data.about[state.clip] ? `${data.about[state.clip]}. ` : "";
    this.before.textContent = `${about}The numbers are SmoothL1 to the true frame. Frames that the models see` +
      `${actions.length ? `, with the action after each (${actions.join(", ")})` : ""}:`;
    this.about.textContent = `${data.note}.`;
    this.seen.replaceChildren(...clip.slice(0, position).map((image, index) => {
      const canvas = canvasOf(data.size, `frame ${index + 1} of ${position}`);
      paintImage(canvas, image);
      return canvas;
    }));
    [clip[position - 1], null, this.truth(state), result.baseline].forEach((image, index) => {
      [large[index].canvas.height, large[index].canvas.width] = data.size;
      if (image) paintImage(large[index].canvas, image);
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
