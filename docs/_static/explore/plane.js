// Walks on planes through the energy of a trained EBT, without a page.

const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

/** The energies of a plane, as landscape_draw.js draws them. */
export function planeEnergy(data, clip, turn) {
  const { centre, half, maps } = data.clips[clip], { low, high, top, values } = maps[turn], bytes = bytesOf(values);
  const levels = new Uint16Array(bytes.buffer), grid = Array.from(levels, (level) => low + (level / 65535) * (top - low));
  return { note: `EBT ${clip} ${turn}`, centre, halfWidth: half, grid: { values: grid, low, high, size: data.grid } };
}

/** The projection of a place, along the three axes of the record, on the plane turned by some degrees. */
export function projected([x, y, away], degrees) {
  const angle = (degrees * Math.PI) / 180;
  return [x, Math.cos(angle) * y + Math.sin(angle) * away];
}

/** The distance of a place from the plane; `rest` is that from all three axes. */
export function fromPlane([, y, away], rest, degrees) {
  const angle = (degrees * Math.PI) / 180;
  return Math.hypot(rest, Math.cos(angle) * away - Math.sin(angle) * y);
}

/** How much of the length of a walk lies in the plane: length of its projection by its length; NaN if it never moves. */
export function shareInPlane(walk, degrees) {
  const points = walk.places.map((place) => projected(place, degrees));
  const parts = points.slice(1).map((point, i) => Math.hypot(point[0] - points[i][0], point[1] - points[i][1]));
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  return sum(parts) / sum(walk.lengths);
}

/** Grey images of a side, each with values from 0 to 255: of a text, or of a walk that was computed here. */
export function imagesOf(text, side) {
  if (Array.isArray(text)) return text;
  const bytes = bytesOf(text), count = bytes.length / side ** 2;
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * side ** 2, (i + 1) * side ** 2));
}

/** Complete settings from given ones; what is not available is refused in one line. */
export function checkedPlane(given, { clips, samplers, factors, turns, steps, live }) {
  const known = { clip: clips.map((_, i) => i), sampler: samplers, factor: factors, turn: turns,
    step: Array.from({ length: steps + 1 }, (_, i) => i) };
  if (given === null || typeof given !== "object" || Array.isArray(given)) throw new Error("settings: must be an object");
  for (const name of Object.keys(given)) {
    const names = [...Object.keys(known), "x", "y"];
    if (!names.includes(name)) throw new Error(`setting=${JSON.stringify(name)}: must be one of ${names.join(", ")}`);
  }
  const { x = null, y = null, ...rest } = given;
  const settings = { clip: 0, sampler: samplers[0], factor: 1, turn: 0, step: steps, ...rest };
  for (const [name, values] of Object.entries(known)) {
    if (values.includes(settings[name])) continue;
    const rule = name === "step" ? `an integer from 0 to ${steps}` : `one of ${values.join(", ")}`;
    throw new Error(`${name}=${JSON.stringify(settings[name])}: must be ${rule}`);
  }
  return { ...settings, ...checkedStart({ x, y }, settings, { clips, samplers, live }) };
}

/** A chosen start, or null for that of the record. */
function checkedStart(start, { clip, sampler }, { clips, samplers, live }) {
  if (start.x === null && start.y === null) return start;
  const { centre, half } = clips[clip];
  ["x", "y"].forEach((name, axis) => {
    const [low, high] = [centre[axis] - half, centre[axis] + half], value = start[name];
    if (typeof value === "number" && low <= value && value <= high) return;
    throw new Error(`${name}=${JSON.stringify(value)}: must be from ${low.toPrecision(3)} to ${high.toPrecision(3)}, together with x and y`);
  });
  if (sampler !== samplers[0]) throw new Error(`sampler=${JSON.stringify(sampler)}: must be ${samplers[0]} from a chosen start`);
  if (!live) throw new Error(`x=${start.x}: must be null, as the model cannot run here`);
  return start;
}
