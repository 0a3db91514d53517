// The maps from θ to matrices, in the conventions of gomhc/maps.py and gomhc/transportation.py.
//
// A map returns { value, pull }: pull takes the derivative of a loss by the value to that by what
// went in. All derivatives are closed forms, written by hand.
import {
  inner, inverseOfOnePlus, matrix, multiply, permutationMatrix, permutations, plus, transpose,
} from "./matrix.js";

/** A matrix of `columns` columns out of a list, row by row. */
export const unflatten = (theta, columns) =>
  matrix(theta.length / columns, columns, (i, j) => theta[i * columns + j]);

/** The skew-symmetric matrix of order n whose upper triangle holds θ, row by row. */
export function skewSymmetric(theta, n) {
  const A = matrix(n, n, () => 0);
  let k = 0;
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++, k++) {
      A[i][j] = theta[k];
      A[j][i] = -theta[k];
    }
  }
  return A;
}

/** Cayley transform Q = 2(I + A)⁻¹ − I of the skew-symmetric A with θ above its diagonal. */
export function cayley(theta, n) {
  const A = skewSymmetric(theta, n);
  const half = inverseOfOnePlus(A); // (I + Q)/2
  const value = matrix(n, n, (i, j) => 2 * half[i][j] - (i === j ? 1 : 0));
  const pull = (slope) => {
    // ∂L/∂A = −½ (I + Q)ᵀ (∂L/∂Q) (I + Q)ᵀ, then its skew part.
    const turned = transpose(half);
    const byA = multiply(multiply(turned, slope), turned);
    const byTheta = [];
    for (let i = 0; i < n; i++) {
      for (let j = i + 1; j < n; j++) byTheta.push(-2 * (byA[i][j] - byA[j][i]));
    }
    return byTheta;
  };
  return { value, pull };
}

/** Φ_{d,s}: squared Frobenius norms of the s×s blocks of Q, divided by s. */
export function blockFrobenius(Q, s) {
  const d = Q.length / s;
  const value = matrix(d, d, () => 0);
  const block = (i) => Math.floor(i / s);
  Q.forEach((row, i) => row.forEach((q, j) => { value[block(i)][block(j)] += (q * q) / s; }));
  const pull = (slope) =>
    matrix(Q.length, Q.length, (i, j) => (2 * Q[i][j] * slope[block(i)][block(j)]) / s);
  return { value, pull };
}

/** Sinkhorn–Knopp scaling of exp(logits): columns, then rows, in the log domain. */
export function sinkhornKnopp(logits, iterations) {
  // Columns are rows of the transpose: every half step scales rows and transposes.
  const steps = [transpose(logits)];
  for (let k = 0; k < 2 * iterations; k++) {
    const scaled = steps[k].map((row) => {
      const top = Math.max(...row);
      const sum = top + Math.log(row.reduce((total, x) => total + Math.exp(x - top), 0));
      return row.map((x) => x - sum);
    });
    steps.push(transpose(scaled));
  }
  const exponential = (M) => M.map((row) => row.map(Math.exp));
  const value = transpose(exponential(steps[2 * iterations]));
  const pull = (slope) => {
    // The derivative of x ↦ x − logsumexp(x), step by step from the last.
    let back = transpose(matrix(slope.length, slope.length, (i, j) => slope[i][j] * value[i][j]));
    for (let k = 2 * iterations; k > 0; k--) {
      const weights = transpose(exponential(steps[k]));
      back = transpose(back).map((row, i) => {
        const sum = row.reduce((total, x) => total + x, 0);
        return row.map((x, j) => x - weights[i][j] * sum);
      });
    }
    return transpose(back);
  };
  return { value, pull };
}

const TABLES = new Map();

/** The permutation matrices of order d, worked out once. */
function table(d) {
  if (!TABLES.has(d)) TABLES.set(d, permutations(d).map(permutationMatrix));
  return TABLES.get(d);
}

