"""The two passes of a hyper-connection over its streams on a CPU, and their derivatives, in Numba.

Note [Passes]
    Every pass goes through the streams once, eight tokens at a time: their small matrices are made
    on the lanes of `gomhc.fused.cpu` and applied while the eight are in a cache.
    `_read` makes, from the product of streams and W, the gates and H_res, and with them both what
    the branch reads, H_pre X, and the mixed streams, Y = H_res X. `_write` adds H_postᵀ F to Y. So
    the derivative by Y is that by the result, no copy of it, and all that concerns X comes together
    in one pass, `_read_backward`. (With H_res X in the writing pass, forward would move 14 rows of
    C numbers a token and backward 27 to 35; now it is 18 and 19, at d = 4.)

Note [Sums over tokens]
    Derivatives by b and α are sums over all tokens. They are taken by `CHUNK` tokens, whatever the
    number of threads, and the sums of the chunks are added in their order.
"""

from typing import Any

import numba
import numpy as np

from gomhc.fused.caching import cached
from gomhc.fused.cpu import LARGEST_LOGIT, backward, find_hard, forward
from gomhc.fused.entries import get, put
from gomhc.fused.lanes import WIDTH, exceeds, fill, load, sigmoid, store
from gomhc.fused.threads import run

NOTHING = np.float32(0.0), None, 0, np.float32(0.0), None, 0
CHUNK = 64  # tokens
_options: dict[str, Any] = {
    "error_model": "numpy",
    "nogil": True,
    "fastmath": {"contract", "reassoc"},
}
_called: Any = cached(**_options)
_compiled: Any = numba.njit(**_options | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True})


@_compiled
def _dot(x, i, y, j, n):
    total = 0.0
    for c in range(n):
        total += np.float64(get(x, i + c)) * np.float64(get(y, j + c))
    return total


@_compiled
def _dots(x, i, y, j, many, n, out, o, step):
    """⟨x, y_k⟩ for `many` rows of n numbers to out[o + k step], four at a time."""
    for k in range(0, many, 4):
        first, second = j + k * n, j + min(k + 1, many - 1) * n
        third, fourth = j + min(k + 2, many - 1) * n, j + min(k + 3, many - 1) * n
        a = b = e = f = np.float32(0.0)
        for c in range(n):
            value = get(x, i + c)
            a += value * get(y, first + c)
            b += value * get(y, second + c)
            e += value * get(y, third + c)
            f += value * get(y, fourth + c)
        out[o + k * step] = a
        if k + 1 < many:
            out[o + (k + 1) * step] = b
        if k + 2 < many:
            out[o + (k + 2) * step] = e
        if k + 3 < many:
            out[o + (k + 3) * step] = f


@_compiled
def _blend(out, o, row, weights, k, step, x, i, d, n, p, y, iy, q, z, iz):
    """Out = Σ_j weights[k + j step] x_j + p y + q z; rows of n numbers, y and z may be none.

    Four of them are added at a time, and sums of more go through `row`.
    """
    for j in range(0, d, 4):
        a = get(weights, k + j * step)
        b = get(weights, k + (j + 1) * step) if j + 1 < d else np.float32(0.0)
        e = get(weights, k + (j + 2) * step) if j + 2 < d else np.float32(0.0)
        f = get(weights, k + (j + 3) * step) if j + 3 < d else np.float32(0.0)
        first, second = i + j * n, i + min(j + 1, d - 1) * n
        third, fourth = i + min(j + 2, d - 1) * n, i + min(j + 3, d - 1) * n
        if d <= 4:
            for c in range(n):
                total = a * get(x, first + c) + b * get(x, second + c)
                total += e * get(x, third + c) + f * get(x, fourth + c)
                if y is not None:
                    total += p * get(y, iy + c) + q * get(z, iz + c)
                put(out, o + c, total)
        else:
            for c in range(n):
                total = a * get(x, first + c) + b * get(x, second + c)
                total += e * get(x, third + c) + f * get(x, fourth + c)
                put(row, c, total if j == 0 else get(row, c) + total)
    if d > 4:
        for c in range(n):
            total = get(row, c)
            if y is not None:
                total += p * get(y, iy + c) + q * get(z, iz + c)
            put(out, o + c, total)


