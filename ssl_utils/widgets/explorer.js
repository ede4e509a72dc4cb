// The controls around the three slices of slices.js. A move changes the model and redraws here; it does not wait for
// the kernel, which learns of it afterwards.

const TALLEST = 380; // CSS pixels
const KEYS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -1e9, End: 1e9 };
const DATA = ["image", "after", "label", "prediction", "legend", "presets", "shape", "spacing", "words"];
const STATE = ["position", "low", "high", "opacity", "layer", "show_after"];

const short = (value) => String(+value.toPrecision(4));

const labelled = (text, ...controls) => element("label", { class: "ssl-control" }, element("span", {}, text), ...controls);

class Explorer extends Slices {
  constructor(model, root) {
    super();
    Object.assign(this, { model, root, planes: {}, stale: true, waiting: false });
    root.className = "ssl-explorer";
    const row = element("div", { class: "ssl-planes" });
    for (const name of Object.keys(PLANES)) row.append(this.plane(name));
    this.legend = element("div", { class: "ssl-legend" });
    this.readout = element("output", { class: "ssl-readout", "aria-live": "polite" });
    const help = "Click or drag to move the other two planes. Wheel, arrow keys, Page Up and Page Down move through a plane.";
    root.append(this.controls(), row, this.readout, this.legend, element("div", { class: "ssl-help" }, help));
    for (const control of root.querySelectorAll("canvas, input, select"))
      control.dataset.lmSuppressShortcuts = "true"; // JupyterLab must not take the arrow keys
    this.listen(model);
  }

  listen(model) {
    const fresh = () => { this.stale = true; this.schedule(); };
    const moved = () => this.schedule();
    for (const name of DATA) model.on(`change:${name}`, fresh);
    for (const name of STATE) model.on(`change:${name}`, moved);
    const watch = new ResizeObserver(moved);
    watch.observe(this.root);
    this.close = () => {
      watch.disconnect();
      for (const name of DATA) model.off(`change:${name}`, fresh);
      for (const name of STATE) model.off(`change:${name}`, moved);
    };
  }

