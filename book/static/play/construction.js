// How go-mHC makes H: θ fills A, its Cayley transform is Q, and the blocks of Q give H.
import { card, html, line, picture, put, svg, tell } from "./dom.js";

const SIZE = 150;
const KEY = "Blue: positive, orange: negative, the darker the larger. Each block of Q, between the "
  + "lines, is one entry of H: the sum of its squares, divided by s.";

/** A square table of colours under a name: { element, draw(M, block) }. */
function heatmap(name) {
  const cells = svg("g");
  const lines = svg("g");
  const element = picture(SIZE, SIZE, cells, lines);
  const about = html("p", { class: "play-note" }, name);
  let layout = "";

  function lay(n, block) {
    const side = SIZE / n;
    cells.replaceChildren(...Array.from({ length: n * n }, (_, k) => svg("rect", {
      x: (k % n) * side, y: Math.floor(k / n) * side, width: side, height: side,
    })));
    const ends = [0, SIZE];
    const places = Array.from({ length: n / block + 1 }, (_, k) => k * block * side);
    const borders = places.flatMap((at) => [ends.map((x) => [x, at]), ends.map((y) => [at, y])]);
    lines.replaceChildren(...borders.map((points) =>
      svg("polyline", { class: "play-side", points: line(points) })));
  }

  function draw(M, block) {
    const wanted = `${M.length} ${block}`;
    if (wanted !== layout) lay(M.length, block);
    layout = wanted;
    M.flat().forEach((entry, k) => put(cells.children[k], {
      class: entry < 0 ? "play-negative" : "play-positive",
      "fill-opacity": Math.min(Math.abs(entry), 1),
    }));
    put(element, { "aria-label": `${name}: ${M.length} rows and columns.` });
  }
  return { element: html("div", {}, element, about), draw };
}

/** The view: { element, draw(scene) }; for other methods it says that they do without. */
export function constructionView() {
  const tables = [
    heatmap("A, skew-symmetric: θ above the diagonal, −θ below"),
    heatmap("Q = (I − A)(I + A)⁻¹, orthogonal"),
    heatmap("H, the block norms: rows and columns sum to 1"),
  ];
  const key = html("p", { class: "play-note" });
  const row = html("div", { class: "play-thirds" }, ...tables.map((table) => table.element));
  const element = card("How go-mHC makes H", row, key);
  element.classList.add("play-wide");

  function draw({ H, s, steps }) {
    row.hidden = !steps;
    tell(key, steps ? KEY : "Other methods take another way; choose go-mHC to see its own.");
    if (!steps) return;
    tables[0].draw(steps.A, s);
    tables[1].draw(steps.Q, s);
    tables[2].draw(H, 1);
  }
  return { element, draw };
}
