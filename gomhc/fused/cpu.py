"""Mixers on a CPU, compiled by Numba: a block of tokens goes through all stages while it is in cache.

Note [Lanes]
    Tokens are the last axis of every array, so that the inner loops do the same to all tokens of a
    block, and the compiler makes vector instructions of them. The number of lanes is an argument
    and no constant on purpose: loops of known length would be unrolled first, and then not
    vectorised.

Note [Registers]
    The cubic part, an inverse and two products, consists of sums of products. Numba does not know
    that its arrays are apart, so it would load and store a sum for every term. `_update` keeps the
    sum in registers: a small piece of LLVM's language, by which the whole is several times faster.

Note [Precision]
    What comes in and goes out is float32, and everything in between float64: elimination without
    pivoting loses digits that float32 does not have to spare. Tokens that would lose more than that
    are marked as hard, and left to the caller.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gomhc.fused.stages import CAYLEY, PERMUTATIONS, SINKHORN

LARGEST_ANGLE = 1e4  # |θ| up to which elimination without pivoting is exact enough
LARGEST_SPREAD = 600.0  # of logits: their exponentials fit into a float64
# Sums may be taken in another order, so that they vectorise: the last bits depend on the processor,
# not on the run. NaN and infinity are respected.
_compiled: Any = numba.njit(
    fastmath={"contract", "reassoc"}, error_model="numpy", nogil=True, cache=True
)


# Eight tokens at a time, written out for the compiler: see Note [Registers].
VECTOR = 8
_REGISTERS = ir.VectorType(ir.DoubleType(), VECTOR)


@intrinsic
def _update(typingctx, out, o, w, e, x, a, da, y, b, db, count, z, c):
    """out[o] = (w[e] − Σ_k x[a + k da] y[b + k db]) z[c], for flat arrays and eight tokens."""
    index = types.intp
    signature = types.void(
        out, index, w, index, x, index, index, y, index, index, index, z, index
    )

    def generate(context, builder, signature, arguments):
        def place(argument, offset):
            array = context.make_array(signature.args[argument])
            data = array(context, builder, arguments[argument]).data
            return builder.bitcast(builder.gep(data, [offset]), _REGISTERS.as_pointer())

        def load(argument, offset):
            return builder.load(place(argument, offset), align=8)

        _, o, _, e, _, a, da, _, b, db, count, _, c = arguments
        total = cgutils.alloca_once(builder, _REGISTERS)
        builder.store(load(2, e), total)
        with cgutils.for_range(builder, count) as loop:
            left = load(4, builder.add(a, builder.mul(loop.index, da)))
            right = load(7, builder.add(b, builder.mul(loop.index, db)))
            product = builder.fmul(left, right, flags=("contract",))
            builder.store(builder.fsub(builder.load(total), product, flags=("contract",)), total)
        builder.store(builder.fmul(builder.load(total), load(11, c)), place(0, o), align=8)
        return context.get_dummy_value()

    return signature, generate


@_compiled
def _invert(M, n, lanes, inverse, constants, K):
    """K = M⁻¹ by M = LU without pivoting, as M = I + A has a positive definite symmetric part."""
    zero, one, down = 0, VECTOR, n * lanes  # `down` is from a row to the next
    for t in range(0, lanes, VECTOR):
        for i in range(n):
            for j in range(n):
                o, known = (i * n + j) * lanes + t, min(i, j)
                scale, c = (inverse, j * VECTOR) if j < i else (constants, one)
                _update(
                    M, o, M, o, M, i * down + t, lanes, M, j * lanes + t, down, known, scale, c
                )
            for k in range(VECTOR):
                inverse[i * VECTOR + k] = 1.0 / M[(i * n + i) * lanes + t + k]
        for i in range(n):
            for j in range(n):
                o, start = (i * n + j) * lanes + t, zero if j != i else one
                terms = max(i - j, 0)
                _update(
                    K, o, constants, start, M, (i * n + j) * lanes + t, lanes,
                    K, (j * n + j) * lanes + t, down, terms, constants, one,
                )
        for i in range(n - 1, -1, -1):
            for j in range(n):
                o, next = (i * n + j) * lanes + t, i + 1
                _update(
                    K, o, K, o, M, (i * n + next) * lanes + t, lanes,
                    K, (next * n + j) * lanes + t, down, n - next, inverse, i * VECTOR,
                )


@_compiled
def _multiply(left, right, n, lanes, constants, out):
    zero, minus, down = 0, 2 * VECTOR, n * lanes
    for t in range(0, lanes, VECTOR):
        for i in range(n):
            for j in range(n):
                _update(
                    out, (i * n + j) * lanes + t, constants, zero, left, i * down + t, lanes,
                    right, j * lanes + t, down, n, constants, minus,
                )


@_compiled
def _cayley(x, d, s, lanes, M, inverse, constants, K, B):
    """B = Φ(2K − I) with K = (I + A)⁻¹; (2K − δ)² = 4(K² − δK) + δ."""
    n = d * s
    square = M[: n * n * lanes].reshape(n, n, lanes)
    position = 0
    for i in range(n):
        diagonal = square[i, i]
        for t in range(lanes):
            diagonal[t] = 1.0
        for j in range(i + 1, n):
            upper, lower, angle = square[i, j], square[j, i], x[position]
            for t in range(lanes):
                upper[t] = angle[t]
                lower[t] = -angle[t]
            position += 1
    _invert(M, n, lanes, inverse, constants, K)
    square = K[: n * n * lanes].reshape(n, n, lanes)
    scale = 4.0 / s
    for i in range(d):
        for j in range(d):
            total = B[i, j]
            for t in range(lanes):
                total[t] = 0.0
            for a in range(i * s, i * s + s):
                for b in range(j * s, j * s + s):
                    entry = square[a, b]
                    own, more = (1.0, 0.25) if a == b else (0.0, 0.0)
                    for t in range(lanes):
                        total[t] += entry[t] * (entry[t] - own) + more
            for t in range(lanes):
                total[t] *= scale


@_compiled
def _cayley_backward(G, d, s, lanes, K, left, right, constants, gradient):
    """(dL/dA)ᵀ = −½ (I + Q) G_Qᵀ (I + Q) = −2 K G_Qᵀ K, of which θ sees the skew part."""
    n = d * s
    known = K[: n * n * lanes].reshape(n, n, lanes)
    square = right[: n * n * lanes].reshape(n, n, lanes)
    scale = 2.0 / s
    for i in range(d):
        for j in range(d):
            slope = G[i, j]
            for a in range(i * s, i * s + s):
                for b in range(j * s, j * s + s):
                    out, entry = square[b, a], known[a, b]
                    own = 1.0 if a == b else 0.0
                    for t in range(lanes):
                        out[t] = scale * slope[t] * (2.0 * entry[t] - own)
    _multiply(K, right, n, lanes, constants, left)
    _multiply(left, K, n, lanes, constants, right)
    position = 0
    for a in range(n):
        for b in range(a + 1, n):
            out, upper, lower = gradient[position], square[a, b], square[b, a]
            for t in range(lanes):
                out[t] = 2.0 * (upper[t] - lower[t])
            position += 1


@_compiled
def _permutations(x, d, images, lanes, weights, largest, total, B):
    count = len(images)
    for t in range(lanes):
        largest[t] = x[0, t]
        total[t] = 0.0
    for k in range(1, count):
        logit = x[k]
        for t in range(lanes):
            largest[t] = max(largest[t], logit[t])
    for k in range(count):
        logit, weight = x[k], weights[k]
        for t in range(lanes):
            weight[t] = np.exp(logit[t] - largest[t])
            total[t] += weight[t]
    for i in range(d):
        for j in range(d):
            entry = B[i, j]
            for t in range(lanes):
                entry[t] = 0.0
    for t in range(lanes):
        total[t] = 1.0 / total[t]
    for k in range(count):
        weight = weights[k]
        for t in range(lanes):
            weight[t] *= total[t]
        for i in range(d):
            entry = B[i, images[k, i]]
            for t in range(lanes):
                entry[t] += weight[t]


@_compiled
def _permutations_backward(G, d, images, lanes, weights, mean, gradient):
    count = len(images)
    for t in range(lanes):
        mean[t] = 0.0
    for k in range(count):
        gain, weight = gradient[k], weights[k]
        for t in range(lanes):
            gain[t] = 0.0
        for i in range(d):
            slope = G[i, images[k, i]]
            for t in range(lanes):
                gain[t] += slope[t]
        for t in range(lanes):
            mean[t] += weight[t] * gain[t]
    for k in range(count):
        gain, weight = gradient[k], weights[k]
        for t in range(lanes):
            gain[t] = weight[t] * (gain[t] - mean[t])


@_compiled
def _sinkhorn(x, d, iterations, lanes, kernel, u, v, total, B):
    """B = diag(u) K diag(v): columns first, rows last, with every scaling kept."""
    # A column's scale is absorbed by v; a row's is not, as the truncated iteration starts at u = 1.
    for j in range(d):
        for t in range(lanes):
            total[t] = x[j, t]
        for i in range(1, d):
            logit = x[i * d + j]
            for t in range(lanes):
                total[t] = max(total[t], logit[t])
        for i in range(d):
            entry, logit = kernel[i, j], x[i * d + j]
            for t in range(lanes):
                entry[t] = np.exp(logit[t] - total[t])
    for i in range(d):
        one = u[0, i]
        for t in range(lanes):
            one[t] = 1.0
    for step in range(iterations):
        for j in range(d):
            scale = v[step, j]
            for t in range(lanes):
                scale[t] = 0.0
            for i in range(d):
                entry, other = kernel[i, j], u[step, i]
                for t in range(lanes):
                    scale[t] += entry[t] * other[t]
            for t in range(lanes):
                scale[t] = 1.0 / scale[t]
        for i in range(d):
            scale = u[step + 1, i]
            for t in range(lanes):
                scale[t] = 0.0
            for j in range(d):
                entry, other = kernel[i, j], v[step, j]
                for t in range(lanes):
                    scale[t] += entry[t] * other[t]
            for t in range(lanes):
                scale[t] = 1.0 / scale[t]
    for i in range(d):
        for j in range(d):
            out, row, entry, column = B[i, j], u[iterations, i], kernel[i, j], v[iterations - 1, j]
            for t in range(lanes):
                out[t] = row[t] * entry[t] * column[t]


@_compiled
def _sinkhorn_backward(G, d, iterations, lanes, kernel, u, v, du, dv, dkernel, gradient):
    last = iterations - 1
    for i in range(d):
        one, other = du[i], dv[i]
        for t in range(lanes):
            one[t] = 0.0
            other[t] = 0.0
    for i in range(d):
        for j in range(d):
            slope, entry, row, column = G[i, j], kernel[i, j], u[iterations, i], v[last, j]
            one, other, change = du[i], dv[j], dkernel[i, j]
            for t in range(lanes):
                one[t] += slope[t] * entry[t] * column[t]
                other[t] += slope[t] * entry[t] * row[t]
                change[t] = slope[t] * row[t] * column[t]
    for step in range(last, -1, -1):
        for i in range(d):
            one, scale = du[i], u[step + 1, i]
            for t in range(lanes):
                one[t] *= -scale[t] * scale[t]
            for j in range(d):
                change, other, entry, column = dkernel[i, j], dv[j], kernel[i, j], v[step, j]
                for t in range(lanes):
                    change[t] += one[t] * column[t]
                    other[t] += one[t] * entry[t]
            for t in range(lanes):
                one[t] = 0.0
        for j in range(d):
            other, scale = dv[j], v[step, j]
            for t in range(lanes):
                other[t] *= -scale[t] * scale[t]
            for i in range(d):
                change, one, entry, row = dkernel[i, j], du[i], kernel[i, j], u[step, i]
                for t in range(lanes):
                    change[t] += other[t] * row[t]
                    one[t] += other[t] * entry[t]
            for t in range(lanes):
                other[t] = 0.0
    # The subtracted maxima change no B, so they have no part in its derivative.
    for i in range(d):
        for j in range(d):
            out, change, entry = gradient[i * d + j], dkernel[i, j], kernel[i, j]
            for t in range(lanes):
                out[t] = change[t] * entry[t]


@_compiled
def _load(theta, begin, count, lanes, kind, first, x, hard):
    """Tokens into lanes; lanes without a token repeat the last one. Says which tokens are hard."""
    g = theta.shape[1]
    for t in range(lanes):
        token = begin + min(t, count - 1)
        for p in range(g):
            x[p, t] = theta[token, p]
    for t in range(count):
        for f in range(kind.size):
            low, high = x[first[f], t], x[first[f], t]
            for p in range(first[f], first[f + 1]):
                if not np.isfinite(x[p, t]):
                    hard[begin + t] = True
                low, high = min(low, x[p, t]), max(high, x[p, t])
            if kind[f] == CAYLEY:
                if max(-low, high) > LARGEST_ANGLE:
                    hard[begin + t] = True
            elif high - low > LARGEST_SPREAD:
                hard[begin + t] = True


@_compiled
def sweep(kind, size, option, first, images, theta, slope, begin, end, lanes, out, hard):
    """The matrices of tokens begin to end, or the gradient of their generators.

    Args:
        kind: (stages,), and so `size` and `option`; see `Stage`.
        size: orders of the stages' matrices.
        option: block sizes and numbers of iterations.
        first: (stages + 1,), where the generators of each stage begin.
        images: (stages, permutations, size).
        theta: (tokens, g).
        slope: (tokens, d, d), the derivative by the matrices; without tokens for the matrices.
        begin: first token.
        end: the token after the last.
        lanes: tokens at a time.
        out: (tokens, d²), or (tokens, g) for the gradient.
        hard: (tokens,), set to true where the caller has to do it in another way.
    """
    backward = len(slope) > 0
    many, g = kind.size, theta.shape[1]
    d, n, largest, iterations = 1, 1, 1, 1
    for f in range(many):
        d *= size[f]
        largest = max(largest, size[f])
        if kind[f] == CAYLEY:
            n = max(n, size[f] * option[f])
        else:
            n = max(n, size[f])
        if kind[f] == SINKHORN:
            iterations = max(iterations, option[f])
    x = np.empty((g, lanes))
    K = np.empty((many, n * n * lanes))
    M, left = np.empty(n * n * lanes), np.empty(n * n * lanes)
    one, other, total = np.empty((n, lanes)), np.empty((n, lanes)), np.empty((2, lanes))
    inverse, constants = np.empty(n * VECTOR), np.empty(3 * VECTOR)
    constants[:VECTOR], constants[VECTOR : 2 * VECTOR], constants[2 * VECTOR :] = 0.0, 1.0, -1.0
    weights = np.empty((many, images.shape[1], lanes))
    u, v = np.empty((many, iterations + 1, n, lanes)), np.empty((many, iterations, n, lanes))
    W, product = np.empty((many, largest, largest, lanes)), np.empty((many, d, d, lanes))
    dW = np.empty((largest, largest, lanes))
    dproduct = np.empty((many, d, d, lanes))
    gradient = np.empty((g, lanes))
    for start in range(begin, end, lanes):
        count = min(lanes, end - start)
        _load(theta, start, count, lanes, kind, first, x, hard)
        width = 1
        for f in range(many):
            k, part = size[f], x[first[f] : first[f + 1]]
            B = W[f] if many > 1 else product[0]
            if kind[f] == CAYLEY:
                _cayley(part, k, option[f], lanes, M, inverse, constants, K[f], B)
            elif kind[f] == PERMUTATIONS:
                _permutations(part, k, images[f], lanes, weights[f], total[0], total[1], B)
            elif kind[f] == SINKHORN:
                kernel = K[f, : k * k * lanes].reshape(k, k, lanes)
                _sinkhorn(part, k, option[f], lanes, kernel, u[f], v[f], total[0], B)
            else:
                for i in range(k):
                    for j in range(k):
                        B[i, j] = part[i * k + j]
            if many > 1:
                _kronecker(product, f, W[f], width, k, lanes)
            width *= k
        if not backward:
            B = product[many - 1]
            for t in range(count):
                for i in range(d):
                    for j in range(d):
                        out[start + t, i * d + j] = B[i, j, t]
            continue
        G = dproduct[many - 1]
        for t in range(lanes):
            token = start + min(t, count - 1)
            for i in range(d):
                for j in range(d):
                    G[i, j, t] = slope[token, i, j]
        for f in range(many - 1, -1, -1):
            k = size[f]
            width //= k
            G = dproduct[0]
            if many > 1:
                _kronecker_backward(product, dproduct, f, W[f], width, k, lanes, dW)
                G = dW
            part = gradient[first[f] : first[f + 1]]
            if kind[f] == CAYLEY:
                _cayley_backward(G, k, option[f], lanes, K[f], left, M, constants, part)
            elif kind[f] == PERMUTATIONS:
                _permutations_backward(G, k, images[f], lanes, weights[f], total[0], part)
            elif kind[f] == SINKHORN:
                kernel, change = (
                    K[f, : k * k * lanes].reshape(k, k, lanes),
                    left[: k * k * lanes].reshape(k, k, lanes),
                )
                _sinkhorn_backward(
                    G, k, option[f], lanes, kernel, u[f], v[f], one, other, change, part
                )
            else:
                for i in range(k):
                    for j in range(k):
                        part[i * k + j] = G[i, j]
        for t in range(count):
            for p in range(g):
                out[start + t, p] = gradient[p, t]


@_compiled
def _kronecker(product, f, W, width, k, lanes):
    """product[f] = product[f − 1] ⊗ W, where product[−1] is the number 1."""
    for a in range(width):
        for b in range(width):
            outer = product[max(f - 1, 0), a, b]
            for i in range(k):
                for j in range(k):
                    out, inner = product[f, a * k + i, b * k + j], W[i, j]
                    if f == 0:
                        for t in range(lanes):
                            out[t] = inner[t]
                    else:
                        for t in range(lanes):
                            out[t] = outer[t] * inner[t]


@_compiled
def _kronecker_backward(product, dproduct, f, W, width, k, lanes, dW):
    """dW, and the derivative by product[f − 1], from the derivative by product[f]."""
    for i in range(k):
        for j in range(k):
            dW[i, j, :] = 0.0
    for a in range(width):
        for b in range(width):
            back, outer = dproduct[max(f - 1, 0), a, b], product[max(f - 1, 0), a, b]
            if f > 0:
                for t in range(lanes):
                    back[t] = 0.0
            for i in range(k):
                for j in range(k):
                    slope, change = dproduct[f, a * k + i, b * k + j], dW[i, j]
                    if f == 0:
                        for t in range(lanes):
                            change[t] += slope[t]
                    else:
                        inner = W[i, j]
                        for t in range(lanes):
                            change[t] += slope[t] * outer[t]
                            back[t] += slope[t] * inner[t]
