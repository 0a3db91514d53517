"""A chart of the interior of the Birkhoff polytope: (d − 1)² numbers, entry by entry.

Note [Chart]
    The upper left (d − 1) × (d − 1) entries are chosen row by row. When it is the turn of B_ij, r
    is what is left of row i and c_k of every column k. The rest of the row must fit into the
    columns to the right, and the entry into its own column, so it lies between

        L = max(0, r − Σ_{k>j} c_k)   and   U = min(r, c_j),

    and every number between can be completed: B_ij = L + (U − L) σ(θ_ij). The last column and the
    last row are what remains.

Note [Kinks]
    L and U are smooth but where the two numbers in them are equal. There derivatives are those of
    the branch taken: of 0 in L, and of r in U.
"""

from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.maps import check_floating, check_one_square

__all__ = ["inverse_transportation", "transportation"]


def transportation(theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch d d"]:
    """Doubly stochastic matrices of logits: one to one onto those without a zero.

    Args:
        theta: (..., (d − 1)²), entry by entry of the upper left block, row by row.

    Returns:
        (..., d, d), exact to rounding, entries >= 0.

    Raises:
        TypeError: if θ is no tensor of a real floating dtype.
        ValueError: if the trailing size is no square number.

    Source: TBP-mHC, arXiv 2605.21724, in its plain sequential form; Note [Chart] in this module.
    """
    check_floating("theta", theta)
    m = round(theta.shape[-1] ** 0.5) if theta.ndim else 0
    if theta.ndim == 0 or m * m != theta.shape[-1]:
        raise ValueError(f"expected a trailing size (d − 1)², got shape {tuple(theta.shape)}")
    shares = iter(theta.sigmoid().unbind(-1))
    one = theta.new_ones(theta.shape[:-1])
    columns = [one] * (m + 1)
    rows = []
    for _ in range(m):
        rest, row, right = one, [], _right(columns)
        for j in range(m):
            low, high = _bounds(rest, columns[j], right[j])
            entry = low + (high - low) * next(shares)
            rest, columns[j] = _less(rest, entry), _less(columns[j], entry)
            row.append(entry)
        columns[m] = _less(columns[m], rest)
        rows.append(torch.stack([*row, rest], -1))
    return torch.stack([*rows, torch.stack(columns, -1)], -2)


def _right(columns: list[Tensor]) -> list[Tensor]:
    """What is left of the columns to the right of each: a row is filled before they change."""
    return list(accumulate(columns[:0:-1]))[::-1]


def _bounds(rest: Tensor, column: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """L and U of an entry, see Note [Chart] and Note [Kinks]."""
    spare = rest - right
    low = torch.where(spare > 0, spare, 0)
    high = torch.where(rest <= column, rest, column)
    return low, torch.where(high < low, low, high)  # by rounding


def _less(x: Tensor, part: Tensor) -> Tensor:
    """What is left, which rounding does not make negative."""
    left = x - part
    return torch.where(left > 0, left, 0)


@torch.no_grad()
def inverse_transportation(B: Float[Tensor, "d d"]) -> Float[Tensor, " g"]:
    """The θ of a doubly stochastic matrix without a zero: `transportation` gives it back.

    To rounding, which near the rim is the larger the smaller an entry is; take float64 there.

    Args:
        B: (d, d), one matrix.

    Returns:
        ((d − 1)²,) in B's dtype.

    Raises:
        TypeError: if B is no tensor of a real floating dtype.
        ValueError: if B is not one doubly stochastic matrix, or has an entry that is zero or not
            told from zero in its dtype: the chart reaches the rim at infinity only.
    """
    check_floating("B", B)
    check_one_square(B)
    wide, eps = B.double(), torch.finfo(B.dtype).eps
    tolerance, least = len(B) * eps**0.75, 4 * len(B) * eps
    error = max((wide.sum(k) - 1).abs().max().item() for k in (0, 1))
    if not error <= tolerance:
        raise ValueError(f"expected a doubly stochastic matrix, got sums off 1 by {error:.1e}")
    m = len(B) - 1
    columns = list(wide.new_ones(m + 1))
    theta = []
    for i in range(m):
        rest, right = wide.new_ones(()), _right(columns)
        for j in range(m):
            low, high = _bounds(rest, columns[j], right[j])
            entry = wide[i, j]
            if not min(entry - low, high - entry) > least:
                raise ValueError(
                    f"expected a matrix inside the Birkhoff polytope; B[{i}, {j}] = {entry:.3g} "
                    f"lies at the rim of what is possible, {low:.3g} to {high:.3g}"
                )
            theta.append(torch.log(entry - low) - torch.log(high - entry))
            rest, columns[j] = _less(rest, entry), _less(columns[j], entry)
        columns[m] = _less(columns[m], rest)
    return torch.stack(theta).to(B.dtype) if theta else B.new_empty(0)
