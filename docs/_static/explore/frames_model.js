// Walks of the EBT to the next frame, and the prediction of the Transformer++, by onnxruntime.

import { randomStream } from "./landscape.js";
import { loadGraphs } from "./onnx.js";

/** The bytes of a text in base64, in equal parts. */
export function bytesOf(text, size) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Array.from({ length: bytes.length / size }, (_, index) => bytes.subarray(index * size, (index + 1) * size));
}

/** Rows of a flat array. */
const rowsOf = (values, size) =>
  Array.from({ length: values.length / size }, (_, row) => values.subarray(row * size, (row + 1) * size));

const at = (value, index) => (Array.isArray(value) ? value[index] : value);

/** SmoothL1 with beta 1, the mean over the pixels. */
function smoothL1(one, other) {
  let sum = 0;
  for (let i = 0; i < one.length; i++) {
    const gap = Math.abs(one[i] - other[i]);
    sum += gap < 1 ? gap * gap / 2 : gap - 0.5;
  }
  return sum / one.length;
}

export class FrameModels {
  /** Load the runtime and the graphs; `data` has the scale of the states, the step size and the size of candidates. */
  static async load(folder, data) {
    const graphs = await loadGraphs(folder, ["prefill", "step", "decode", "forward"]);
    return Object.assign(new FrameModels(), { graphs, data });
  }

  /** Standardised pixels; mean and standard deviation are one number, or one for each pixel. */
  states(images) {
    const { mean, std } = this.data, pixels = images[0].length, found = new Float32Array(images.length * pixels);
    images.forEach((image, index) => image.forEach((value, pixel) => {
      found[index * pixels + pixel] = (value / 255 - at(mean, pixel)) / at(std, pixel);
    }));
    return found;
  }

  /** Bytes of standardised pixels. */
  image(state) {
    const { mean, std } = this.data;
    return Uint8ClampedArray.from(state, (value, pixel) => 255 * (value * at(std, pixel) + at(mean, pixel)));
  }

  /** The frames that the models see, with the actions after them if there are any. */
  inputs(context, actions) {
    const { tensor } = this.graphs, choices = this.data.actions.length;
    const states = tensor(this.states(context), [1, context.length, context[0].length]);
    if (!choices) return { states };
    const chosen = new Float32Array(actions.length * choices);
    actions.forEach((action, index) => { chosen[index * choices + action] = 1; });
    return { states, actions: tensor(chosen, [1, actions.length, choices]) };
  }

  /** Walks from random starts after the frames of `context` and the actions after them, and the prediction in one pass. */
  async predict(context, truth, { seed, steps, walks, factor }, actions = []) {
    const { graphs: { tensor, prefill, forward, decode }, data: { dim } } = this, pixels = truth.length;
    const inputs = this.inputs(context, actions), target = this.states([truth]);
    const { prediction } = await forward.run(inputs), { cache } = await prefill.run(inputs);
    const stream = randomStream(seed), start = Float32Array.from({ length: walks * dim }, stream.normal);
    const { places, energies } = await this.walk(tensor(start, [walks, dim]), cache, steps, factor);
    const decoded = await decode.run({ candidates: tensor(places, [(steps + 1) * walks, dim]) });
    const rows = rowsOf(decoded.states.data, pixels), errors = rows.map((row) => smoothL1(row, target));
    const byWalk = (values) => Array.from({ length: walks }, (_, walk) => values.filter((_, index) => index % walks === walk));
    return { energies: byWalk(energies), errors: byWalk(errors), candidates: rows.map((row) => this.image(row)),
      baseline: this.image(prediction.data), lastError: smoothL1(this.states([context.at(-1)]), target),
      baselineError: smoothL1(prediction.data, target) };
  }

  /** Candidates and energies of all walks at each step, one after the other. */
  async walk(start, cache, steps, factor) {
    const step_size = this.graphs.tensor(Float32Array.of(this.data.stepSize * factor), []), energies = [];
    const places = new Float32Array((steps + 1) * start.data.length);
    for (let step = 0, candidates = start; step <= steps; step++) {
      places.set(candidates.data, step * start.data.length);
      const { energy, next } = await this.graphs.step.run({ candidates, cache, step_size });
      energies.push(...energy.data);
      candidates = next;
    }
    return { places, energies };
  }
}
