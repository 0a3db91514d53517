"""Pure maps from unconstrained tensors to mixing matrices.

Batch dimensions lead; a matrix takes the last two dimensions.

Note [Cayley convention]
    Q = (I − A)(I + A)⁻¹ with A skew-symmetric. Both factors are functions of A, so they commute:
    (I − A)(I + A)⁻¹ = (I + A)⁻¹(I − A). Swapping the sign of A inverts Q, which for an orthogonal
    matrix is a transposition, and transposes B = Φ(Q) too. The paper (arXiv 2604.02309) and this
    library agree up to that transposition.

Note [Cayley accuracy]
    I + A has condition number up to ‖I + A‖, so a solve in floating point gives a Q whose
    orthogonality error grows like eps·‖A‖. Newton–Schulz steps Q ← Q(3I − QᵀQ)/2 square that error
    and cost two products each; the true Q is their fixed point. Two steps are enough for entries
    up to 10⁴ and orders up to 64 in float32, and a third leaves a margin. What they restore is
    orthogonality, not accuracy: the result is doubly stochastic to rounding, but it belongs to a
    slightly different θ. Entries of B and gradients lose a digit for every power of ten of θ, and
    near θ = 10⁴ float32 gradients are no longer usable.
    The steps rely on float32 products: with `torch.set_float32_matmul_precision("high")` on a GPU
    the error is that of TF32, near 1e-3.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from gomhc.checks import check_epsilon

__all__ = [
    "block_frobenius",
    "cayley",
    "inverse_cayley",
    "kronecker",
    "marginal_error",
    "permutation_matrices",
    "sinkhorn_knopp",
    "skew_symmetric",
]

NEWTON_SCHULZ_STEPS = 3


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Autocast off where x is; the device "meta" has none."""
    where = x.device.type
    return nullcontext() if where == "meta" else torch.autocast(where, enabled=False)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """In which autocast takes a matrix product with x; None where it is off."""
    where = x.device.type
    if where == "meta" or not torch.is_autocast_enabled(where):
        return None
    return torch.get_autocast_dtype(where)


def has_tangent(x: Tensor) -> bool:
    """Whether a forward-mode derivative is on its way through x."""
    return forward_ad.unpack_dual(x).tangent is not None


