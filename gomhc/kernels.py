"""Adam on eight stream-mixing problems at a time, compiled by Numba: the CPU's fast path.

The eight stay in the cache for all their steps, and the threads that work on different problems
share nothing. The maps and their derivatives are those of the fused mixers, here from float64 to
float64.
"""

from collections.abc import Sequence

import numpy as np

from gomhc.fused.caching import cached
from gomhc.fused.cpu import backward, find_hard, forward, room
from gomhc.fused.lanes import WIDTH, fill, load, read, square_root, store, write
from gomhc.fused.stages import Stage, order_of, tables


def descend(
    stages: Sequence[Stage],
    theta: np.ndarray,
    best: np.ndarray,
    gram: np.ndarray,
    base: np.ndarray,
    learning_rate: np.ndarray,
    *,
    steps: int,
    epsilon: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Run Adam on every problem, from θ on.

    The loss of a problem is base + tr((B − best) gram (B − best)ᵀ): see `Problem.loss`.

    Args:
        stages: of the mixer.
        theta: (problems, g).
        best: (problems, d, d), the unconstrained minimum.
        gram: (problems, d, d), symmetric.
        base: (problems,), the loss at `best`.
        learning_rate: (problems,).
        steps: how many.
        epsilon: Adam's.

    Returns:
        (problems, steps), the loss before each step; (problems, d, d), the matrices at the end;
        (problems, g), θ there; (problems,), whether θ came where the formulas are not exact enough,
        and the rest of the row is not to be used.
    """
    count, d, r = len(theta), order_of(stages), room(tuple(stages))
    # Whole eights, the last problem repeated.
    rows = np.minimum(np.arange(-(-count // WIDTH) * WIDTH), count - 1)
    inputs = [part.reshape(count, -1)[rows] for part in (theta, best, gram, base, learning_rate)]
    loss, matrix = np.empty((len(rows), steps)), np.empty((len(rows), d * d))
    hard = np.zeros((len(rows), 1))
    w, own = np.empty(r.lanes * WIDTH), np.empty((3 * d * d + 2 * theta.shape[1]) * WIDTH)
    _descend(tables(tuple(stages)), r, w, own, *inputs, epsilon, loss, matrix, hard)
    return loss[:count], matrix[:count].reshape(best.shape), inputs[0][:count], hard[:count, 0] > 0


@cached(error_model="numpy", nogil=True)
def _descend(
    tables, r, w, own, theta, best, gram, base, learning_rate, epsilon, loss, matrix, hard
):
    size, g, steps = best.shape[1], theta.shape[1], loss.shape[1]
    d = 1
    for f in range(tables.size.size):
        d *= tables.size[f]
    A, off, mean, square = size, 2 * size, 3 * size, 3 * size + g  # in `own`, after `best`
    for start in range(0, len(theta), WIDTH):
        for p in range(size):
            store(own, p, read(best, start, p))
            store(own, A + p, read(gram, start, p))
        for p in range(g):
            store(w, r.x + p, read(theta, start, p))
            store(own, mean + p, fill(0.0))
            store(own, square + p, fill(0.0))
        floor, rate = read(base, start, 0), read(learning_rate, start, 0)
        find_hard(tables, r, w)
        flags = load(w, r.hard)
        B = forward(tables, r, w, True, True, True, True, True)
        for step in range(steps):
            slope, total = B - r.product + r.change, fill(0.0)
            for p in range(size):
                store(own, off + p, load(w, B + p) - load(own, p))
            for i in range(d):
                for j in range(d):
                    half = fill(0.0)
                    for k in range(d):
                        half = half + load(own, off + i * d + k) * load(own, A + k * d + j)
                    store(w, slope + i * d + j, 2.0 * half)
                    total = total + load(own, off + i * d + j) * half
            write(loss, start, step, floor + total)
            backward(tables, r, w, True, True, True, True, True)
            length = rate * (1.0 / (1.0 - 0.9 ** (step + 1)))
            debias = 1.0 / np.sqrt(1.0 - 0.999 ** (step + 1))
            for k in range(g):
                by = load(w, r.gradient + k)
                m = load(own, mean + k)
                m = m + 0.1 * (by - m)
                v = 0.999 * load(own, square + k) + 0.001 * by * by
                store(own, mean + k, m)
                store(own, square + k, v)
                move = length * m / (square_root(v) * debias + epsilon)
                store(w, r.x + k, load(w, r.x + k) - move)
            find_hard(tables, r, w)
            flags = flags + load(w, r.hard)
            B = forward(tables, r, w, True, True, True, True, True)
        write(hard, start, 0, flags)
        for p in range(size):
            write(matrix, start, p, load(w, B + p))
        for p in range(g):
            write(theta, start, p, load(w, r.x + p))
