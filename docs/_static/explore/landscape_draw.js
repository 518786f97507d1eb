// Drawing of the landscape explorer on canvases: maps of energies, walks, marginal densities, energies by step.

import { marginalBins } from "./landscape.js";

// Colours: the hues of ebwm.figures.style on a blue-grey map, whose lightness alone orders the energies

export const PALETTES = {
  light: { map: ["#2b3f6b", "#48638f", "#7a96b8", "#aec2d6", "#dbe5ee", "#f4f7fa"], contour: "#1f2937", case: "#ffffff",
    walks: ["#d55e00", "#009e73", "#b5588f", "#0072b2"], gradient: "#111827", noise: "#f2c200", noiseCase: "#3d3000",
    text: "#1f2937", muted: "#6b7280", grid: "#e5e7eb", truth: "#111827" },
  dark: { map: ["#9db4d6", "#6d89b4", "#4a6590", "#314869", "#1e2d46", "#131b29"], contour: "#d1d5db", case: "#0d1117",
    walks: ["#ff9a4d", "#2fc79a", "#f0a8d2", "#56b4e9"], gradient: "#ffffff", noise: "#ffe066", noiseCase: "#3d3000",
    text: "#d1d5db", muted: "#9ca3af", grid: "#2a313c", truth: "#f9fafb" },
};

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

/** Red, green and blue of a share from 0 (lowest energy) to 1. */
function mapColour(stops, share) {
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(place), stops.length - 2);
  const [a, b] = [rgb(stops[low]), rgb(stops[low + 1])];
  return a.map((value, i) => Math.round(value + (place - low) * (b[i] - value)));
}

// Maps

const GRID = 121, LEVELS = 11, BEND = 0.6;  // points along a side, contours, exponent of the colour scale
const maps = new Map();

/** Energies on a grid, one row for each y from the top, with the lowest and the highest that is shown; or a given grid. */
export function energyGrid(energy) {
  if (energy.grid) return energy.grid;
  if (maps.has(energy)) return maps.get(energy);
  const at = (i) => (2 * i) / (GRID - 1) - 1, { centre: [x, y], halfWidth: half } = energy;
  const values = Array.from({ length: GRID * GRID }, (_, i) =>
    energy.value([x + half * at(i % GRID), y - half * at(Math.floor(i / GRID))]));
  const grid = { values, low: Math.min(...values), high: energy.top, size: GRID };
  maps.set(energy, grid);
  return grid;
}

const share = ({ low, high }, value) => (Math.max(value - low, 0) / (high - low)) ** BEND;

/** Line segments where a grid crosses a level, in units of cells. */
function contour({ values, size }, level) {
  const segments = [], above = values.map((value) => value >= level);
  const cross = (a, b, from, to) => {
    const part = (level - values[a]) / (values[b] - values[a]);
    return [from[0] + part * (to[0] - from[0]), from[1] + part * (to[1] - from[1])];
  };
  for (let row = 0; row < size - 1; row++) {
    for (let col = 0; col < size - 1; col++) {
      const a = row * size + col, corners = [a, a + 1, a + 1 + size, a + size];
      if (corners.every((corner) => above[corner] === above[a])) continue;
      const places = [[col, row], [col + 1, row], [col + 1, row + 1], [col, row + 1]];
      const sides = [0, 1, 2, 3].filter((i) => above[corners[i]] !== above[corners[(i + 1) % 4]]);
      const points = sides.map((i) => cross(corners[i], corners[(i + 1) % 4], places[i], places[(i + 1) % 4]));
      for (let i = 0; i < points.length; i += 2) segments.push([points[i], points[i + 1]]);
    }
  }
  return segments;
}

const images = new Map();

/** The map of an energy as a canvas of a given side, kept for the next frames. */
export function mapImage(energy, side, theme) {
  const palette = PALETTES[theme], grid = energyGrid(energy), { size } = grid, key = `${energy.note} ${side} ${theme}`;
  if (images.has(key)) return images.get(key);
  const small = Object.assign(document.createElement("canvas"), { width: size, height: size });
  const colours = Array.from({ length: 256 }, (_, i) => mapColour(palette.map, i / 255));
  const pixels = new ImageData(size, size);
  grid.values.forEach((value, i) =>
    pixels.data.set([...colours[Math.round(255 * Math.min(share(grid, value), 1))], 255], 4 * i));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const image = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const ctx = image.getContext("2d"), cell = side / (size - 1);
  ctx.drawImage(small, 0.5, 0.5, size - 1, size - 1, 0, 0, side, side);
  Object.assign(ctx, { strokeStyle: palette.contour, lineWidth: Math.max(side / 700, 0.6), globalAlpha: 0.35 });
  ctx.beginPath();
  for (let i = 1; i <= LEVELS; i++) {
    const level = grid.low + (grid.high - grid.low) * (i / LEVELS) ** (1 / BEND);
    for (const [from, to] of contour(grid, level)) {
      ctx.moveTo(from[0] * cell, from[1] * cell);
      ctx.lineTo(to[0] * cell, to[1] * cell);
    }
  }
  ctx.stroke();
  if (images.size > 20) images.clear();
  images.set(key, image);
  return image;
}

