// Energies, samplers and settings of the landscape explorer, without a page.
// With the same random numbers, a step equals that of ebwm.sampler and ebwm.modifiers.

// Random numbers

/** Seeded stream: uniform numbers by mulberry32, normal ones by Box and Muller. */
export function randomStream(seed) {
  let state = Math.imul(seed + 1, 0x9e3779b1) >>> 0, spare = null;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = () => {
    if (spare !== null) {
      const kept = spare;
      spare = null;
      return kept;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - uniform())), angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
  return { uniform, normal };
}

/** Stream that returns given numbers in order, whatever their distribution. */
export function recordedStream(numbers) {
  let next = 0;
  const draw = () => numbers[next++];
  return { uniform: draw, normal: draw };
}

// Energies: value and gradient at [x, y], the marginal density along x up to a factor, the plotted square, the highest
// energy that the map shows, a start, and known points

const WELLS = { barrier: 4 };
const BOWL = { minimum: [0.5, -0.5], stiffness: [1, 12] };
const MIXTURE = { means: [[-2, -1], [1.5, -1.5], [0.5, 2]], weights: [0.2, 0.3, 0.5], std: 0.7 };

const doubleWell = {
  note: "Two minima of energy 0, separated by a barrier of height 4.",
  centre: [0, 0], halfWidth: 2.2, top: 12, start: [0.2, 1.7], known: [[-1, 0], [1, 0]], knownName: "minimum",
  value: ([x, y]) => WELLS.barrier * (x * x - 1) ** 2 + (y * y) / 2,
  gradient: ([x, y]) => [4 * WELLS.barrier * x * (x * x - 1), y],
  marginal: (x, temperature) => Math.exp((-WELLS.barrier * (x * x - 1) ** 2) / temperature),
};

const quadratic = {
  note: "12 times stiffer along y: gradient descent diverges for step sizes above 1/6.",
  centre: [0, 0], halfWidth: 3, top: 40, start: [-2.2, 2], known: [BOWL.minimum], knownName: "minimum",
  value: (y) => sum(y.map((v, i) => BOWL.stiffness[i] * (v - BOWL.minimum[i]) ** 2)) / 2,
  gradient: (y) => y.map((v, i) => BOWL.stiffness[i] * (v - BOWL.minimum[i])),
  marginal: (x, temperature) => Math.exp((-BOWL.stiffness[0] * (x - BOWL.minimum[0]) ** 2) / (2 * temperature)),
};

/** Logarithms of the weighted Gaussians at y, without their common factor. */
function components(y) {
  return MIXTURE.means.map((mean, k) =>
    Math.log(MIXTURE.weights[k]) - sum(mean.map((m, i) => (y[i] - m) ** 2)) / (2 * MIXTURE.std ** 2));
}

function logSumExp(values) {
  const top = Math.max(...values);
  return top + Math.log(sum(values.map((value) => Math.exp(value - top))));
}

const mixture = {
  note: "Three Gaussians with weights 0.2, 0.3 and 0.5.",
  centre: [0, 0], halfWidth: 4, top: 14, start: [-0.3, 0.2], known: MIXTURE.means, knownName: "mode",
  value: (y) => 2 * Math.log(MIXTURE.std * Math.sqrt(2 * Math.PI)) - logSumExp(components(y)),
  gradient: (y) => {
    const logs = components(y), total = logSumExp(logs);
    return y.map((v, i) => sum(MIXTURE.means.map((mean, k) =>
      (Math.exp(logs[k] - total) * (v - mean[i])) / MIXTURE.std ** 2)));
  },
  marginal: (x, temperature) => {
    let total = 0;
    for (let y = -8; y <= 8; y += 0.16) total += Math.exp(logSumExp(components([x, y])) / temperature);
    return total;
  },
};

const banana = {
  note: "A curved valley (1 − x)²/2 + 5 (y − x²)²: flat along its floor, steep across.",
  centre: [0.8, 2.6], halfWidth: 3.4, top: 30, start: [-1.2, 1.6], known: [[1, 1]], knownName: "minimum",
  value: ([x, y]) => (1 - x) ** 2 / 2 + 5 * (y - x * x) ** 2,
  gradient: ([x, y]) => [x - 1 - 20 * x * (y - x * x), 10 * (y - x * x)],
  marginal: (x, temperature) => Math.exp(-((1 - x) ** 2) / (2 * temperature)),
};

export const ENERGIES = { "double well": doubleWell, quadratic, mixture, banana };

