// Three slices of one volume on canvases, and what lies on them. Arrays are (D, H, W) = x to Right, y to Anterior,
// z to Superior, shown as in panels.py. explorer.js follows this file in one module and adds the controls.

const PLANES = { axial: 2, coronal: 1, sagittal: 0 }; // the axis a plane is cut across
const LETTERS = { 0: "APSI", 1: "RLSI", 2: "RLAP" }; // at the left, right, top and bottom edge
const CROSS = "#D55E00";
const ON_CPU = { willReadFrequently: true }; // every redraw writes all pixels; without a GPU an "accelerated" canvas takes seconds

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

function unpack(packed, Type) {
  if (!packed?.data) return null;
  const { buffer, byteOffset, byteLength } = packed.data;
  return new Type(buffer.slice(byteOffset, byteOffset + byteLength)); // a copy: the view need not start at an even byte
}

class Slices {
  read() { // unpack what the kernel sent
    const { model } = this, [, h, w] = model.get("shape"), legend = model.get("legend");
    this.strides = [h * w, w, 1];
    for (const name of ["image", "after"]) this[`${name}_`] = unpack(model.get(name), Uint16Array);
    for (const name of ["label", "prediction"]) this[`${name}_`] = unpack(model.get(name), Uint8Array);
    this.names = Object.fromEntries(legend.map(([value, name]) => [value, name]));
    this.colours = Object.fromEntries(legend.map(([value, , colour]) => [value, colour]));
  }

  choose() { // which volumes are drawn, and how values become pixels
    const { model } = this, after = this.after_ && model.get("show_after"), layer = model.get("layer");
    this.shown = after ? this.after_ : this.image_;
    this.scale = model.get(after ? "after" : "image");
    this.filled = ["label", "both"].includes(layer) ? this.label_ : null;
    this.outlined = ["prediction", "both"].includes(layer) ? this.prediction_ : null;
    this.shades();
  }

  shades() { // raw value -> grey, label value -> colour, as pixels (ABGR)
    const { low, high } = this.scale, [black, white] = [this.model.get("low"), this.model.get("high")];
    const key = [low, high, black, white].join();
    if (this.greyKey !== key) {
      this.grey = Uint32Array.from({ length: 65536 }, (_, raw) => {
        const value = low + (raw / 65535) * (high - low);
        return 0xff000000 + 0x010101 * clamp(Math.round((255 * (value - black)) / (white - black)), 0, 255);
      });
      this.greyKey = key;
    }
    this.paint = new Uint32Array(256);
    for (const [value, colour] of Object.entries(this.colours)) {
      const rgb = parseInt(colour.slice(1), 16), alpha = Math.round(255 * this.model.get("opacity"));
      this.paint[value] = alpha * 0x1000000 + (rgb & 255) * 0x10000 + (rgb & 0xff00) + (rgb >> 16);
    }
  }

  slice(name, mm, size) {
    const plane = this.planes[name], { canvas, axis, u, v } = plane, ratio = window.devicePixelRatio || 1;
    plane.wide = Math.round(mm[u] * size);
    plane.tall = Math.round(mm[v] * size);
    Object.assign(canvas, { width: Math.round(plane.wide * ratio), height: Math.round(plane.tall * ratio) });
    Object.assign(canvas.style, { width: `${plane.wide}px`, height: `${plane.tall}px` });
    plane.slider.style.width = `${plane.wide}px`;
    const pen = canvas.getContext("2d", ON_CPU);
    pen.scale(ratio, ratio);
    pen.drawImage(this.pixels(plane.picture, this.shown, this.grey, plane), 0, 0, plane.wide, plane.tall);
    pen.imageSmoothingEnabled = false; // a label has hard edges
    if (this.filled) pen.drawImage(this.pixels(plane.cover, this.filled, this.paint, plane), 0, 0, plane.wide, plane.tall);
    if (this.outlined) this.outline(pen, plane);
    this.marks(pen, plane, LETTERS[axis]);
  }

  at({ axis, u, v }) { // where the slice's upper left pixel lies in the volume, and the steps to the right and down
    const shape = this.model.get("shape"), { strides } = this;
    const first = this.model.get("position")[axis] * strides[axis] + (shape[u] - 1) * strides[u] + (shape[v] - 1) * strides[v];
    return [first, -strides[u], -strides[v], shape[u], shape[v]];
  }

  pixels(screen, volume, table, plane) {
    const [first, right, down, columns, rows] = this.at(plane);
    const picture = new ImageData(columns, rows), out = new Uint32Array(picture.data.buffer);
    for (let r = 0, k = 0; r < rows; r++)
      for (let c = 0, i = first + r * down; c < columns; c++, i += right) out[k++] = table[volume[i]];
    screen.getContext("2d", ON_CPU).putImageData(picture, 0, 0);
    return screen;
  }

  outline(pen, plane) {
    const [first, right, down, columns, rows] = this.at(plane), volume = this.outlined, paths = {};
    const x = plane.wide / columns, y = plane.tall / rows;
    const edge = (value, x0, y0, x1, y1) => {
      const path = (paths[value] ??= new Path2D());
      path.moveTo(x0, y0);
      path.lineTo(x1, y1);
    };
    for (let r = 0; r < rows; r++)
      for (let c = 0; c < columns; c++) {
        const i = first + r * down + c * right, here = volume[i];
        const beside = c + 1 < columns ? volume[i + right] : here, below = r + 1 < rows ? volume[i + down] : here;
        if (here !== beside) edge(here || beside, (c + 1) * x, r * y, (c + 1) * x, (r + 1) * y);
        if (here !== below) edge(here || below, c * x, (r + 1) * y, (c + 1) * x, (r + 1) * y);
      }
    pen.lineCap = "square";
    for (const [width, dark] of [[4, true], [2, false]])
      for (const [value, path] of Object.entries(paths)) {
        Object.assign(pen, { lineWidth: width, strokeStyle: dark ? "black" : this.colours[value] });
        pen.stroke(path);
      }
  }

  marks(pen, { u, v, wide, tall }, letters) {
    const shape = this.model.get("shape"), position = this.model.get("position"), gap = 9;
    const x = ((shape[u] - position[u] - 0.5) / shape[u]) * wide, y = ((shape[v] - position[v] - 0.5) / shape[v]) * tall;
    pen.beginPath();
    for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, wide, y], [x, 0, x, y - gap], [x, y + gap, x, tall]]) {
      if (x1 < x0 || y1 < y0) continue;
      pen.moveTo(x0, y0);
      pen.lineTo(x1, y1);
    }
    Object.assign(pen, { lineWidth: 1, strokeStyle: CROSS, lineCap: "butt" });
    pen.stroke();
    Object.assign(pen, { font: "bold 13px sans-serif", textAlign: "center", textBaseline: "middle", fillStyle: "white", strokeStyle: "black", lineWidth: 3 });
    [[9, tall / 2], [wide - 9, tall / 2], [wide / 2, 10], [wide / 2, tall - 10]].forEach(([left, top], i) => {
      pen.strokeText(letters[i], left, top);
      pen.fillText(letters[i], left, top);
    });
  }
}
