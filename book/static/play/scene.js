// All numbers on the page, out of what the controls say.
import { offPlane, TARGETS, weightsOf } from "./geometry.js";
import { columnSums, rowSums } from "./matrix.js";
import { METHODS, makeMixer } from "./mixers.js";
import { normals } from "./random.js";
import { eigenvalues } from "./spectrum.js";
import { composites, gains } from "./stack.js";

export const LONGEST = 48; // layers

/** What the controls say at first. */
const FIRST = {
  method: "go-mhc", d: 3, s: 2, iterations: 20, depth: 16, spread: 0, target: "halfway", rate: 0.05,
};

/** A θ that is nothing special: about zero, or about I where θ is the matrix itself. */
export function wander(method, mixer, scale = 1) {
  const size = scale * METHODS[method].wander;
  return Array.from({ length: mixer.size }, (_, k) =>
    (mixer.centre?.[k] ?? 0) + size * Math.sin(2 * k + 1));
}

/** The state at first. */
export const first = () =>
  ({ ...FIRST, theta: wander(FIRST.method, makeMixer(FIRST.method, FIRST)) });

/** Layers alike but for a part of each layer's own, `spread` times normal numbers. */
function layersOf({ theta, depth, spread, method }, mixer, H) {
  if (spread === 0) return Array(depth).fill(H);
  const normal = normals(7);
  const size = spread * METHODS[method].wander;
  const near = () => theta.map((x) => x + size * normal());
  return Array.from({ length: depth }, () => mixer.mix(near()).value);
}

/** The matrix at θ, where it lies, its eigenvalues, and what `depth` layers of it do. */
export function look(state) {
  const mixer = makeMixer(state.method, state);
  const H = mixer.mix(state.theta).value;
  const [rows, columns] = [rowSums(H), columnSums(H)];
  const products = composites(layersOf(state, mixer, H));
  return {
    ...state,
    H,
    steps: mixer.steps?.(state.theta),
    rows,
    columns,
    error: Math.max(...[...rows, ...columns].map((sum) => Math.abs(sum - 1))),
    weights: weightsOf(H),
    off: offPlane(H),
    goal: weightsOf(TARGETS[state.target].make(state.d)),
    eigenvalues: eigenvalues(H),
    products,
    gains: products.map(gains),
  };
}
