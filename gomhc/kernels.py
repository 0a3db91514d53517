"""Adam on one stream-mixing problem at a time, compiled by Numba: the CPU's fast path.

Each problem stays in the first-level cache for all its steps, and the threads that work on
different problems share nothing. The maps and their derivatives are those of `gomhc.mixers`,
written out for one matrix; the tests hold them against torch's autograd.

A mixer is a Kronecker product of stages, mostly of one. Everything is float64 and C-contiguous, so
that the inner loops run along rows and the compiler can vectorise them; scratch space is made for
the largest stage, and each stage takes the beginning of it.
"""

import numpy as np

from gomhc.fused.caching import cached
from gomhc.fused.stages import CAYLEY, PERMUTATIONS, SINKHORN

SMALL_PRODUCT = 2**17  # multiplications; OpenBLAS starts threads beyond twice as many
# Sums may be taken in another order, so that they vectorise: the last bits depend on the processor,
# not on the run. NaN and infinity are respected.
_compiled = cached(fastmath={"contract", "reassoc"}, error_model="numpy", nogil=True)


@_compiled
def _square(scratch, n):
    """The beginning of some scratch space as an n×n matrix."""
    return scratch[: n * n].reshape(n, n)


@_compiled
def _invert(M, n, row):
    """Invert M in place by elimination; no pivoting, as I + A has a positive definite part."""
    for k in range(n):
        pivot = 1.0 / M[k, k]
        for j in range(n):
            row[j] = M[k, j] * pivot
        for i in range(n):
            factor = M[i, k]
            for j in range(n):
                M[i, j] -= factor * row[j]
            M[i, k] = -factor * pivot
        for j in range(n):
            M[k, j] = row[j]
        M[k, k] = pivot


@_compiled
def _cayley(theta, d, s, K, row, B):
    """B = Φ(2K − I) with K = (I + A)⁻¹."""
    n = d * s
    position = 0
    for i in range(n):
        K[i, i] = 1.0
        for j in range(i + 1, n):
            K[i, j] = theta[position]
            K[j, i] = -theta[position]
            position += 1
    _invert(K, n, row)
    # Whole rows first, as s columns are too few for vectors: (2K − δ)² = 4(K² − δK) + δ.
    for i in range(d):
        for b in range(n):
            row[b] = 0.0
        for a in range(i * s, i * s + s):
            for b in range(n):
                row[b] += K[a, b] * K[a, b]
            row[a] += 0.25 - K[a, a]
        for j in range(d):
            total = 0.0
            for b in range(j * s, j * s + s):
                total += row[b]
            B[i, j] = 4.0 * total / s


