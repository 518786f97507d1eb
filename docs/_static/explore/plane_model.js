// Gradient descent of the trained EBT from a chosen place of a plane, by onnxruntime.

import { loadGraphs } from "./onnx.js";

const numbersOf = (text) => new Float32Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
const dot = (one, other) => one.reduce((sum, value, i) => sum + value * other[i], 0);
const length = (vector) => Math.sqrt(dot(vector, vector));

/** A place along the three axes of the record: of a point of the plane that is turned by some degrees. */
export function inPlane([x, y], degrees) {
  const angle = (degrees * Math.PI) / 180;
  return [x, y * Math.cos(angle), y * Math.sin(angle)];
}

export class PlaneModel {
  /** Load the runtime and the graphs of the EBT; `data` is the record of the page. */
  static async load(folder, data) {
    return Object.assign(new PlaneModel(), { graphs: await loadGraphs(folder, ["step", "decode"]), data });
  }

  /** A walk from a point of the turned plane, as the record has them. */
  async walk(clip, point, degrees, factor) {
    const { graphs: { tensor, step, decode }, data } = this, size = factor * data.stepSize;
    const { origin, axes, cache, target } = this.known(clip), dim = origin.length, start = inPlane(point, degrees);
    const cached = tensor(cache, data.cacheShape), step_size = tensor(Float32Array.of(size), []);
    let candidates = tensor(origin.map((value, i) => value + dot(start, axes.map((axis) => axis[i]))), [1, dim]);
    const found = new Float32Array((data.steps + 1) * dim), energies = [];
    for (let index = 0; index <= data.steps; index++) {
      found.set(candidates.data, index * dim);
      const { energy, next } = await step.run({ candidates, cache: cached, step_size });
      energies.push(energy.data[0]);
      candidates = next;
    }
    const { states } = await decode.run({ candidates: tensor(found, [data.steps + 1, dim]) });
    const rows = energies.map((_, i) => states.data.subarray(i * target.length, (i + 1) * target.length));
    return { size, energies, ...this.placed(found, origin, axes), accepted: energies.slice(1).fill(1),
      errors: rows.map((row) => this.error(row, target)), images: rows.map((row) => this.image(row)) };
  }

  /** Vectors of a clip. */
  known(clip) {
    const { origin, axes, cache, target } = this.data.clips[clip].live, first = numbersOf(origin), all = numbersOf(axes);
    const rows = [0, 1, 2].map((row) => all.subarray(row * first.length, (row + 1) * first.length));
    return { origin: first, axes: rows, cache: numbersOf(cache), target: numbersOf(target) };
  }

  /** Places of candidates along the axes, their distances from them, and the lengths of the steps. */
  placed(found, origin, axes) {
    const rows = Array.from({ length: found.length / origin.length }, (_, row) => origin.map((value, i) => found[row * origin.length + i] - value));
    const places = rows.map((row) => axes.map((axis) => dot(axis, row)));
    const away = (row, place) => row.map((value, i) => value - dot(place, axes.map((axis) => axis[i])));
    return { places, rest: rows.map((row, i) => length(away(row, places[i]))),
      lengths: rows.slice(1).map((row, i) => length(row.map((value, j) => value - rows[i][j]))) };
  }

  /** SmoothL1 with beta 1, the mean over the pixels. */
  error(state, target) {
    const parts = Array.from(state, (value, i) => Math.abs(value - target[i])).map((gap) => (gap < 1 ? gap * gap / 2 : gap - 0.5));
    return parts.reduce((a, b) => a + b, 0) / parts.length;
  }

  /** Bytes of standardised pixels. */
  image(state) {
    return Uint8ClampedArray.from(state, (value) => 255 * (value * this.data.std + this.data.mean));
  }
}