def check_floating(name: str, value: object) -> None:
    """Raise TypeError unless the value is a tensor of a real floating dtype."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"expected {name} as a tensor of a real floating dtype, got {got}")


def check_square(M: Tensor) -> None:
    """Raise ValueError unless M is a batch of square matrices of order 1 or more."""
    if M.ndim < 2 or M.shape[-1] != M.shape[-2] or not M.shape[-1]:
        raise ValueError(f"expected square matrices (..., n, n), got shape {tuple(M.shape)}")


def check_one_square(M: Tensor) -> None:
    """Raise ValueError unless M is a single square matrix of order 1 or more."""
    if M.ndim != 2 or M.shape[0] != M.shape[1] or not len(M):
        raise ValueError(f"expected one square matrix (n, n), got shape {tuple(M.shape)}")


def skew_symmetric(theta: Float[Tensor, "*batch g"]) -> Float[Tensor, "*batch n n"]:
    """Skew-symmetric matrix whose strict upper triangle holds `theta`, row by row.

    Args:
        theta: (..., g) with g = n(n−1)/2; n is found from g (g = 0 gives n = 1).

    Returns:
        A of shape (..., n, n) with A = −Aᵀ and A[0, 1] = theta[0], A[0, 2] = theta[1], …

    Raises:
        ValueError: if g is not of the form n(n−1)/2.
    """
    g = theta.shape[-1] if theta.ndim else 0
    n = 1
    while n * (n - 1) // 2 < g:  # torch.compile knows no roots of sizes that it takes as dynamic
        n += 1
    if theta.ndim == 0 or n * (n - 1) // 2 != g:
        raise ValueError(
            f"expected a trailing size n(n-1)/2 (0, 1, 3, 6, 10, …), got shape {tuple(theta.shape)}"
        )
    row, column = torch.triu_indices(n, n, offset=1, device=theta.device)
    flat = theta.new_zeros(*theta.shape[:-1], n * n)
    upper = flat.index_copy(-1, row * n + column, theta).unflatten(-1, (n, n))
    return upper - upper.mT


def _newton_schulz(Q: Tensor) -> tuple[Tensor, Tensor]:
    """Q brought back to orthogonality, and the largest |QᵀQ − I| before the last step."""
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)
    for _ in range(NEWTON_SCHULZ_STEPS):
        defect = Q.mT @ Q - eye
        Q = Q - 0.5 * Q @ defect
    return Q, defect.abs().amax((-2, -1), keepdim=True)


class _Cayley(torch.autograd.Function):
    """Cayley transform of a skew-symmetric matrix with its closed-form derivative.

    Q = 2(I + A)⁻¹ − I, hence dQ = −½ (I + Q) dA (I + Q): the backward pass is two products.
    """

    generate_vmap_rule = True

    @staticmethod
    def change(Q: Tensor, dA: Tensor) -> Tensor:
        """The change dQ that belongs to dA."""
        with full_precision(Q):
            one_plus_q = torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device) + Q
            return -0.5 * one_plus_q @ dA @ one_plus_q

    @staticmethod
    def forward(A: Tensor) -> Tensor:
        eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
        with full_precision(A):
            # solve_ex: a NaN in one element must not raise for the whole batch.
            Q, defect = _newton_schulz(torch.linalg.solve_ex(eye + A, eye - A)[0])
        # The last step squares the defect ‖QᵀQ − I‖_max; above this one too much would be left.
        # (A number here and no constant: torch.compile would take that as a size that may change.)
        return torch.where(defect < 3e-3, Q, math.nan).contiguous()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        (Q,) = ctx.saved_tensors
        return _Cayley.change(Q.mT, grad)


class _CayleyBothWays(_Cayley):
    """The same with a forward-mode derivative, which torch.compile does not follow."""

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def jvp(ctx, dA: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        (Q,) = ctx.saved_tensors
        return _Cayley.change(Q, dA)


def cayley(A: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Cayley transform Q = (I − A)(I + A)⁻¹ of the skew part of A: an orthogonal matrix.

    The derivative is closed-form, without a solve: ∂L/∂A = −½ (I + Q)ᵀ (∂L/∂Q) (I + Q)ᵀ, then its
    skew part. Newton–Schulz steps keep QᵀQ = I to rounding (Note [Cayley accuracy] above).

    Args:
        A: (..., n, n), float32 or float64. Only its skew part (A − Aᵀ)/2 is used.

    Returns:
        Q: (..., n, n), orthogonal with determinant 1 and no eigenvalue −1. Elements of the batch
        where A is not finite, or so large that orthogonality is lost (near ‖A‖ = 1e6 in float32),
        are NaN.

    Raises:
        ValueError: if the last two sizes differ.

    Source: Cayley 1846; go-mHC, arXiv 2604.02309; derivative: this book, chapter 2.
    """
    check_square(A)
    if not torch.compiler.is_compiling():
        return _CayleyBothWays.apply((A - A.mT) / 2)
    # torch.compile drops the forward-mode derivative of an autograd.Function without a word.
    way = _Cayley.forward if has_tangent(A) else _Cayley.apply
    return way((A - A.mT) / 2)