/** A colour scale from the lowest to the highest energy that is shown. */
export function drawScale(canvas, theme) {
  const { ctx, width, height } = prepared(canvas), fill = ctx.createLinearGradient(0, 0, width, 0);
  for (let i = 0; i <= 20; i++) fill.addColorStop(i / 20, `rgb(${mapColour(PALETTES[theme].map, (i / 20) ** BEND)})`);
  ctx.fillStyle = fill;
  ctx.fillRect(0, 0, width, height);
}

// Parts of a panel

/** Context of a canvas in CSS pixels, cleared; its buffer follows the size of the element. */
export function prepared(canvas) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2), width = canvas.clientWidth, height = canvas.clientHeight;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  Object.assign(ctx, { font: "11px system-ui, sans-serif", lineJoin: "round", lineCap: "round" });
  return { ctx, width, height, ratio };
}

/** Places of the parts of a panel, and the functions between points and pixels. */
export function panelLayout(canvas, energy, compact = false) {
  const width = canvas.clientWidth, left = compact ? 0 : 26, top = compact ? 0 : 3, side = width - left - top;
  const { centre: [x, y], halfWidth: half } = energy, unit = side / (2 * half);
  return { left, top, side, strip: top + side + 20, stripHeight: 56,
    pixel: (point) => [left + (point[0] - x + half) * unit, top + (y + half - point[1]) * unit],
    point: (px, py) => [x - half + (px - left) / unit, y + half - (py - top) / unit] };
}

/** Stroke the current path with a casing, so that it is visible on every colour. */
export function cased(ctx, colour, casing, width, edge = 2) {
  Object.assign(ctx, { strokeStyle: casing, lineWidth: width + edge });
  ctx.stroke();
  Object.assign(ctx, { strokeStyle: colour, lineWidth: width });
  ctx.stroke();
}

export function disc(ctx, [x, y], radius, fill, edge, width = 2) {
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 2 * Math.PI);
  Object.assign(ctx, { fillStyle: fill, strokeStyle: edge, lineWidth: width });
  if (fill) ctx.fill();
  ctx.stroke();
}

function crossMark(ctx, [x, y], size, colour, casing) {
  ctx.beginPath();
  for (const sign of [1, -1]) {
    ctx.moveTo(x - size, y - sign * size);
    ctx.lineTo(x + size, y + sign * size);
  }
  cased(ctx, colour, casing, 2);
}

export function star(ctx, [x, y], radius, fill, edge) {
  ctx.beginPath();
  for (let i = 0; i < 10; i++) {
    const angle = (i * Math.PI) / 5 - Math.PI / 2, r = i % 2 ? radius * 0.45 : radius;
    ctx.lineTo(x + r * Math.cos(angle), y + r * Math.sin(angle));
  }
  ctx.closePath();
  Object.assign(ctx, { fillStyle: fill, strokeStyle: edge, lineWidth: 1.2 });
  ctx.fill();
  ctx.stroke();
}

export function arrow(ctx, from, to, colour, casing) {
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]], length = Math.hypot(dx, dy);
  if (!(length > 3) || length > 1e5) return;
  const head = Math.min(8, length / 2), [ux, uy] = [dx / length, dy / length];
  ctx.beginPath();
  ctx.moveTo(...from);
  ctx.lineTo(...to);
  for (const side of [1, -1]) {
    ctx.moveTo(...to);
    ctx.lineTo(to[0] - head * (ux + side * 0.55 * uy), to[1] - head * (uy - side * 0.55 * ux));
  }
  cased(ctx, colour, casing, 2.2);
}

const mixed = (a, b, part) => a.map((value, i) => value + part * (b[i] - value));

/** The point at a share of a broken line. */
function along(points, part) {
  const place = part * (points.length - 1), index = Math.min(Math.floor(place), points.length - 2);
  return mixed(points[index], points[index + 1], place - index);
}

// Panels

const LINE = 60, CROSSES = 25, ARROWS = 0.5;  // recent steps drawn as a line and as crosses; part of a step with arrows