@_compiled
def _small(tables, r, w, products, scales, bias, alpha, d, start, tokens, mixing, families):
    """From x'W to θ and gates of eight tokens, and H_res; returns where that begins."""
    g = bias.size - 2 * d
    raw, gates, scale = r.lanes, r.lanes + bias.size, r.lanes + bias.size + 2 * d
    for t in range(WIDTH):
        token = min(start + t, tokens - 1)
        w[scale * WIDTH + t] = scales[token]
        for k in range(bias.size):
            w[(raw + k) * WIDTH + t] = get(products, token * bias.size + k)
    for k in range(g):
        store(w, r.x + k, load(w, raw + k) * load(w, scale) * alpha[0] + bias[k])
    flag = fill(0.0)
    for k in range(2 * d):
        a = alpha[1] if k < d else alpha[2]
        z = load(w, raw + g + k) * load(w, scale) * a + bias[g + k]
        flag = flag + exceeds(z, LARGEST_LOGIT)
        store(w, gates + k, sigmoid(z))
    if mixing is None:
        store(w, r.hard, flag)
        return 0
    find_hard(tables, r, w)
    store(w, r.hard, load(w, r.hard) + flag)
    return forward(tables, r, w, *families)


@_compiled
def _read(
    share,
    shares,
    tables,
    r,
    w,
    row,
    weights,
    mixing,
    families,
    X,
    inner,
    products,
    bias,
    alpha,
    epsilon,
    d,
    n,
    read,
    mixed,
    post,
    scales,
    hard,
):
    w, row, weights = w[share], row[share], weights[share]
    tokens = scales.size
    chunks = (tokens + CHUNK - 1) // CHUNK
    width = inner.size // tokens
    gates = r.lanes + bias.size
    for start in range(
        chunks * share // shares * CHUNK, min(chunks * (share + 1) // shares * CHUNK, tokens), WIDTH
    ):
        few = min(WIDTH, tokens - start)
        for token in range(start, start + few):
            square = _dot(inner, token * width, inner, token * width, width)
            scales[token] = 1.0 / np.sqrt(square / width + epsilon)
        H = _small(tables, r, w, products, scales, bias, alpha, d, start, tokens, mixing, families)
        for t in range(few):
            token = start + t
            at = token * d * n
            for k in range(d):
                weights[k] = w[(gates + k) * WIDTH + t]
                put(post, token * d + k, np.float32(2.0 * w[(gates + d + k) * WIDTH + t]))
            _blend(read, token * n, row, weights, 0, 1, X, at, d, n, *NOTHING)
            if mixing is None:
                for c in range(at, at + d * n):
                    put(mixed, c, get(X, c))
            else:
                for k in range(d * d):
                    weights[k] = w[(H + k) * WIDTH + t]
                for i in range(d):
                    _blend(mixed, at + i * n, row, weights, i * d, 1, X, at, d, n, *NOTHING)
            if w[r.hard * WIDTH + t] > 0.0:
                hard[token] = True


