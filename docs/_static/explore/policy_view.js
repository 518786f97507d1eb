// The policy explorer on a page: a policy acts, a drag pushes the point, and the policy goes on from there.

import { Episode, Policy, RULES, checkedEpisode, choiceAt } from "./policy.js";
import { drawEnergy, drawTask, places } from "./policy_draw.js";
import { Clock, button, choice, element, holdTouches, labelled, onTheme, pageTheme, still } from "./parts.js";
import { SavedSettings } from "./saved.js";

const PER_SECOND = 7, PAUSE = 1.6;  // steps a second; seconds after an episode
const BREATH = 30;  // milliseconds between predictions of what comes later

class PolicyExplorer {
  constructor(root, { policies, tasks }) {
    const made = Object.fromEntries(Object.entries(policies).map(([name, data]) => [name, new Policy(data)]));
    Object.assign(this, { root, policies: made, tasks, shown: 0, due: 0, rest: 0, drag: null });
    root.classList.add("explorer");
    root.tabIndex = -1;
    root.replaceChildren(...this.skeleton());
    this.clock = new Clock(this.map, (seconds) => this.tick(seconds));
    this.saved.open(() => this.apply(this.checked({})));
    this.pointer();
    document.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.clock.wake()).observe(root);
    onTheme(() => this.clock.wake());
    this.play(!still());
  }

  skeleton() {
    this.map = element("canvas", { class: "ex-task", role: "img", "aria-label": "A point, an obstacle and a goal, with candidate chunks" });
    this.energies = element("canvas", { class: "ex-energies", role: "img", "aria-label": "Energy of the executed chunk by step" });
    this.energyPart = element("div", {}, element("p", { class: "ex-title", textContent: "Energy of the chunks by step" }), this.energies,
      element("p", { class: "ex-keys", textContent: "Line: executed chunk; dots: candidates; faint: after the shown step." }));
    this.status = element("p", { class: "ex-message", role: "status" });
    this.facts = element("p", { class: "ex-facts" });
    this.bar = element("div", { class: "ex-bar" });
    this.saved = new SavedSettings("policy", (given) => this.restore(given), (line) => this.say(line));
    const hint = element("p", { class: "ex-lesson", textContent: "Drag on the picture, or click, to push the point: the policy " +
      "finishes its eight actions, then looks again." });
    return [hint, this.bar, this.status, element("div", { class: "ex-split" }, this.map, element("div", {}, this.facts, this.energyPart)),
      this.saved.root, this.keys()];
  }

  keys() {
    const key = (name) => element("kbd", {}, name);
    return element("p", { class: "ex-keys" }, key("Space"), " play or pause · ", key("←"), " ", key("→"), " one step · ", key("R"),
      " start again · ", key("N"), " next episode");
  }

  // Settings

  checked(given) { return checkedEpisode(given, this.policies, this.tasks); }

  /** Show new settings from a step of the episode on. */
  apply(settings, step = 0) {
    this.settings = settings;
    this.episode = new Episode(this.policies, this.tasks, settings);
    this.say("");
    while (this.episode.step < step && !this.episode.outcome) this.episode.advance();
    Object.assign(this, { shown: this.episode.step, due: 0, rest: 0 });
    if (!this.fields) this.build();
    for (const [name, show] of Object.entries(this.fields)) show(settings[name]);
    this.saved.show(settings);
    this.clock?.wake();
    this.ahead(this.episode);
  }

  /** Compute the rest of an episode while the page is idle, one prediction at a time; a push or another episode ends it. */
  ahead(episode) {
    clearTimeout(this.later);
    this.later = setTimeout(() => {
      const { length } = episode.choices;
      while (!episode.outcome && episode.choices.length <= length) episode.advance();
      this.clock?.wake();
      if (!episode.outcome) this.ahead(episode);
    }, BREATH);
  }

  restore(given) {
    const settings = this.checked(given), last = Math.max(0, ...settings.pushes.map(([at]) => at));
    this.apply(settings, last);
  }

  say(text) { this.status.textContent = text; }

  // Time

  play(playing) {
    this.clock.playing = playing;
    this.playButton.textContent = playing ? "❚❚ Pause" : "▶ Play";
    this.playButton.setAttribute("aria-pressed", String(playing));
    this.clock.wake();
  }

  show(step) {
    while (this.episode.step < step && !this.episode.outcome) this.episode.advance();
    this.shown = Math.min(Math.max(step, 0), this.episode.step);
    this.clock.wake();
  }

  get ended() { return this.episode.outcome !== "" && this.shown === this.episode.step; }

  next() { this.apply({ ...this.settings, seed: (this.settings.seed + 1) % this.tasks.length, pushes: [] }); }

  tick(seconds) {
    if (this.clock.playing && !this.drag) {
      this.due += seconds * PER_SECOND;
      for (; this.due >= 1; this.due -= 1) if (!this.ended) this.show(this.shown + 1);
      if (this.ended) this.rest += seconds;
      if (this.rest > PAUSE) this.next();
    }
    this.draw();
    return this.clock.playing;
  }

  draw() {
    const theme = pageTheme(), { episode, shown: step } = this, chosen = choiceAt(episode, step);
    drawTask(this.map, episode, { theme, step, drag: this.drag });
    const energetic = Boolean(chosen) && chosen.energy !== null;
    this.energyPart.hidden = this.settings.policy !== "EBT-Policy";
    if (energetic) drawEnergy(this.energies, episode, { theme, step });
    const left = chosen ? chosen.samples.filter(({ path }) => path.at(-1)[0] < 0).length : 0;
    this.facts.textContent = chosen ? `Step ${step}${this.ended ? `: ${episode.outcome}` : ""}. ${left} of ${chosen.samples.length} ` +
      `candidates end on the left${energetic ? `; energy of the executed chunk ${chosen.energy.toPrecision(3).replace("-", "−")}` : ""}.` : `Step ${step}.`;
    this.slider.max = Math.max(episode.step, 1);
    this.slider.value = step;
    this.slider.setAttribute("aria-valuetext", `step ${step}`);
  }

  // Controls

  build() {
    this.fields = {};
    this.playButton = button("", "Play or pause", () => this.play(!this.clock.playing));
    this.playButton.classList.add("ex-play");
    const range = (name, text, low, high) => {
      const output = element("span", { class: "ex-value", "aria-hidden": "true" });
      const input = element("input", { type: "range", min: low, max: high, step: 1,
        oninput: () => this.apply({ ...this.settings, [name]: Number(input.value) }, this.shown) });
      this.fields[name] = (value) => { input.value = output.textContent = value; };
      return labelled(text, input, output);
    };
    this.slider = element("input", { type: "range", min: 0, max: 1, step: 1, oninput: () => {
      this.play(false);
      this.show(Number(this.slider.value));
    } });
    const policies = choice(Object.keys(this.policies), this.settings.policy, (policy) =>
      this.apply({ ...this.settings, policy, steps: policy === "EBT-Policy" ? 9 : 16 }));
    this.fields.policy = (name) => { policies.value = name; };
    this.bar.replaceChildren(
      element("div", { class: "ex-buttons" }, this.playButton,
        button("Step", "One step", () => this.stepOnce(1)),
        button("Reset", "Start again without pushes", () => this.apply({ ...this.settings, pushes: [] })),
        button("Next", "Next episode", () => this.next())),
      labelled("policy", policies),
      range("steps", "think steps", 1, 20), range("samples", "candidates", 1, 16), labelled("time", this.slider));
  }

  stepOnce(count) {
    this.play(false);
    this.show(this.shown + count);
  }

  // Pointer and keyboard

  /** Push the point at the step that is shown; what followed before is forgotten. */
  push([x, y]) {
    const step = this.shown, [hx, hy] = this.episode.points[step].place, length = Math.hypot(x - hx, y - hy);
    if (length < 0.02 || this.ended) return;
    const scale = Math.min(1, RULES.push / length), round = (value) => Math.trunc(1000 * scale * value) / 1000;
    const pushes = this.settings.pushes.filter(([at]) => at < step);
    this.apply({ ...this.settings, pushes: [...pushes, [step, round(x - hx), round(y - hy)]] }, step + 1);
  }

  /** A drag or click pushes the point; a finger must start at the point or tap, so that others can scroll the page. */
  pointer() {
    const canvas = this.map, at = (event) => {
      const { left, top } = canvas.getBoundingClientRect();
      return places(canvas).point([event.clientX - left, event.clientY - top]);
    };
    const near = ({ clientX, clientY }) => {
      const { left, top } = canvas.getBoundingClientRect(), [px, py] = places(canvas).pixel(this.episode.points[this.shown].place);
      return Math.hypot(px - clientX + left, py - clientY + top) < 36;
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button || (event.pointerType === "touch" && !near(event))) return;
      canvas.setPointerCapture(event.pointerId);
      this.drag = at(event);
      this.clock.wake();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.drag) this.drag = at(event);
      if (this.drag) this.clock.wake();
    });
    canvas.addEventListener("pointerup", (event) => {
      if (this.drag) this.push(at(event));
      this.drag = null;
      this.clock.wake();
    });
    canvas.addEventListener("pointercancel", () => {
      this.drag = null;
      this.clock.wake();
    });
    canvas.addEventListener("click", (event) => { if (event.pointerType === "touch" && !near(event)) this.push(at(event)); });
    holdTouches(canvas, near);
  }

  key(event) {
    const { target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || /^(TEXTAREA|SELECT|INPUT)$/.test(target.tagName)) return;
    if (target !== document.body && !this.root.contains(target)) return;
    if (event.key === " " && target.tagName === "BUTTON") return;
    const actions = { " ": () => this.play(!this.clock.playing), ArrowRight: () => this.stepOnce(1), ArrowLeft: () => this.stepOnce(-1),
      r: () => this.apply({ ...this.settings, pushes: [] }), n: () => this.next() };
    const act = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) event.preventDefault();
    if (act) act();
  }
}

for (const root of document.querySelectorAll("[data-explorer=policy]")) {
  if (window.ebwmPolicy) new PolicyExplorer(root, window.ebwmPolicy);
  else root.textContent = "The data of this explorer are missing: build the site by python docs/build.py sphinx.";
}
