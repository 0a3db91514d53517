// Small dense matrices: arrays of rows of numbers.

/** The matrix whose entry (i, j) is `entry(i, j)`. */
export function matrix(rows, columns, entry) {
  const M = [];
  for (let i = 0; i < rows; i++) {
    const row = new Array(columns);
    for (let j = 0; j < columns; j++) row[j] = entry(i, j);
    M.push(row);
  }
  return M;
}

/** The identity of order n. */
export const identity = (n) => matrix(n, n, (i, j) => (i === j ? 1 : 0));

/** Mᵀ. */
export const transpose = (M) => matrix(M[0].length, M.length, (i, j) => M[j][i]);

/** The matrix product AB. */
export function multiply(A, B) {
  const C = matrix(A.length, B[0].length, () => 0);
  for (let i = 0; i < A.length; i++) {
    const sum = C[i];
    for (let k = 0; k < B.length; k++) {
      const factor = A[i][k];
      const row = B[k];
      for (let j = 0; j < row.length; j++) sum[j] += factor * row[j];
    }
  }
  return C;
}

/**
 * (I + A)⁻¹ for a skew A, by Gauss and Jordan's elimination in place. All pivots are at least 1:
 * what a step leaves is again I and a skew part, and a positive semidefinite part beside them.
 */
export function inverseOfOnePlus(A) {
  const n = A.length;
  const M = plus(identity(n), A);
  for (let k = 0; k < n; k++) {
    const pivot = M[k];
    const scale = 1 / pivot[k];
    pivot[k] = 1;
    for (let j = 0; j < n; j++) pivot[j] *= scale;
    for (let i = 0; i < n; i++) {
      if (i === k) continue;
      const row = M[i];
      const factor = row[k];
      row[k] = 0;
      for (let j = 0; j < n; j++) row[j] -= factor * pivot[j];
    }
  }
  return M;
}

/** The sums of the rows of M. */
export const rowSums = (M) => M.map((row) => row.reduce((sum, entry) => sum + entry, 0));

/** The sums of the columns of M. */
export const columnSums = (M) => rowSums(transpose(M));

/** Σ A_ij B_ij. */
export function inner(A, B) {
  let sum = 0;
  for (let i = 0; i < A.length; i++) {
    for (let j = 0; j < A[i].length; j++) sum += A[i][j] * B[i][j];
  }
  return sum;
}

/** A + factor · B. */
export const plus = (A, B, factor = 1) =>
  matrix(A.length, A[0].length, (i, j) => A[i][j] + factor * B[i][j]);

/** The Frobenius norm ‖A − B‖. */
export function distance(A, B) {
  const difference = plus(A, B, -1);
  return Math.sqrt(inner(difference, difference));
}

/** All d! orders of 0 … d − 1, in lexicographic order. */
export function permutations(d) {
  const extend = (start) => {
    if (start.length === d) return [start];
    const rest = [...Array(d).keys()].filter((k) => !start.includes(k));
    return rest.flatMap((k) => extend([...start, k]));
  };
  return extend([]);
}

/** The permutation matrix with ones at (i, order[i]). */
export const permutationMatrix = (order) =>
  matrix(order.length, order.length, (i, j) => (order[i] === j ? 1 : 0));

/** Z^power, where Z sends stream i + 1 to i, cyclically. */
export const cyclicShift = (d, power = 1) =>
  matrix(d, d, (i, j) => ((i + power) % d === j ? 1 : 0));
