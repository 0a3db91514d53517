"""The polytope against convex solvers, rejection sampling, closed forms and certificates."""

import math

import cvxpy
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, minimize
from scipy.stats import ks_2samp

import gomhc
from gomhc import make_mixer

EYE = torch.eye(3, dtype=torch.float64)
CYCLE = EYE.roll(1, 1)


def solve_projection(M):
    B = cvxpy.Variable(M.shape)
    marginals = [B >= 0, cvxpy.sum(B, axis=0) == 1, cvxpy.sum(B, axis=1) == 1]
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(B - M)), marginals)
    tight = {"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13}
    problem.solve(solver=cvxpy.CLARABEL, **tight)
    return B.value


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_projection_is_the_convex_solvers(d, scale, generator):
    M = scale * torch.randn(3, d, d, generator=generator, dtype=torch.float64)
    ours = gomhc.project(M).numpy()
    for matrix, projection in zip(M.numpy(), ours, strict=True):
        np.testing.assert_allclose(projection, solve_projection(matrix), atol=3e-8)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_projection_meets_its_optimality_conditions(scale, generator):
    """B = max(M + u1ᵀ + 1vᵀ, 0) with unit marginals is the exact solution: check just that.

    On the support, M − B must be a sum of a row and a column term; off it, at most that sum.
    """
    for d in (3, 6, 16):
        M = scale * torch.randn(20, d, d, generator=generator, dtype=torch.float64)
        B = gomhc.project(M)
        assert gomhc.marginal_error(B).max() < 1e-10
        assert B.min() >= 0
        # By linear assignment: no vertex V improves on B, ⟨M − B, V − B⟩ <= 0.
        for m, b in zip(M.numpy(), B.numpy(), strict=True):
            i, j = linear_sum_assignment(m - b, maximize=True)
            assert (m - b)[i, j].sum() - ((m - b) * b).sum() < 1e-11 * (1 + scale**2)


def test_projection_is_firmly_nonexpansive_and_idempotent(generator):
    x, y = torch.randn(2, 200, 4, 4, generator=generator, dtype=torch.float64)
    p, q = gomhc.project(x), gomhc.project(y)
    inner = ((p - q) * (x - y)).sum((-2, -1))
    assert ((p - q).square().sum((-2, -1)) <= inner + 1e-12).all()
    torch.testing.assert_close(gomhc.project(p), p, atol=1e-12, rtol=0)


def test_projection_keeps_dtype_batch_and_bad_elements(generator):
    M = torch.randn(2, 3, 4, 4, generator=generator)
    M[1, 2, 0, 0] = torch.inf
    B = gomhc.project(M)
    assert B.dtype == torch.float32
    assert B[1, 2].isnan().all()
    assert B.isnan().sum() == 16
    assert gomhc.project(torch.zeros(0, 3, 3)).shape == (0, 3, 3)


def test_projection_of_entries_beyond_its_precision_is_refused(generator):
    M = torch.randn(200, 5, 5, generator=generator, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"no projection of entries up to .*e\+12 in size"):
        gomhc.project(1e12 * M)
    with pytest.raises(RuntimeError, match="no projection"):
        gomhc.project(1e17 * EYE)  # which gave the zero matrix


def by_rejection(d, count, rng):
    """Uniform samples of B_d: its (d−1)² free entries are uniform where all d² are >= 0."""
    kept = np.empty((0, d, d))
    while len(kept) < count:
        free = rng.random((200_000, d - 1, d - 1))
        rows = np.concatenate([free, 1 - free.sum(2, keepdims=True)], 2)
        B = np.concatenate([rows, 1 - rows.sum(1, keepdims=True)], 1)
        kept = np.concatenate([kept, B[B.min((1, 2)) >= 0]])
    return kept[:count]


@pytest.mark.parametrize("d", [2, 3, 4])
def test_hit_and_run_is_uniform(d, generator):
    """Against rejection sampling by two-sample Kolmogorov–Smirnov tests at level 1e-4 each."""
    ours = gomhc.sample_uniform(d, 3000, generator).numpy()
    reference = by_rejection(d, 3000, np.random.default_rng(1))
    statistics = {
        "entry": lambda B: B[:, 0, 1],
        "norm": lambda B: (B**2).sum((1, 2)),
        "smallest": lambda B: B.min((1, 2)),
        "determinant": np.linalg.det,
    }
    for name, statistic in statistics.items():
        assert ks_2samp(statistic(ours), statistic(reference)).pvalue > 1e-4, name
    if d > 2:  # at d = 2 a single step is exact
        short = gomhc.sample_uniform(d, 3000, generator, steps=2).numpy()
        assert ks_2samp(statistics["norm"](short), statistics["norm"](reference)).pvalue < 1e-4


def test_the_default_length_of_a_chain():
    default, stated = (
        gomhc.sample_uniform(4, 3, torch.Generator().manual_seed(0), steps=steps)
        for steps in (None, 40 * 3**3)
    )
    assert torch.equal(default, stated)


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_samples_lie_in_the_polytope(d, generator):
    for samples in (gomhc.sample_uniform(d, 50, generator), gomhc.sample_haar(d, 2, 50, generator)):
        assert samples.shape == (50, d, d)
        assert gomhc.marginal_error(samples).max() < 1e-11
        assert samples.min() >= 0
    assert gomhc.sample_uniform(d, 0, generator).shape == (0, d, d)


def test_samples_repeat_with_their_seed():
    for sample in (
        lambda g: gomhc.sample_uniform(3, 5, g),
        lambda g: gomhc.sample_haar(3, 1, 5, g),
    ):
        one, two = (sample(torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(one, two)


@settings(max_examples=50)
@given(d=st.integers(1, 7), seed=st.integers(0, 10**6))
def test_birkhoff_von_neumann_rebuilds_its_matrix(d, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(3, generator=generator, dtype=torch.float64)
    # A mixture of three permutations lies on a low face, where a wrong support would show.
    sparse = sum(
        w * torch.eye(d, dtype=torch.float64)[torch.randperm(d, generator=generator)]
        for w in weights / weights.sum()
    )
    for B in (sparse, gomhc.sample_haar(d, 2, 1, generator)[0]):
        parts = gomhc.birkhoff_von_neumann(B)
        rebuilt = torch.einsum("k,kij->ij", parts.weights, parts.permutations)
        torch.testing.assert_close(rebuilt, B, atol=1e-8, rtol=0)
        assert len(parts.weights) <= (d - 1) ** 2 + 1
        assert parts.weights.min() > 0
        assert torch.equal(parts.weights, parts.weights.sort(descending=True).values)
        assert abs(parts.weights.sum() - 1) < 1e-12
        assert parts.permutations.sum(-1).eq(1).all() and parts.permutations.sum(-2).eq(1).all()


def test_birkhoff_von_neumann_keeps_small_weights():
    parts = gomhc.birkhoff_von_neumann((1 - 1e-7) * EYE + 1e-7 * CYCLE)
    assert len(parts.weights) == 2
    assert parts.weights[1] == pytest.approx(1e-7, rel=1e-6)
    assert torch.equal(parts.permutations[1], CYCLE)


def test_birkhoff_von_neumann_takes_what_a_float32_mixer_makes(generator):
    mixer = make_mixer("go-mhc", 5, s=2)
    for theta in torch.randn(20, mixer.num_parameters, generator=generator):
        B = mixer(theta)
        weights, permutations = gomhc.birkhoff_von_neumann(B)
        rebuilt = torch.einsum("k,kij->ij", weights, permutations)
        torch.testing.assert_close(rebuilt, B, atol=1e-4, rtol=0)
        assert weights.dtype == torch.float32


def test_distance_to_single_points(generator):
    """The identity mixer makes one matrix, so the distance is a norm."""
    targets = gomhc.sample_uniform(4, 2 * 3, generator).reshape(2, 3, 4, 4)
    distance = gomhc.distance_to_family(make_mixer("identity", 4), targets, generator=generator)
    expected = (targets - torch.eye(4, dtype=torch.float64)).flatten(-2).norm(dim=-1)
    torch.testing.assert_close(distance, expected)


@pytest.mark.parametrize("name", ["hc", "mhc", "mhc-lite"])
def test_distance_is_zero_where_the_family_is_everything(name, generator):
    targets = gomhc.sample_uniform(3, 20, generator)
    assert gomhc.distance_to_family(make_mixer(name, 3), targets, 2, generator).max() < 1e-6


@pytest.mark.parametrize("s", [1, 2, 3])
def test_distance_is_zero_for_what_the_mixer_made(s, generator):
    mixer = make_mixer("go-mhc", 3, s=s)
    theta = torch.randn(50, mixer.num_parameters, generator=generator, dtype=torch.float64)
    assert gomhc.distance_to_family(mixer, mixer(theta), 8, generator).max() < 1e-6


def test_distance_to_a_family_known_in_closed_form(generator):
    """go-mHC at d = 2 makes every [[a, 1−a], [1−a, a]]: project onto that line by hand."""
    targets = torch.rand(30, 2, 2, generator=generator, dtype=torch.float64)
    a = (targets[:, 0, 0] + targets[:, 1, 1] + 2 - targets[:, 0, 1] - targets[:, 1, 0]) / 4
    nearest = torch.stack([a, 1 - a, 1 - a, a], -1).unflatten(-1, (2, 2))
    for s in (1, 2):
        closest = gomhc.nearest_in_family(make_mixer("go-mhc", 2, s=s), targets, 4, generator)
        expected = (targets - nearest).flatten(1).norm(dim=1)
        torch.testing.assert_close(closest.distance, expected, atol=1e-7, rtol=0)
        torch.testing.assert_close(closest.matrix, nearest, atol=1e-5, rtol=0)


def test_distance_agrees_with_scipy(generator):
    """The best of several BFGS runs of scipy, target by target."""
    mixer = make_mixer("go-mhc", 3, s=1)
    targets = gomhc.sample_uniform(3, 5, generator)
    ours = gomhc.distance_to_family(mixer, targets, 16, generator)
    for target, distance in zip(targets, ours, strict=True):

        def value_and_gradient(theta, target=target):
            theta = torch.tensor(theta, requires_grad=True)
            value = (mixer(theta) - target).square().sum()
            return value.item(), torch.autograd.grad(value, theta)[0].numpy()

        rng = np.random.default_rng(0)
        runs = [
            minimize(value_and_gradient, rng.normal(size=3), jac=True, tol=1e-12).fun
            for _ in range(24)
        ]
        assert abs(math.sqrt(min(runs)) - distance) < 1e-6


def test_the_search_converges_quickly(generator):
    """Levenberg–Marquardt is quadratic near a reachable target; a wrong step or damping is not."""
    targets = gomhc.sample_uniform(3, 200, generator)
    mixer = make_mixer("go-mhc", 3, s=2)
    closest = gomhc.nearest_in_family(mixer, targets, 8, generator, iterations=25)
    assert (closest.distance < 1e-6).double().mean() > 0.9


def test_giving_up_the_worse_starts_loses_nothing(monkeypatch):
    targets = gomhc.sample_uniform(3, 40, torch.Generator().manual_seed(2))
    mixer = make_mixer("go-mhc", 3, s=2)
    raced = gomhc.distance_to_family(mixer, targets, 8, torch.Generator().manual_seed(3))
    monkeypatch.setattr(gomhc.reach, "RACE", {})
    patient = gomhc.distance_to_family(mixer, targets, 8, torch.Generator().manual_seed(3))
    torch.testing.assert_close(raced, patient, atol=1e-6, rtol=0)


def test_nearest_returns_what_the_mixer_makes(generator):
    mixer = make_mixer("go-mhc", 3, s=2)
    targets = gomhc.sample_uniform(3, 7, generator)
    mixer.backend = "fused"  # which has no float64: the search asks for the other
    closest = gomhc.nearest_in_family(mixer, targets, generator=generator)
    mixer.backend = "auto"
    torch.testing.assert_close(mixer(closest.theta), closest.matrix, atol=1e-9, rtol=0)
    distance = (closest.matrix - targets).flatten(1).norm(dim=1)
    torch.testing.assert_close(distance, closest.distance, atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_projection_refuses_what_it_would_truncate(dtype, unchecked):
    with pytest.raises(TypeError, match=f"floating dtype, got {dtype}"):
        gomhc.project(torch.ones(2, 2, dtype=dtype))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gomhc.project(torch.zeros(0, 0)), r"square.*\(0, 0\)"),
        (lambda: gomhc.project(torch.zeros(3, 4)), r"square.*\(3, 4\)"),
        (lambda: gomhc.sample_uniform(0, 3), "d >= 1, got 0"),
        (lambda: gomhc.sample_uniform(3, -1), "count >= 0, got -1"),
        (lambda: gomhc.sample_haar(3, 0, 3), "s >= 1, got 0"),
        (lambda: gomhc.birkhoff_von_neumann(torch.zeros(2, 3)), r"one square.*\(2, 3\)"),
        (lambda: gomhc.birkhoff_von_neumann(torch.ones(4, 4) / 4, 0.3), "tolerance below"),
        (lambda: gomhc.birkhoff_von_neumann(0.9 * torch.eye(3)), "marginal error 1.0e-01"),
        (lambda: gomhc.birkhoff_von_neumann(2 * EYE - CYCLE), "smallest entry -1.0e"),
        (lambda: gomhc.birkhoff_von_neumann(torch.full((2, 2), torch.nan)), "doubly stochastic"),
        (
            lambda: gomhc.distance_to_family(make_mixer("go-mhc", 3), torch.eye(4)),
            r"targets \(\.\.\., 3, 3\), got \(4, 4\)",
        ),
        (lambda: gomhc.distance_to_family(make_mixer("mhc", 3), torch.nan * EYE), "got NaN"),
        (lambda: gomhc.distance_to_family(make_mixer("mhc", 3), EYE, starts=0), "starts >= 1"),
        (lambda: gomhc.nearest_in_family(make_mixer("mhc", 3), EYE, tolerance=-1.0), r"got.*-1\.0"),
        (
            lambda: gomhc.nearest_in_family(make_mixer("mhc", 3), EYE, iterations=-1),
            "iterations >= 0, got -1",
        ),
        (lambda: gomhc.sample_uniform(3, 2, steps=-1), "steps >= 0, got -1"),
    ],
)
def test_bad_input(call, message, unchecked):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gomhc.birkhoff_von_neumann(EYE.numpy()), "B as a tensor, got ndarray"),
        (
            lambda: gomhc.distance_to_family(make_mixer("mhc", 3), EYE * 1j),
            "real tensor, got torch.complex",
        ),
        (lambda: gomhc.sample_uniform(2.5, 3), r"d as an integer, got 2\.5"),
        (lambda: gomhc.sample_uniform(3, 2.5), r"count as an integer, got 2\.5"),
        (lambda: gomhc.sample_uniform(3, 2, steps=1.5), r"steps as an integer, got 1\.5"),
        (lambda: gomhc.sample_haar(3, 2, 2.5), r"count as an integer, got 2\.5"),
        (lambda: gomhc.sample_uniform(3, 2, generator=0), r"manual_seed.*generator=0"),
        (lambda: gomhc.sample_haar(3, 2, 2, generator=0), r"manual_seed.*generator=0"),
        (lambda: gomhc.nearest_in_family(make_mixer("mhc", 3), EYE, generator=0), "manual_seed"),
        (
            lambda: gomhc.nearest_in_family(make_mixer("mhc", 3), EYE, starts=1.5),
            r"starts as an integer, got 1\.5",
        ),
        (lambda: gomhc.nearest_in_family(make_mixer("mhc", 3), [[1.0]]), "tensor, got list"),
        (lambda: gomhc.nearest_in_family("go-mhc", EYE), "expected a mixer.*got str"),
        (lambda: make_mixer("go-mhc", 3).initial_theta(generator=0), "manual_seed"),
        (lambda: make_mixer("go-mhc", 3).initial_theta(off_diagonal_mass="a"), "number, got 'a'"),
    ],
)
def test_input_of_a_wrong_type(call, message, unchecked):
    with pytest.raises(TypeError, match=message):
        call()


def test_integers_of_numpy_are_integers(unchecked):
    assert gomhc.sample_uniform(np.int64(3), np.int64(2), steps=1).shape == (2, 3, 3)