/** Probability of equal bins along x of the plotted square, for the density exp(-energy / temperature). */
export function marginalBins(energy, temperature, bins) {
  const inner = 3, width = (2 * energy.halfWidth) / bins, left = energy.centre[0] - energy.halfWidth;
  const at = (bin) => sum(Array.from({ length: inner }, (_, i) =>
    energy.marginal(left + width * (bin + (i + 0.5) / inner), temperature)));
  const masses = Array.from({ length: 2 * bins }, (_, bin) => at(bin - bins / 2));
  const total = sum(masses);
  return masses.slice(bins / 2, bins / 2 + bins).map((mass) => mass / total);
}

// Samplers: (energy, state, settings, stream) -> step. A state has y and velocity; settings are named as in Python.
// A step has y, energy (there), gradient, noise, proposal, accepted, velocity; and for drawing: origin, drift (the
// displacement by the gradient), kick (by noise and momentum) and path (intermediate points).

const MOMENTUM = 0.9, LEAPFROGS = 8;
const sum = (values) => values.reduce((a, b) => a + b, 0);
const plus = (a, b, factor = 1) => a.map((value, i) => value + factor * b[i]);
const scaled = (a, factor) => a.map((value) => factor * value);
const square = (a) => sum(a.map((value) => value * value));
const normals = (stream, factor) => [factor * stream.normal(), factor * stream.normal()];

/** Noise added before a step of descent; none is drawn if its standard deviation is 0. */
function noiseBefore(settings, stream) {
  return settings.noise ? normals(stream, settings.noise) : [0, 0];
}

function moved(energy, origin, y, parts) {
  return { origin, y, energy: energy.value(y), proposal: y, accepted: true, velocity: [0, 0], path: [], ...parts };
}

function gradientDescent(energy, { y: origin }, settings, stream) {
  const noise = noiseBefore(settings, stream), start = plus(origin, noise);
  const gradient = energy.gradient(start), drift = scaled(gradient, -settings.step_size);
  return moved(energy, origin, plus(start, drift), { gradient, noise, drift, kick: noise });
}

function nesterov(energy, { y: origin, velocity }, settings, stream) {
  const noise = noiseBefore(settings, stream), start = plus(origin, noise), carried = scaled(velocity, MOMENTUM);
  const gradient = energy.gradient(plus(start, carried)), drift = scaled(gradient, -settings.step_size);
  const changed = plus(carried, drift);
  return moved(energy, origin, plus(start, changed),
    { gradient, noise, drift, kick: plus(noise, carried), velocity: changed });
}

function guardedDescent(energy, state, settings, stream) {
  const step = gradientDescent(energy, state, settings, stream), before = energy.value(state.y);
  return step.energy < before ? step : { ...step, y: state.y, energy: before, accepted: false };
}

function langevin(energy, { y: origin }, settings, stream) {
  const alpha = settings.step_size, gradient = energy.gradient(origin), drift = scaled(gradient, -alpha);
  const noise = normals(stream, Math.sqrt(2 * alpha * settings.temperature));
  return moved(energy, origin, plus(plus(origin, drift), noise), { gradient, noise, drift, kick: noise });
}

/** Accept a step with probability min(1, exp(logRatio)). */
function metropolis(energy, step, logRatio, stream) {
  const accepted = Math.log(stream.uniform()) < logRatio;
  return accepted ? step : { ...step, y: step.origin, energy: energy.value(step.origin), accepted };
}

function mala(energy, state, settings, stream) {
  const step = langevin(energy, state, settings, stream), alpha = settings.step_size, { origin, proposal } = step;
  const back = square(plus(plus(origin, proposal, -1), energy.gradient(proposal), alpha));
  const there = square(plus(plus(proposal, origin, -1), step.gradient, alpha));
  const logRatio = (energy.value(origin) - step.energy + (there - back) / (4 * alpha)) / settings.temperature;
  return metropolis(energy, step, logRatio, stream);
}

function hmc(energy, { y: origin }, settings, stream) {
  const time = settings.step_size, noise = normals(stream, Math.sqrt(settings.temperature)), path = [];
  let y = origin, velocity = noise, gradient = energy.gradient(origin);
  const drift = scaled(gradient, -((LEAPFROGS * time) ** 2) / 2), first = gradient;
  for (let i = 0; i < LEAPFROGS; i++) {
    velocity = plus(velocity, gradient, -time / 2);
    y = plus(y, velocity, time);
    gradient = energy.gradient(y);
    velocity = plus(velocity, gradient, -time / 2);
    path.push(y);
  }
  const step = moved(energy, origin, y, { gradient: first, noise, drift, path, kick: scaled(noise, LEAPFROGS * time) });
  const lost = energy.value(origin) - step.energy + (square(noise) - square(velocity)) / 2;
  return metropolis(energy, step, lost / settings.temperature, stream);
}

