// A trained EBT on the page of the landscape explorer: planes through its energy, recorded walks, and others by the model.

import { PALETTES, cased, disc, drawEnergies, drawScale, mapImage, prepared, star, ticks } from "./landscape_draw.js";
import { Clock, button, choice, element, holdTouches, labelled, onTheme, pageTheme } from "./parts.js";
import { checkedPlane, fromPlane, imagesOf, planeEnergy, projected, shareInPlane } from "./plane.js";
import { PlaneModel } from "./plane_model.js";
import { SavedSettings } from "./saved.js";

const PLANE_REMEDY = { true: "open the site from a web server (python -m http.server)", false: "build the site with npm and ebwm[onnx]" };
const PLANE_PACE = 5, EDGE = { left: 46, right: 4, top: 4, bottom: 40 };  // steps a second; pixels around the map

class PlaneExplorer {
  constructor(root, data) {
    data.live = data.bytes > 0 && location.protocol !== "file:";
    Object.assign(this, { root, data, due: 0, energies: new Map(), found: null });
    root.classList.add("explorer");
    root.tabIndex = -1;
    this.saved = new SavedSettings("plane", (given) => this.apply(checkedPlane(given, data)), (line) => this.say(line), 3);
    root.replaceChildren(...this.skeleton());
    this.clock = new Clock(root, (seconds) => this.tick(seconds));
    this.saved.open(() => this.apply(checkedPlane({}, data)));
    new ResizeObserver(() => this.clock.wake()).observe(root);
    onTheme(() => this.clock.wake());
  }

  skeleton() {
    const { data } = this, names = data.factors.map((factor) => `× ${factor}`);
    const range = (text, properties, name) => {
      const output = element("span", { class: "ex-value", "aria-hidden": "true" });
      const input = element("input", { type: "range", ...properties, oninput: () => {
        this.play(false);
        this.change({ [name]: Number(input.value) });
      } });
      return { input, output, field: labelled(text, input, output) };
    };
    this.clip = choice(data.clips.map((_, i) => String(i + 1)), "1", (value) => this.change({ clip: Number(value) - 1, x: null, y: null }));
    this.sampler = choice(data.samplers, data.samplers[0], (sampler) => this.change({ sampler, x: null, y: null }));
    this.factor = choice(names, names[1], (name) => this.change({ factor: data.factors[names.indexOf(name)] }));
    this.turn = range("turn the axis (°)", { min: 0, max: data.turns.at(-1), step: data.turns[1] }, "turn");
    this.step = range("step", { min: 0, max: data.steps, step: 1 }, "step");
    this.playButton = button("▶ Play", "Play or pause the steps", () => this.play(!this.clock.playing));
    this.playButton.classList.add("ex-play");
    this.startButton = button("Recorded start", "Walk from the recorded start again", () => this.change({ x: null, y: null }));
    const canvas = (kind, label) => element("canvas", { class: kind, role: "img", "aria-label": label });
    this.map = canvas("ex-plane", "Plane through the energy of an EBT, with a walk");
    this.scale = canvas("ex-scale", "Colour scale of the energy");
    this.levels = canvas("ex-energies", "Energy of the walk by step");
    const captions = ["last frame", "candidate", "true next frame"];
    this.frames = captions.map((name) => canvas("ex-frame", name));
    const pictures = this.frames.map((frame, i) => element("figure", {}, frame, element("figcaption", { textContent: captions[i] })));
    this.range = ["", ""].map(() => element("span"));
    this.facts = element("p", { class: "ex-facts" });
    this.truth = element("p", { class: "ex-facts" });
    this.status = element("p", { class: "ex-message", role: "status" });
    if (data.live) this.listen(this.map);
    const side = element("div", {}, element("div", { class: "ex-frames" }, ...pictures), this.facts, this.truth,
      element("p", { class: "ex-title", textContent: "Energy by step" }), this.levels);
    return [element("div", { class: "ex-bar" }, element("div", { class: "ex-buttons" }, this.playButton, this.startButton), this.step.field,
      labelled("clip", this.clip), labelled("sampler", this.sampler), labelled("step size", this.factor), this.turn.field),
    element("div", { class: "ex-legend" }, element("span", { class: "ex-entry" }, "energy ", this.range[0], this.scale, this.range[1])),
    this.status, element("div", { class: "ex-split" }, this.map, side), this.saved.root];
  }

  say(line) { this.status.textContent = line; }

  apply(settings) {
    this.settings = settings;
    this.say("");
    this.clip.value = String(settings.clip + 1);
    this.sampler.value = settings.sampler;
    this.factor.value = `× ${settings.factor}`;
    for (const name of ["turn", "step"]) {
      Object.assign(this[name].input, { value: settings[name] });
      this[name].output.textContent = settings[name];
    }
    this.startButton.disabled = settings.x === null;
    this.saved.show(settings);
    this.clock.wake();
    if (settings.x !== null && this.found?.key !== keyOfStart(settings)) this.compute(settings);
  }