/** Σ_k softmax(θ)_k P_k over all permutation matrices of order d, in lexicographic order. */
export function mixture(theta, d) {
  const top = Math.max(...theta);
  const raw = theta.map((x) => Math.exp(x - top));
  const total = raw.reduce((sum, x) => sum + x, 0);
  const weights = raw.map((x) => x / total);
  const value = matrix(d, d, () => 0);
  table(d).forEach((P, k) => {
    for (let i = 0; i < d; i++) value[i][P[i].indexOf(1)] += weights[k];
  });
  const pull = (slope) => {
    const along = table(d).map((P) => inner(P, slope));
    const mean = along.reduce((sum, x, k) => sum + weights[k] * x, 0);
    return along.map((x, k) => weights[k] * (x - mean));
  };
  return { value, pull };
}

/** The Kronecker product of two matrices, the first outermost. */
export function kronecker(A, B) {
  const [m, n] = [A.length, B.length];
  const value = matrix(m * n, m * n, (i, j) =>
    A[Math.floor(i / n)][Math.floor(j / n)] * B[i % n][j % n]);
  const pull = (slope) => {
    const part = (i, j) => matrix(n, n, (k, l) => slope[i * n + k][j * n + l]);
    const byA = matrix(m, m, (i, j) => inner(part(i, j), B));
    let byB = matrix(n, n, () => 0);
    A.forEach((row, i) => row.forEach((a, j) => { byB = plus(byB, part(i, j), a); }));
    return [byA, byB];
  };
  return { value, pull };
}

/**
 * Fill a doubly stochastic matrix entry by entry between what rows and columns leave.
 * `choose(i, j, low, high)` gives an entry; `note` gets every choice and which bounds held.
 */
function fill(d, choose, note = () => {}) {
  const columns = Array(d).fill(1);
  const rows = [];
  for (let i = 0; i < d - 1; i++) {
    const row = [];
    let rest = 1;
    for (let j = 0; j < d - 1; j++) {
      // Summed from the last, as the library does.
      let right = 0;
      for (let k = d - 1; k > j; k--) right += columns[k];
      const spare = rest - right;
      const low = Math.max(spare, 0);
      const high = Math.max(Math.min(rest, columns[j]), low);
      const entry = choose(i, j, low, high);
      note({ i, j, room: high - low, byRest: spare > 0, byRow: rest <= columns[j] });
      rest = Math.max(rest - entry, 0);
      columns[j] = Math.max(columns[j] - entry, 0);
      row.push(entry);
    }
    columns[d - 1] = Math.max(columns[d - 1] - rest, 0);
    rows.push([...row, rest]);
  }
  return [...rows, columns];
}

/** The transportation chart of the polytope's inside: (d − 1)² logits, row by row. */
export function transportation(theta, d) {
  const shares = theta.map((x) => 1 / (1 + Math.exp(-x)));
  const share = (i, j) => shares[i * (d - 1) + j];
  const choices = [];
  const value = fill(d, (i, j, low, high) => low + (high - low) * share(i, j),
    (choice) => choices.push(choice));
  const pull = (slope) => {
    const byTheta = Array(theta.length).fill(0);
    const byColumn = [...slope[d - 1]];
    let byRest = 0;
    for (const { i, j, room, byRest: lowMoves, byRow } of choices.reverse()) {
      if (j === d - 2) byRest = slope[i][d - 1] - byColumn[d - 1];
      const byEntry = slope[i][j] - byRest - byColumn[j];
      const part = share(i, j);
      if (lowMoves) {
        byRest += byEntry * (1 - part);
        for (let k = j + 1; k < d; k++) byColumn[k] -= byEntry * (1 - part);
      }
      if (byRow) byRest += byEntry * part;
      else byColumn[j] += byEntry * part;
      byTheta[i * (d - 1) + j] = byEntry * room * part * (1 - part);
    }
    return byTheta;
  };
  return { value, pull };
}

/** The θ whose `transportation` is B, a doubly stochastic matrix without a zero. */
export function inverseTransportation(B) {
  const theta = [];
  fill(B.length, (i, j, low, high) => {
    theta.push(Math.log(B[i][j] - low) - Math.log(high - B[i][j]));
    return B[i][j];
  });
  return theta;
}
