// A pad over two directions of θ, and two sliders for the same with the keyboard.
import { brief, html, line, picture, put, slider, svg } from "./dom.js";
import { normals } from "./random.js";

const [SIZE, MARGIN] = [240, 12];
const dot = (a, b) => a.reduce((sum, x, k) => sum + x * b[k], 0);

/** Two directions at right angles among `size` numbers; the second is 0 where there is but one. */
function directions(size, seed) {
  const normal = normals(seed);
  const draw = () => Array.from({ length: size }, normal);
  const unit = (v) => {
    const length = Math.sqrt(dot(v, v));
    return length > 1e-9 ? v.map((x) => x / length) : v.map(() => 0);
  };
  const first = unit(draw());
  const second = draw();
  const along = dot(first, second);
  return [first, size > 1 ? unit(second.map((x, k) => x - along * first[k])) : first.map(() => 0)];
}

/** { element, renew(), draw(scene, reach) }; `act(θ)` is told where θ has been dragged. */
export function pad(act) {
  let seed = 3;
  let theta = [];
  let axes = [[], []];
  let extent = 1;

  const knob = svg("circle", { r: 9, class: "play-dot" });
  const ends = [MARGIN, SIZE - MARGIN];
  const cross = [ends.map((x) => [x, SIZE / 2]), ends.map((y) => [SIZE / 2, y])]
    .map((points) => svg("polyline", { points: line(points), class: "play-grid" }));
  const surface = picture(SIZE, SIZE, ...cross, knob);
  put(surface, {
    class: "play-pad",
    "aria-label": "Pad: drag to move θ along two directions; two sliders below do the same",
  });

  /** Move θ so that it has these coordinates along the two directions. */
  function move(goal) {
    const steps = axes.map((axis, k) => goal[k] - dot(axis, theta));
    act(theta.map((x, k) => x + steps[0] * axes[0][k] + steps[1] * axes[1][k]));
  }

  function drag(event) {
    const box = surface.getBoundingClientRect();
    const coordinate = (offset, length) => {
      const share = (offset / length) * SIZE - SIZE / 2;
      return extent * Math.min(Math.max(share / (SIZE / 2 - MARGIN), -1), 1);
    };
    move([
      coordinate(event.clientX - box.left, box.width),
      -coordinate(event.clientY - box.top, box.height),
    ]);
  }
  surface.addEventListener("pointerdown", (event) => {
    surface.setPointerCapture(event.pointerId);
    drag(event);
  });
  surface.addEventListener("pointermove", (event) => {
    if (surface.hasPointerCapture(event.pointerId)) drag(event);
  });

  // Sliders run from −100 to 100, as the extent depends on the method.
  const sliders = ["across", "upwards"].map((name, k) => slider({
    name, min: -100, max: 100, step: 1, say: (value) => brief((extent * value) / 100, 2),
    act: (value) => {
      const goal = axes.map((axis) => dot(axis, theta));
      goal[k] = (extent * value) / 100;
      move(goal);
    },
  }));

  /** Draw other directions. */
  const renew = () => {
    seed += 1;
    axes = directions(theta.length, seed);
  };

  function draw(scene, reach) {
    if (scene.theta.length !== axes[0].length) axes = directions(scene.theta.length, seed);
    theta = scene.theta;
    extent = reach * Math.sqrt(Math.max(theta.length, 2) / 2);
    const places = axes.map((axis) => dot(axis, theta));
    const shown = places.map((x) => Math.min(Math.max(x / extent, -1), 1));
    put(knob, {
      cx: SIZE / 2 + (SIZE / 2 - MARGIN) * shown[0],
      cy: SIZE / 2 - (SIZE / 2 - MARGIN) * shown[1],
    });
    sliders.forEach((one, k) => {
      one.set((100 * places[k]) / extent);
      one.enable(theta.length > k);
    });
  }
  const parts = [surface, ...sliders.map((one) => one.element)];
  const element = html("div", { class: "play-drag" }, ...parts);
  return { element, renew, draw };
}