@_compiled
def _read_backward(
    share,
    shares,
    tables,
    r,
    w,
    row,
    weights,
    mixing,
    families,
    X,
    products,
    scales,
    bias,
    alpha,
    d,
    n,
    width,
    by_read,
    by_mixed,
    by_post,
    by_X,
    by_products,
    by_inner,
    sums,
    hard,
):
    w, row, weights = w[share], row[share], weights[share]
    tokens = scales.size
    chunks = (tokens + CHUNK - 1) // CHUNK
    size = bias.size
    g = size - 2 * d
    raw, gates = r.lanes, r.lanes + size
    scale, change = gates + 2 * d, gates + 2 * d + 1
    inner = change + size
    total = inner + 1
    for k in range(2 * size):
        store(w, total + k, fill(0.0))
    for start in range(
        chunks * share // shares * CHUNK, min(chunks * (share + 1) // shares * CHUNK, tokens), WIDTH
    ):
        few = min(WIDTH, tokens - start)
        H = _small(tables, r, w, products, scales, bias, alpha, d, start, tokens, mixing, families)
        slope = H - r.product + r.change
        for t in range(few):
            token = start + t
            at = token * d * n
            _dots(by_read, token * n, X, at, d, n, w, (change + g) * WIDTH + t, WIDTH)
            for j in range(d):
                by = 2.0 * get(by_post, token * d + j)
                w[(change + g + d + j) * WIDTH + t] = by
            if mixing is not None:
                for i in range(d):
                    place = (slope + i * d) * WIDTH + t
                    _dots(by_mixed, at + i * n, X, at, d, n, w, place, WIDTH)
        if mixing is not None:
            backward(tables, r, w, *families)
            for k in range(g):
                store(w, change + k, load(w, r.gradient + k))
        for k in range(2 * d):
            gate = load(w, gates + k)
            store(w, change + g + k, load(w, change + g + k) * gate * (1.0 - gate))
        for t in range(WIDTH):
            if t < few and w[r.hard * WIDTH + t] > 0.0:
                hard[start + t] = True
            if t >= few or w[r.hard * WIDTH + t] > 0.0:  # has no part in sums
                for k in range(size):
                    w[(change + k) * WIDTH + t] = w[(raw + k) * WIDTH + t] = 0.0
        by_scale = fill(0.0)
        for k in range(size):
            a = alpha[0] if k < g else alpha[1] if k < g + d else alpha[2]
            by = load(w, change + k)
            store(w, total + k, load(w, total + k) + by)
            product = by * load(w, raw + k)
            store(w, total + size + k, load(w, total + size + k) + product * load(w, scale))
            by_scale = by_scale + product * a
            store(w, change + k, by * load(w, scale) * a)
        cube = load(w, scale) * load(w, scale) * load(w, scale)
        store(w, inner, (0.0 - by_scale) * cube * (1.0 / width))
        if (start + WIDTH) % CHUNK == 0 or start + WIDTH >= tokens:
            for k in range(2 * size):
                part = 0.0
                for t in range(WIDTH):
                    part += w[(total + k) * WIDTH + t]
                sums[start // CHUNK * 2 * size + k] = part
                store(w, total + k, fill(0.0))
        for t in range(few):
            token = start + t
            at = token * d * n
            for k in range(size):
                put(by_products, token * size + k, np.float32(w[(change + k) * WIDTH + t]))
            own = np.float32(w[inner * WIDTH + t])
            by_inner[token] = own
            for j in range(d):
                weights[j] = w[(gates + j) * WIDTH + t]
            if mixing is not None:
                for k in range(d * d):
                    weights[d + k] = w[(H + k) * WIDTH + t]
            if width != d * n:
                own = np.float32(0.0)
            for j in range(d):
                o, p = at + j * n, weights[j]
                if mixing is None:
                    for c in range(n):
                        value = get(by_mixed, o + c) + p * get(by_read, token * n + c)
                        put(by_X, o + c, value + own * get(X, o + c))
                else:
                    rest = p, by_read, token * n, own, X, o
                    _blend(by_X, o, row, weights, d + j, d, by_mixed, at, d, n, *rest)


@_compiled
def _write(share, shares, mixed, answer, post, d, n, out):
    tokens = post.size // d
    for token in range(tokens * share // shares, tokens * (share + 1) // shares):
        for i in range(d):
            at, weight = (token * d + i) * n, get(post, token * d + i)
            for c in range(n):
                put(out, at + c, get(mixed, at + c) + weight * get(answer, token * n + c))


@_compiled
def _write_backward(share, shares, row, slope, answer, post, d, n, by_answer, by_post):
    row = row[share]
    tokens = post.size // d
    for token in range(tokens * share // shares, tokens * (share + 1) // shares):
        at = token * d
        _blend(by_answer, token * n, row, post, at, 1, slope, at * n, d, n, *NOTHING)
        _dots(answer, token * n, slope, at * n, d, n, by_post, at, 1)


@_called
def read(pool, first, shares, arguments):
    """All shares of `_read`, see `gomhc.fused.threads`; and so the others."""
    run(pool, first, shares, _read, arguments)


@_called
def read_backward(pool, first, shares, arguments):
    run(pool, first, shares, _read_backward, arguments)


@_called
def write(pool, first, shares, arguments):
    run(pool, first, shares, _write, arguments)


@_called
def write_backward(pool, first, shares, arguments):
    run(pool, first, shares, _write_backward, arguments)
