// Parts of the frames explorer: pictures, the table of walks, and controls.

import { element } from "./parts.js";

const SPREAD = [0, 114, 178], MOST = 0.25; // colour of the spread; standard deviation that has it fully

export const upTo = (last) => Array.from({ length: last + 1 }, (_, index) => index);

// Pictures

export const canvasOf = ([height, width], label) => element("canvas", { width, height, role: "img", "aria-label": label });

const paint = (canvas, colours) => {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  colours.forEach((colour, pixel) => image.data.set(colour, 4 * pixel));
  context.putImageData(image, 0, 0);
};

// Bytes of a picture: one for each pixel, or three.
export const paintImage = (canvas, bytes) => {
  const channels = bytes.length / (canvas.width * canvas.height);
  paint(canvas, Array.from({ length: canvas.width * canvas.height }, (_, pixel) =>
    [0, 1, 2].map((colour) => bytes[pixel * channels + colour % channels]).concat(255)));
};

// Standard deviation over images of one byte; of colours, the mean.
const deviation = (images, index) => {
  const values = images.map((image) => image[index] / 255), mean = values.reduce((a, b) => a + b) / values.length;
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
};

const paintSpread = (canvas, images) => {
  const pixels = canvas.width * canvas.height, channels = images[0].length / pixels;
  const spread = (pixel) => upTo(channels - 1).reduce((sum, colour) => sum + deviation(images, pixel * channels + colour), 0) / channels;
  paint(canvas, upTo(pixels - 1).map((pixel) => [...SPREAD, Math.min(255, Math.round(255 * spread(pixel) / MOST))]));
};

export const picture = (size, name) => {
  const canvas = canvasOf(size, name), caption = element("figcaption");
  return { root: element("figure", {}, canvas, caption), canvas, say: (text) => { caption.textContent = text; } };
};

export const legend = (names) => element("p", { class: "explore-legend" },
  ...Object.entries(names).map(([name, text]) => element("span", { class: name }, text)));

// Scroll a box sideways, no more than necessary, so that a cell is visible beside the first one of its row.
const keepInView = ({ offsetLeft, offsetWidth, parentElement }, box) => {
  const first = offsetLeft + offsetWidth + 4 - box.clientWidth, last = offsetLeft - parentElement.firstChild.offsetWidth;
  box.scrollLeft = Math.min(last, Math.max(box.scrollLeft, first));
};

// Candidates of all walks by step, and their spread; a click shows a step of a walk.
export const walksTable = (size, at, [lastStep, lastWalk], change) => {
  const table = element("table", { class: "explore-walks" }), steps = upTo(lastStep), walks = upTo(lastWalk);
  table.style.setProperty("--steps", steps.length);
  const row = (name, number, draw) => {
    const cells = steps.map((step) => {
      const canvas = canvasOf(size, `${name}, step ${step}`), cell = element("td", {}, canvas);
      draw(canvas, step);
      cell.addEventListener("click", () => change(number === null ? { step } : { step, walk: number }));
      return cell;
    });
    table.append(element("tr", {}, element("th", { scope: "row" }, name), ...cells));
    return cells;
  };
  const rows = walks.map((walk) => row(`walk ${walk + 1}`, walk, (canvas, step) => paintImage(canvas, at(step, walk))));
  row("spread", null, (canvas, step) => paintSpread(canvas, walks.map((walk) => at(step, walk))));
  table.append(element("tr", {}, element("th", {}, "step"), ...steps.map((step) => element("th", { scope: "col" }, step))));
  const mark = (step, walk) => {
    rows.forEach((cells, number) => cells.forEach((cell, place) => {
      cell.className = place !== step ? "" : number === walk ? "chosen" : "column";
    }));
    keepInView(rows[walk][step], table.parentElement);
  };
  return { root: table, mark };
};

// Controls; each has a `root` and a function `show` that sets its value

const field = (label, ...parts) => element("label", {}, element("span", {}, label), ...parts);

export const menu = (label, values, named, change, read = Number) => {
  const select = element("select", {});
  const fill = (options) => select.replaceChildren(...options.map((value) => new Option(named(value), value)));
  fill(values);
  select.addEventListener("change", () => change(read(select.value)));
  return { root: field(label, select), fill, show: (value) => { select.value = value; } };
};

export const seedBox = (label, most, change) => {
  const input = element("input", { type: "number", min: 0, max: most, step: 1 });
  input.addEventListener("change", () => change(input.value === "" ? null : Number(input.value)));
  return { root: field(label, input), input, show: (value) => { input.value = value; } };
};

// A slider and its value; `to` and `from` map the value to its place and back.
export const slide = (label, [low, high, step], change, { to = Number, from = Number } = {}) => {
  const input = element("input", { type: "range", min: to(low), max: to(high), step });
  const output = element("span", { class: "explore-value", "aria-hidden": "true" });
  input.addEventListener("input", () => change(from(Number(input.value))));
  const show = (value) => {
    input.value = to(value);
    output.textContent = value;
    input.setAttribute("aria-valuetext", value);
  };
  return { root: field(label, input, output), input, show };
};