export const SAMPLERS = { "gradient descent": gradientDescent, Nesterov: nesterov, "guarded descent": guardedDescent,
  Langevin: langevin, MALA: mala, HMC: hmc };
export const THERMAL = ["Langevin", "MALA", "HMC"];

// Settings: plain values that can be saved as JSON

export const MAX_WALKS = 4;
export const RANGES = { step_size: [0.001, 2], temperature: [0.05, 10], noise: [0, 1] };  // of each sampler
const WALK = { sampler: "Langevin", step_size: 0.05, temperature: 1, noise: 0 };
const PLAIN = { energy: "double well", x: 0.2, y: 1.7, seed: 0, speed: 3, linked: false, walks: [WALK] };
const COMMON = { x: [-20, 20], y: [-20, 20], seed: [0, 2 ** 31 - 1], speed: [1, 1000] };  // ranges

function refuse(name, value, rule) {
  throw new Error(`${name}=${JSON.stringify(value)}: must be ${rule}`);
}

function checkChoice(name, value, known) {
  if (!Object.hasOwn(known, value)) refuse(name, value, `one of ${Object.keys(known).join(", ")}`);
}

function checkNumbers(values, ranges) {
  for (const [name, [low, high]] of Object.entries(ranges)) {
    const value = values[name];
    if (typeof value !== "number" || !(low <= value && value <= high)) refuse(name, value, `from ${low} to ${high}`);
  }
}

function checkNames(values, known) {
  for (const name of Object.keys(values)) checkChoice("setting", name, known);
}

function checkWalk(given) {
  checkNames(given, WALK);
  const walk = { ...WALK, ...given };
  checkChoice("sampler", walk.sampler, SAMPLERS);
  checkNumbers(walk, RANGES);
  return walk;
}

/** Complete settings from given ones; what is not available is refused in one line. */
export function checkedSettings(given) {
  if (given === null || typeof given !== "object" || Array.isArray(given)) refuse("settings", given, "an object");
  checkNames(given, PLAIN);
  const settings = { ...PLAIN, ...given };
  checkChoice("energy", settings.energy, ENERGIES);
  checkNumbers(settings, COMMON);
  if (!Number.isInteger(settings.seed)) refuse("seed", settings.seed, "a whole number");
  const count = Array.isArray(settings.walks) ? settings.walks.length : 0;
  if (count < 1 || count > MAX_WALKS) refuse("walks", settings.walks, `a list of 1 to ${MAX_WALKS} samplers`);
  return { ...settings, linked: Boolean(settings.linked), walks: settings.walks.map(checkWalk) };
}

// Walks

const KEPT = 600, BINS = 40, FAR = 1e6;

/** A walk at its start. */
export function startedWalk(settings, index) {
  const y = [settings.x, settings.y], energy = ENERGIES[settings.energy], value = energy.value(y);
  return { energy, settings: settings.walks[index], stream: randomStream(settings.seed), state: { y, velocity: [0, 0] },
    step: null, steps: 0, accepted: 0, diverged: false, value, trail: [[y, y]], energies: [value], rejected: [],
    counts: new Array(BINS).fill(0) };
}

/** Take one step; a walk that has diverged stays where it is. */
export function advance(walk) {
  if (walk.diverged) return;
  const { energy, settings } = walk, step = SAMPLERS[settings.sampler](energy, walk.state, settings, walk.stream);
  walk.steps += 1;
  walk.diverged = !step.y.every((value) => Math.abs(value) < FAR);
  walk.step = step;
  walk.accepted += step.accepted;
  if (!step.accepted) walk.rejected.push({ at: step.proposal, steps: walk.steps });
  walk.state = { y: step.y, velocity: step.velocity };
  walk.value = step.energy;
  walk.trail.push(step.accepted ? [step.origin, ...step.path.slice(0, -1), step.y] : [step.y, step.y]);
  walk.energies.push(step.energy);
  for (const kept of [walk.trail, walk.energies, walk.rejected]) if (kept.length > KEPT) kept.shift();
  const bin = Math.floor(((step.y[0] - energy.centre[0]) / energy.halfWidth + 1) * (BINS / 2));
  if (bin >= 0 && bin < BINS) walk.counts[bin] += 1;
}

/** Half the sum of the differences between visited and expected shares of the bins: 0 is agreement, 1 is none. */
export function variation(walk, expected) {
  const seen = walk.counts.map((count) => count / Math.max(walk.steps, 1));
  const outside = Math.abs(sum(expected) - sum(seen));
  return (sum(seen.map((share, bin) => Math.abs(share - expected[bin]))) + outside) / 2;
}
