// Interactive figures: show the frame that a knob stands at. The controls are the browser's own.
(() => {
  // In the book a knob waits in a template beside its static figure, and takes that one's place.
  for (const template of document.querySelectorAll("template[data-knob-for]")) {
    const figure = document.getElementById(template.dataset.knobFor);
    figure.prepend(template.content);
    figure.classList.add("has-knob");
    template.remove();
  }
  for (const knob of document.querySelectorAll(".knob:not([data-ready])")) {
    const frames = [...knob.querySelectorAll("img")];
    const output = knob.querySelector("output");
    const turn = (input) => {
      frames.forEach((frame, k) => { frame.hidden = k !== Number(input.value); });
      const name = frames[input.value].dataset.name;
      if (output) output.textContent = name;
      if (input.type === "range") input.setAttribute("aria-valuetext", name);
    };
    knob.addEventListener("input", (event) => turn(event.target));
    knob.dataset.ready = "";
  }
})();