/** The ways of the last steps as lines, and the places before as points. */
function drawTrail(ctx, trail, layout, colour, casing) {
  const first = Math.max(trail.length - LINE, 0);
  Object.assign(ctx, { fillStyle: colour, globalAlpha: 0.55 });
  for (const way of trail.slice(0, first)) {
    const [x, y] = layout.pixel(way.at(-1));
    ctx.fillRect(x - 1.2, y - 1.2, 2.4, 2.4);
  }
  trail.slice(first).forEach((way, i, { length }) => {
    ctx.globalAlpha = 0.35 + (0.65 * i) / length;
    ctx.beginPath();
    for (const point of way) ctx.lineTo(...layout.pixel(point));
    cased(ctx, colour, casing, 2, 1.2);
  });
  ctx.globalAlpha = 1;
}

function drawRejected(ctx, walk, layout, palette) {
  for (const { at, steps } of walk.rejected) {
    const age = walk.steps - steps;
    if (age === 0 || age > CROSSES) continue;
    ctx.globalAlpha = 0.7 * (1 - age / CROSSES);
    crossMark(ctx, layout.pixel(at), 3, palette.muted, palette.case);
  }
  ctx.globalAlpha = 1;
}

/** Gradient, noise and proposal of the last step; `grown` from 0 to 1. */
function drawArrows(ctx, step, layout, palette, colour, grown, opacity) {
  const from = layout.pixel(step.origin), tip = (change) => layout.pixel(step.origin.map((v, i) => v + change[i]));
  const points = [step.origin, ...step.path, ...(step.path.length ? [] : [step.proposal])].map(layout.pixel);
  ctx.globalAlpha = opacity;
  ctx.setLineDash([4, 5]);
  ctx.beginPath();
  for (const point of points) ctx.lineTo(...point);
  cased(ctx, colour, palette.case, 1.6);
  ctx.setLineDash([]);
  arrow(ctx, from, mixed(from, tip(step.kick), grown), palette.noise, palette.noiseCase);
  arrow(ctx, from, mixed(from, tip(step.drift), grown), palette.gradient, palette.case);
  const end = points.at(-1);
  if (step.accepted) disc(ctx, end, 5.5, null, colour);
  else crossMark(ctx, end, 5, palette.gradient, palette.case);
  ctx.globalAlpha = 1;
}

/** Where the dot is: at a part of the last step's way, after the arrows. */
function dotPlace(step, part, layout) {
  const way = [step.origin, ...step.path.slice(0, -1), step.y].map(layout.pixel);
  const late = Math.max((part - ARROWS) / (1 - ARROWS), 0), eased = late * late * (3 - 2 * late);
  return step.accepted ? along(way, eased) : way[0];
}

function drawAxes(ctx, layout, energy, palette) {
  const { left, top, side } = layout, { centre, halfWidth } = energy;
  Object.assign(ctx, { fillStyle: palette.muted, strokeStyle: palette.muted, lineWidth: 1 });
  ctx.strokeRect(left, top, side, side);
  const apart = side / (2 * halfWidth) < 24 ? 2 : 1;  // a small map has room for every second number
  for (let tick = -10; tick <= 10; tick += apart) {
    const [px, py] = layout.pixel([tick, tick]);
    Object.assign(ctx, { textAlign: "center", textBaseline: "top" });
    if (Math.abs(tick - centre[0]) < halfWidth) ctx.fillText(String(tick).replace("-", "−"), px, top + side + 4);
    Object.assign(ctx, { textAlign: "right", textBaseline: "middle" });
    if (Math.abs(tick - centre[1]) < halfWidth) ctx.fillText(String(tick).replace("-", "−"), left - 5, py);
  }
}

/** Visited positions along x as bars, and the density as a line if there is one. */
function drawMarginal(ctx, walk, expected, layout, palette, colour) {
  const { left, side, strip, stripHeight } = layout, total = Math.max(walk.steps, 1), bins = walk.counts.length;
  const shares = walk.counts.map((count) => count / total);
  const top = expected ? 1.35 * Math.max(...expected) : Math.max(...shares, 1e-9), width = side / bins;
  const height = (value) => Math.min(value / top, 1) * stripHeight;
  Object.assign(ctx, { fillStyle: colour, globalAlpha: 0.55 });
  shares.forEach((value, bin) =>
    ctx.fillRect(left + bin * width, strip + stripHeight - height(value), width - 0.5, height(value)));
  ctx.globalAlpha = 1;
  Object.assign(ctx, { strokeStyle: palette.muted, lineWidth: 1 });
  ctx.strokeRect(left, strip + stripHeight, side, 0);
  if (!expected) return;
  ctx.beginPath();
  expected.forEach((value, bin) => ctx.lineTo(left + (bin + 0.5) * width, strip + stripHeight - height(value)));
  Object.assign(ctx, { strokeStyle: palette.text, lineWidth: 1.6 });
  ctx.stroke();
}

