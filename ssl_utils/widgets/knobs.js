// Native inputs, each inside its label: a screen reader names them, the keyboard moves them. A slider acts when it is
// released, so that the kernel does not compute every value on the way.

function input({ kind, choices, low, high, step }, value) {
  if (kind === "choice") {
    const select = element("select", {}, ...choices.map((text, i) => element("option", { value: i }, text)));
    select.value = value;
    return [select, () => +select.value];
  }
  if (kind === "box") {
    const box = element("input", { type: "checkbox" });
    box.checked = value;
    return [box, () => box.checked];
  }
  const range = element("input", { type: "range", min: low, max: high, step });
  range.value = value;
  return [range, () => +range.value];
}

function render({ model, el }) {
  el.classList.add("ssl-knobs");
  for (const knob of model.get("knobs")) {
    const [control, read] = input(knob, model.get("values")[knob.name]);
    const output = element("output", {}, knob.kind === "range" ? control.value : "");
    control.setAttribute("aria-label", knob.label); // a screen reader adds its value
    control.dataset.lmSuppressShortcuts = "true"; // JupyterLab must not take the arrow keys
    control.addEventListener("input", () => (output.textContent = knob.kind === "range" ? control.value : ""));
    control.addEventListener("change", () => {
      model.set("values", { ...model.get("values"), [knob.name]: read() });
      model.save_changes();
    });
    el.append(element("label", {}, element("span", {}, knob.label), control, output));
  }
}

export default { render };
