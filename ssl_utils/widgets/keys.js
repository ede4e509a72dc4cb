// NiiVue turns by one degree at H, J, K and L; here the arrow keys turn it, too, by five degrees.
const turns = {ArrowLeft: "KeyH", ArrowRight: "KeyL", ArrowUp: "KeyK", ArrowDown: "KeyJ"};
const look = setInterval(() => {  // the canvas comes when the library has loaded; a screen reader needs a name for it
  const canvases = element.closest(".jp-OutputArea")?.querySelectorAll("canvas:not([aria-label])") ?? [];
  for (const canvas of canvases) {
    canvas.setAttribute("role", "application");  // its keys are its own
    canvas.setAttribute("aria-label", HELP);
    canvas.dataset.lmSuppressShortcuts = "true";  // JupyterLab must not take the arrow keys
    canvas.addEventListener("keydown", pressed => {
      if (!(pressed.key in turns)) return;
      pressed.preventDefault();
      pressed.stopImmediatePropagation();
      for (let degree = 0; degree < 5; degree++)
        canvas.dispatchEvent(new KeyboardEvent("keydown", {code: turns[pressed.key]}));
    }, true);
  }
  if (canvases.length || !element.isConnected) clearInterval(look);
}, 300);
