"""Maps against scipy, NumPy and finite differences."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch
from torch.autograd import gradcheck, gradgradcheck

import gomhc
from gomhc import cayley, maps, skew_symmetric


def test_theta_fills_the_strict_upper_triangle_row_by_row():
    A = skew_symmetric(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    expected = torch.tensor([[0.0, 1, 2, 3], [-1, 0, 4, 5], [-2, -4, 0, 6], [-3, -5, -6, 0]])
    assert torch.equal(A, expected)
    assert skew_symmetric(torch.zeros(2, 0)).shape == (2, 1, 1)
    with pytest.raises(ValueError, match=r"got shape \(4,\)"):
        skew_symmetric(torch.zeros(4))


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_cayley_is_the_solve_of_scipy(n, generator):
    A = skew_symmetric(torch.randn(n * (n - 1) // 2, generator=generator, dtype=torch.float64))
    eye = np.eye(n)
    left = scipy.linalg.solve(eye + A.numpy(), eye - A.numpy())
    right = (eye - A.numpy()) @ scipy.linalg.inv(eye + A.numpy())
    np.testing.assert_allclose(left, right, atol=1e-13)
    np.testing.assert_allclose(cayley(A).numpy(), left, atol=1e-13)
    np.testing.assert_allclose(cayley(-A).numpy(), left.T, atol=1e-13)


def test_cayley_undoes_itself(generator):
    """The transform is an involution: A = (I − Q)(I + Q)⁻¹."""
    A = skew_symmetric(torch.randn(4, 15, generator=generator, dtype=torch.float64))
    Q, eye = cayley(A), torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.solve(eye + Q, eye - Q), A)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_first_and_second_derivatives_by_finite_differences(n, generator):
    A = torch.randn(2, n, n, generator=generator, dtype=torch.float64, requires_grad=True)
    assert gradcheck(cayley, A)
    assert gradgradcheck(cayley, A)


def test_the_backward_is_autograd_through_the_solve(generator):
    A = skew_symmetric(torch.randn(3, 10, generator=generator, dtype=torch.float64))
    G = torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    eye = torch.eye(5, dtype=torch.float64)
    A.requires_grad_()
    (ours,) = torch.autograd.grad(cayley(A), A, G)
    (theirs,) = torch.autograd.grad(torch.linalg.solve(eye + A, eye - A), A, G)
    torch.testing.assert_close(ours, (theirs - theirs.mT) / 2)


def test_the_backward_stays_in_float32_under_autocast(generator):
    A = skew_symmetric(torch.randn(6, generator=generator)).requires_grad_()
    G = torch.randn(4, 4, generator=generator)
    (expected,) = torch.autograd.grad(cayley(A), A, G)
    Q = cayley(A)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (gradient,) = torch.autograd.grad(Q, A, G)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0)


MAPS = {
    "block_frobenius": lambda M: gomhc.block_frobenius(M, 2),
    "cayley": cayley,
    "composite_gain": gomhc.composite_gain,
    "composites": gomhc.composites,
    "inverse_cayley": lambda M: gomhc.inverse_cayley(cayley(M[0])),
    "kronecker": lambda M: gomhc.kronecker([M, M]),
    "marginal_error": gomhc.marginal_error,
    "project": gomhc.project,
    "sinkhorn_knopp": gomhc.sinkhorn_knopp,
    "skew_symmetric": lambda M: skew_symmetric(M.flatten(1)[:, :6]),
    "smallest_singular_value": gomhc.smallest_singular_value,
    "transportation": lambda M: gomhc.transportation.transportation(M.flatten(1)[:, :9]),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_as_precise_under_autocast(name, generator):
    M = torch.randn(5, 4, 4, generator=generator)
    expected = MAPS[name](M)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(MAPS[name](M), expected, rtol=0, atol=0)


def test_only_the_skew_part_counts(generator):
    M = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(cayley(M), cayley((M - M.T) / 2))


def test_cayley_gives_nan_where_a_is_not_finite_or_overflows():
    A = skew_symmetric(torch.tensor([[1.0, 2.0, 3.0]] * 3 + [[1e20, 2e20, 3e25]]))
    A[1, 0, 1] = torch.nan
    Q = cayley(A)
    assert Q[[1, 3]].isnan().all()
    assert Q[[0, 2]].isfinite().all()


def test_block_frobenius_is_the_blocks_norm(generator):
    Q = torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)
    for s in (1, 2, 3, 6):
        B = gomhc.block_frobenius(Q, s)
        for i, j in itertools.product(range(6 // s), repeat=2):
            block = Q[1, i * s : (i + 1) * s, j * s : (j + 1) * s].numpy()
            np.testing.assert_allclose(B[1, i, j], np.linalg.norm(block, "fro") ** 2 / s)


def test_sinkhorn_divides_columns_then_rows():
    logits = torch.tensor([[0.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    M = np.exp(logits.numpy())
    for _ in range(3):
        M /= M.sum(0, keepdims=True)
        M /= M.sum(1, keepdims=True)
    np.testing.assert_allclose(gomhc.sinkhorn_knopp(logits, 3).numpy(), M, rtol=1e-14)


@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_sinkhorn_adds_eps_as_deepseek_does(eps):
    """To the softmax over the columns and to every later sum that divides."""
    M = scipy.special.softmax([[0.0, 1.0], [2.0, -1.0]], 0) + eps
    M /= M.sum(1, keepdims=True) + eps
    for _ in range(2):
        M /= M.sum(0, keepdims=True) + eps
        M /= M.sum(1, keepdims=True) + eps
    logits = torch.tensor([[0.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    np.testing.assert_allclose(gomhc.sinkhorn_knopp(logits, 3, eps).numpy(), M, rtol=1e-14)


@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.1])
def test_sinkhorn_as_one_node_is_the_iteration_to_the_bit(generator, eps):
    """What torch.compile takes, value and derivative."""
    logits = 3 * torch.randn(5, 3, 3, generator=generator, dtype=torch.float64)
    torch.library.opcheck(maps._sinkhorn_knopp, (logits.requires_grad_(), 4, eps))
    plain, node = gomhc.sinkhorn_knopp(logits, 20, eps), maps._sinkhorn_knopp(logits, 20, eps)
    assert torch.equal(plain, node)
    slope = torch.randn(5, 3, 3, generator=generator, dtype=torch.float64)
    (expected,), (found,) = (torch.autograd.grad(B, logits, slope) for B in (plain, node))
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


def test_sinkhorn_does_not_overflow():
    B = gomhc.sinkhorn_knopp(torch.tensor([[1e4, 0.0], [0.0, -1e4]]))
    assert B.isfinite().all()


def test_kronecker_is_np_kron(generator):
    factors = [torch.randn(2, n, n, generator=generator) for n in (2, 3, 1, 2)]
    product = gomhc.kronecker(factors)
    expected = np.eye(1)
    for factor in factors:
        expected = np.kron(expected, factor[1].numpy())
    np.testing.assert_allclose(product[1].numpy(), expected, rtol=1e-5)


def test_permutation_matrices():
    P = gomhc.permutation_matrices(4)
    assert P.shape == (24, 4, 4)
    assert torch.equal(P[0], torch.eye(4))
    assert torch.equal(P.sum(-1), torch.ones(24, 4))
    assert torch.equal(P.sum(-2), torch.ones(24, 4))
    assert len(P.flatten(1).unique(dim=0)) == 24


def test_marginal_error_sees_rows_and_columns():
    B = torch.tensor([[0.5, 0.5], [0.2, 0.8]])
    assert abs(gomhc.marginal_error(B) - 0.3) < 1e-6
    assert abs(gomhc.marginal_error(B.T) - 0.3) < 1e-6
    assert gomhc.marginal_error(torch.full((2, 2), torch.nan)).isnan()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gomhc.cayley(torch.zeros(3, 4)), r"square.*\(3, 4\)"),
        (lambda: gomhc.inverse_cayley(torch.zeros(2, 3, 3)), r"one square.*\(2, 3, 3\)"),
        (lambda: gomhc.inverse_cayley(torch.tensor(1.0)), r"one square.*\(\)"),
        (lambda: gomhc.inverse_cayley(2 * torch.eye(3)), r"orthogonal.*3\.0e\+00"),
        (lambda: gomhc.inverse_cayley(torch.full((2, 2), torch.nan)), "orthogonal"),
        (lambda: gomhc.block_frobenius(torch.zeros(3, 4), 1), r"square.*\(3, 4\)"),
        (lambda: gomhc.block_frobenius(torch.zeros(6, 6), 4), "divides n = 6, got s = 4"),
        (lambda: gomhc.block_frobenius(torch.zeros(6, 6), 0), "got s = 0"),
        (lambda: gomhc.skew_symmetric(torch.tensor(1.0)), r"got shape \(\)"),
        (lambda: gomhc.sinkhorn_knopp(torch.zeros(2, 3)), r"square.*\(2, 3\)"),
        (lambda: gomhc.sinkhorn_knopp(torch.zeros(2, 2), 0), "iterations >= 1, got 0"),
        (lambda: gomhc.sinkhorn_knopp(torch.zeros(2, 2), eps=-1e-6), "eps >= 0.*got -1e-06"),
        (lambda: gomhc.kronecker([]), "at least one factor"),
        (lambda: gomhc.permutation_matrices(0), "d >= 1, got 0"),
        (lambda: gomhc.marginal_error(torch.zeros(2, 3)), r"square.*\(2, 3\)"),
    ],
)
def test_bad_input(call, message, unchecked):
    with pytest.raises(ValueError, match=message):
        call()
