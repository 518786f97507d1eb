// A trained EBT on the page of the landscape explorer: planes through its energy, and recorded walks.

import { PALETTES, cased, disc, drawEnergies, drawScale, mapImage, prepared, star, ticks } from "./landscape_draw.js";
import { Clock, button, choice, element, labelled, onTheme, pageTheme } from "./parts.js";
import { checkedPlane, fromPlane, imagesOf, planeEnergy, projected, shareInPlane } from "./plane.js";
import { SavedSettings } from "./saved.js";

const PLANE_PACE = 5, EDGE = { left: 46, right: 4, top: 4, bottom: 40 };  // steps a second; pixels around the map

class PlaneExplorer {
  constructor(root, data) {
    Object.assign(this, { root, data, due: 0, energies: new Map() });
    root.classList.add("explorer");
    root.tabIndex = -1;
    this.saved = new SavedSettings("plane", (given) => this.apply(checkedPlane(given, data)), (line) => this.say(line));
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
    this.clip = choice(data.clips.map((_, i) => String(i + 1)), "1", (value) => this.change({ clip: Number(value) - 1 }));
    this.sampler = choice(data.samplers, data.samplers[0], (sampler) => this.change({ sampler }));
    this.factor = choice(names, names[1], (name) => this.change({ factor: data.factors[names.indexOf(name)] }));
    this.turn = range("turn the axis (°)", { min: 0, max: data.turns.at(-1), step: data.turns[1] }, "turn");
    this.step = range("step", { min: 0, max: data.steps, step: 1 }, "step");
    this.playButton = button("▶ Play", "Play or pause the steps", () => this.play(!this.clock.playing));
    this.playButton.classList.add("ex-play");
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
    const side = element("div", {}, element("div", { class: "ex-frames" }, ...pictures), this.facts, this.truth,
      element("p", { class: "ex-title", textContent: "Energy by step" }), this.levels);
    return [element("div", { class: "ex-bar" }, element("div", { class: "ex-buttons" }, this.playButton), this.step.field,
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
    this.saved.show(settings);
    this.clock.wake();
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
      if (this.due >= 1) this.change({ step: this.settings.step + 1 });
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
    const walk = data.clips[clip].walks[data.samplers.indexOf(sampler)][data.factors.indexOf(factor)];
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
      `The star is the truth, ${star}, ${rounded(clip.far)} away from the start.`;
  }
}

const rounded = (value) => String(Number(value.toPrecision(3))).replace("-", "−");

function drawFrame(canvas, image, side) {
  Object.assign(canvas, { width: side, height: side });
  const pixels = new ImageData(side, side);
  image.forEach((value, i) => pixels.data.set([value, value, value, 255], 4 * i));
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** The map with its axes, the walk up to the shown step, its start, and the truth. */
function drawPlane(canvas, { walk, energy, clip }, { step, turn }, theme) {
  const palette = PALETTES[theme], { ctx, width, ratio } = prepared(canvas), colour = palette.walks[0];
  const { left, right, top, bottom } = EDGE, side = Math.min(width - left - right, canvas.clientHeight - top - bottom);
  const { centre: [x, y], halfWidth: half } = energy, unit = side / (2 * half);
  const pixel = (point) => [left + (point[0] - x + half) * unit, top + (y + half - point[1]) * unit];
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
