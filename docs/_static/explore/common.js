// Parts of the frames explorer's page: possible values of a state, a bar that plays steps, line plots.

import { element } from "./parts.js";

const allow = (includes, words) => ({ includes, toString: () => words });
export const oneOf = (values) => allow((value) => values.includes(value), `one of ${values.join(", ")}`);
export const integerFrom = (low, high) =>
  allow((value) => Number.isInteger(value) && low <= value && value <= high, `an integer from ${low} to ${high}`);
export const numberFrom = (low, high) =>
  allow((value) => typeof value === "number" && low <= value && value <= high, `a number from ${low} to ${high}`);

// The state is a flat object; `allowed` maps each of its names to its possible values, or is a function of the state to that.
export const checked = (value, allowedFor) => {
  if (value === null || typeof value !== "object") throw new Error("settings: must be a JSON object.");
  const allowed = typeof allowedFor === "function" ? allowedFor(value) : allowedFor;
  for (const name of Object.keys(value)) {
    if (!(name in allowed)) throw new Error(`${name}: unknown; known are ${Object.keys(allowed).join(", ")}.`);
  }
  for (const [name, values] of Object.entries(allowed)) {
    if (name in value && !values.includes(value[name])) {
      throw new Error(`${name}=${JSON.stringify(value[name])}: must be ${values}.`);
    }
  }
  return value;
};

// A button and a slider over the steps 0..last, which is set with the shown step; `change` gets the step.
export const playBar = (change, pause = 450) => {
  const button = element("button", { type: "button", class: "explore-play" }, "Play");
  const slider = element("input", { type: "range", min: 0, max: 1, step: 1, "aria-label": "step" });
  const label = element("span", { class: "explore-step" });
  let timer = null, last = 1;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  const advance = () => {
    const step = Number(slider.value) + 1;
    if (step >= last) stop();
    if (step <= last) change(step);
  };
  const start = () => {
    if (Number(slider.value) >= last) change(0);
    timer = setInterval(advance, pause);
    button.textContent = "Pause";
  };
  button.addEventListener("click", () => (timer === null ? start() : stop()));
  slider.addEventListener("input", () => {
    stop();
    change(Number(slider.value));
  });
  const show = (step, steps) => {
    last = slider.max = steps;
    slider.value = step;
    label.textContent = `step ${step} of ${last}`;
    slider.setAttribute("aria-valuetext", label.textContent);
  };
  return { root: element("div", { class: "explore-bar" }, button, slider, label), show, stop };
};

const svg = (name, attributes, text = "") => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
};

export const short = (value) => String(Number(value.toPrecision(3)));

const ticksOf = (low, high) => {
  const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const gap = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.ceil(low / gap);
  return Array.from({ length: Math.floor(high / gap) - first + 1 }, (_, index) => (first + index) * gap);
};

// Lines [{name, values}] over the steps 0, 1, ...; constant lines have one value. `show` marks a step.
export const linePlot = (title, lines, { from } = {}) => {
  const size = { width: 320, height: 190, left: 46, right: 8, top: 10, bottom: 34 };
  const values = lines.flatMap((line) => line.values).filter(Number.isFinite), last = Math.max(...lines.map((line) => line.values.length)) - 1;
  const least = from ?? Math.min(...values), most = Math.max(...values), margin = 0.06 * (most - least || 1);
  const [low, high] = [from ?? least - margin, most + margin];
  const x = (step) => size.left + (size.width - size.left - size.right) * (step / last * 0.96 + 0.02);
  const y = (value) => size.top + (size.height - size.top - size.bottom) * (high - value) / (high - low);
  const root = svg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, role: "img", class: "explore-plot" });
  const [start, end] = [size.left, size.width - size.right];
  for (const tick of ticksOf(low, high)) {
    root.append(svg("line", { class: "grid", x1: start, x2: end, y1: y(tick), y2: y(tick) }),
      svg("text", { x: start - 5, y: y(tick) + 4, "text-anchor": "end" }, short(tick).replace("-", "−")));
  }
  for (let step = 0; step <= last; step += Math.ceil(last / 10)) {
    root.append(svg("text", { x: x(step), y: size.height - 19, "text-anchor": "middle" }, step));
  }
  root.append(svg("text", { x: (start + end) / 2, y: size.height - 4, "text-anchor": "middle" }, "step"));
  const mark = svg("line", { class: "mark", y1: size.top, y2: size.height - size.bottom });
  root.append(mark);
  for (const { name, values: heights } of lines) {
    const points = heights.length > 1
      ? heights.map((value, step) => [x(step), y(value)]).filter(([, height]) => Number.isFinite(height))
      : [[start, y(heights[0])], [end, y(heights[0])]];
    root.append(svg("polyline", { class: `line ${name}`, points: points.map((point) => point.join()).join(" ") }));
  }
  const show = (step) => {
    for (const end of ["x1", "x2"]) mark.setAttribute(end, x(step));
    const here = lines.filter((line) => line.values.length > 1).map((line) => short(line.values[step]));
    root.setAttribute("aria-label", `${title} at step ${step}: ${here.join(", ")}`);
  };
  return { root, show };
};