/** A map with one walk, and below it the marginal density; `part` is that of the last step's way. */
export function drawPanel(canvas, walk, { theme, colour, part, arrows, expected, start, compact }) {
  const palette = PALETTES[theme], { energy, step } = walk;
  const layout = panelLayout(canvas, energy, compact), { left, top, side } = layout;
  if (!compact) canvas.style.height = `${layout.strip + layout.stripHeight + 2}px`;
  const { ctx, ratio } = prepared(canvas);
  ctx.drawImage(mapImage(energy, Math.round(side * ratio), theme), left, top, side, side);
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, top, side, side);
  ctx.clip();
  for (const known of energy.known) star(ctx, layout.pixel(known), 7, palette.case, palette.truth);
  drawTrail(ctx, part < 1 ? walk.trail.slice(0, -1) : walk.trail, layout, colour, palette.case);
  drawRejected(ctx, walk, layout, palette);
  if (!compact) disc(ctx, layout.pixel(start), 8, null, palette.case, 4);
  if (!compact) disc(ctx, layout.pixel(start), 8, null, palette.truth, 1.6);
  const dot = step ? dotPlace(step, part, layout) : layout.pixel(walk.state.y);
  if (step && arrows > 0) drawArrows(ctx, step, layout, palette, colour, Math.min(part / 0.3, 1), arrows);
  disc(ctx, dot, compact ? 5 : 6, colour, palette.case);
  ctx.restore();
  if (compact) return;
  drawAxes(ctx, layout, energy, palette);
  drawMarginal(ctx, walk, expected, layout, palette, colour);
}

const densities = new Map();

/** Expected shares of the bins, kept for the next frames. */
export function expectedShares(walk, name) {
  const key = `${name} ${walk.settings.temperature}`;
  if (densities.size > 50) densities.clear();
  if (!densities.has(key)) densities.set(key, marginalBins(walk.energy, walk.settings.temperature, walk.counts.length));
  return densities.get(key);
}

// Energies by step

const DASHES = [[], [6, 4], [2, 3], [8, 3, 2, 3]], SPAN = 600;

/** About four round numbers from `low` to `high`. */
export function ticks(low, high) {
  const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const gap = power * [1, 2, 5, 10].find((factor) => factor * power >= rough), first = Math.ceil(low / gap - 0.05);
  const count = Math.floor(high / gap) - first + 1;
  return Array.from({ length: count }, (_, i) => Number(((first + i) * gap).toPrecision(6)));
}

/** Range of steps and energies; a walk that diverges leaves it. */
function energyRange(walks) {
  const { low, high } = energyGrid(walks[0].energy), steps = Math.max(...walks.map((walk) => walk.steps));
  const seen = walks.flatMap((walk) => walk.energies).filter((value) => value < high + 0.5 * (high - low));
  const span = Math.min(Math.max(steps, 20), SPAN);
  return { low, high: Math.max(low + (high - low) / 8, ...seen), first: Math.max(steps - span, 0), span };
}

/** Energies of all walks by step: the most recent ones. */
export function drawEnergies(canvas, walks, { theme, colours }) {
  const { ctx, width, height } = prepared(canvas), palette = PALETTES[theme];
  const { low, high, first, span } = energyRange(walks);
  const left = 40, bottom = height - 20, top = 10, right = width - 8;
  const x = (steps) => left + ((steps - first) / span) * (right - left);
  const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);
  Object.assign(ctx, { strokeStyle: palette.grid, fillStyle: palette.muted, lineWidth: 1 });
  Object.assign(ctx, { textAlign: "right", textBaseline: "middle" });
  for (const value of ticks(low, high)) {
    ctx.strokeRect(left, y(value), right - left, 0);
    ctx.fillText(String(value).replace("-", "−"), left - 6, y(value));
  }
  Object.assign(ctx, { textAlign: "left", textBaseline: "top" });
  ctx.fillText(`step ${first}`, left, bottom + 6);
  ctx.textAlign = "right";
  ctx.fillText(String(first + span), right, bottom + 6);
  ctx.save();
  ctx.beginPath();
  ctx.rect(left, 0, right - left + 2, bottom + 2);
  ctx.clip();
  walks.forEach((walk, index) => {
    const begin = walk.steps + 1 - walk.energies.length;
    ctx.beginPath();
    walk.energies.forEach((value, i) => {
      if (Number.isFinite(value)) ctx.lineTo(x(begin + i), y(Math.min(value, high + 1e3 * (high - low))));
    });
    ctx.setLineDash(DASHES[index]);
    Object.assign(ctx, { strokeStyle: colours[index], lineWidth: 1.8 });
    ctx.stroke();
  });
  ctx.restore();
}
