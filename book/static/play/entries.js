// H_res as a table: its entries, and the sums of its rows and columns.
import { brief, card, html, put, tell } from "./dom.js";

/** The view: { element, draw(scene) }. */
export function entriesView() {
  const table = html("table", { class: "play-entries" });
  const error = html("p", { class: "play-note" });
  let cells = [];

  /** A table for order d; the last row and column hold the sums. */
  function lay(d) {
    const sign = () => html("th", { scope: "col" }, "Σ");
    const names = Array.from({ length: d }, (_, j) => html("th", { scope: "col" }, `${j + 1}`));
    const row = (name) => [
      html("th", { scope: "row" }, name),
      ...Array.from({ length: d + 1 }, () => html("td")),
    ];
    const rows = [...Array.from({ length: d }, (_, i) => row(`${i + 1}`)), row("Σ")];
    cells = rows.map((all) => all.slice(1));
    table.replaceChildren(
      html("caption", {}, "Row: the new stream. Column: the old one."),
      html("thead", {}, html("tr", {}, html("td"), ...names, sign())),
      html("tbody", {}, ...rows.map((all) => html("tr", {}, ...all))),
    );
  }

  function sum(cell, value) {
    tell(cell, brief(value, 4));
    put(cell, { class: Math.abs(value - 1) > 5e-5 ? "play-sum play-off" : "play-sum" });
  }

  function draw({ H, d, rows, columns, error: size }) {
    if (cells.length !== d + 1) lay(d);
    H.forEach((row, i) => row.forEach((entry, j) => {
      tell(cells[i][j], brief(entry));
      const share = Math.min(Math.abs(entry), 1);
      cells[i][j].style.setProperty("--share", `${(45 * share).toFixed(1)}%`);
      cells[i][j].classList.toggle("play-negative", entry < 0);
    }));
    rows.forEach((value, i) => sum(cells[i][d], value));
    columns.forEach((value, j) => sum(cells[d][j], value));
    tell(error, size < 1e-12
      ? "Every row and column sums to 1, to rounding."
      : `A sum is off 1 by ${brief(size, 4)}.`);
  }
  return { element: card("The matrix H", table, error), draw };
}
