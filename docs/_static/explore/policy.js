// The task `reach`, and the included policies, without a page: as ebwm.policy.reach, .models and .predictors.
// The same noise gives the same chunks as in Python.

import { randomStream } from "./landscape.js";

export const RULES = { speed: 0.06, obstacle: 0.3, goal: 0.08, limit: 60, push: 0.5 };
const NOISE_LEVELS = 100;

function halfEven(value) {
  const floor = Math.floor(value), rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2) ? floor + 1 : floor;
}

// Weights: half precision, in base64

/** Numbers of 16 bits as an array of 32 bits. */
export function decoded(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), halves = new Uint16Array(bytes.buffer);
  return Float32Array.from(halves, (half) => {
    const sign = half & 0x8000 ? -1 : 1, exponent = (half >> 10) & 31, part = half & 1023;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + part / 1024) : 2 ** -14 * (part / 1024));
  });
}

// Vectors

const added = (values) => values.reduce((a, b) => a + b, 0);
const silu = (x) => x / (1 + Math.exp(-x));
const split = (values, count) => {
  const size = values.length / count;
  return Array.from({ length: count }, (_, i) => values.slice(i * size, (i + 1) * size));
};

/** W x + b, with the rows of W one after the other. */
function linear(x, weight, bias = null) {
  const made = new Float64Array(weight.length / x.length);
  for (let row = 0, place = 0; row < made.length; row++) {
    let total = bias ? bias[row] : 0;
    for (let i = 0; i < x.length; i++) total += weight[place++] * x[i];
    made[row] = total;
  }
  return made;
}

/** The transpose of W times x. */
function transposed(x, weight) {
  const width = weight.length / x.length, made = new Float64Array(width);
  for (let row = 0, place = 0; row < x.length; row++) for (let i = 0; i < width; i++) made[i] += weight[place++] * x[row];
  return made;
}

function normed(x, weight) {
  const scale = 1 / Math.sqrt(added(x.map((v) => v * v)) / x.length + 1e-5);
  return [x.map((v, i) => v * scale * weight[i]), scale];
}

function normGradient(grad, x, scale, weight) {
  const scaled = grad.map((g, i) => g * weight[i] * scale), along = added(scaled.map((g, i) => g * x[i])) / x.length;
  return scaled.map((g, i) => g - x[i] * along * scale * scale);
}

// Models

/** A policy from the data of the page: weights, normalisation, and settings. */
export class Policy {
  constructor(data) {
    Object.assign(this, data);
    this.weights = Object.fromEntries(Object.entries(data.weights).map(([name, text]) => [name, decoded(text)]));
    this.layers = Array.from({ length: data.depth }, (_, layer) => (name) => this.weights[`trunk.layers.${layer}.${name}`]);
    const rows = split(this.weights["trunk.decode.weight"], data.predict_count * data.action_dim);
    this.row = rows[0].map((_, i) => added(rows.map((row) => row[i])) / rows.length);
  }

  /** Features of the last observations. */
  features(states) {
    const { weights: w, mean, std } = this;
    const tokens = states.flatMap((state) => [...linear(state.map((v, i) => (v - mean[i]) / std[i]), w["encoder.state.weight"], w["encoder.state.bias"])]);
    const hidden = linear(tokens, w["trunk.mix.0.weight"], w["trunk.mix.0.bias"]).map(silu);
    return linear(hidden, w["trunk.mix.2.weight"], w["trunk.mix.2.bias"]);
  }

  /** Shift, scale and gate of each layer. */
  modulations(condition) {
    const active = condition.map(silu);
    return this.layers.map((layer) => split(linear(active, layer("modulation.weight"), layer("modulation.bias")), 3));
  }

  /** The trunk up to its last norm, with what its gradient needs. */
  forward(y, modulations) {
    let x = linear(y, this.weights["trunk.embed.weight"], this.weights["trunk.embed.bias"]);
    const kept = modulations.map(([shift, scale, gate], number) => {
      const layer = this.layers[number], [before, root] = normed(x, layer("norm.weight"));
      const [a, b] = split(linear(before.map((v, i) => v * (1 + scale[i]) + shift[i]), layer("gate_up.weight")), 2);
      const made = linear(a.map((v, i) => silu(v) * b[i]), layer("down.weight")), input = x;
      x = x.map((v, i) => v + gate[i] * made[i]);
      return { layer, input, root, scale, gate, a, b };
    });
    const [last, root] = normed(x, this.weights["trunk.norm.weight"]);
    return { last, x, root, kept };
  }