@torch.no_grad()
def inverse_cayley(Q: Float[Tensor, "n n"]) -> Float[Tensor, " g"]:
    """Bounded θ whose Cayley transform is Q up to the signs of its rows.

    Row signs do not change the squared norms of blocks: Φ_{d,s} of Cayley(skew(θ)) equals Φ_{d,s}
    of Q for every s. So any orthogonal matrix gives a start for go-mHC, at a finite θ, even where
    Q itself has the eigenvalue −1 that no Cayley transform has.

    Signs d_k are chosen so that D + Q has elimination pivots of size at least 1. Then, while some
    A_ij lies outside [−1, 1], flipping the signs i and j multiplies the size of det(I + DQ) by
    A_ij², so this ends.

    Args:
        Q: (n, n), orthogonal.

    Returns:
        θ of shape (n(n−1)/2,) in Q's dtype, with entries in [−1, 1].

    Raises:
        ValueError: if Q is not one orthogonal matrix.

    Source: Kahan 2006; O'Dorney 2014 (that a signature with entries in [−1, 1] exists).
    """
    check_one_square(Q)
    n = len(Q)
    eye = torch.eye(n, dtype=torch.float64, device=Q.device)
    wide = Q.double()
    defect = (wide.mT @ wide - eye).abs().max().item()
    if not defect < 100 * n * torch.finfo(Q.dtype).eps:
        raise ValueError(f"expected an orthogonal matrix, got |QᵀQ − I| up to {defect:.1e}")
    # A float32 matrix is orthogonal to 1e-7 only, and the flips end for an orthogonal one.
    wide = _newton_schulz(wide)[0]
    signs, schur = torch.ones_like(wide[0]), wide.clone()
    for k in range(n):
        signs[k] = 1 if schur[k, k] >= 0 else -1
        below = schur[k + 1 :, k] / (schur[k, k] + signs[k])
        schur[k + 1 :, k + 1 :] -= torch.outer(below, schur[k, k + 1 :])
    while True:
        signed = signs[:, None] * wide
        A = torch.linalg.solve(eye + signed, eye - signed)
        largest = int(A.abs().argmax())
        if abs(A.flatten()[largest]) <= 1 + 1e-9:
            row, column = torch.triu_indices(n, n, offset=1, device=Q.device)
            return A[row, column].clamp(-1, 1).to(Q.dtype)
        signs[[largest // n, largest % n]] *= -1


def block_frobenius(Q: Float[Tensor, "*batch n n"], s: int) -> Float[Tensor, "*batch d d"]:
    """Φ_{d,s}: squared Frobenius norms of the s×s blocks of Q, divided by s.

    For orthogonal Q of order n = d·s the result B_ij = ‖Q_ij‖²_F / s is doubly stochastic; its
    matrices are called generalized orthostochastic, and orthostochastic at s = 1.

    Args:
        Q: (..., n, n).
        s: block size, a positive divisor of n.

    Returns:
        B: (..., d, d) with d = n / s.

    Raises:
        ValueError: if Q is not square, s < 1, or s does not divide n.

    Source: Nechita, Ouyang, Szczepanek, arXiv 2310.03436; go-mHC, arXiv 2604.02309.
    """
    check_square(Q)
    n = Q.shape[-1]
    if s < 1 or n % s:
        raise ValueError(f"expected a block size s >= 1 that divides n = {n}, got s = {s}")
    blocks = Q.unflatten(-2, (n // s, s)).unflatten(-1, (n // s, s))
    return blocks.square().sum((-3, -1)) / s


def sinkhorn_knopp(
    logits: Float[Tensor, "*batch d d"], iterations: int = 20, eps: float = 0.0
) -> Float[Tensor, "*batch d d"]:
    """Scale exp(logits) towards a doubly stochastic matrix by Sinkhorn–Knopp iteration.

    Each iteration divides the columns, then the rows, by their sums, in the log domain. After
    finitely many iterations rows sum to 1 to rounding, columns only approximately.

    Args:
        logits: (..., d, d).
        iterations: number of column-and-row rescalings, at least 1.
        eps: added to the entries after the first rescaling of the columns, a softmax, and to every
            sum that divides later. DeepSeek-V4 has 1e-6, with which rows sum to less than 1.

    Returns:
        (..., d, d), positive.

    Raises:
        TypeError: if eps is no number.
        ValueError: if the matrices are not square, iterations < 1 or eps is negative.

    Source: Sinkhorn, Knopp 1967; order of the two rescalings: mHC, arXiv 2512.24880; eps:
    DeepSeek-V4 as in `transformers`.
    """
    check_square(logits)
    if iterations < 1:
        raise ValueError(f"expected iterations >= 1, got {iterations}")
    eps = check_epsilon("eps", eps)
    # An operator of ours has no forward mode.
    if torch.compiler.is_compiling() and not has_tangent(logits):
        return _sinkhorn_knopp(logits, iterations, eps)
    return _half_steps(logits, iterations, eps)[-1].exp()


def _plus(logits: Tensor, eps: float) -> Tensor:
    """Logits of what they stand for plus eps."""
    return torch.logaddexp(logits, logits.new_full((), math.log(eps))) if eps else logits


def _half_steps(logits: Tensor, iterations: int, eps: float) -> list[Tensor]:
    """Logits after every rescaling of columns or rows."""
    steps = [logits]
    for k in range(2 * iterations):
        total = steps[-1].logsumexp(-2 + k % 2, keepdim=True)
        steps.append(steps[-1] - _plus(total, eps) if k else _plus(steps[-1] - total, eps))
    return steps


@torch.library.custom_op("gomhc::sinkhorn_knopp", mutates_args=())
def _sinkhorn_knopp(logits: Tensor, iterations: int, eps: float) -> Tensor:
    """The iteration as one node of a graph: for torch.compile 40 reductions are minutes of work."""
    return _half_steps(logits, iterations, eps)[-1].exp()


@torch.library.custom_op("gomhc::sinkhorn_knopp_backward", mutates_args=())
def _sinkhorn_knopp_backward(slope: Tensor, logits: Tensor, iterations: int, eps: float) -> Tensor:
    """Its derivative: that of x ↦ x − log(Σ exp(x) + eps), step by step from the last."""
    steps = _half_steps(logits, iterations, eps)
    slope = slope * steps[-1].exp()
    for k in reversed(range(2 * iterations)):
        scaled = steps[k + 1].exp()
        if eps and not k:  # the softmax, to which eps was added
            slope, scaled = slope * logits.softmax(-2) / scaled, logits.softmax(-2)
        slope = slope - scaled * slope.sum(-2 + k % 2, keepdim=True)
    return slope


@_sinkhorn_knopp.register_fake
def _(logits: Tensor, iterations: int, eps: float) -> Tensor:
    return torch.empty_like(logits)


@_sinkhorn_knopp_backward.register_fake
def _(slope: Tensor, logits: Tensor, iterations: int, eps: float) -> Tensor:
    return torch.empty_like(logits)


def _keep_logits(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, ctx.iterations, ctx.eps = inputs
    ctx.save_for_backward(logits)


def _to_logits(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
    (logits,) = ctx.saved_tensors
    return _sinkhorn_knopp_backward(slope, logits, ctx.iterations, ctx.eps), None, None


_sinkhorn_knopp.register_autograd(_to_logits, setup_context=_keep_logits)


def kronecker(factors: Sequence[Float[Tensor, "..."]]) -> Float[Tensor, "..."]:
    """Kronecker product of a sequence of batches of matrices, the first factor outermost.

    Args:
        factors: at least one tensor (..., d_k, d_k) each, with the same batch dimensions.

    Returns:
        (..., d, d) with d = Π d_k.

    Raises:
        ValueError: if there is no factor.
    """
    if not factors:
        raise ValueError("expected at least one factor, got none")
    product = factors[0]
    for factor in factors[1:]:
        product = product[..., :, None, :, None] * factor[..., None, :, None, :]
        product = product.flatten(-4, -3).flatten(-2, -1)
    return product


def permutation_matrices(d: int) -> Float[Tensor, "count d d"]:
    """All d! permutation matrices of order d in lexicographic order; the first is the identity.

    Matrix k has ones at (i, π_k(i)).

    Raises:
        ValueError: if d < 1.
    """
    if d < 1:
        raise ValueError(f"expected d >= 1, got {d}")
    images = torch.as_tensor(permutations(d))
    return torch.nn.functional.one_hot(images, d).to(torch.get_default_dtype())


@functools.cache
def permutations(d: int) -> np.ndarray:
    """(d!, d): π_k(i), in the order of `permutation_matrices`. Do not write to it."""
    return np.array(list(itertools.permutations(range(d))))


def marginal_error(B: Float[Tensor, "*batch d d"]) -> Float[Tensor, "*batch"]:
    """Largest deviation of a row or column sum from 1: how far B is from unit marginals.

    Args:
        B: (..., d, d).

    Returns:
        (...), NaN where B holds a NaN.

    Raises:
        ValueError: if B is not square.
    """
    check_square(B)
    rows = (B.sum(-1) - 1).abs().amax(-1)
    columns = (B.sum(-2) - 1).abs().amax(-1)
    return torch.maximum(rows, columns)
