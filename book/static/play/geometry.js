// Where a matrix lies beside the circulants Σ w_k Z^k, and where that is drawn.
//
// The powers I, Z, …, Z^{d−1} are orthogonal to each other and equally long: with Σ w = 1 they span
// a regular segment, triangle or tetrahedron. The orthogonal projection of a matrix has as weights
// the means along its cyclic diagonals. It takes the whole Birkhoff polytope onto this simplex.
import { mixture } from "./maps.js";
import { cyclicShift, distance, matrix, permutations } from "./matrix.js";

/** Weights of the nearest matrix Σ w_k Z^k with Σ w = 1; negative ones lie outside the polytope. */
export function weightsOf(H) {
  const d = H.length;
  const means = H.map((_, k) => H.reduce((sum, row, i) => sum + row[(i + k) % d], 0) / d);
  const lacking = (1 - means.reduce((sum, w) => sum + w, 0)) / d;
  return means.map((w) => w + lacking);
}

/** The matrix Σ w_k Z^k. */
export function circulant(weights) {
  const d = weights.length;
  return matrix(d, d, (i, j) => weights[(j - i + d) % d]);
}

/** How far H is from the circulants with sum 1. */
export const offPlane = (H) => distance(H, circulant(weightsOf(H)));

const [TURN, TILT] = [0.62, 0.3]; // from where the tetrahedron is seen

/** A point of space as it is seen: to the right, upwards. */
const seen = ([x, y, z]) => [
  x * Math.cos(TURN) - y * Math.sin(TURN),
  z * Math.cos(TILT) + (x * Math.sin(TURN) + y * Math.cos(TURN)) * Math.sin(TILT),
];
const around = (turns) => [Math.cos(turns * 2 * Math.PI), Math.sin(turns * 2 * Math.PI)];
const FLOOR = [0, 1 / 3, 2 / 3].map((turns) => around(turns).map((x) => x / Math.sqrt(3)));

/** Corners I, Z, Z², … of the drawing by d, to the right and upwards, sides about 1 long. */
export const CORNERS = {
  2: [[0, 0], [1, 0]],
  3: [[0.5, Math.sqrt(3) / 2], [0, 0], [1, 0]],
  4: [[0, 0, Math.sqrt(2 / 3)], ...FLOOR.map(([x, y]) => [x, y, 0])].map(seen),
};

/** Where weights are drawn. */
export const toDrawing = (weights) =>
  [0, 1].map((axis) =>
    weights.reduce((sum, w, k) => sum + w * CORNERS[weights.length][k][axis], 0));

/** Below a point of the tetrahedron, the one of its floor. */
export const shadow = ([apex, ...floor]) => [0, ...floor.map((w) => w + apex / 3)];

/** The circulants that s = 1 reaches at d = 3: those of the eigenvalue (2e^{it} + e^{−2it})/3. */
export const deltoid = (points) =>
  Array.from({ length: points + 1 }, (_, n) => {
    const t = (2 * Math.PI * n) / points;
    const z = [2 * Math.cos(t) + Math.cos(2 * t), 2 * Math.sin(t) - Math.sin(2 * t)];
    return [0, 1 / 3, 2 / 3].map((turns) => {
      const [x, y] = around(turns);
      return (1 + (2 / 3) * (z[0] * x + z[1] * y)) / 3;
    });
  });

/** The regular k-gons of roots of unity, k = 2 … d, whose union is the Perfect–Mirsky region. */
export const perfectMirsky = (d) =>
  Array.from({ length: d - 1 }, (_, m) =>
    Array.from({ length: m + 2 }, (_, k) => around(k / (m + 2))));

/** Matrices to aim at, by d. */
export const TARGETS = {
  cycle: { title: "the cycle Z", make: (d) => cyclicShift(d) },
  halfway: {
    title: "halfway from I to Z",
    make: (d) => circulant([0.5, 0.5, 0, 0].slice(0, d)),
  },
  barycentre: { title: "the mean of all streams", make: (d) => circulant(Array(d).fill(1 / d)) },
  inside: {
    title: "a point inside",
    make: (d) => {
      const logits = permutations(d).map((_, k) => 2.5 * Math.sin(3 * k + 1));
      return mixture(logits, d).value;
    },
  },
};
