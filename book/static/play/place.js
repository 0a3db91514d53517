// Where H lies: its projection onto the circulants with sum 1.
import { card, fixed, html, line, picture, put, svg, tell } from "./dom.js";
import { CORNERS, deltoid, shadow, toDrawing } from "./geometry.js";

const [WIDTH, HEIGHT, SCALE] = [340, 260, 210];
const TRAIL = 240; // points
const NAMES = ["I", "Z", "Z²", "Z³"];
const KEY = "Dot: H, projected at right angles onto the mixtures of the shifts I, Z, …; all doubly "
  + "stochastic matrices fall inside. Ring: the target.";
const PLANE = {
  2: "segment from I to Z", 3: "triangle of I, Z, Z²", 4: "tetrahedron of I, Z, Z², Z³",
};

/** The view: { element, draw(scene) }. */
export function placeView() {
  const frame = svg("g");
  const trail = svg("polyline", { class: "play-trail" });
  const drop = svg("line", { class: "play-drop" });
  const goal = svg("circle", { r: 8, class: "play-goal" });
  const dot = svg("circle", { r: 7, class: "play-dot" });
  const element = picture(WIDTH, HEIGHT, frame, trail, drop, goal, dot);
  const note = html("p", { class: "play-note" });
  const key = html("p", { class: "play-note" });
  let drawn = "";
  let past = [];
  let centre = [0, 0];

  const at = (weights) => {
    const [x, y] = toDrawing(weights);
    return [WIDTH / 2 + SCALE * (x - centre[0]), HEIGHT / 2 - SCALE * (y - centre[1])];
  };

  /** The simplex of order d, its corners' names, and at d = 3 what s = 1 reaches of it. */
  function lay(d, curve) {
    const corners = CORNERS[d];
    const middle = (axis) => {
      const all = corners.map((corner) => corner[axis]);
      return (Math.min(...all) + Math.max(...all)) / 2;
    };
    centre = [middle(0), middle(1)];
    const unit = (k) => corners.map((_, m) => (m === k ? 1 : 0));
    const sides = [];
    for (let k = 0; k < d; k++) {
      for (let m = k + 1; m < d; m++) {
        const ends = [at(unit(k)), at(unit(m))];
        sides.push(svg("polyline", { class: "play-side", points: line(ends) }));
      }
    }
    key.textContent = curve ? `${KEY} Orange curve: what s = 1 reaches of them.` : KEY;
    const names = corners.map((_, k) => {
      const [x, y] = at(unit(k));
      const [dx, dy] = [x - WIDTH / 2, y - HEIGHT / 2];
      const away = 16 / Math.max(Math.hypot(dx, dy), 1);
      const place = { x: x + away * dx, y: y + away * dy + 4, "text-anchor": "middle" };
      return svg("text", place, NAMES[k]);
    });
    const reached = curve ? line(deltoid(90).map(at)) : "";
    const cusps = svg("polyline", { class: "play-curve", points: reached });
    frame.replaceChildren(...sides, cusps, ...names);
    past = [];
  }

  function draw({ d, s, method, weights, goal: aim, off }) {
    const layout = `${method} ${d} ${s}`;
    if (layout !== drawn) lay(d, d === 3 && method === "go-mhc");
    drawn = layout;
    const [x, y] = at(weights);
    past = [...past, [x, y]].slice(-TRAIL);
    put(trail, { points: line(past) });
    put(dot, { cx: x, cy: y });
    const [a, b] = at(aim);
    put(goal, { cx: a, cy: b });
    const [u, v] = at(d === 4 ? shadow(weights) : weights);
    put(drop, { x1: x, y1: y, x2: u, y2: v });
    const parts = weights.map((w, k) => `${fixed(w, 2)} ${NAMES[k]}`);
    const shares = parts.join(" + ").replaceAll("+ −", "− ");
    const where = weights.some((w) => w < -5e-4)
      ? `outside the ${PLANE[d]}`
      : `in the ${PLANE[d]}`;
    const away = off < 0.005 ? "less than 0.01" : fixed(off, 2);
    tell(note, off < 5e-4
      ? `H = ${shares}, ${where}.`
      : `Projection of H: ${shares}, ${where}. H is ${away} away from it.`);
    put(element, { "aria-label": `Where H lies. ${note.textContent}` });
  }
  return { element: card("Where it lies", element, note, key), draw };
}