  /** Energy of a chunk and its gradient. */
  energy(y, modulations) {
    const { last, x, root, kept } = this.forward(y, modulations);
    let grad = normGradient(this.row, x, root, this.weights["trunk.norm.weight"]);
    for (const { layer, input, root: scaled, scale, gate, a, b } of kept.reverse()) {
      const inner = transposed(grad.map((g, i) => g * gate[i]), layer("down.weight")), both = new Float64Array(2 * a.length);
      a.forEach((v, i) => {
        const share = 1 / (1 + Math.exp(-v));
        both[i] = inner[i] * b[i] * share * (1 + v * (1 - share));
        both[a.length + i] = inner[i] * v * share;
      });
      const back = transposed(both, layer("gate_up.weight")).map((g, i) => g * (1 + scale[i]));
      const through = normGradient(back, input, scaled, layer("norm.weight"));
      grad = grad.map((g, i) => g + through[i]);
    }
    return { energy: added(last.map((v, i) => v * this.row[i])), grad: transposed(grad, this.weights["trunk.embed.weight"]) };
  }

  /** A chunk from noise: { actions [predict][action_dim] of the simulator, energy or null }. */
  predict(states, noise, steps) {
    const features = this.features(states);
    const [y, energy] = this.kind === "ebt" ? this.walk(features, noise, steps) : [this.denoise(features, noise, steps), null];
    const actions = Array.from({ length: this.predict_count }, (_, row) =>
      this.centre.map((centre, i) => y[row * this.action_dim + i] * this.half[i] + centre));
    return { actions, energy };
  }

  walk(features, noise, steps) {
    const modulations = this.modulations(features);
    let y = Float64Array.from(noise);
    for (let step = 0; step < steps; step++) {
      const { grad } = this.energy(y, modulations);
      y = y.map((v, i) => v - this.step_size * grad[i]);
    }
    return [y, this.energy(y, modulations).energy];
  }

  /** DDIM without randomness, from a model of the clean chunk. Levels are rounded as in Python, halves to even. */
  denoise(features, noise, steps) {
    const levels = Array.from({ length: steps }, (_, step) => halfEven(NOISE_LEVELS * (1 - step / steps)) - 1);
    let y = Float64Array.from(noise);
    levels.forEach((level, step) => {
      const time = this.time(level), signal = this.signal[level], after = step + 1 < steps ? this.signal[levels[step + 1]] : 1;
      const { last } = this.forward(y, this.modulations(features.map((v, i) => v + time[i])));
      const clean = linear(last, this.weights["trunk.decode.weight"]).map((v) => Math.min(1, Math.max(-1, v)));
      y = y.map((v, i) => Math.sqrt(after) * clean[i] + Math.sqrt(1 - after) * (v - Math.sqrt(signal) * clean[i]) / Math.sqrt(1 - signal));
    });
    return y;
  }

  /** Features of a noise level. */
  time(level) {
    const half = this.dim / 2, angles = Array.from({ length: half }, (_, i) => level * Math.exp(-Math.log(10000) * i / half));
    return linear([...angles.map(Math.sin), ...angles.map(Math.cos)], this.weights["time.weight"], this.weights["time.bias"]);
  }

  noise(stream) {
    return Array.from({ length: this.predict_count * this.action_dim }, () => stream.normal());
  }
}

// The task

/** Share of a displacement up to the obstacle; 1 if it does not touch it. */
function wayToObstacle([x, y], [dx, dy]) {
  const square = dx * dx + dy * dy, toward = x * dx + y * dy;
  const root = toward * toward - square * (x * x + y * y - RULES.obstacle ** 2);
  return root <= 0 || toward >= 0 ? 1 : Math.min(1, Math.max(0, (-toward - Math.sqrt(root)) / square));
}

