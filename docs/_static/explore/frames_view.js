// The frames explorer on the site: recorded predictions of the next frame of some clips, step by step.

import { element, linePlot, playBar, readHash, short, stateBox, writeHash } from "./common.js";

const SPREAD = [0, 114, 178], MOST = 0.25; // colour of the spread; standard deviation that has it fully

const decoded = (text, pixels) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Array.from({ length: bytes.length / pixels }, (_, index) => bytes.subarray(index * pixels, (index + 1) * pixels));
};

const canvasOf = ([height, width], label) => element("canvas", { width, height, role: "img", "aria-label": label });

const paint = (canvas, colours) => {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  colours.forEach((colour, pixel) => image.data.set(colour, 4 * pixel));
  context.putImageData(image, 0, 0);
};
const paintGrey = (canvas, bytes) => paint(canvas, [...bytes].map((value) => [value, value, value, 255]));

const paintSpread = (canvas, images) => paint(canvas, Array.from(images[0], (_, pixel) => {
  const values = images.map((image) => image[pixel] / 255), mean = values.reduce((a, b) => a + b) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return [...SPREAD, Math.min(255, Math.round(255 * Math.sqrt(variance) / MOST))];
}));

const picture = (size, name) => {
  const canvas = canvasOf(size, name), caption = element("figcaption");
  return { root: element("figure", {}, canvas, caption), canvas, say: (text) => { caption.textContent = text; } };
};

const choice = (label, values, named, change) => {
  const select = element("select", {}, ...values.map((value) => new Option(named(value), value)));
  select.addEventListener("change", () => change(Number(select.value)));
  return { root: element("label", {}, label, select), show: (value) => { select.value = value; } };
};

const unique = (values) => [...new Set(values)].sort((a, b) => a - b);
const upTo = (last) => Array.from({ length: last + 1 }, (_, index) => index);

const legend = (names) => element("p", { class: "explore-legend" },
  ...Object.entries(names).map(([name, text]) => element("span", { class: name }, text)));

// Candidates of all walks by step, and their spread; a click shows a step of a walk.
const walksTable = (data, change) => {
  const table = element("table", { class: "explore-walks" }), steps = upTo(data.steps), walks = upTo(data.walks - 1);
  const row = (name, number) => {
    const canvases = steps.map((step) => canvasOf(data.size, `${name}, step ${step}`));
    const cells = canvases.map((canvas, step) => {
      const cell = element("td", {}, canvas);
      cell.addEventListener("click", () => change(number === null ? { step } : { step, walk: number }));
      return cell;
    });
    table.append(element("tr", {}, element("th", { scope: "row" }, name), ...cells));
    return { canvases, cells };
  };
  const rows = walks.map((walk) => row(`walk ${walk + 1}`, walk)), spread = row("spread", null);
  table.append(element("tr", {}, element("th", {}, "step"), ...steps.map((step) => element("th", { scope: "col" }, step))));
  const draw = (at) => steps.forEach((step) => {
    const images = walks.map((walk) => at(step, walk));
    images.forEach((image, walk) => paintGrey(rows[walk].canvases[step], image));
    paintSpread(spread.canvases[step], images);
  });
  const mark = (step, walk) => rows.forEach(({ cells }, number) => cells.forEach((cell, place) => {
    cell.className = place !== step ? "" : number === walk ? "chosen" : "column";
  }));
  return { root: table, draw, mark };
};

