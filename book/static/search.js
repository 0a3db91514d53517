// Excerpts of search results: formulas as text, not as the TeX that a page is sent with.
const SIGNS = {
  alpha: "α", beta: "β", delta: "δ", epsilon: "ε", varepsilon: "ε", eta: "η", lambda: "λ", mu: "μ",
  omega: "ω", pi: "π", rho: "ρ", sigma: "σ", tau: "τ", theta: "θ", Delta: "Δ", Omega: "Ω", Phi: "Φ",
  Pi: "Π", Sigma: "Σ", Theta: "Θ", le: "≤", leq: "≤", ge: "≥", geq: "≥", ne: "≠", neq: "≠",
  approx: "≈", sim: "∼", times: "×", cdot: "·", pm: "±", in: "∈", subset: "⊂", to: "→", mapsto: "↦",
  infty: "∞", sum: "∑", prod: "∏", partial: "∂", otimes: "⊗", bigotimes: "⊗", top: "ᵀ", dots: "…",
  ldots: "…", cdots: "…", lVert: "‖", rVert: "‖", Vert: "‖", sqrt: "√", bigl: "", bigr: "",
};
const inWords = (tex) => tex
  .replace(/\\begin\{(\w+\*?)\}[^]*?\\end\{\1\}/g, "…")
  .replace(/\\[dt]?frac\s*(?:\{([^{}]*)\}|(\w))\s*(?:\{([^{}]*)\}|(\w))/g, "$1$2/$3$4")
  .replace(/\\([a-zA-Z]+)\s*/g, (_, name) => SIGNS[name] ?? "")
  .replace(/\\[,;:!]/g, " ").replace(/\\./g, "").replace(/[{}$]/g, "")
  .replace(/\^2(?!\d)/g, "²").replace(/\^3(?!\d)/g, "³");
if (typeof Search === "object") {
  const { htmlToText, makeSearchSummary } = Search;
  Search.htmlToText = (page, anchor) => {
    const parsed = new DOMParser().parseFromString(page, "text/html");
    for (const button of parsed.querySelectorAll(".bd-header-article, .provenance")) button.remove();
    for (const formula of parsed.querySelectorAll(".math")) {
      formula.textContent = inWords(formula.textContent);
    }
    // An entry of the index marks a place in a paragraph, and is empty itself.
    const mark = anchor && parsed.querySelector(`[role="main"] span${anchor}`);
    if (mark && !mark.textContent) return mark.parentElement.textContent;
    return htmlToText(parsed.documentElement.outerHTML, anchor);
  };
  // Sphinx looks for stems, of which "caylei" is in no text: the last one of these that is there counts.
  Search.makeSearchSummary = (page, stems, anchor) => {
    const query = new URLSearchParams(location.search).get("q").trim();
    return makeSearchSummary(page, [...stems, ...query.split(/\s+/), query], anchor);
  };
}
