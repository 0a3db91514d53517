// Small things for readers that Sphinx and its theme leave undone.

// From file:// a page may not read another: list search results without excerpts.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS === "object") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// What scrolls in its own box can be scrolled with the keyboard, once it is reached by it.
const boxes = "figure, .cell_output > .output, pre, .pst-scrollable-table-container, .math, mjx-container";
const reachable = () => {
  for (const box of document.querySelectorAll(boxes)) {
    const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    if (scrolls && !box.hasAttribute("tabindex")) box.tabIndex = 0;
  }
};
addEventListener("load", reachable);
addEventListener("resize", reachable);

// Print with details open, and fold again what was folded; code and provenance are not printed.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open], .hide, .provenance)")];
  for (const detail of opened) detail.open = true;
});
addEventListener("afterprint", () => {
  for (const detail of opened) detail.open = false;
});