const mount = (root, data) => {
  const pixels = data.size[0] * data.size[1], steps = upTo(data.steps), walks = upTo(data.walks - 1);
  const allowed = { clip: unique(data.states.map((state) => state.clip)),
    position: unique(data.states.map((state) => state.position)), walk: walks, step: steps };
  const state = { clip: allowed.clip[0], position: allowed.position.at(1), walk: 0, step: data.steps };
  const message = element("p", { role: "status", class: "explore-message" });
  const say = (text) => { message.textContent = text; };
  let shown = null, images = null, plots = [];

  const change = (changes) => {
    Object.assign(state, changes);
    say("");
    draw();
    writeHash(state);
  };
  const jump = (changes) => {
    bar.stop();
    change(changes);
  };
  const choices = {
    clip: choice("Clip", allowed.clip, (value) => `clip ${value + 1}`, (clip) => jump({ clip })),
    position: choice("Frames seen", allowed.position, String, (position) => jump({ position })),
    walk: choice("Walk", walks, (value) => `walk ${value + 1}`, (walk) => jump({ walk })),
  };
  const bar = playBar(data.steps, (step) => change({ step }));
  const box = stateBox(allowed, jump, say);
  const seen = element("div", { class: "explore-seen" }), drawn = element("div", { class: "explore-plots" });
  const large = ["last frame", "candidate", "true next frame", "Transformer++"].map((name) => picture(data.size, name));
  const table = walksTable(data, jump);
  const at = (step, walk) => images.candidates[step * data.walks + walk];

  const load = (found) => {
    shown = found;
    images = Object.fromEntries(["context", "truth", "baseline", "candidates"].map((name) =>
      [name, decoded(found[name], pixels)]));
    seen.replaceChildren(...images.context.map((image, index) => {
      const canvas = canvasOf(data.size, `frame ${index + 1} of ${found.position}`);
      paintGrey(canvas, image);
      return canvas;
    }));
    [images.context.at(-1), null, images.truth[0], images.baseline[0]].forEach((image, index) => {
      if (image) paintGrey(large[index].canvas, image);
    });
    table.draw(at);
    const lines = (values) => values.map((heights, walk) => ({ name: `walk walk-${walk}`, values: heights }));
    plots = [linePlot("Energy", lines(found.energies)),
      linePlot("SmoothL1 to the true frame", [...lines(found.errors), { name: "last", values: [found.last_error] },
        { name: "baseline", values: [found.baseline_error] }], { from: 0 })];
    drawn.replaceChildren(...plots.map((plot, index) => element("figure", {},
      element("figcaption", {}, ["Energy of the walks", "SmoothL1 to the true frame"][index]), plot.root)));
  };

  const draw = () => {
    const found = data.states.find(({ clip, position }) => clip === state.clip && position === state.position);
    if (found !== shown) load(found);
    paintGrey(large[1].canvas, at(state.step, state.walk));
    large[0].say(`last frame: ${short(found.last_error)}`);
    large[1].say(`walk ${state.walk + 1}, step ${state.step}: ${short(found.errors[state.walk][state.step])}`);
    large[2].say("true next frame");
    large[3].say(`Transformer++: ${short(found.baseline_error)}`);
    table.mark(state.step, state.walk);
    for (const plot of plots) {
      plot.show(state.step);
      plot.root.querySelectorAll(".walk").forEach((line) =>
        line.classList.toggle("chosen", line.classList.contains(`walk-${state.walk}`)));
    }
    for (const [name, { show }] of Object.entries(choices)) show(state[name]);
    bar.show(state.step);
    box.show(state);
  };

  const restore = () => {
    try {
      Object.assign(state, readHash(allowed));
      say("");
    } catch (error) {
      say(error.message);
    }
    draw();
  };
  root.classList.add("explore");
  root.replaceChildren(
    element("div", { class: "explore-choices" }, ...Object.values(choices).map((item) => item.root)), bar.root,
    element("div", { class: "explore-frames" }, ...large.map((item) => item.root)),
    element("p", { class: "explore-caption" }, "The numbers are SmoothL1 to the true frame. Frames that the models see:"), seen,
    element("div", { class: "explore-scroll" }, table.root), drawn,
    legend({ walk: "walks of the EBT", last: "repeating the last frame", baseline: "Transformer++" }),
    box.root, message, element("p", { class: "explore-caption" }, `${data.note}.`));
  addEventListener("hashchange", () => {
    bar.stop();
    restore();
  });
  restore();
};

for (const root of document.querySelectorAll("[data-explorer=frames]")) {
  if (window.ebwmFrames) mount(root, window.ebwmFrames);
  else root.textContent = "frames_data.js is missing: build the site with python docs/build.py sphinx.";
}
