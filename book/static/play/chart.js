// Curves over steps or layers, on a logarithmic axis.
import { line, picture, power, put, svg, tell } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [340, 190, 42, 8, 10, 30];
const TICKS = 5;

/** { element, draw({ curves: [{ values, color, dash }], first, length, floor, words }) }. */
export function chart(below) {
  const grid = Array.from({ length: TICKS }, () => svg("line", { class: "play-grid" }));
  const marks = Array.from({ length: TICKS }, () => svg("text", { "text-anchor": "end" }));
  const curves = svg("g", { class: "play-curves" });
  const end = svg("text", { x: WIDTH - RIGHT, y: HEIGHT - 8, "text-anchor": "end" });
  const start = svg("text", { x: LEFT, y: HEIGHT - 8 });
  const element = picture(WIDTH, HEIGHT, ...grid, ...marks, curves, start, end);
  const lines = [];

  function draw({ curves: shown, first, length, floor, words }) {
    const exponents = shown.flatMap(({ values }) => values)
      .filter((x) => x > 0 && x < Infinity).map(Math.log10);
    const low = Math.floor(Math.max(Math.log10(floor), Math.min(-1, ...exponents)));
    const top = Math.max(0, ...exponents) - 1e-9; // a gain of 1 has its rounding
    const high = Math.max(Math.ceil(top), low + 1);
    const step = Math.ceil((high - low) / (TICKS - 1));
    const x = (k) => LEFT + ((WIDTH - LEFT - RIGHT) * k) / Math.max(length - 1, 1);
    const y = (exponent) =>
      HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (exponent - low)) / (high - low);

    for (let tick = 0; tick < TICKS; tick++) {
      const exponent = high - tick * step;
      const visible = exponent >= low ? "visible" : "hidden";
      const at = y(exponent);
      put(grid[tick], { x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at, visibility: visible });
      put(marks[tick], { x: LEFT - 5, y: at + 4, visibility: visible });
      tell(marks[tick], exponent === 0 ? "1" : power(exponent));
    }
    while (lines.length < shown.length) {
      lines.push(svg("polyline", { fill: "none" }));
      curves.append(lines.at(-1));
    }
    lines.forEach((polyline, k) => {
      const curve = shown[k];
      if (!curve) return put(polyline, { points: "" });
      const height = (value) => y(Math.min(Math.max(Math.log10(value), low), high));
      const every = Math.ceil(curve.values.length / 160); // as many as the eye can tell apart
      const points = curve.values.map((value, at) => [x(at), height(value)])
        .filter((_, at) => at % every === 0);
      polyline.style.setProperty("--ink", curve.color);
      return put(polyline, { points: line(points), "stroke-dasharray": curve.dash ?? "none" });
    });
    tell(start, first);
    tell(end, `${length} ${below}`);
    put(element, { "aria-label": words });
  }
  return { element, draw };
}
