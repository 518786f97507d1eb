// Three samplers on one energy, for the home page: a canvas each, a button, and a link.

import { advance, checkedSettings, startedWalk } from "./landscape.js";
import { PALETTES, drawPanel } from "./landscape_draw.js";
import { Clock, button, element, onTheme, pageTheme, still } from "./parts.js";

const SHOWN = [["gradient descent", 0.06], ["Langevin", 0.06], ["HMC", 0.12]], PER_SECOND = 4, LONGEST = 120;
const STARTS = [[-0.3, 0.2], [2.6, 1.2], [-2.6, 2.4], [3, -3]];

class SmallLandscape {
  constructor(root) {
    Object.assign(this, { root, run: 0, due: 0, part: 1, playing: !still() });
    root.classList.add("explorer", "ex-small");
    const labels = SHOWN.map(([name]) => `${name} on an energy with three modes`);
    this.canvases = labels.map((label) => element("canvas", { role: "img", "aria-label": label }));
    this.button = button("", "Play or pause", () => this.play(!this.clock.playing));
    const figures = SHOWN.map(([name], index) =>
      element("figure", { class: "ex-panel" }, this.canvases[index], element("figcaption", { textContent: name })));
    root.replaceChildren(element("div", { class: "ex-panels", "data-count": SHOWN.length }, ...figures),
      element("div", { class: "ex-buttons" }, this.button,
        element("a", { href: root.dataset.link, textContent: "Change the energy, the sampler and the start →" })));
    this.clock = new Clock(root, (seconds) => this.tick(seconds));
    this.begin();
    for (let i = 0; still() && i < LONGEST / 2; i++) this.walks.forEach(advance);
    this.play(!still());
    new ResizeObserver(() => this.clock.wake()).observe(root);
    onTheme(() => this.clock.wake());
  }

  begin() {
    const [x, y] = STARTS[this.run % STARTS.length];
    const settings = checkedSettings({ energy: "mixture", x, y, seed: this.run,
      walks: SHOWN.map(([sampler, step_size]) => ({ sampler, step_size })) });
    this.walks = SHOWN.map((_, index) => startedWalk(settings, index));
    this.run += 1;
  }

  play(playing) {
    this.clock.playing = playing;
    this.button.textContent = playing ? "❚❚ Pause" : "▶ Play";
    this.clock.wake();
  }

  tick(seconds) {
    if (this.clock.playing) {
      this.due += seconds * PER_SECOND;
      if (this.walks[0].steps >= LONGEST) this.begin();
      for (; this.due >= 1; this.due -= 1) this.walks.forEach(advance);
    }
    const theme = pageTheme(), part = still() ? 1 : this.due;
    this.walks.forEach((walk, index) => drawPanel(this.canvases[index], walk,
      { theme, colour: PALETTES[theme].walks[index], part, arrows: 0, compact: true }));
    return this.clock.playing;
  }
}

for (const root of document.querySelectorAll("[data-explorer=landscape_small]")) new SmallLandscape(root);
