// Dice of every test case with one init against another. A point is picked by a click, or by Tab, arrow keys and Enter.

const SVG = "http://www.w3.org/2000/svg", SIZE = 380, EDGE = 48;
const BLUE = "#0072B2", ORANGE = "#E69F00"; // above and below the line; the shape shows it too

function shape(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text; // never markup
  return node;
}

function scales(points) {
  const values = points.flatMap(({ x, y }) => [x, y]), step = [0.02, 0.05, 0.1, 0.2].find((s) => span(values) / s <= 6) ?? 0.5;
  const low = Math.floor(Math.min(...values) / step) * step, high = Math.max(Math.ceil(Math.max(...values) / step) * step, low + step);
  const at = (value) => ((value - low) / (high - low)) * (SIZE - 2 * EDGE);
  const ticks = Array.from({ length: Math.round((high - low) / step) + 1 }, (_, i) => low + i * step);
  return { ticks, across: (value) => EDGE + at(value), up: (value) => SIZE - EDGE - at(value) };
}

const span = (values) => Math.max(...values) - Math.min(...values);

function frame(svg, { ticks, across, up }, [xName, yName]) {
  const [first, last] = [ticks[0], ticks.at(-1)], end = SIZE - EDGE;
  for (const tick of ticks) {
    svg.append(shape("path", { d: `M${across(tick)} ${EDGE}V${end} M${EDGE} ${up(tick)}H${end}`, class: "ssl-grid" }));
    svg.append(shape("text", { x: across(tick), y: end + 16, "text-anchor": "middle" }, tick.toFixed(2)));
    svg.append(shape("text", { x: EDGE - 6, y: up(tick) + 4, "text-anchor": "end" }, tick.toFixed(2)));
  }
  svg.append(shape("path", { d: `M${across(first)} ${up(first)}L${across(last)} ${up(last)}`, class: "ssl-equal" }));
  svg.append(shape("text", { x: SIZE / 2, y: SIZE - 10, "text-anchor": "middle" }, xName));
  svg.append(shape("text", { x: 12, y: SIZE / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${SIZE / 2})` }, yName));
}

function mark(point, { across, up }) {
  const [x, y, better] = [across(point.x), up(point.y), point.y >= point.x];
  const common = {
    fill: better ? BLUE : ORANGE, class: "ssl-point", role: "button", "data-case": point.case, "aria-label": point.caption,
    "data-lm-suppress-shortcuts": "true", // JupyterLab must not take the keys
  };
  const node = better ? shape("circle", { cx: x, cy: y, r: 5.5, ...common })
    : shape("path", { d: `M${x - 6} ${y - 5}h12l-6 11z`, ...common });
  node.append(shape("title", {}, point.caption));
  return node;
}

function draw(model, root) {
  const points = model.get("points"), kept = root.contains(document.activeElement);
  const view = { viewBox: `0 ${EDGE / 2} ${SIZE} ${SIZE - EDGE / 2}`, width: SIZE, height: SIZE - EDGE / 2 };
  const svg = shape("svg", { ...view, role: "group", "aria-label": model.get("title") });
  root.replaceChildren(svg);
  if (!points.length) return;
  const scale = scales(points);
  frame(svg, scale, model.get("axes"));
  const marks = points.map((point) => mark(point, scale));
  const current = () => Math.max(0, model.get("picked"));
  const pick = (i) => { model.set("picked", i); model.save_changes(); };
  marks.forEach((node, i) => {
    node.setAttribute("tabindex", i === current() ? 0 : -1); // one stop for Tab; arrow keys go from point to point
    node.classList.toggle("ssl-picked", i === model.get("picked"));
    node.addEventListener("click", () => pick(i));
    node.addEventListener("keydown", (event) => {
      const { key } = event;
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[key];
      if (step) marks[(i + step + marks.length) % marks.length].focus();
      else if (key === "Enter" || key === " ") pick(i);
      else return;
      event.preventDefault();
    });
  });
  svg.append(...marks);
  if (kept) marks[current()].focus();
}

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    root.className = "ssl-scatter";
    el.append(root);
    const again = () => draw(model, root);
    for (const name of ["points", "picked"]) model.on(`change:${name}`, again);
    again();
    return () => { for (const name of ["points", "picked"]) model.off(`change:${name}`, again); };
  },
};
