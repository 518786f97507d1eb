// Elements, touches, theme and motion of the explorers on pages.

// Elements

/** An element with properties; `class`, `aria-` and `data-` are attributes. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (/^(class|for|role|aria-.*|data-.*)$/.test(name)) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

let made = 0;

/** A control below its label. */
export function labelled(text, control, ...more) {
  control.id = `ex-${(made += 1)}`;
  return element("div", { class: "ex-field" }, element("label", { for: control.id }, text), control, ...more);
}

export function choice(options, value, onchange) {
  const select = element("select", { onchange: () => onchange(select.value) },
    ...options.map((name) => element("option", { value: name, textContent: name })));
  select.value = value;
  return select;
}

/** A slider, logarithmic if its range is above 0, with its value beside it; its `show` sets another value. */
export function slider(text, [low, high], value, onchange) {
  const logarithmic = low > 0, shown = (number) => String(Number(number.toPrecision(3)));
  const to = (number) => (logarithmic ? Math.log(number / low) / Math.log(high / low) : (number - low) / (high - low));
  const from = (place) => (logarithmic ? low * (high / low) ** place : low + place * (high - low));
  const output = element("span", { class: "ex-value", "aria-hidden": "true", textContent: shown(value) });
  const input = element("input", { type: "range", min: 0, max: 1, step: 0.002, oninput: () => {
    const number = Math.min(Math.max(Number(from(Number(input.value)).toPrecision(3)), low), high);
    state(number);
    onchange(number);
  } });
  const state = (number) => {
    output.textContent = shown(number);
    input.setAttribute("aria-valuetext", shown(number));
  };
  const show = (number) => {
    if (document.activeElement !== input) input.value = to(number);
    state(number);
  };
  show(value);
  return Object.assign(labelled(text, input, output), { show });
}

export function number(text, value, step, onchange) {
  const input = element("input", { type: "number", step, value: Number(value.toFixed(3)),
    onchange: () => onchange(Number(input.value)) });
  return labelled(text, input);
}

export function button(text, label, onclick) {
  return element("button", { type: "button", textContent: text, title: label, "aria-label": label, onclick });
}

export function checkbox(text, checked, onchange) {
  const input = element("input", { type: "checkbox", checked, onchange: () => onchange(input.checked) });
  return element("label", { class: "ex-check" }, input, ` ${text}`);
}

/** Keep the touches that are near what a finger can drag; others scroll the page. */
export function holdTouches(canvas, near) {
  canvas.addEventListener("touchstart", (event) => { if (near(event.touches[0])) event.preventDefault(); }, { passive: false });
}

// Theme and motion

/** The theme of the page: chosen by its button, or that of the system. */
export function pageTheme() {
  const chosen = document.body.dataset.theme;
  if (chosen === "light" || chosen === "dark") return chosen;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export function onTheme(react) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", react);
  new MutationObserver(react).observe(document.body, { attributes: true, attributeFilter: ["data-theme"] });
}

/** Calls `frame(seconds)` before each repaint while it is playing and its element is visible. */
export class Clock {
  constructor(root, frame) {
    Object.assign(this, { frame, playing: false, visible: true, last: null, pending: false });
    new IntersectionObserver(([entry]) => {
      this.visible = entry.isIntersecting;
      this.wake();
    }).observe(root);
  }

  wake() {
    if (this.pending || !this.visible) return;
    this.pending = true;
    requestAnimationFrame((now) => {
      const seconds = this.last === null ? 0 : Math.min((now - this.last) / 1000, 0.1);
      this.pending = false;
      this.last = now;
      if (this.frame(seconds)) this.wake();
      else this.last = null;
    });
  }
}
