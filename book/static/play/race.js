// Training: the method shown, from its θ, beside others from their starts near I.
import { chart } from "./chart.js";
import { brief, button, card, choice, html, slider, svg, tell } from "./dom.js";
import { TARGETS } from "./geometry.js";
import { METHODS, makeMixer, methodsOf } from "./mixers.js";
import { normals } from "./random.js";
import { Fit, STEPS } from "./training.js";

const A_FRAME = 4; // steps
const UNTRAINED = "Nothing trained yet.";
const RIVALS = ["mhc", "kromhc", "go-mhc", "transport"]; // ticked at first

/**
 * The view: { element, draw(scene), train(), stop(), advance(), running() }.
 * `act(changes)` is told of another target or rate; `wake()` asks for frames.
 */
export function raceView(act, wake, calm) {
  const curves = chart("steps");
  const verdict = html("p", { class: "play-note", role: "status" }, UNTRAINED);
  let shown;
  let fits = {};
  let left = 0;
  let setting = ""; // what the fits are of

  const boxes = {};
  const results = {};
  const rows = {};
  for (const [name, { color }] of Object.entries(METHODS)) {
    boxes[name] = html("input", { type: "checkbox", autocomplete: "off" });
    boxes[name].checked = RIVALS.includes(name);
    results[name] = html("output");
    const swatch = svg("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" },
      svg("line", { x1: 0, x2: 24, y1: 4, y2: 4 }));
    swatch.style.setProperty("--ink", color);
    rows[name] = html("div", {}, html("label", {}, boxes[name], swatch, name), results[name]);
  }
  const target = choice({
    name: "Target",
    options: Object.fromEntries(Object.entries(TARGETS).map(([name, { title }]) => [name, title])),
    act: (value) => act({ target: value }),
  });
  const rate = slider({
    name: "learning rate", min: -3, max: 0, step: 0.1, act: (value) => act({ rate: 10 ** value }),
    say: (value) => brief(10 ** value),
  });
  const go = button("Train", () => (left > 0 ? stop() : train()), { class: "play-go" });

  function stop() {
    left = 0;
    go.textContent = "Train";
  }

  /** Begin with all ticked methods, and the one shown in any case. */
  function train() {
    const goal = TARGETS[shown.target].make(shown.d);
    const names = methodsOf(shown.d).filter((name) => boxes[name].checked || name === shown.method);
    fits = Object.fromEntries(names.map((name) => {
      const mixer = makeMixer(name, shown);
      const theta = name === shown.method ? shown.theta : mixer.start(normals(5));
      return [name, new Fit(mixer, theta, goal, shown.rate)];
    }));
    left = STEPS;
    go.textContent = "Stop";
    verdict.textContent = "";
    wake();
  }

  /** Some steps of all fits, or all of them at once where motion is not wanted; the θ shown. */
  function advance() {
    const steps = calm() ? left : Math.min(A_FRAME, left);
    for (let step = 0; step < steps; step++) Object.values(fits).forEach((fit) => fit.step());
    left -= steps;
    if (left === 0) {
      stop();
      const told = Object.entries(fits).map(([name, fit]) => `${name} ${brief(fit.losses.at(-1))}`);
      verdict.textContent = `Loss after ${STEPS} steps, s = ${shown.s}: ${told.join(", ")}.`;
    }
    return [...fits[shown.method].theta];
  }

  function draw(scene) {
    const { method, d, s, iterations, target: goal, rate: speed } = scene;
    const now = [method, d, s, iterations, goal, speed].join(" ");
    if (now !== setting) {
      fits = {};
      verdict.textContent = UNTRAINED;
    }
    setting = now;
    shown = scene;
    target.set(scene.target);
    rate.set(Math.log10(scene.rate));
    for (const name of Object.keys(METHODS)) {
      const allowed = METHODS[name].orders.includes(scene.d);
      rows[name].hidden = !allowed;
      rows[name].classList.toggle("play-shown", name === scene.method);
      const loss = fits[name]?.losses.at(-1);
      tell(results[name], loss === undefined ? "" : brief(loss));
    }
    curves.draw({
      curves: Object.entries(fits).map(([name, { losses }]) => ({
        values: losses, color: METHODS[name].color,
        dash: name === scene.method ? undefined : "5 2",
      })),
      first: "1", length: STEPS, floor: 1e-12,
      words: `Loss over ${STEPS} steps of training. ${verdict.textContent}`,
    });
  }
  const key = html("p", { class: "play-note" },
    "Adam on the loss ‖H(θ) − T‖². The method chosen above starts at the θ shown, its line is "
    + "solid; the others start near I.");
  const group = { class: "play-rivals", role: "group", "aria-label": "Methods to train" };
  const list = html("div", group, ...Object.values(rows));
  const element = card("Training", target.element, rate.element, go, verdict, key,
    html("div", { class: "play-halves" }, curves.element, list));
  element.classList.add("play-wide");
  return { element, draw, train, stop, advance, running: () => left > 0 };
}
