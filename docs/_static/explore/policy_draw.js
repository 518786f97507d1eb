// Drawing of the policy explorer on canvases: the task with candidate chunks, and energies by time.

import { PALETTES, arrow, cased, disc, prepared, ticks } from "./landscape_draw.js";
import { RULES, choiceAt } from "./policy.js";

const HALF = 1.06;  // half of the side of the square that is shown
const FAINT = 0.35;  // opacity of what comes after the shown step
const LOW = [0, 114, 178], HIGH = { light: [188, 195, 205], dark: [74, 83, 97] };  // colours of low and high energies

/** Pixels of a point, and the point of a pixel. */
export function places(canvas) {
  const side = canvas.clientWidth, unit = side / (2 * HALF);
  return { unit, pixel: ([x, y]) => [(x + HALF) * unit, (HALF - y) * unit], point: ([px, py]) => [px / unit - HALF, HALF - py / unit] };
}

function line(ctx, points, colour, width, casing = null) {
  ctx.beginPath();
  points.forEach((point) => ctx.lineTo(...point));
  if (casing) return cased(ctx, colour, casing, width);
  Object.assign(ctx, { strokeStyle: colour, lineWidth: width });
  return ctx.stroke();
}

/** Colours of candidates: the lowest energy has the strongest. */
function energyColours(samples, theme) {
  const energies = samples.map(({ energy }) => energy);
  if (energies[0] === null) return samples.map(() => PALETTES[theme].muted);
  const low = Math.min(...energies), span = Math.max(...energies) - low || 1;
  return energies.map((energy) => `rgb(${LOW.map((v, i) => Math.round(v + ((energy - low) / span) * (HIGH[theme][i] - v))).join()})`);
}

/** The task at a step: obstacle, goal, candidates, chosen chunk, path and pushes; a drag is a push to be. */
export function drawTask(canvas, episode, { theme, step, drag }) {
  const { ctx } = prepared(canvas), palette = PALETTES[theme], { unit, pixel } = places(canvas), choice = choiceAt(episode, step);
  disc(ctx, pixel([0, 0]), RULES.obstacle * unit, palette.grid, palette.muted, 1.5);
  disc(ctx, pixel(episode.goal), RULES.goal * unit, null, palette.walks[1], 3);
  Object.assign(ctx, { fillStyle: palette.muted, textAlign: "center", textBaseline: "middle" });
  ctx.fillText("obstacle", ...pixel([0, 0]));
  ctx.fillText("goal", ...pixel([episode.goal[0], episode.goal[1] + 0.14]));
  if (choice) {
    const colours = energyColours(choice.samples, theme), order = choice.samples.map((_, i) => i);
    order.sort((a, b) => (choice.samples[b].energy ?? 0) - (choice.samples[a].energy ?? 0));
    for (const i of order) line(ctx, choice.samples[i].path.map(pixel), colours[i], 1.3);
    line(ctx, choice.chunk.map(pixel), palette.text, 3, palette.case);
  }
  const path = episode.points.slice(0, step + 1).map(({ place }) => pixel(place)), here = path.at(-1), { touched } = episode.points[step];
  line(ctx, path, palette.walks[3], 3, palette.case);
  for (const [at, dx, dy] of episode.settings.pushes) {
    const to = episode.points[at]?.place;
    if (to && at <= step) arrow(ctx, pixel([to[0] - dx, to[1] - dy]), pixel(to), palette.walks[0], palette.case);
  }
  disc(ctx, here, 8, touched ? palette.walks[0] : palette.walks[3], palette.case, 2);
  if (drag) arrow(ctx, here, pixel(drag), palette.walks[0], palette.case);
}

/** Energies of the chosen chunks and of the candidates by time: those after the step that is shown are faint. */
export function drawEnergy(canvas, episode, { theme, step }) {
  const { ctx, width, height } = prepared(canvas), palette = PALETTES[theme], { choices } = episode;
  const all = choices.flatMap(({ energy, samples }) => [energy, ...samples.map((one) => one.energy)]), margin = 0.05;
  const left = 40, right = width - 8, bottom = height - 20, last = episode.outcome ? episode.step : Math.max(episode.step, 32);
  const [least, most] = [Math.min(...all), Math.max(...all)], pad = margin * (most - least) || 1;
  const x = (time) => left + (time / last) * (right - left), y = (value) => 8 + (bottom - 8) * (most + pad - value) / (most - least + 2 * pad);
  Object.assign(ctx, { strokeStyle: palette.grid, fillStyle: palette.muted, lineWidth: 1, textAlign: "right", textBaseline: "middle" });
  for (const value of ticks(least - pad, most + pad)) {
    ctx.strokeRect(left, y(value), right - left, 0);
    ctx.fillText(String(value).replace("-", "−"), left - 6, y(value));
  }
  Object.assign(ctx, { textAlign: "left", textBaseline: "top" });
  ctx.fillText("step 0", left, bottom + 6);
  ctx.textAlign = "right";
  ctx.fillText(String(last), right, bottom + 6);
  const held = (end) => choices.filter(({ at }) => at <= end)
    .flatMap(({ at, energy }, i) => [[x(at), y(energy)], [x(Math.min(choices[i + 1]?.at ?? end, end)), y(energy)]]);
  line(ctx, [[x(step), 8], [x(step), bottom]], palette.walks[0], 1.5);
  ctx.globalAlpha = FAINT;
  line(ctx, held(episode.step), palette.walks[3], 2);
  for (const { at, samples } of choices) {
    ctx.globalAlpha = at <= step ? 1 : FAINT;
    for (const { energy } of samples) disc(ctx, [x(at), y(energy)], 1.5, palette.muted, palette.muted, 1);
  }
  ctx.globalAlpha = 1;
  line(ctx, held(step), palette.walks[3], 2);
  disc(ctx, [x(step), y(choiceAt(episode, step).energy)], 4.5, palette.walks[3], palette.case, 1.5);
}
