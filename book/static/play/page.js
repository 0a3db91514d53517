// A place on a page: what its controls say, and one frame that draws its views when something has
// changed.
import { constructionView } from "./construction.js";
import { button, choice, html, slider } from "./dom.js";
import { entriesView } from "./entries.js";
import { METHODS, makeMixer, methodsOf } from "./mixers.js";
import { placeView } from "./place.js";
import { planeView } from "./plane.js";
import { raceView } from "./race.js";
import { normals } from "./random.js";
import { first, LONGEST, look, wander } from "./scene.js";
import { STOPS } from "./stops.js";
import { padView, thetaView } from "./theta.js";
import { threadsView } from "./threads.js";

const SIZES = ["method", "d", "s"]; // with one of these θ becomes another

/** The words of an attribute. */
const words = (place, name) => (place.dataset[name] ?? "").split(" ").filter(Boolean);

/**
 * Fill an element with live views. Its attributes say with which: `data-play` the views,
 * `data-controls` the controls above them, `data-stops` the guided stops, the first of which it
 * begins with, `data-still` the id of a figure that it replaces on the screen; words apart by
 * spaces.
 */
export function mount(place) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
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
    for (const view of views) view.stop?.();
    const resized = SIZES.some((name) => name in changes && changes[name] !== state[name]);
    state = { ...state, ...changes };
    if (!methodsOf(state.d).includes(state.method)) state.method = first().method;
    if (resized && !changes.theta) {
      state.theta = wander(state.method, makeMixer(state.method, state));
    }
    wake();
  }

  /** Bring the view that a stop is about onto the screen. */
  function present({ show }) {
    const names = words(place, "play");
    const card = views[names.findIndex((name) => show.includes(name))]?.element;
    card?.scrollIntoView({ block: "nearest", behavior: calm.matches ? "auto" : "smooth" });
  }

  function visit({ set, theta = 1 }) {
    const next = { ...state, ...set };
    const mixer = makeMixer(next.method, next);
    const at = theta === "start" ? mixer.start(normals(5)) : wander(next.method, mixer, theta);
    change({ ...set, theta: at });
  }

  const numbers = (values) => Object.fromEntries(values.map((value) => [value, value]));
  const titles = Object.entries(METHODS).map(([name, { title }]) => [name, title]);
  const every = {
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
  const controls = Object.fromEntries(words(place, "controls").map((name) => [name, every[name]]));
  const drag = (theta) => change({ theta });
  const make = {
    pad: () => padView(drag),
    theta: () => thetaView(drag, wake),
    construction: constructionView,
    entries: entriesView,
    place: placeView,
    plane: planeView,
    streams: () => threadsView({ small: true }),
    threads: () => threadsView(),
    race: () => raceView(change, wake, () => calm.matches),
  };
  const views = words(place, "play").map((name) => make[name]());

  function frame() {
    awaited = false;
    for (const view of views.filter((one) => one.running?.())) {
      state = { ...state, theta: view.advance() };
      if (view.running()) wake();
    }
    const scene = look(state);
    for (const [name, control] of Object.entries(controls)) control.set(state[name]);
    controls.method?.allow(methodsOf(state.d));
    if (controls.s) controls.s.element.hidden = !["go-mhc", "kron-go"].includes(state.method);
    if (controls.iterations) controls.iterations.element.hidden = state.method !== "mhc";
    for (const view of views) view.draw(scene);
    root.dataset.frames = Number(root.dataset.frames ?? 0) + 1;
  }

  const chosen = words(place, "stops").map((name) => STOPS.find((stop) => stop.name === name));
  const stops = chosen.map((stop) =>
    html("li", {}, button(stop.text, () => {
      visit(stop);
      present(stop);
    }, { "data-stop": stop.name })));
  const root = html("div", { class: "play" });
  if (stops.length) {
    const list = html("ol", { class: "play-stops" }, ...stops);
    root.append(html("section", { "aria-label": "Guided stops" }, list));
  }
  const shown = Object.values(controls).map((control) => control.element);
  if (shown.length) {
    const about = { class: "play-controls", "aria-label": "Controls" };
    root.append(html("section", about, ...shown));
  }
  root.append(html("div", { class: "play-views" }, ...views.map((view) => view.element)));
  place.append(root);
  document.getElementById(place.dataset.still)?.classList.add("has-play");
  if (chosen.length) visit(chosen[0]);
  else wake();
}