/** A point after a displacement, and whether it touched the obstacle. */
export function displaced({ place, touched }, [dx, dy]) {
  if (touched) return { place, touched };
  const share = wayToObstacle(place, [dx, dy]), inside = (v) => Math.min(1, Math.max(-1, v));
  return { place: [inside(place[0] + share * dx), inside(place[1] + share * dy)], touched: share < 1 };
}

const clipped = (action) => action.map((v) => RULES.speed * Math.min(1, Math.max(-1, v)));

/** Where actions lead from a place without an obstacle. */
export function positions(place, actions) {
  const made = [place];
  for (const [dx, dy] of actions.map(clipped)) made.push([made.at(-1)[0] + dx, made.at(-1)[1] + dy]);
  return made;
}

/** An episode that is advanced step by step; `settings` as `checkedEpisode` returns them. */
export class Episode {
  constructor(policies, tasks, settings) {
    const { start, goal } = tasks[settings.seed];
    Object.assign(this, { policy: policies[settings.policy], settings, goal, choices: [], outcome: "" });
    this.points = [{ place: start, touched: false }];
    this.stream = randomStream(settings.seed);
    this.waiting = [];
  }

  get step() { return this.points.length - 1; }

  state(step) { return [...this.points[Math.max(step, 0)].place, ...this.goal]; }

  advance() {
    if (this.outcome) return;
    for (const [at, dx, dy] of this.settings.pushes) if (at === this.step) this.points[this.step] = displaced(this.points[this.step], [dx, dy]);
    if (!this.waiting.length) this.choose();
    const point = displaced(this.points[this.step], clipped(this.waiting.shift()));
    this.points.push(point);
    const far = Math.hypot(point.place[0] - this.goal[0], point.place[1] - this.goal[1]) >= RULES.goal;
    this.outcome = !far && !point.touched ? "success" : point.touched ? "touched the obstacle" : this.step >= RULES.limit ? "out of time" : "";
  }

  choose() {
    const { policy, settings, step } = this, states = Array.from({ length: policy.observe }, (_, i) => this.state(step - policy.observe + 1 + i));
    const { place } = this.points[step], predict = (stream) => policy.predict(states, policy.noise(stream), settings.steps);
    const chosen = predict(this.stream), others = randomStream(1e6 * (settings.seed + 1) + step);
    const samples = Array.from({ length: settings.samples }, () => predict(others));
    this.waiting = chosen.actions.slice(0, policy.execute);
    this.choices.push({ at: step, energy: chosen.energy, chunk: positions(place, chosen.actions),
      samples: samples.map(({ actions, energy }) => ({ path: positions(place, actions), energy })) });
  }
}

/** The last choice up to a step. */
export const choiceAt = (episode, step) => episode.choices.filter(({ at }) => at <= step).at(-1);

// Settings

const DEFAULTS = { policy: "EBT-Policy", seed: 0, steps: 9, samples: 8, pushes: [] };

/** Settings with defaults; a wrong one is an error that names it. */
export function checkedEpisode(given, policies, tasks) {
  const refuse = (name, rule) => { throw new Error(`${name}=${JSON.stringify(given[name])}: ${rule}`); };
  if (given === null || typeof given !== "object" || Array.isArray(given)) throw new Error("settings: must be an object");
  for (const name of Object.keys(given)) if (!(name in DEFAULTS)) refuse(name, `unknown; known are ${Object.keys(DEFAULTS).join(", ")}`);
  const found = { ...DEFAULTS, ...given }, whole = (value, low, high) => Number.isInteger(value) && value >= low && value <= high;
  if (!(found.policy in policies)) refuse("policy", `must be one of ${Object.keys(policies).join(", ")}`);
  for (const [name, low, high] of [["seed", 0, tasks.length - 1], ["steps", 1, 20], ["samples", 1, 16]]) {
    if (!whole(found[name], low, high)) refuse(name, `must be an integer from ${low} to ${high}`);
  }
  const push = (one) => Array.isArray(one) && one.length === 3 && whole(one[0], 0, RULES.limit) && Math.hypot(one[1], one[2]) <= RULES.push + 1e-6;
  if (!Array.isArray(found.pushes) || !found.pushes.every(push)) refuse("pushes", `must be a list of [step, dx, dy] of a length up to ${RULES.push}`);
  return found;
}
