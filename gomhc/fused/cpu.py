"""Mixers on a CPU, compiled by Numba: eight tokens at a time go through a map and its derivative.

Note [Room]
    All that eight tokens need on their way is kept in one flat array `w` of lanes, and a vector or
    a matrix in it is named by where it begins. (Numba counts the references to an array, which
    costs more than the arithmetic where arrays are many and small.)

Note [Elimination]
    A matrix of order n = ds is padded to m, a multiple of four, with ones on the diagonal. Its
    inverse comes from block Gauss–Jordan elimination without pivoting, as M = I + A has a positive
    definite symmetric part, and so has what elimination leaves of it. With P the inverse of a
    diagonal block, C its columns, −I at the block itself, and R = −P M its rows, −P at the block,
    a step is M ← M' + C R, where M' is M with these rows and columns set to zero: so all of the
    cubic work is `_accumulate`.

Note [Precision]
    What comes in and goes out may be float32, and everything in between is float64: elimination
    without pivoting loses digits that float32 does not have to spare.
"""

import functools
import itertools
from typing import Any, NamedTuple

import numba

from gomhc.fused.caching import cached
from gomhc.fused.lanes import (
    WIDTH,
    exceeds,
    exponential,
    fill,
    load,
    maximum,
    positive,
    read,
    sigmoid,
    store,
    write,
)
from gomhc.fused.stages import CAYLEY, PERMUTATIONS, SINKHORN, TRANSPORT, Stage, order_of
from gomhc.fused.threads import run

LARGEST_ANGLE = 1e3  # |θ| up to which elimination without pivoting is exact enough
LARGEST_SPREAD = 600.0  # of logits: their exponentials fit into a float64
LARGEST_LOGIT = 1e30  # rounding of a logit beyond is larger than any spread
_options: dict[str, Any] = {"error_model": "numpy", "nogil": True}
_called: Any = cached(**_options)  # from Python
# From compiled code alone: without a way in from Python it is made faster.
_compiled: Any = numba.njit(**_options | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True})


class Room(NamedTuple):
    """Where in `w` everything begins, see Note [Room]."""

    hard: int  # not zero for tokens that the formulas are not good enough for
    x: int  # θ
    gradient: int  # derivative by θ
    left: int  # matrices in between
    right: int
    slope: int  # derivative by the matrix of a stage
    columns: int  # of elimination; derivatives by Sinkhorn's scalings; what is left of columns
    rows: int
    pivot: int
    inverse: int  # of every stage (I + A)⁻¹, exp of logits, weights, or `_transport`'s numbers
    u: int  # of every stage Sinkhorn's scalings of rows, step after step
    v: int  # and of columns
    matrix: int  # of every stage
    product: int  # Kronecker products of the stages so far
    change: int  # derivatives by them
    lanes: int  # in all
    inverse_stride: int  # from a stage to the next
    scalings_stride: int  # of u and v
    matrix_stride: int
    product_stride: int  # and of change


def families(stages: tuple[Stage, ...]) -> tuple[bool | None, ...]:
    """Which code stages need: of None, Numba makes a case that it does not compile."""
    kinds = {stage.kind for stage in stages}
    needed = [kind in kinds for kind in (CAYLEY, PERMUTATIONS, SINKHORN, TRANSPORT)]
    return tuple(is_needed or None for is_needed in [*needed, len(stages) > 1])


def _padded(n):
    return (n + 3) // 4 * 4


_padded_order = _compiled(_padded)


@functools.lru_cache(maxsize=64)
def room(stages: tuple[Stage, ...]) -> Room:
    """The `Room` that stages need."""
    many, g = len(stages), sum(stage.num_parameters for stage in stages)
    d = order_of(stages)
    orders = [_padded(s.order) if s.kind == CAYLEY else s.size for s in stages]
    order = max(4, *orders)
    weights = max(s.num_parameters if s.kind == PERMUTATIONS else 0 for s in stages)
    steps = max(s.option if s.kind == SINKHORN else 0 for s in stages)
    square, scalings = order**2, (steps + 1) * order
    charts = max(4 * s.num_parameters if s.kind == TRANSPORT else 0 for s in stages)
    inverse = max(square, weights, charts)
    sizes = [
        *(1, g, g, square, square, square, 4 * order, 4 * order, 16),
        *(many * inverse, many * scalings, many * scalings),
        *(many * square, many * d * d, many * d * d),
    ]
    begins = [0, *itertools.accumulate(sizes)]
    return Room._make([*begins, inverse, scalings, square, d * d])


