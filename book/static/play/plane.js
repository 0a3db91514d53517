// The eigenvalues of H in the Perfect–Mirsky region.
import { card, fixed, html, line, picture, put, svg, tell } from "./dom.js";
import { perfectMirsky } from "./geometry.js";

const [SIZE, RADIUS] = [260, 108];
const FAR = 1.13; // from where on a dot is drawn at the rim

const at = ([x, y]) => [SIZE / 2 + RADIUS * x, SIZE / 2 - RADIUS * y];

/** The view: { element, draw(scene) }. */
export function planeView() {
  const region = svg("g", { class: "play-region" });
  const dots = [0, 1, 2, 3].map(() => svg("circle", { r: 6, class: "play-dot" }));
  const axes = [[[-1.1, 0], [1.1, 0]], [[0, -1.1], [0, 1.1]]].map((ends) =>
    svg("polyline", { class: "play-grid", points: line(ends.map(at)) }));
  const circle = svg("circle", { cx: SIZE / 2, cy: SIZE / 2, r: RADIUS, class: "play-circle" });
  const element = picture(SIZE, SIZE, region, ...axes, circle, ...dots);
  const note = html("p", { class: "play-note" });
  let order = 0;

  function draw({ d, eigenvalues }) {
    if (d !== order) {
      region.replaceChildren(...perfectMirsky(d).map((corners) =>
        svg("polygon", { points: line(corners.map(at)) })));
      order = d;
    }
    dots.forEach((dot, k) => {
      if (k >= d) return put(dot, { visibility: "hidden" });
      const [x, y] = eigenvalues[k];
      const nearer = Math.min(1, FAR / Math.max(Math.hypot(x, y), 1e-9));
      const [cx, cy] = at([nearer * x, nearer * y]);
      return put(dot, { cx, cy, visibility: "visible" });
    });
    const upper = eigenvalues.filter(([, y]) => y > -1e-3).sort(([a], [b]) => b - a);
    const words = upper.map(([x, y]) =>
      fixed(x, 2) + (y > 1e-3 ? ` ± ${fixed(y, 2)}i` : ""));
    tell(note, `Eigenvalues: ${words.join(", ")}.`);
    put(element, { "aria-label": note.textContent });
  }
  const key = html("p", { class: "play-note" },
    "Shaded: the Perfect–Mirsky region, where those of a doubly stochastic matrix of this order "
    + "lie. Circle: size 1.");
  return { element: card("Eigenvalues", element, note, key), draw };
}