  /** A start by click or drag; a finger must touch the start, so that others can scroll the page. */
  listen(canvas) {
    const layout = () => planeLayout(canvas, this.shown.energy), { data } = this;
    const move = (event) => {
      const { left, top, side, point } = layout(), { offsetX: px, offsetY: py } = event;
      if (px < left || px > left + side || py < top || py > top + side) return;
      const [x, y] = point([px, py]).map((value) => Number(value.toPrecision(4)));
      this.play(false);
      this.change({ x, y, sampler: data.samplers[0], step: data.steps });
    };
    const near = ({ clientX, clientY }) => {
      const box = canvas.getBoundingClientRect(), [px, py] = layout().pixel(projected(this.shown.walk.places[0], this.settings.turn));
      return Math.hypot(px - clientX + box.left, py - clientY + box.top) < 28;
    };
    let dragging = false;
    canvas.addEventListener("pointerdown", (event) => {
      dragging = event.pointerType === "mouse" || near(event);
      if (dragging) canvas.setPointerCapture(event.pointerId);
      if (dragging) move(event);
    });
    canvas.addEventListener("pointermove", (event) => { if (dragging && event.buttons) move(event); });
    canvas.addEventListener("pointerup", () => { dragging = false; });
    canvas.addEventListener("click", (event) => { if (event.pointerType !== "mouse") move(event); });
    holdTouches(canvas, near);
  }

  /** The walk from a chosen start; one at a time, and a newer request replaces those that wait. */
  async compute(settings) {
    this.wanted = settings;
    if (this.busy) return;
    this.busy = true;
    try {
      if (!this.model) this.say(`Loading the model, ${(this.data.bytes / 1e6).toFixed(0)} MB, once …`);
      const scripts = `${document.documentElement.dataset.content_root ?? "../"}_static/explore/`;
      this.model ??= await PlaneModel.load(new URL(`${scripts}${this.data.folder}/`, location.href), this.data);
      while (this.wanted) {
        const { clip, x, y, turn, factor } = this.wanted, key = keyOfStart(this.wanted), began = performance.now();
        this.wanted = null;
        const walk = await this.model.walk(clip, [x, y], turn, factor);
        this.found = { key, walk, clip, milliseconds: performance.now() - began };
        if (!this.wanted) this.say("");
        this.clock.wake();
      }
    } catch (error) {
      this.data.live = false;
      this.change({ x: null, y: null });
      this.say(`The model cannot run here (${String(error.message ?? error).split("\n")[0].slice(0, 120)}); recorded walks stay.`);
    } finally {
      this.busy = false;
    }
  }

  change(changes) { this.apply({ ...this.settings, ...changes }); }

  play(playing) {
    if (playing && this.settings.step === this.data.steps) this.change({ step: 0 });
    Object.assign(this.clock, { playing });
    this.due = 0;
    this.playButton.textContent = playing ? "❚❚ Pause" : "▶ Play";
    this.clock.wake();
  }

  tick(seconds) {
    if (this.clock.playing) {
      this.due += seconds * PLANE_PACE;
      if (this.due >= 1) this.change({ step: Math.min(this.settings.step + 1, this.data.steps) });
      if (this.due >= 1) this.due -= 1;
      if (this.settings.step === this.data.steps) this.play(false);
    }
    this.draw();
    return this.clock.playing;
  }

  /** The shown walk, and the energies of the shown plane. */
  get shown() {
    const { clip, sampler, factor, turn } = this.settings, { data } = this, plane = data.turns.indexOf(turn), key = `${clip} ${plane}`;
    if (!this.energies.has(key)) this.energies.set(key, planeEnergy(data, clip, plane));
    const recorded = data.clips[clip].walks[data.samplers.indexOf(sampler)][data.factors.indexOf(factor)];
    const walk = this.settings.x !== null && this.found?.clip === clip ? this.found.walk : recorded;
    return { walk, energy: this.energies.get(key), clip: data.clips[clip] };
  }

  draw() {
    const theme = pageTheme(), { walk, energy, clip } = this.shown, { step } = this.settings;
    drawPlane(this.map, this.shown, this.settings, theme);
    drawScale(this.scale, theme);
    const { low, high } = energy.grid;
    this.range[0].textContent = rounded(low);
    this.range[1].textContent = `${rounded(high)} or more`;
    const energies = walk.energies.slice(0, step + 1);
    drawEnergies(this.levels, [{ energy, energies, steps: step }], { theme, colours: PALETTES[theme].walks });
    const side = this.data.size, candidate = imagesOf(walk.images, side)[step];
    [imagesOf(clip.last, side)[0], candidate, imagesOf(clip.next, side)[0]].forEach((image, i) => drawFrame(this.frames[i], image, side));
    this.describe(walk, clip);
  }

