// Singular values and eigenvalues of small matrices.
import { identity, matrix, multiply, plus, transpose } from "./matrix.js";

const SWEEPS = 30; // of Jacobi's rotations; a handful is enough for order 4
const ROUNDS = 200; // of Weierstrass' iteration

/** Singular values of M, the largest first: rotations that make its columns orthogonal. */
export function singularValues(M) {
  const columns = transpose(M);
  const dot = (a, b) => a.reduce((sum, x, k) => sum + x * b[k], 0);
  for (let sweep = 0, turned = true; turned && sweep < SWEEPS; sweep++) {
    turned = false;
    for (let p = 0; p < columns.length; p++) {
      for (let q = p + 1; q < columns.length; q++) {
        const [a, b] = [columns[p], columns[q]];
        const [aa, bb, ab] = [dot(a, a), dot(b, b), dot(a, b)];
        if (Math.abs(ab) <= 1e-16 * Math.sqrt(aa * bb)) continue;
        turned = true;
        const zeta = (bb - aa) / (2 * ab);
        const tangent = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
        const cosine = 1 / Math.hypot(1, tangent);
        columns[p] = a.map((x, k) => cosine * (x - tangent * b[k]));
        columns[q] = b.map((x, k) => cosine * (x + tangent * a[k]));
      }
    }
  }
  return columns.map((column) => Math.sqrt(dot(column, column))).sort((a, b) => b - a);
}

/** Coefficients c of det(zI − M) = zⁿ + c[0] zⁿ⁻¹ + … + c[n−1], after Faddeev and Le Verrier. */
function characteristic(M) {
  const n = M.length;
  const coefficients = [];
  let power = M;
  for (let k = 1; k <= n; k++) {
    let trace = 0;
    for (let i = 0; i < n; i++) trace += power[i][i];
    coefficients.push(-trace / k);
    power = multiply(M, plus(power, identity(n), coefficients[k - 1]));
  }
  return coefficients;
}

const times = ([a, b], [c, d]) => [a * c - b * d, a * d + b * c];
const over = ([a, b], [c, d]) => {
  const size = c * c + d * d;
  return [(a * c + b * d) / size, (b * c - a * d) / size];
};

/** Eigenvalues of M as pairs [real, imaginary]: the roots of its polynomial, after Weierstrass. */
export function eigenvalues(M) {
  const n = M.length;
  // About their mean the eigenvalues of a matrix near a multiple of I do not cancel.
  const mean = M.reduce((sum, row, i) => sum + row[i], 0) / n;
  const centred = matrix(n, n, (i, j) => M[i][j] - (i === j ? mean : 0));
  const size = Math.max(...centred.map((row) => Math.hypot(...row)));
  if (size === 0) return M.map(() => [mean, 0]);
  const coefficients = characteristic(matrix(n, n, (i, j) => centred[i][j] / size));
  // Any start will do that is not symmetric about the real axis.
  let roots = M.map((_, k) => [Math.cos(2.4 * k + 0.4), Math.sin(2.4 * k + 0.4)]);
  for (let round = 0, moved = 1; moved > 1e-16 && round < ROUNDS; round++) {
    moved = 0;
    roots = roots.map((z, k) => {
      let value = [1, 0];
      for (const c of coefficients) {
        value = times(value, z);
        value[0] += c;
      }
      let others = [1, 0];
      for (let m = 0; m < n; m++) {
        if (m !== k) others = times(others, [z[0] - roots[m][0], z[1] - roots[m][1]]);
      }
      const step = over(value, others);
      if (!Number.isFinite(step[0] + step[1])) return z; // two have met, at a multiple root
      moved = Math.max(moved, Math.hypot(...step));
      return [z[0] - step[0], z[1] - step[1]];
    });
  }
  return roots.map(([real, imaginary]) => [mean + size * real, size * imaginary]);
}