@_compiled
def _multiply(left, right, out):
    """Put left·right into out, a few rows at a time: BLAS takes larger products with threads."""
    n = len(right)
    rows = max(1, SMALL_PRODUCT // (n * n))
    for a in range(0, n, rows):
        np.dot(left[a : a + rows], right, out[a : a + rows])


@_compiled
def _cayley_backward(G, d, s, K, left, right, row, gradient):
    """(dL/dA)ᵀ = −½ (I + Q) G_Qᵀ (I + Q) = −2 K G_Qᵀ K, of which θ sees the skew part."""
    n = d * s
    for i in range(d):
        for j in range(d):
            for b in range(j * s, j * s + s):
                row[b] = 2.0 * G[i, j] / s
        for a in range(i * s, i * s + s):
            for b in range(n):
                right[b, a] = 2.0 * row[b] * K[a, b]
            right[a, a] -= row[a]
    _multiply(K, right, left)
    _multiply(left, K, right)
    position = 0
    for a in range(n):
        for b in range(a + 1, n):
            gradient[position] = 2.0 * (right[a, b] - right[b, a])
            position += 1


@_compiled
def _permutations(theta, d, images, weights, B):
    count = theta.size
    largest = theta.max()
    total = 0.0
    for k in range(count):
        weights[k] = np.exp(theta[k] - largest)
        total += weights[k]
    for i in range(d):
        for j in range(d):
            B[i, j] = 0.0
    for k in range(count):
        weights[k] /= total
        for i in range(d):
            B[i, images[k, i]] += weights[k]


@_compiled
def _permutations_backward(G, d, images, weights, gradient):
    count = gradient.size
    mean = 0.0
    for k in range(count):
        gain = 0.0
        for i in range(d):
            gain += G[i, images[k, i]]
        gradient[k] = gain
        mean += weights[k] * gain
    for k in range(count):
        gradient[k] = weights[k] * (gradient[k] - mean)


@_compiled
def _sinkhorn(theta, d, iterations, kernel, u, v, B):
    """B = diag(u) K diag(v): columns first, rows last, with every scaling kept."""
    # A column's scale is absorbed by v; a row's is not, as the truncated iteration starts at u = 1.
    for j in range(d):
        largest = theta[j]
        for i in range(1, d):
            largest = max(largest, theta[i * d + j])
        for i in range(d):
            kernel[i, j] = np.exp(theta[i * d + j] - largest)
    for i in range(d):
        u[0, i] = 1.0
    for t in range(iterations):
        for j in range(d):
            v[t, j] = 0.0
        for i in range(d):
            for j in range(d):
                v[t, j] += u[t, i] * kernel[i, j]
        for j in range(d):
            v[t, j] = 1.0 / v[t, j]
        for i in range(d):
            total = 0.0
            for j in range(d):
                total += kernel[i, j] * v[t, j]
            u[t + 1, i] = 1.0 / total
    for i in range(d):
        for j in range(d):
            B[i, j] = u[iterations, i] * kernel[i, j] * v[iterations - 1, j]


@_compiled
def _sinkhorn_backward(G, d, iterations, kernel, u, v, du, dv, dkernel, gradient):
    last = iterations - 1
    for i in range(d):
        du[i] = 0.0
        dv[i] = 0.0
    for i in range(d):
        for j in range(d):
            du[i] += G[i, j] * kernel[i, j] * v[last, j]
            dv[j] += G[i, j] * kernel[i, j] * u[iterations, i]
            dkernel[i, j] = G[i, j] * u[iterations, i] * v[last, j]
    for t in range(last, -1, -1):
        for i in range(d):
            change = -du[i] * u[t + 1, i] ** 2
            for j in range(d):
                dkernel[i, j] += change * v[t, j]
                dv[j] += change * kernel[i, j]
            du[i] = 0.0
        for j in range(d):
            dv[j] *= -(v[t, j] ** 2)
        for i in range(d):
            for j in range(d):
                dkernel[i, j] += dv[j] * u[t, i]
                du[i] += dv[j] * kernel[i, j]
        for j in range(d):
            dv[j] = 0.0
    # The subtracted maxima change no B, so they have no part in its derivative.
    for i in range(d):
        for j in range(d):
            gradient[i * d + j] = dkernel[i, j] * kernel[i, j]


@_compiled
def descend(
    kind,
    size,
    option,
    first,
    images,
    theta,
    best,
    gram,
    base,
    learning_rate,
    epsilon,
    loss,
    matrix,
    gradient,
):
    """Run Adam on every problem of a chunk, from θ on, and leave the results in place.

    The loss of a problem is base + tr((B − best) gram (B − best)ᵀ): see `Problem.loss`. The first
    five arguments are those of the mixer's stages: see `gomhc.fused.stages.Tables`.

    Args:
        kind: (stages,).
        size: (stages,).
        option: (stages,).
        first: (stages + 1,).
        images: (stages, permutations, size).
        theta: (problems, g), overwritten with the end.
        best: (problems, d, d), the unconstrained minimum.
        gram: (problems, d, d), symmetric.
        base: (problems,), the loss at `best`.
        learning_rate: (problems,).
        epsilon: Adam's.
        loss: (problems, steps), filled with the loss before each step.
        matrix: (problems, d, d), filled with the mixing matrix at the end.
        gradient: (problems, g), filled with the gradient at the last step taken.
    """
    count, steps = loss.shape
    d, g, many = best.shape[1], theta.shape[1], kind.size
    n, iterations = 1, 1
    for f in range(many):
        if kind[f] == CAYLEY:
            n = max(n, size[f] * option[f])
        elif kind[f] == SINKHORN:
            n, iterations = max(n, size[f]), max(iterations, option[f])
    W, dW = np.zeros((many, d, d)), np.zeros((d, d))
    product, dproduct = np.zeros((many, d, d)), np.zeros((many, d, d))
    K, left, right, row = np.zeros((many, n * n)), np.zeros(n * n), np.zeros(n * n), np.zeros(n)
    weights = np.zeros((many, images.shape[1]))
    u, v = np.zeros((many, iterations + 1, n)), np.zeros((many, iterations, n))
    off, dB = np.zeros((d, d)), np.zeros((d, d))
    m, v2 = np.zeros(g), np.zeros(g)
    for p in range(count):
        m[:] = 0.0
        v2[:] = 0.0
        for step in range(steps + 1):
            width = 1
            for f in range(many):
                part = theta[p, first[f] : first[f + 1]]
                if kind[f] == CAYLEY:
                    _cayley(part, size[f], option[f], _square(K[f], size[f] * option[f]), row, W[f])
                elif kind[f] == PERMUTATIONS:
                    _permutations(part, size[f], images[f], weights[f], W[f])
                elif kind[f] == SINKHORN:
                    exponentials = _square(K[f], size[f])
                    _sinkhorn(part, size[f], option[f], exponentials, u[f], v[f], W[f])
                else:
                    for i in range(size[f]):
                        for j in range(size[f]):
                            W[f, i, j] = part[i * size[f] + j]
                k = size[f]
                if f == 0:
                    product[0, :k, :k] = W[0, :k, :k]
                else:
                    for a in range(width):
                        for i in range(k):
                            for b in range(width):
                                for j in range(k):
                                    product[f, a * k + i, b * k + j] = (
                                        product[f - 1, a, b] * W[f, i, j]
                                    )
                width *= k
            if step == steps:
                break
            B = product[many - 1]
            total = 0.0
            for i in range(d):
                for j in range(d):
                    off[i, j] = B[i, j] - best[p, i, j]
                    dB[i, j] = 0.0
                for k in range(d):
                    factor = off[i, k]
                    for j in range(d):
                        dB[i, j] += factor * gram[p, k, j]
                for j in range(d):
                    total += off[i, j] * dB[i, j]
                    dproduct[many - 1, i, j] = 2.0 * dB[i, j]
            loss[p, step] = base[p] + total
            for f in range(many - 1, -1, -1):
                k = size[f]
                width //= k
                G = dproduct[0]
                if f > 0:
                    dW[:k, :k] = 0.0
                    for a in range(width):
                        for b in range(width):
                            back = 0.0
                            for i in range(k):
                                for j in range(k):
                                    slope = dproduct[f, a * k + i, b * k + j]
                                    dW[i, j] += slope * product[f - 1, a, b]
                                    back += slope * W[f, i, j]
                            dproduct[f - 1, a, b] = back
                    G = dW
                slopes = gradient[p, first[f] : first[f + 1]]
                if kind[f] == CAYLEY:
                    o = k * option[f]
                    inverse, work = _square(K[f], o), _square(left, o)
                    _cayley_backward(G, k, option[f], inverse, work, _square(right, o), row, slopes)
                elif kind[f] == PERMUTATIONS:
                    _permutations_backward(G, k, images[f], weights[f], slopes)
                elif kind[f] == SINKHORN:
                    exponentials, change = _square(K[f], k), _square(right, k)
                    _sinkhorn_backward(
                        G, k, option[f], exponentials, u[f], v[f], row, left, change, slopes
                    )
                else:
                    for i in range(k):
                        for j in range(k):
                            slopes[i * k + j] = G[i, j]
            length = learning_rate[p] / (1.0 - 0.9 ** (step + 1))
            debias = 1.0 / np.sqrt(1.0 - 0.999 ** (step + 1))
            for k in range(g):
                slope = gradient[p, k]
                m[k] += 0.1 * (slope - m[k])
                v2[k] = 0.999 * v2[k] + 0.001 * slope * slope
                theta[p, k] -= length * m[k] / (np.sqrt(v2[k]) * debias + epsilon)
        matrix[p] = product[many - 1]