  describe(walk, clip) {
    const { step, turn, sampler } = this.settings, { data } = this, share = shareInPlane(walk, turn);
    const accepted = /MALA|HMC/.test(sampler) && step ? ` ${walk.accepted.slice(0, step).filter(Boolean).length} of ${step} accepted.` : "";
    this.facts.textContent = `Step ${step}; trained with ${data.trained}. Energy ${rounded(walk.energies[step])}; that of the truth is ` +
      `${rounded(clip.energyTruth)}. Error (SmoothL1) ${rounded(walk.errors[step])}; that of repeating the last frame is ` +
      `${rounded(clip.lastError)}.${accepted}`;
    const inside = Number.isNaN(share) ? "The walk never moves." : `${Math.round(100 * share)} % of the walk's length is in the plane.`;
    const away = fromPlane(clip.truth, 0, turn), star = away > 0.01 * clip.far ? `${rounded(away)} away from the plane` : "in the plane";
    this.truth.textContent = `${inside} The candidate is ${rounded(fromPlane(walk.places[step], walk.rest[step], turn))} away from it. ` +
      `The star is the truth, ${star}, ${rounded(clip.far)} away from the recorded start. ${this.source()}`;
  }

  source() {
    const { data, settings: { x }, found } = this;
    if (x !== null && found) return `This walk was computed in this browser in ${found.milliseconds.toFixed(0)} ms.`;
    if (data.live) return "This walk is recorded; click the map or drag the start to compute another.";
    return `Only recorded walks are here; for others ${PLANE_REMEDY[data.bytes > 0]}.`;
  }
}

const rounded = (value) => String(Number(value.toPrecision(3))).replace("-", "−");

function drawFrame(canvas, image, side) {
  Object.assign(canvas, { width: side, height: side });
  const pixels = new ImageData(side, side);
  image.forEach((value, i) => pixels.data.set([value, value, value, 255], 4 * i));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

const keyOfStart = ({ clip, x, y, turn, factor }) => JSON.stringify([clip, x, y, turn, factor]);

/** Where the map is on its canvas, and how points become pixels and back. */
function planeLayout(canvas, { centre: [x, y], halfWidth: half }) {
  const { left, right, top, bottom } = EDGE, side = Math.min(canvas.clientWidth - left - right, canvas.clientHeight - top - bottom);
  const unit = side / (2 * half);
  return { left, top, side, x, y, half, pixel: (point) => [left + (point[0] - x + half) * unit, top + (y + half - point[1]) * unit],
    point: ([px, py]) => [(px - left) / unit + x - half, y + half - (py - top) / unit] };
}

/** The map with its axes, the walk up to the shown step, its start, and the truth. */
function drawPlane(canvas, { walk, energy, clip }, { step, turn }, theme) {
  const palette = PALETTES[theme], { ctx, ratio } = prepared(canvas), colour = palette.walks[0];
  const { left, top, side, x, y, half, pixel } = planeLayout(canvas, energy);
  ctx.drawImage(mapImage(energy, Math.round(side * ratio), theme), left, top, side, side);
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, side, side);
  ctx.clip();
  const points = walk.places.slice(0, step + 1).map((place) => pixel(projected(place, turn)));
  ctx.beginPath();
  for (const point of points) ctx.lineTo(...point);
  cased(ctx, colour, palette.case, 2);
  for (const point of points.slice(1, -1)) disc(ctx, point, 2.5, colour, palette.case, 1);
  star(ctx, pixel(projected(clip.truth, turn)), 8, palette.case, palette.truth);
  disc(ctx, points[0], 7, null, palette.case, 4);
  disc(ctx, points[0], 7, null, palette.truth, 1.6);
  disc(ctx, points.at(-1), 6, colour, palette.case);
  ctx.restore();
  drawEdges(ctx, { x, y, half, side, pixel, turn }, palette);
}

function drawEdges(ctx, { x, y, half, side, pixel, turn }, palette) {
  const { left, top } = EDGE, inner = 0.98 * half, signed = (value) => String(value).replace("-", "−");
  Object.assign(ctx, { fillStyle: palette.muted, strokeStyle: palette.muted, lineWidth: 1, textAlign: "center", textBaseline: "top" });
  ctx.strokeRect(left, top, side, side);
  for (const tick of ticks(x - inner, x + inner)) ctx.fillText(signed(tick), pixel([tick, 0])[0], top + side + 5);
  Object.assign(ctx, { textAlign: "right", textBaseline: "middle" });
  for (const tick of ticks(y - inner, y + inner)) ctx.fillText(signed(tick), left - 5, pixel([0, tick])[1]);
  Object.assign(ctx, { textAlign: "center", textBaseline: "alphabetic", fillStyle: palette.text });
  ctx.fillText("along the model's walk", left + side / 2, top + side + 33);
  ctx.save();
  ctx.translate(12, top + side / 2);
  ctx.rotate(-Math.PI / 2);
  ctx.fillText(turn ? `turned by ${turn}° from the truth` : "towards the truth", 0, 0);
  ctx.restore();
}

for (const root of document.querySelectorAll("[data-explorer=plane]")) {
  if (window.ebwmPlane) new PlaneExplorer(root, window.ebwmPlane);
  else root.textContent = "The data of this explorer are missing: build the site by python docs/build.py sphinx.";
}