  set(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  // ---- controls

  plane(name) {
    const axis = PLANES[name];
    const canvas = element("canvas", { "data-plane": name, tabindex: 0, role: "slider", "aria-label": `${name} plane` });
    const slider = element("input", { type: "range", "data-plane": name, min: 0, step: 1 });
    const title = element("span");
    slider.addEventListener("input", () => this.move(axis, +slider.value));
    canvas.addEventListener("keydown", (event) => {
      if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.move(axis, this.model.get("position")[axis] + KEYS[event.key]);
    });
    canvas.addEventListener("wheel", (event) => {
      const step = -Math.sign(event.deltaY);
      if (step && this.move(axis, this.model.get("position")[axis] + step)) event.preventDefault(); // at the end, the page scrolls
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.point(name, event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && this.point(name, event));
    this.planes[name] = { canvas, slider, title, picture: new OffscreenCanvas(1, 1), cover: new OffscreenCanvas(1, 1) };
    return element("div", { class: "ssl-plane" }, canvas, element("label", {}, title, slider));
  }

  controls() {
    const field = (name, type, more) => element("input", { type, "data-control": name, ...more });
    this.preset = element("select", { "data-control": "preset" });
    this.layer = element("select", { "data-control": "layer" });
    this.low = field("low", "number", { step: "any" });
    this.high = field("high", "number", { step: "any" });
    this.opacity = field("opacity", "range", { min: 0, max: 1, step: 0.05 });
    this.after = field("after", "checkbox");
    this.preset.addEventListener("change", () => {
      const [, low, high] = this.model.get("presets")[this.preset.value] ?? [];
      if (low !== undefined) this.window(low, high);
    });
    for (const input of [this.low, this.high]) input.addEventListener("change", () => this.window(+this.low.value, +this.high.value));
    this.opacity.addEventListener("input", () => this.set("opacity", +this.opacity.value));
    this.layer.addEventListener("change", () => this.set("layer", this.layer.value));
    this.after.addEventListener("change", () => this.set("show_after", this.after.checked));
    this.afterText = element("span");
    this.rows = {
      after: element("label", { class: "ssl-control" }, this.after, this.afterText),
      layer: labelled("Layer", this.layer),
      opacity: labelled("Opacity", this.opacity),
    };
    const shades = [labelled("Window", this.preset), labelled("black at", this.low), labelled("white at", this.high)];
    return element("div", { class: "ssl-controls" }, ...shades, ...Object.values(this.rows));
  }

  window(low, high) {
    const right = high > low; // also false when a field is empty or not a number
    for (const input of [this.low, this.high]) input.setAttribute("aria-invalid", String(!right));
    if (!right) return;
    this.model.set("low", low);
    this.set("high", high);
  }

  move(axis, index) {
    const position = [...this.model.get("position")];
    position[axis] = clamp(index, 0, this.model.get("shape")[axis] - 1);
    const moved = position[axis] !== this.model.get("position")[axis];
    if (moved) this.set("position", position);
    return moved;
  }

  point(name, event) {
    const { u, v, wide, tall } = this.planes[name], shape = this.model.get("shape");
    const position = [...this.model.get("position")];
    position[u] = clamp(shape[u] - 1 - Math.floor((event.offsetX / wide) * shape[u]), 0, shape[u] - 1);
    position[v] = clamp(shape[v] - 1 - Math.floor((event.offsetY / tall) * shape[v]), 0, shape[v] - 1);
    this.set("position", position);
  }

  // ---- data

  load() {
    const { model } = this, shape = model.get("shape"), words = model.get("words");
    this.read();
    for (const [name, axis] of Object.entries(PLANES)) {
      const [u, v] = [0, 1, 2].filter((other) => other !== axis); // u runs to the left, v up
      const plane = Object.assign(this.planes[name], { axis, u, v });
      plane.slider.max = shape[axis] - 1;
      for (const screen of [plane.picture, plane.cover]) Object.assign(screen, { width: shape[u], height: shape[v] });
    }
    this.preset.replaceChildren(...model.get("presets").map(([name], i) => element("option", { value: i }, name)));
    const layers = ["label", "prediction"].filter((kind) => this[`${kind}_`]);
    const choices = layers.length === 2 ? [...layers, "both", "off"] : [...layers, "off"];
    this.layer.replaceChildren(...choices.map((kind) => element("option", { value: kind }, words[kind] ?? kind)));
    this.afterText.textContent = words.after;
    this.rows.after.hidden = !this.after_;
    this.rows.layer.hidden = this.rows.opacity.hidden = !layers.length;
    this.key(layers, words);
    this.stale = false;
  }

  key(layers, words) {
    const style = { label: "filled", prediction: "outline" };
    const lines = layers.length === 2 ? [`${style.label}: ${words.label}, ${style.prediction}: ${words.prediction}`] : [];
    this.legend.replaceChildren(...lines, ...this.model.get("legend").map(([, name, colour]) => {
      const swatch = element("i");
      swatch.style.cssText = layers.includes("label") ? `background: ${colour}` : `box-shadow: inset 0 0 0 3px ${colour}`;
      return element("span", {}, swatch, name);
    }));
    this.legend.hidden = !layers.length;
  }

  // ---- drawing

  schedule() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  draw() {
    const begin = performance.now(), { model } = this;
    if (this.stale) this.load();
    this.choose();
    const shape = model.get("shape"), spacing = model.get("spacing"), mm = shape.map((n, i) => n * spacing[i]);
    const free = Math.max(300, (this.root.clientWidth || 900) - 32);
    const size = Math.min(free / (2 * mm[0] + mm[1]), TALLEST / Math.max(mm[1], mm[2])); // pixels per mm
    for (const name of Object.keys(PLANES)) this.slice(name, mm, size);
    this.controlsFollow();
    this.root.dataset.redraw = (performance.now() - begin).toFixed(1);
  }

  controlsFollow() {
    const { model } = this, position = model.get("position"), words = model.get("words");
    for (const [name, { canvas, slider, title, axis }] of Object.entries(this.planes)) {
      title.textContent = `${name}, ${"xyz"[axis]} = ${position[axis]}`;
      slider.value = position[axis];
      const now = { valuemin: 0, valuemax: slider.max, valuenow: position[axis] };
      for (const [key, value] of Object.entries(now)) canvas.setAttribute(`aria-${key}`, value);
    }
    const [low, high] = [model.get("low"), model.get("high")];
    const fits = model.get("presets").findIndex(([, a, b]) => a === low && b === high);
    this.preset.value = fits < 0 ? "" : fits; // none of them: an empty choice
    if (document.activeElement !== this.low) this.low.value = short(low);
    if (document.activeElement !== this.high) this.high.value = short(high);
    this.opacity.value = model.get("opacity");
    this.layer.value = model.get("layer");
    this.after.checked = this.shown === this.after_;
    const i = position.reduce((sum, index, axis) => sum + index * this.strides[axis], 0);
    const value = this.scale.low + (this.shown[i] / 65535) * (this.scale.high - this.scale.low);
    const lines = [`x ${position[0]}, y ${position[1]}, z ${position[2]}`, `value ${short(value)}`];
    for (const kind of ["label", "prediction"])
      if (this[`${kind}_`]) lines.push(`${words[kind]}: ${this.names[this[`${kind}_`][i]] ?? "none"}`);
    this.readout.textContent = lines.join("; ");
  }
}

export default {
  render({ model, el }) {
    const root = element("div");
    el.append(root);
    const explorer = new Explorer(model, root);
    explorer.schedule();
    return () => explorer.close();
  },
};
