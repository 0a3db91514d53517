// θ: a pad alone, or with the places to put it at once, and a slider for each of its first numbers.
import { brief, button, card, html, slider } from "./dom.js";
import { METHODS, makeMixer } from "./mixers.js";
import { pad } from "./pad.js";
import { normals } from "./random.js";
import { wander } from "./scene.js";

const SLIDERS = 16;

/** { element, draw(scene) }; `act(θ)` is told what θ is to be, `redraw()` to draw again. */
export function thetaView(act, redraw) {
  const normal = normals(11);
  const surface = pad(act);
  const list = html("div", { class: "play-numbers" });
  const count = html("summary");
  let shown;
  let made = "";
  let sliders = [];

  const mixer = () => makeMixer(shown.method, shown);
  const places = {
    "θ = 0": () => Array(shown.theta.length).fill(0),
    "near I": () => mixer().start(normal),
    "at random": () => wander(shown.method, mixer(), 0)
      .map((x) => x + 2 * METHODS[shown.method].wander * normal()),
  };
  const buttons = Object.entries(places).map(([name, make]) => button(name, () => act(make())));
  buttons.push(button("other directions", () => {
    surface.renew();
    redraw();
  }));

  function lay({ theta }, reach) {
    sliders = theta.slice(0, SLIDERS).map((_, k) => slider({
      name: `θ${k + 1}`, min: -reach, max: reach, step: reach / 200,
      say: (value) => brief(value, 2),
      act: (value) => act(shown.theta.map((x, m) => (m === k ? value : x))),
    }));
    list.replaceChildren(...sliders.map((one) => one.element));
    count.textContent = theta.length > SLIDERS
      ? `One by one: the first ${SLIDERS} of ${theta.length} numbers`
      : `One by one: ${theta.length === 1 ? "the only number" : `all ${theta.length} numbers`}`;
  }

  function draw(scene) {
    shown = scene;
    const { reach } = METHODS[scene.method];
    const layout = `${scene.method} ${scene.theta.length}`;
    if (layout !== made) lay(scene, reach);
    made = layout;
    surface.draw(scene, reach);
    sliders.forEach((one, k) => one.set(scene.theta[k]));
  }
  const wide = matchMedia("(min-width: 700px)").matches; // else H is far below the pad
  const element = card("θ, to be dragged", surface.element,
    html("div", { class: "play-buttons" }, ...buttons),
    html("details", { class: "play-details", open: wide }, count, list));
  element.classList.add("play-tall");
  return { element, draw };
}

/** The pad alone: { element, draw(scene) }. */
export function padView(act) {
  const surface = pad(act);
  const draw = (scene) => surface.draw(scene, METHODS[scene.method].reach);
  const element = card("θ: drag the dot", surface.element);
  element.classList.add("play-small");
  return { element, draw };
}
