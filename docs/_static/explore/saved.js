// Settings of a page as JSON: in a box to copy and paste, and in the address.

import { button, element } from "./parts.js";

const SETTLED = 300, NOTED = 1500;  // milliseconds: until the address changes, and that a button says "Copied"

export class SavedSettings {
  /** `accept(settings)` shows settings or throws an Error with one line, which `say(line)` shows. */
  constructor(name, accept, say, rows = 2) {
    Object.assign(this, { prefix: `#${name}=`, accept, say, opened: false });
    this.box = element("textarea", { rows, spellcheck: false, "aria-label": "Settings as JSON" });
    this.copyButton = button("Copy", "Copy the settings", () => this.copy());
    const apply = button("Apply", "Apply the pasted settings", () => this.restore(this.box.value));
    this.root = element("details", { class: "ex-saving" }, element("summary", {}, "Settings as JSON"), this.box,
      element("div", { class: "ex-buttons" }, this.copyButton, apply),
      element("p", {}, "The address of this page holds the same settings."));
  }

  /** Show the settings of the address, or call `otherwise`; follow the address from here on, and keep changes in it. */
  open(otherwise) {
    if (!this.restoreAddress()) {
      otherwise();
      this.restoreAddress();  // `otherwise` cleared what was wrong with the address
    }
    addEventListener("hashchange", () => this.restoreAddress());
    this.opened = true;
  }

  /** Put settings into the box, unless it has the focus, and into the address. */
  show(settings) {
    const text = JSON.stringify(settings);
    if (document.activeElement !== this.box) this.box.value = text;
    if (!this.opened) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => history.replaceState(null, "", this.prefix + encodeURIComponent(text)), SETTLED);
  }

  /** Whether a text was accepted. */
  restore(text) {
    try {
      this.accept(JSON.parse(text));
      return true;
    } catch (error) {
      this.say(error instanceof SyntaxError ? "settings: must be JSON; copy them from this box" : error.message);
      return false;
    }
  }

  restoreAddress() {
    if (!location.hash.startsWith(this.prefix)) return false;
    try {
      return this.restore(decodeURIComponent(location.hash.slice(this.prefix.length)));
    } catch {
      this.say("settings: the address is incomplete");
      return false;
    }
  }

  async copy() {
    this.box.select();
    const copied = await navigator.clipboard?.writeText(this.box.value).then(() => true, () => false);
    if (!copied && !document.execCommand("copy")) {  // without https there is no clipboard
      this.say("settings: the browser allows no copying; the text is selected for the keyboard");
      return;
    }
    this.copyButton.textContent = "Copied";
    setTimeout(() => { this.copyButton.textContent = "Copy"; }, NOTED);
  }
}
