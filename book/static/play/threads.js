// What a stack of layers does: streams as threads that blend or stay apart, and its gains.
import { chart } from "./chart.js";
import { brief, card, html, line, picture, put, svg, tell } from "./dom.js";
import { LONGEST } from "./scene.js";

const [WIDTH, HEIGHT, HIGHEST] = [340, 150, 1.35];
const STREAMS = [[230, 159, 0], [0, 114, 178], [0, 158, 115], [204, 121, 167]];
const GAINS = { forward: "#0072B2", backward: "#D55E00", smallest: "#009E73" };
const TITLES = {
  forward: "gain forward", backward: "gain backward", smallest: "smallest singular value",
};
const ROUNDING = 1e-14; // below it a singular value of a product of numbers below 1 is noise
const DASHES = { backward: "6 3", smallest: "2 3" };

/** The colour of a stream made of others with these weights. */
function blend(weights) {
  const total = weights.reduce((sum, w) => sum + Math.abs(w), 0) || 1;
  const part = (channel) =>
    Math.round(weights.reduce((sum, w, j) => sum + (Math.abs(w) / total) * STREAMS[j][channel], 0));
  return `rgb(${part(0)} ${part(1)} ${part(2)})`;
}

/** The view: { element, draw(scene) }; a small one has no curves of the gains. */
export function threadsView({ small = false } = {}) {
  const pieces = STREAMS.map(() => Array.from({ length: LONGEST }, () => svg("path")));
  const threads = picture(WIDTH, HEIGHT, svg("g", { class: "play-threads" }, ...pieces.flat()));
  const curves = chart("layers");
  const outputs = Object.fromEntries(Object.keys(GAINS).map((name) => [name, html("output")]));
  const legend = html("dl", { class: "play-legend" }, ...Object.keys(GAINS).map((name) => {
    if (small) {
      return html("div", {}, html("dt", {}, TITLES[name]), html("dd", {}, outputs[name]));
    }
    const swatch = svg("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" },
      svg("line", { x1: 0, x2: 24, y1: 4, y2: 4, "stroke-dasharray": DASHES[name] ?? "none" }));
    swatch.style.setProperty("--ink", GAINS[name]);
    return html("div", {}, html("dt", {}, swatch, TITLES[name]), html("dd", {}, outputs[name]));
  }));

  /** Stream j enters at the height of its own, one of d between 1 and −1. */
  function weave(products, d, depth) {
    const entry = Array.from({ length: d }, (_, j) => 1 - (2 * j) / (d - 1));
    const x = (layer) => (WIDTH * layer) / depth;
    const y = (height) => {
      const clipped = Math.min(Math.max(height, -2 * HIGHEST), 2 * HIGHEST);
      return HEIGHT / 2 - (HEIGHT / 2) * (clipped / HIGHEST);
    };
    pieces.forEach((thread, i) => {
      let before = entry[i];
      thread.forEach((piece, layer) => {
        if (i >= d || layer >= depth) return put(piece, { d: "" });
        const after = products[layer][i].reduce((sum, w, j) => sum + w * entry[j], 0);
        const parts = layer ? products[layer - 1][i] : entry.map((_, j) => (i === j ? 1 : 0));
        const ends = line([[x(layer), y(before)], [x(layer + 1), y(after)]]);
        before = after;
        return put(piece, { d: `M${ends}`, stroke: blend(parts) });
      });
    });
  }

  function draw({ d, depth, products, gains }) {
    weave(products, d, depth);
    const last = gains.at(-1);
    const values = Object.keys(GAINS).map((name) =>
      [name, last[name] < ROUNDING ? "0, to rounding" : brief(last[name])]);
    for (const [name, value] of values) tell(outputs[name], value);
    const said = values.map(([name, value]) => `${TITLES[name]} ${value}`);
    const told = said.join(", ");
    put(threads, { "aria-label": `${d} streams through ${depth} layers. ${told}.` });
    if (!small) curves.draw({
      curves: Object.keys(GAINS).map((name) => ({
        values: gains.map((gain) => gain[name]), color: GAINS[name], dash: DASHES[name],
      })),
      first: "1", length: depth, floor: 1e-12, words: `Over ${depth} layers: ${told}.`,
    });
  }
  const key = html("p", { class: "play-note" },
    "A thread is a stream, from the first layer to the last. Its colour says of which streams it "
    + "is made: with a doubly stochastic H, threads of one colour have become the same.");
  const title = "A stack of such layers";
  const element = small
    ? card(`${title}: streams as threads`, threads, legend)
    : card(title, threads, key, curves.element, legend);
  if (small) element.classList.add("play-small");
  return { element, draw };
}
