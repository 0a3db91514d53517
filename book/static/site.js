// Small things for readers that Sphinx and its theme leave undone.

// From file:// a page may not read another: list search results without excerpts.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS === "object") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// Live views come with a script and a style sheet of their own, on pages that ask for some.
if (document.querySelector("[data-play]")) {
  const beside = (name) => new URL(name, document.currentScript.src).href;
  const style = Object.assign(document.createElement("link"), { rel: "stylesheet" });
  style.href = beside("play.css");
  const script = document.createElement("script");
  script.src = beside("play.js");
  document.head.append(style, script);
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

// A ledger whose claims can be chosen by verdict and by topic, which is the heading above them.
const claims = [...document.querySelectorAll("details.claim")];
if (claims.length) {
  const topicOf = (claim) => claim.closest("section").querySelector("h2").firstChild.textContent;
  const chooser = (name, values) => {
    const options = ["all", ...new Set(values)].map((value) => new Option(value));
    const about = { autocomplete: "off", ariaLabel: name };
    const select = Object.assign(document.createElement("select"), about);
    select.append(...options);
    select.addEventListener("change", sift);
    const label = document.createElement("label");
    label.append(`${name} `, select);
    return { label, select };
  };
  const verdict = chooser("Verdict", claims.map((claim) => claim.dataset.verdict));
  const topic = chooser("Topic", claims.map(topicOf));
  const count = document.createElement("output");
  function sift() {
    const fits = (chosen, value) => ["all", value].includes(chosen.select.value);
    for (const claim of claims) {
      claim.hidden = !(fits(verdict, claim.dataset.verdict) && fits(topic, topicOf(claim)));
    }
    for (const section of new Set(claims.map((claim) => claim.closest("section")))) {
      section.hidden = !section.querySelector("details.claim:not([hidden])");
    }
    count.value = `${claims.filter((claim) => !claim.hidden).length} of ${claims.length} claims`;
  }
  const bar = document.createElement("div");
  bar.className = "claim-filter";
  bar.append(verdict.label, topic.label, count);
  claims[0].closest("section").before(bar);
  sift();
}

// Print with details open, and fold again what was folded; code and provenance are not printed.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open], .hide, .provenance)")];
  for (const detail of opened) detail.open = true;
});
addEventListener("afterprint", () => {
  for (const detail of opened) detail.open = false;
});
