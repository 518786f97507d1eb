// The view of a session, for the page and for JupyterLab. `call(path, body)` resolves to a summary of the session.
const SIGNS = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", " ": "space" };
const MODES = {
  track: "the model predicts each frame from the true frames before it",
  dream: "the model predicts each frame from its own predictions",
};

function element(name, text = "", options = {}) {
  return Object.assign(document.createElement(name), { textContent: text }, options);
}

function number(value) {
  return value === null || value === undefined ? "–" : Number(value).toPrecision(3);
}

function curve(values, most) {
  const at = (value, place) => `${(100 * place) / Math.max(values.length - 1, 1)},${38 - 36 * Math.min(value / most, 1)}`;
  return values.map((value, place) => at(value ?? 0, place)).join(" ");
}

function chart(history) {
  const most = Math.max(1e-9, ...history.flatMap((step) => [step.error ?? 0, step.still ?? 0]));
  const line = (name, style) => `<polyline points="${curve(history.map((step) => step[name]), most)}" fill="none"
    vector-effect="non-scaling-stroke" style="${style}"/>`;
  return `<svg viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label="errors by step">
    <line x1="0" x2="100" y1="38" y2="38" style="stroke:var(--line)" vector-effect="non-scaling-stroke"/>
    ${line("still", "stroke:var(--floor);stroke-width:1.5;stroke-dasharray:4 3")}
    ${line("error", "stroke:var(--model);stroke-width:2")}</svg>`;
}

function view(root, first, call) {
  root.classList.add("play");
  root.tabIndex = 0;
  const title = element("h1"), modes = element("div", "", { className: "row" }), note = element("p", "", { className: "note" });
  const pictures = {}, frames = element("div", "", { className: "frames" });
  for (const [name, caption] of [["real", "the game"], ["predicted", "the model's prediction"]]) {
    const figure = element("figure");
    pictures[name] = element("img", "", { alt: caption });
    figure.append(element("figcaption", caption), pictures[name]);
    frames.append(figure);
  }
  const actions = element("div", "", { className: "row actions" }), numbers = element("div", "", { className: "numbers" }), plot = element("div", "", { className: "chart" });
  const header = element("header");
  header.append(title, modes);
  root.replaceChildren(header, frames, actions, numbers, plot, note);

  let shown = first, event = null, busy = false;
  const buttons = Object.keys(MODES).map((name) => element("button", name, { onclick: () => ask("mode", { mode: name }) }));
  modes.append(...buttons, element("button", "new game", { onclick: () => ask("reset", { seed: shown.seed + 1 }) }));
  const kinds = first.events.map((name) => element("button", name, { className: "event", title: "break the rules at the next action",
    onclick: () => { event = event === name ? null : name; draw(shown); } }));
  const moves = first.keys.map(({ name, key }, action) => {
    const button = element("button", name, { onclick: () => press(action) });
    button.append(element("kbd", SIGNS[key] ?? key));
    return button;
  });
  actions.append(...moves, ...kinds);

  function draw(summary) {
    shown = summary;
    title.textContent = `${summary.game}, game ${summary.seed}, step ${summary.step}`;
    buttons.forEach((button) => button.setAttribute("aria-pressed", button.textContent === summary.mode));
    kinds.forEach((button) => button.setAttribute("aria-pressed", button.textContent === event));
    for (const name of Object.keys(pictures)) pictures[name].src = summary[name];
    const rows = { "error, prediction": summary.error, "error, last frame": summary.still,
      "energy, true frame": summary.energy, "energy, prediction": summary.own_energy };
    numbers.replaceChildren(...Object.entries(rows).map(([name, value]) => {
      const cell = element("div");
      cell.append(element("span", name, { className: "label" }), element("span", number(value)));
      return cell;
    }));
    plot.innerHTML = summary.history.length
      ? `<span class="legend">error by step: <b>prediction</b>, dashed: last frame</span>${chart(summary.history)}` : "";
    note.className = "note";
    note.textContent = summary.done ? "The game has ended; the next action starts a new one."
      : event ? `The next action ends with an impossible event: ${event}.` : `Mode ${summary.mode}: ${MODES[summary.mode]}.`;
  }

  async function ask(path, body) {
    if (busy) return;
    busy = true;
    try {
      draw(await call(path, body));
    } catch (error) {
      note.className = "note bad";
      note.textContent = error.message;
    } finally {
      busy = false;
    }
  }

  function press(action) {
    if (busy) return;
    const kind = event;
    event = null;
    return ask("press", { action, event: kind });
  }

  const keyed = (stroke) => {
    const action = shown.keys.findIndex(({ key }) => key === stroke.key);
    if (action < 0 || stroke.ctrlKey || stroke.metaKey || stroke.altKey) return;
    stroke.preventDefault();
    stroke.stopPropagation();
    press(action);
  };
  root.addEventListener("keydown", keyed);
  draw(first);
  return keyed;
}