@_compiled
def bounds(share, shares, tokens):
    """Where a share of the tokens begins and ends, by eights of them."""
    eights = tokens // WIDTH
    return eights * share // shares * WIDTH, eights * (share + 1) // shares * WIDTH


@_compiled
def _clear(w, o, count):
    for k in range(count):
        store(w, o + k, fill(0.0))


@_compiled
def _accumulate(w, o, out_down, a, x_down, b, y_down, rows, columns, depth):
    """Out += x y, each a part of a matrix: where it begins, and how far a row is from the next.

    Two by four sums at a time stay in registers. So `rows` is even and `columns` a multiple of 4.
    """
    for i in range(rows // 2):
        for j in range(columns // 4):
            upper = o + 2 * i * out_down + 4 * j
            lower = upper + out_down
            p0, p1 = load(w, upper), load(w, upper + 1)
            p2, p3 = load(w, upper + 2), load(w, upper + 3)
            q0, q1 = load(w, lower), load(w, lower + 1)
            q2, q3 = load(w, lower + 2), load(w, lower + 3)
            first, row = a + 2 * i * x_down, b + 4 * j
            second = first + x_down
            for k in range(depth):
                y0, y1, y2, y3 = load(w, row), load(w, row + 1), load(w, row + 2), load(w, row + 3)
                p, q = load(w, first + k), load(w, second + k)
                p0, p1, p2, p3 = p0 + p * y0, p1 + p * y1, p2 + p * y2, p3 + p * y3
                q0, q1, q2, q3 = q0 + q * y0, q1 + q * y1, q2 + q * y2, q3 + q * y3
                row += y_down
            store(w, upper, p0)
            store(w, upper + 1, p1)
            store(w, upper + 2, p2)
            store(w, upper + 3, p3)
            store(w, lower, q0)
            store(w, lower + 1, q1)
            store(w, lower + 2, q2)
            store(w, lower + 3, q3)


@_compiled
def _multiply_two(p, q):
    """Product of two by two matrices, each a tuple of its rows' entries."""
    return (
        p[0] * q[0] + p[1] * q[2],
        p[0] * q[1] + p[1] * q[3],
        p[2] * q[0] + p[3] * q[2],
        p[2] * q[1] + p[3] * q[3],
    )


@_compiled
def _invert_two(p):
    scale = 1.0 / (p[0] * p[3] - p[1] * p[2])
    return p[3] * scale, (0.0 - p[1]) * scale, (0.0 - p[2]) * scale, p[0] * scale


@_compiled
def _minus_two(p, q):
    return p[0] - q[0], p[1] - q[1], p[2] - q[2], p[3] - q[3]


@_compiled
def _load_two(w, at, m):
    return load(w, at), load(w, at + 1), load(w, at + m), load(w, at + m + 1)


@_compiled
def _store_two(w, at, m, p):
    store(w, at, p[0])
    store(w, at + 1, p[1])
    store(w, at + m, p[2])
    store(w, at + m + 1, p[3])


@_compiled
def _invert_four(w, at, m):
    """Invert four by four numbers in place, by the Schur complement of the first two rows."""
    low = at + 2 * m
    first, corner = _invert_two(_load_two(w, at, m)), _load_two(w, low, m)
    right = _multiply_two(first, _load_two(w, at + 2, m))
    schur = _invert_two(_minus_two(_load_two(w, low + 2, m), _multiply_two(corner, right)))
    left = _multiply_two(schur, _multiply_two(corner, first))
    zero = fill(0.0), fill(0.0), fill(0.0), fill(0.0)
    _store_two(w, at, m, _minus_two(first, _multiply_two(right, _minus_two(zero, left))))
    _store_two(w, at + 2, m, _minus_two(zero, _multiply_two(right, schur)))
    _store_two(w, low, m, _minus_two(zero, left))
    _store_two(w, low + 2, m, schur)


@_compiled
def _invert(w, M, m, columns, rows, pivot):
    """Invert M in place, see Note [Elimination]."""
    for block in range(m // 4):
        k = 4 * block
        at = M + k * m + k
        _invert_four(w, at, m)
        if m == 4:
            return
        for i in range(4):
            for j in range(4):
                store(w, pivot + i * 4 + j, -1.0 * load(w, at + i * m + j))
        _clear(w, rows, 4 * m)
        _accumulate(w, rows, m, pivot, 4, M + k * m, m, 4, m, 4)
        for i in range(m):
            for j in range(4):
                store(w, columns + i * 4 + j, load(w, M + i * m + k + j))
                store(w, M + i * m + k + j, fill(0.0))
        for i in range(4):
            for j in range(4):
                store(w, rows + i * m + k + j, load(w, pivot + i * 4 + j))
                store(w, columns + (k + i) * 4 + j, fill(-1.0 if i == j else 0.0))
        _clear(w, M + k * m, 4 * m)
        _accumulate(w, M, m, columns, 4, rows, m, m, m, 4)


@_compiled
def _cayley(w, x, d, s, K, B, columns, rows, pivot):
    """B = Φ(2K − I) with K = (I + A)⁻¹; (2K − δ)² = 4(K² − δK) + δ. With s = 0, B = 2K − I."""
    n = d * max(s, 1)
    m = _padded_order(n)
    for i in range(m):
        store(w, K + i * m + i, fill(1.0))
        for j in range(i + 1, m):
            angle = fill(0.0)
            if j < n:
                angle = load(w, x)
                x += 1
            store(w, K + i * m + j, angle)
            store(w, K + j * m + i, 0.0 - angle)
    _invert(w, K, m, columns, rows, pivot)
    if s == 0:
        for i in range(d):
            for j in range(d):
                entry = 2.0 * load(w, K + i * m + j)
                store(w, B + i * d + j, entry - 1.0 if i == j else entry)
        return
    for i in range(d):
        for j in range(d):
            total = fill(0.0)
            for a in range(i * s, i * s + s):
                for b in range(j * s, j * s + s):
                    entry = load(w, K + a * m + b)
                    if a == b:
                        total = total + (entry * (entry - 1.0) + 0.25)
                    else:
                        total = total + entry * entry
            store(w, B + i * d + j, total * (4.0 / s))


@_compiled
def _cayley_backward(w, G, d, s, K, left, right, gradient):
    """(dL/dA)ᵀ = −½ (I + Q) G_Qᵀ (I + Q) = −2 K G_Qᵀ K, of which θ sees the skew part."""
    n = d * max(s, 1)
    m = _padded_order(n)
    if n < m:
        _clear(w, right, m * m)
    for i in range(d):
        for j in range(d):
            if s == 0:
                store(w, right + j * m + i, load(w, G + i * d + j))
                continue
            slope = load(w, G + i * d + j) * (2.0 / s)
            for a in range(i * s, i * s + s):
                for b in range(j * s, j * s + s):
                    entry = 2.0 * load(w, K + a * m + b)
                    if a == b:
                        entry = entry - 1.0
                    store(w, right + b * m + a, slope * entry)
    _clear(w, left, m * m)
    _accumulate(w, left, m, K, m, right, m, m, m, m)
    _clear(w, right, m * m)
    _accumulate(w, right, m, left, m, K, m, m, m, m)
    for a in range(n):
        for b in range(a + 1, n):
            change = load(w, right + a * m + b) - load(w, right + b * m + a)
            store(w, gradient, 2.0 * change)
            gradient += 1


@_compiled
def _permutations(w, x, count, d, images, f, weights, B):
    largest = load(w, x)
    for k in range(1, count):
        largest = maximum(largest, load(w, x + k))
    total = fill(0.0)
    for k in range(count):
        weight = exponential(load(w, x + k) - largest)
        store(w, weights + k, weight)
        total = total + weight
    total = 1.0 / total
    _clear(w, B, d * d)
    for k in range(count):
        weight = load(w, weights + k) * total
        store(w, weights + k, weight)
        for i in range(d):
            place = B + i * d + images[f, k, i]
            store(w, place, load(w, place) + weight)


@_compiled
def _permutations_backward(w, G, count, d, images, f, weights, gradient):
    mean = fill(0.0)
    for k in range(count):
        gain = fill(0.0)
        for i in range(d):
            gain = gain + load(w, G + i * d + images[f, k, i])
        store(w, gradient + k, gain)
        mean = mean + load(w, weights + k) * gain
    for k in range(count):
        store(w, gradient + k, load(w, weights + k) * (load(w, gradient + k) - mean))


@_compiled
def _scale(w, kernel, d, step, other_step, own, other):
    """Half a step of Sinkhorn: the scalings of rows (step d) or columns (step 1) to sums of one."""
    for a in range(d):
        total = fill(0.0)
        for b in range(d):
            total = total + load(w, kernel + a * step + b * other_step) * load(w, other + b)
        store(w, own + a, 1.0 / total)


@_compiled
def _scale_backward(w, kernel, d, step, other_step, own, other, by_own, by_other, change):
    """From the derivative by `own`, which is set to zero, to those by `other` and the kernel."""
    for a in range(d):
        scale = load(w, own + a)
        back = load(w, by_own + a) * scale * scale
        for b in range(d):
            place = a * step + b * other_step
            store(w, change + place, load(w, change + place) - back * load(w, other + b))
            store(w, by_other + b, load(w, by_other + b) - back * load(w, kernel + place))
    _clear(w, by_own, d)


@_compiled
def _sinkhorn(w, x, d, iterations, kernel, u, v, B):
    """B = diag(u) K diag(v): columns first, rows last, with every scaling kept."""
    # A column's scale is absorbed by v; a row's is not, as the truncated iteration starts at u = 1.
    for j in range(d):
        largest = load(w, x + j)
        for i in range(1, d):
            largest = maximum(largest, load(w, x + i * d + j))
        for i in range(d):
            store(w, kernel + i * d + j, exponential(load(w, x + i * d + j) - largest))
        store(w, u + j, fill(1.0))
    for _ in range(iterations):
        _scale(w, kernel, d, 1, d, v, u)
        u += d
        _scale(w, kernel, d, d, 1, u, v)
        v += d
    for i in range(d):
        for j in range(d):
            scale = load(w, u + i) * load(w, v - d + j)
            store(w, B + i * d + j, scale * load(w, kernel + i * d + j))


@_compiled
def _sinkhorn_backward(w, G, d, iterations, kernel, u, v, du, dv, change, gradient):
    u += iterations * d
    v += (iterations - 1) * d
    _clear(w, dv, d)
    for i in range(d):
        row, by_row = load(w, u + i), fill(0.0)
        for j in range(d):
            column, place = load(w, v + j), i * d + j
            slope = load(w, G + place)
            back = slope * load(w, kernel + place)
            by_row = by_row + back * column
            store(w, dv + j, load(w, dv + j) + back * row)
            store(w, change + place, slope * row * column)
        store(w, du + i, by_row)
    for _ in range(iterations):
        _scale_backward(w, kernel, d, d, 1, u, v, du, dv, change)
        u -= d
        _scale_backward(w, kernel, d, 1, d, v, u, dv, du, change)
        v -= d
    # The subtracted maxima change no B, so they have no part in its derivative.
    for k in range(d * d):
        store(w, gradient + k, load(w, change + k) * load(w, kernel + k))


@_compiled
def _transport(w, x, d, kept, columns, B):
    """See Note [Chart] in `gomhc.transportation`; keeps four numbers of every entry for later."""
    for k in range(d):
        store(w, columns + k, fill(1.0))
    for i in range(d - 1):
        # What is left of the columns to the right waits where the row's entries will stand.
        right = fill(0.0)
        for j in range(d - 2, -1, -1):
            right = right + load(w, columns + j + 1)
            store(w, B + i * d + j, right)
        rest = fill(1.0)
        for j in range(d - 1):
            own, spare = load(w, columns + j), rest - load(w, B + i * d + j)
            over, low = positive(rest - own), maximum(spare, fill(0.0))
            high = maximum(over * own + (1.0 - over) * rest, low)
            share = sigmoid(load(w, x))
            entry = low + (high - low) * share
            store(w, kept, share)
            store(w, kept + 1, high - low)
            store(w, kept + 2, positive(spare))
            store(w, kept + 3, over)
            store(w, B + i * d + j, entry)
            store(w, columns + j, maximum(own - entry, fill(0.0)))
            rest = maximum(rest - entry, fill(0.0))
            x += 1
            kept += 4
        store(w, B + i * d + d - 1, rest)
        store(w, columns + d - 1, maximum(load(w, columns + d - 1) - rest, fill(0.0)))
    for k in range(d):
        store(w, B + (d - 1) * d + k, load(w, columns + k))


@_compiled
def _transport_backward(w, G, d, kept, by_columns, gradient):
    """From the last entry to the first, with derivatives by what is left of row and columns."""
    for k in range(d):
        store(w, by_columns + k, load(w, G + (d - 1) * d + k))
    kept += 4 * (d - 1) * (d - 1)
    gradient += (d - 1) * (d - 1)
    for i in range(d - 2, -1, -1):
        by_rest = load(w, G + i * d + d - 1) - load(w, by_columns + d - 1)
        for j in range(d - 2, -1, -1):
            kept -= 4
            gradient -= 1
            share, width = load(w, kept), load(w, kept + 1)
            forced, over = load(w, kept + 2), load(w, kept + 3)
            by = load(w, G + i * d + j) - by_rest - load(w, by_columns + j)
            store(w, gradient, by * width * share * (1.0 - share))
            by_low, by_high = by * (1.0 - share) * forced, by * share
            by_rest = by_rest + by_low + by_high * (1.0 - over)
            store(w, by_columns + j, load(w, by_columns + j) + by_high * over)
            store(w, kept, by_low)
        # Each column stood to the right of all before it.
        by_right = fill(0.0)
        for j in range(d - 1):
            by_right = by_right + load(w, kept + 4 * j)
            store(w, by_columns + j + 1, load(w, by_columns + j + 1) - by_right)


@_compiled
def _kronecker(w, V, U, width, k, out):
    """Out = V ⊗ U, of orders `width` and k."""
    for a in range(width):
        for b in range(width):
            outer = load(w, V + a * width + b)
            for i in range(k):
                for j in range(k):
                    place = out + (a * k + i) * width * k + b * k + j
                    store(w, place, outer * load(w, U + i * k + j))


@_compiled
def _kronecker_backward(w, V, U, width, k, change, dV, dU):
    """Derivatives by V and U, from that by V ⊗ U."""
    _clear(w, dU, k * k)
    for a in range(width):
        for b in range(width):
            outer, back = load(w, V + a * width + b), fill(0.0)
            for i in range(k):
                for j in range(k):
                    by = load(w, change + (a * k + i) * width * k + b * k + j)
                    store(w, dU + i * k + j, load(w, dU + i * k + j) + by * outer)
                    back = back + by * load(w, U + i * k + j)
            store(w, dV + a * width + b, back)


@_compiled
def forward(tables, r, w, cayley, permutations, sinkhorn, transport, kronecker):
    """From θ at r.x to its matrix; returns where that begins."""
    width = 1
    for f in range(tables.kind.size):
        kind, k, option, x = tables.kind[f], tables.size[f], tables.option[f], tables.first[f]
        count = tables.first[f + 1] - x
        x += r.x
        inverse = r.inverse + f * r.inverse_stride
        # The first factor is the product so far.
        matrix = r.matrix + f * r.matrix_stride if f > 0 else r.product
        if cayley is not None and kind == CAYLEY:
            _cayley(w, x, k, option, inverse, matrix, r.columns, r.rows, r.pivot)
        elif permutations is not None and kind == PERMUTATIONS:
            _permutations(w, x, count, k, tables.images, f, inverse, matrix)
        elif sinkhorn is not None and kind == SINKHORN:
            scalings = f * r.scalings_stride
            _sinkhorn(w, x, k, option, inverse, r.u + scalings, r.v + scalings, matrix)
        elif transport is not None and kind == TRANSPORT:
            _transport(w, x, k, inverse, r.columns, matrix)
        else:
            for p in range(k * k):
                store(w, matrix + p, load(w, x + p))
        if kronecker is not None and f > 0:
            product = r.product + f * r.product_stride
            _kronecker(w, product - r.product_stride, matrix, width, k, product)
        width *= k
    return r.product + (tables.kind.size - 1) * r.product_stride


@_compiled
def backward(tables, r, w, cayley, permutations, sinkhorn, transport, kronecker):
    """To the derivative by θ, at r.gradient; after `forward`.

    The derivative by the matrix is the last one of those that begin at r.change.
    """
    width = 1
    for f in range(tables.kind.size):
        width *= tables.size[f]
    for f in range(tables.kind.size - 1, -1, -1):
        kind, k, option, out = tables.kind[f], tables.size[f], tables.option[f], tables.first[f]
        count = tables.first[f + 1] - out
        out += r.gradient
        width //= k
        G, inverse = r.change, r.inverse + f * r.inverse_stride
        if kronecker is not None and f > 0:
            G, matrix = r.slope, r.matrix + f * r.matrix_stride
            product, change = r.product + f * r.product_stride, r.change + f * r.product_stride
            before = product - r.product_stride
            _kronecker_backward(w, before, matrix, width, k, change, change - r.product_stride, G)
        if cayley is not None and kind == CAYLEY:
            _cayley_backward(w, G, k, option, inverse, r.left, r.right, out)
        elif permutations is not None and kind == PERMUTATIONS:
            _permutations_backward(w, G, count, k, tables.images, f, inverse, out)
        elif sinkhorn is not None and kind == SINKHORN:
            u, v = r.u + f * r.scalings_stride, r.v + f * r.scalings_stride
            _sinkhorn_backward(w, G, k, option, inverse, u, v, r.columns, r.rows, r.right, out)
        elif transport is not None and kind == TRANSPORT:
            _transport_backward(w, G, k, inverse, r.columns, out)
        else:
            for p in range(k * k):
                store(w, out + p, load(w, G + p))


@_compiled
def find_hard(tables, r, w):
    """Put into r.hard which of the tokens with θ at r.x the formulas are not good enough for."""
    flag = fill(0.0)
    for f in range(tables.kind.size):
        x, end = r.x + tables.first[f], r.x + tables.first[f + 1]
        limit = LARGEST_ANGLE if tables.kind[f] == CAYLEY else LARGEST_LOGIT
        high, low = fill(-LARGEST_LOGIT), fill(-LARGEST_LOGIT)  # of θ and −θ
        for p in range(x, end):
            value = load(w, p)
            flag = flag + exceeds(value, limit)
            high, low = maximum(high, value), maximum(low, 0.0 - value)
        if tables.kind[f] == PERMUTATIONS or tables.kind[f] == SINKHORN:
            flag = flag + exceeds(high + low, LARGEST_SPREAD)
    store(w, r.hard, flag)


@_compiled
def _sweep(share, shares, tables, r, w, theta, slope, out, hard, families):
    """The matrices of a share of the tokens, or the gradient of their generators.

    Args:
        share: which.
        shares: of how many.
        tables: of the stages.
        r: of the stages.
        w: (shares, ...), see Note [Room].
        theta: (tokens, g), the number of tokens a multiple of eight.
        slope: (tokens, d²), the derivative by the matrices; without tokens for the matrices.
        out: (tokens, d²), or (tokens, g) for the gradient.
        hard: (tokens,), set to true where the caller has to do it in another way.
        families: see there.
    """
    w = w[share]
    begin, end = bounds(share, shares, theta.shape[0])
    for start in range(begin, end, WIDTH):
        for p in range(theta.shape[1]):
            store(w, r.x + p, read(theta, start, p))
        find_hard(tables, r, w)
        result = forward(tables, r, w, *families)
        if slope.shape[0] > 0:
            last = result - r.product + r.change
            for p in range(slope.shape[1]):
                store(w, last + p, read(slope, start, p))
            backward(tables, r, w, *families)
            result = r.gradient
        for p in range(out.shape[1]):
            write(out, start, p, load(w, result + p))
        for t in range(WIDTH):
            if w[r.hard * WIDTH + t] > 0.0:
                hard[start + t] = True


@_called
def sweep(pool, first, shares, arguments):
    """All shares of `_sweep`, see `gomhc.fused.threads`."""
    run(pool, first, shares, _sweep, arguments)
