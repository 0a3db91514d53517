// The page: what the controls say, and one frame that draws all views when something has changed.
import { button, choice, html, slider } from "./dom.js";
import { entriesView } from "./entries.js";
import { METHODS, makeMixer, methodsOf } from "./mixers.js";
import { placeView } from "./place.js";
import { planeView } from "./plane.js";
import { raceView } from "./race.js";
import { normals } from "./random.js";
import { first, LONGEST, look, wander } from "./scene.js";
import { STOPS } from "./stops.js";
import { thetaView } from "./theta.js";
import { threadsView } from "./threads.js";

const SIZES = ["method", "d", "s"]; // with one of these θ becomes another

/** Put the live page before a figure, which stays for print. */
export function mount(figure) {
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let state = first();
  let awaited = false;

  /** Ask for a frame, one at a time. */
  function wake() {
    if (awaited) return;
    awaited = true;
    requestAnimationFrame(frame);
  }

  /** Change the state by hand: a training that runs would go on with what is no longer so. */
  function change(changes) {
    race.stop();
    const resized = SIZES.some((name) => name in changes && changes[name] !== state[name]);
    state = { ...state, ...changes };
    if (!methodsOf(state.d).includes(state.method)) state.method = first().method;
    if (resized && !changes.theta) {
      state.theta = wander(state.method, makeMixer(state.method, state));
    }
    wake();
  }

  function visit({ set, theta = 1 }) {
    const next = { ...state, ...set };
    const mixer = makeMixer(next.method, next);
    const at = theta === "start" ? mixer.start(normals(5)) : wander(next.method, mixer, theta);
    change({ ...set, theta: at });
  }

  const numbers = (values) => Object.fromEntries(values.map((value) => [value, value]));
  const titles = Object.entries(METHODS).map(([name, { title }]) => [name, title]);
  const controls = {
    method: choice({
      name: "Method", options: Object.fromEntries(titles),
      act: (method) => change({ method }),
    }),
    d: choice({
      name: "Streams d", options: numbers([2, 3, 4]),
      act: (d) => change({ d: Number(d) }),
    }),
    s: choice({
      name: "Block size s", options: numbers([1, 2, 3, 4]),
      act: (s) => change({ s: Number(s) }),
    }),
    iterations: slider({
      name: "Sinkhorn’s steps", min: 1, max: 20, step: 1,
      act: (iterations) => change({ iterations }),
    }),
    depth: slider({
      name: "layers", min: 1, max: LONGEST, step: 1,
      act: (depth) => change({ depth }),
    }),
    spread: slider({
      name: "layers differ by", min: 0, max: 2, step: 0.05,
      act: (spread) => change({ spread }),
    }),
  };
  const race = raceView(change, wake, () => still.matches);
  const views = [
    thetaView((theta) => change({ theta }), wake),
    entriesView(), placeView(), planeView(), threadsView(), race,
  ];

  function frame() {
    awaited = false;
    if (race.running()) {
      state = { ...state, theta: race.advance() };
      if (race.running()) wake();
    }
    const scene = look(state);
    for (const [name, control] of Object.entries(controls)) control.set(state[name]);
    controls.method.allow(methodsOf(state.d));
    controls.s.element.hidden = !["go-mhc", "kron-go"].includes(state.method);
    controls.iterations.element.hidden = state.method !== "mhc";
    for (const view of views) view.draw(scene);
    root.dataset.frames = Number(root.dataset.frames ?? 0) + 1;
  }

  const stops = html("ol", { class: "play-stops" }, ...STOPS.map((stop) =>
    html("li", {}, button(stop.text, () => visit(stop), { "data-stop": stop.name }))));
  const root = html("div", { class: "play" },
    html("section", { "aria-label": "Guided stops" }, stops),
    html("section", { class: "play-controls", "aria-label": "Controls" },
      ...Object.values(controls).map((control) => control.element)),
    html("div", { class: "play-views" }, ...views.map((view) => view.element)),
  );
  figure.before(root);
  figure.classList.add("has-play");
  frame();
}
