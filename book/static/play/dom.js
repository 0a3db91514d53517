// Elements, the controls made of them, and numbers in words.

const SVG = "http://www.w3.org/2000/svg";

function fitted(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** An HTML element with attributes, `on…` listeners and children. */
export const html = (tag, attributes = {}, ...children) =>
  fitted(document.createElement(tag), attributes, children);

/** The same in SVG. */
export const svg = (tag, attributes = {}, ...children) =>
  fitted(document.createElementNS(SVG, tag), attributes, children);

/** Set the attributes that have changed: what is set is laid out and painted again. */
export function put(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    const text = typeof value === "number" ? value.toFixed(2) : value;
    if (element.getAttribute(name) !== text) element.setAttribute(name, text);
  }
}

/** Set the text, if it has changed. */
export function tell(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A picture that says in words what it shows. */
export const picture = (width, height, ...children) =>
  svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" }, ...children);

/** `points` for a polyline. */
export const line = (points) => points.map(([x, y]) => `${x.toFixed(2)},${y.toFixed(2)}`).join(" ");

/** A part of the page under a title of its own, which is no heading of the text around it. */
export const card = (title, ...children) =>
  html("section", { class: "play-card", "aria-label": title },
    html("p", { class: "play-title" }, title), ...children);

export const button = (text, act, attributes = {}) =>
  html("button", { type: "button", onclick: act, ...attributes }, text);

/** A slider with its name and number: { element, set(value), enable(whether) }. */
export function slider({ name, min, max, step, act, say = String }) {
  const kind = { type: "range", autocomplete: "off", "aria-label": name };
  const input = html("input", { ...kind, min, max, step });
  const output = html("output");
  const show = (value) => {
    tell(output, say(value));
    put(input, { "aria-valuetext": say(value) });
  };
  input.addEventListener("input", () => {
    show(input.valueAsNumber);
    act(input.valueAsNumber);
  });
  const set = (value) => {
    input.value = value;
    show(value);
  };
  const enable = (whether) => { input.disabled = !whether; };
  const element = html("label", { class: "play-slider" }, html("span", {}, name), input, output);
  return { element, set, enable };
}

/** A list to choose from, value → title: { element, set(value), allow(values) }. */
export function choice({ name, options, act }) {
  const items = Object.entries(options).map(([value, title]) => html("option", { value }, title));
  const select = html("select", { autocomplete: "off", "aria-label": name }, ...items);
  select.addEventListener("change", () => act(select.value));
  return {
    element: html("label", { class: "play-choice" }, html("span", {}, name), select),
    set: (value) => { select.value = value; },
    allow: (values) => { for (const item of items) item.disabled = !values.includes(item.value); },
  };
}

/** A number with so many digits after the point, and no sign before a zero. */
export const fixed = (x, digits) =>
  x.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−");

/** 10 to a power, in characters. */
export const power = (exponent) =>
  `10${[...String(exponent)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c])).join("")}`;

/** A number in a few characters: 0.123, −1.2, 3.4 × 10⁻⁷, beyond 10⁴ 1.2 × 10⁵. */
export function brief(x, digits = 3) {
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size < 1e4 && size >= 0.5 * 10 ** -digits) return fixed(x, digits);
  const [factor, exponent] = x.toExponential(1).split("e");
  return `${factor.replace("-", "−")} × ${power(Number(exponent))}`;
}
