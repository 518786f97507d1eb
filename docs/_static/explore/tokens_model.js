// Walks of the EBT to the next token, and the Transformer's prediction, by onnxruntime.

import { loadGraphs } from "./onnx.js";

export const STEPS = 8, WALKS = 8;
const TOP = 10;

/** Standard normal numbers from a seed: mulberry32 and the method of Box and Muller; `count` is even. */
export function normals(seed, count) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const found = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform())), angle = 2 * Math.PI * uniform();
    found[i] = radius * Math.cos(angle);
    found[i + 1] = radius * Math.sin(angle);
  }
  return found;
}

/** Probabilities of logits. */
export function softmaxOf(logits) {
  const powers = new Float64Array(logits.length);
  let top = -Infinity, sum = 0;
  for (const value of logits) top = Math.max(top, value);
  for (let i = 0; i < powers.length; i++) sum += powers[i] = Math.exp(logits[i] - top);
  return powers.map((power) => power / sum);
}

/** Entropy in bits and the most likely tokens, each with its probability. */
function factsOfLogits(logits) {
  const p = softmaxOf(logits), likely = [];
  let entropy = 0;
  for (let token = 0; token < p.length; token++) {
    const share = p[token];
    if (share > 0) entropy -= share * Math.log2(share);
    if (likely.length === TOP && share <= likely[TOP - 1][1]) continue;
    const place = likely.findIndex(([, other]) => other < share);
    likely.splice(place < 0 ? likely.length : place, 0, [token, share]);
    likely.length = Math.min(likely.length, TOP);
  }
  return { entropy, likely };
}

export class Models {
  /** Load the runtime and the graphs from a folder. */
  static async load(folder, stepSize) {
    const graphs = await loadGraphs(folder, ["prefill", "step", "forward"]);
    return Object.assign(new Models(), graphs, { stepSize });
  }

  /** Walks from random starts, all of STEPS steps, and the prediction in one pass. */
  async predict(numbers, seed) {
    const tokens = this.tensor(BigInt64Array.from(numbers, BigInt), [1, numbers.length]);
    const { prediction } = await this.forward.run({ tokens }), { cache } = await this.prefill.run({ tokens });
    const vocabulary = prediction.dims[0], step_size = this.tensor(Float32Array.of(this.stepSize), []);
    const found = { energies: [], entropies: [], likely: [], transformer: factsOfLogits(prediction.data) };
    for (const field of ["energies", "entropies", "likely"]) found[field] = Array.from({ length: WALKS }, () => []);
    let candidates = this.tensor(normals(seed, WALKS * vocabulary), [WALKS, vocabulary]);
    for (let step = 0; step <= STEPS; step++) {
      const { energy, next } = await this.step.run({ candidates, cache, step_size });
      for (let walk = 0; walk < WALKS; walk++) {
        const facts = factsOfLogits(candidates.data.subarray(walk * vocabulary, (walk + 1) * vocabulary));
        found.energies[walk].push(energy.data[walk]);
        found.entropies[walk].push(facts.entropy);
        found.likely[walk].push(facts.likely);
      }
      candidates = next;
    }
    return found;
  }
}
