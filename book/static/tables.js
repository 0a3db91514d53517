// On a phone a table that is too wide gives up its columns: each row becomes a block whose cells
// carry the names of their columns. The style sheet does that to the class "stacks", on narrow screens.

// Row by row the cells of a part of a table, each at every column that it spans.
const columnsOf = (rows) => {
  const grid = [...rows].map(() => []);
  [...rows].forEach((row, y) => {
    let x = 0;
    for (const cell of row.cells) {
      while (grid[y][x]) x += 1;
      for (let down = 0; down < cell.rowSpan && y + down < grid.length; down += 1)
        for (let right = 0; right < cell.colSpan; right += 1) grid[y + down][x + right] = cell;
    }
  });
  return grid;
};

const label = (table) => {
  const heads = columnsOf(table.tHead.rows);
  for (const body of table.tBodies) {
    columnsOf(body.rows).forEach((cells) => cells.forEach((cell, x) => {
      const names = heads.map((head) => head[x]?.textContent.trim()).filter(Boolean);
      if (cell.tagName === "TD") cell.dataset.label = [...new Set(names)].join(" · ");
    }));
  }
};

const stack = async () => {
  await window.MathJax?.startup?.promise; // formulas have their width when they are set
  for (const table of document.querySelectorAll("main table")) {
    if (table.classList.contains("stacks") || !table.tHead || !table.offsetWidth) continue;
    const box = table.parentElement;
    if (table.offsetWidth <= box.clientWidth + 1 && box.scrollWidth <= box.clientWidth + 1) continue;
    label(table);
    table.classList.add("stacks");
  }
};
addEventListener("load", stack);
addEventListener("resize", stack);
document.addEventListener("toggle", stack, true); // what a fold has hidden has its width now
