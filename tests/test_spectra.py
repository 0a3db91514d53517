"""Regions against matrices that realise them, eigenvalues against NumPy's, searches that arrive."""

import inspect
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from gomhc import Unconstrained, make_mixer, sample_uniform
from gomhc.companion.released import released_search
from gomhc.companion.studies import mixer
from gomhc.companion.studies import polytope as polytope_studies
from gomhc.companion.studies import spectra as studies
from gomhc.spectra import (
    Region,
    coverage,
    eigenvalues,
    karpelevich,
    perfect_mirsky,
    search_spectrum,
    spectral_grid,
)
from gomhc.spectra.regions import CELLS, EXTENT, HALF_CELL

ORDERS = range(1, 9)
REGIONS = (perfect_mirsky, karpelevich)


def farey(d):
    """Neighbouring fractions in [0, 1] with denominators <= d, by the mediant rule."""
    row = [(0, 1), (1, 1)]
    for _ in range(d):
        between = [
            new
            for (a, b), (c, e) in zip(row, row[1:], strict=False)
            for new in ([(a, b), (a + c, b + e)] if b + e <= d else [(a, b)])
        ]
        row = [*between, (1, 1)]
    return list(zip(row, row[1:], strict=False))


def realising(d, b, b2, alpha):
    """A stochastic matrix whose characteristic polynomial is Ito's, times powers of t and t − 1.

    k = ⌊d/b⌋ cycles of length b, closed with probability α, and one long cycle of length b2 through
    the last vertex of each: no other cycles, so det(t − A) has the terms (tᵇ − α)ᵏ and (1 − α)ᵏ.
    """
    k = d // b
    spare, skipped = max(b2 - b * k, 0), max(b * k - b2, 0)
    A = np.eye(d)
    A[: b * k + spare] = 0
    for block in range(k):
        first, last = block * b, (block + 1) * b - 1
        for vertex in range(first, last):
            A[vertex, vertex + 1] = 1
        A[last, first] += alpha
        onward = ((block + 1) % k) * b
        if block == k - 1 and spare:
            for extra in range(spare - 1):
                A[b * k + extra, b * k + extra + 1] = 1
            A[b * k + spare - 1, onward] = 1
            onward = b * k
        else:
            skip = min(skipped, b - 1)
            onward, skipped = onward + skip, skipped - skip
        A[last, onward] += 1 - alpha
    return A


@pytest.mark.parametrize("d", range(2, 9))
def test_stochastic_matrices_realise_every_arc_of_karpelevich(d):
    """On every arc between Farey neighbours there is an eigenvalue, to rounding."""
    region = karpelevich(d)
    seen = 0
    for (a, b), (c, e) in farey(d):
        low, high = 2 * np.pi * a / b, 2 * np.pi * c / e
        for alpha in np.linspace(0.05, 0.95, 7):
            A = realising(d, *sorted((b, e)), alpha)
            np.testing.assert_allclose(A.sum(1), 1)
            assert A.min() >= 0
            values = np.linalg.eigvals(A)
            assert region.contains(values, 1e-7).all()  # to 1e-7 where they are multiple
            angle = np.mod(np.angle(values), 2 * np.pi)
            inside = values[(angle > low + 1e-6) & (angle < high - 1e-6)]
            if d == 2 or (d == 3 and not len(inside)):  # parts of the real segment
                continue
            gaps = abs(abs(inside) - region.radius(abs(np.angle(inside))))
            assert gaps.min() < 1e-9, (d, b, e, alpha)
            seen += 1
    assert seen >= (0 if d == 2 else 21)


@settings(max_examples=60)
@given(d=st.integers(1, 8), power=st.floats(0.2, 30), seed=st.integers(0, 10**6))
def test_spectra_of_stochastic_matrices_lie_in_karpelevich(d, power, seed):
    """From dense to nearly deterministic: large powers leave one large entry a row."""
    A = np.random.default_rng(seed).random((200, d, d)) ** power
    A = A / A.sum(-1, keepdims=True)
    assert karpelevich(d).contains(np.linalg.eigvals(A), 1e-9).all()


@pytest.mark.parametrize("d", [2, 3, 4])
def test_spectra_of_doubly_stochastic_matrices_lie_in_perfect_mirsky(d, generator):
    """The theorems for d <= 4; sparse mixtures of permutations come near to the boundary."""
    mixture = torch.rand(5000, math.factorial(d), generator=generator, dtype=torch.float64) ** 20
    mixture /= mixture.sum(-1, keepdim=True)
    permutations = make_mixer("mhc-lite", d).permutations.double().reshape(-1, d, d)
    sparse = torch.einsum("nk,kij->nij", mixture, permutations)
    for B in (sparse, sample_uniform(d, 1000, generator)):
        assert perfect_mirsky(d).contains(eigenvalues(B), 1e-7).all()


@pytest.mark.parametrize("d", ORDERS)
def test_mixtures_of_the_powers_of_a_cycle_fill_perfect_mirsky(d, generator):
    region = perfect_mirsky(d)
    for k in range(1, d + 1):
        weights = torch.rand(200, k, generator=generator, dtype=torch.float64) ** 8
        weights /= weights.sum(-1, keepdim=True)
        roots = np.exp(2j * np.pi * np.arange(k) / k)
        assert region.contains(weights.numpy() @ roots, 1e-12).all()
    if d > 2:  # the middle of a side of the largest polygon is on the boundary
        middle = (1 + np.exp(2j * np.pi / d)) / 2
        assert region.contains(middle, 1e-12)
        assert not region.contains(middle * (1 + 1e-9))


def test_known_regions():
    """d = 2: [−1, 1]; d = 3: a triangle and [−1, −1/2]; d = 4: an arc by its own equation."""
    for make in REGIONS:
        assert make(1).contains([1, 0, 0.5, -1]).tolist() == [True, False, False, False]
        assert make(2).contains([-1, 0.3, 1, 0.3j, 1.01]).tolist() == [True] * 3 + [False] * 2
        triangle = make(3)
        assert triangle.contains([0.99, -0.49 + 0.8j, -0.99, 0]).all()
        assert not triangle.contains([-0.51 + 0.01j, 0.25 + 0.44j, -1.01, 1j]).any()
        # Half the angle between 1 and ω: the side of the triangle is at distance 1/2.
        assert triangle.radius(np.array([np.pi / 3]))[0] == pytest.approx(0.5)
        assert make(4).contains([0.49 + 0.5j, -0.49 + 0.5j]).all()
        assert not make(4).contains([0.51 + 0.5j, -0.6 + 0.5j]).any()
    # Between i and ω: t⁴ − αt − (1 − α) = 0.
    for alpha in (0.2, 0.5, 0.8):
        roots = np.roots([1, 0, 0, -alpha, -(1 - alpha)])
        on_arc = roots[(np.angle(roots) > np.pi / 2) & (np.angle(roots) < 2 * np.pi / 3)]
        gap = abs(on_arc) - karpelevich(4).radius(np.angle(on_arc))
        np.testing.assert_allclose(gap, 0, atol=1e-12)


@pytest.mark.parametrize("d", range(2, 9))
def test_regions_are_nested(d):
    inner, outer, next_one = perfect_mirsky(d), karpelevich(d), karpelevich(d + 1)
    assert outer.contains(inner.boundary, 1e-12).all()
    assert next_one.contains(outer.boundary, 1e-12).all()
    assert perfect_mirsky(d + 1).contains(inner.boundary, 1e-12).all()
    assert (abs(outer.boundary) <= 1 + 1e-12).all()
    # They agree up to d = 3 and not from d = 4 on.
    assert inner.contains(outer.boundary, 1e-9).all() == (d <= 3)


@pytest.mark.parametrize("make", REGIONS)
@pytest.mark.parametrize("d", ORDERS)
def test_boundary_is_on_the_boundary(make, d):
    region = make(d)
    line = region.boundary
    assert line[0] == line[-1] == 1
    assert region.contains(line, 1e-12).all()
    assert region.contains(0.999 * line).all() == (d > 1)
    out = line[abs(line.imag) > 1e-9] * (1 + 1e-9)
    assert not region.contains(out).any()
    np.testing.assert_allclose(line, line[::-1].conj(), atol=1e-15)
    roots = [np.exp(2j * np.pi * a / k) for k in range(1, d + 1) for a in range(k)]
    assert all(abs(line - root).min() < 1e-12 for root in roots)


def test_regions_take_arrays_and_tensors():
    region = karpelevich(4)
    points = np.array([[0.5, 1.5], [np.nan, 1j * np.inf]])
    assert region.contains(points).tolist() == [[True, False], [False, False]]
    tensor = torch.tensor([0.5 + 0.1j, 2j], requires_grad=True)
    inside = region.contains(tensor)
    assert isinstance(inside, torch.Tensor)
    assert inside.tolist() == [True, False]
    assert region.contains(0.5) == np.True_
    assert region.contains(1.05, 0.1)
    assert not region.contains(1.05)
    assert region.contains(-0.9 + 0.01j, 0.02)
    assert karpelevich(3).contains(-0.9 + 0.01j, 0.02)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_eigenvalues_are_numpys(d, generator):
    B = torch.randn(2, 7, d, d, generator=generator, dtype=torch.float64)
    ours = np.sort_complex(eigenvalues(B).numpy())
    np.testing.assert_allclose(ours, np.sort_complex(np.linalg.eigvals(B.numpy())), atol=1e-12)
    assert eigenvalues(B.float()).dtype == torch.complex64
    assert eigenvalues(torch.zeros(0, 3, 3)).shape == (0, 3)


def test_one_bad_matrix_spoils_only_its_own_eigenvalues():
    B = torch.eye(3).repeat(4, 1, 1)
    B[1, 0, 0], B[2, 1, 2] = torch.nan, torch.inf
    assert eigenvalues(B).isnan().all(-1).tolist() == [False, True, True, False]


def test_eigenvalues_have_gradients(generator):
    B = torch.randn(3, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    # Symmetric functions of the spectrum: the order of the eigenvalues must not matter.
    assert torch.autograd.gradcheck(lambda B: (eigenvalues(B) ** 3).sum(-1).real, B)


def test_the_grid():
    grid = spectral_grid()
    assert grid.shape == (CELLS, CELLS)
    assert grid[50, 50] == 0
    assert grid[0, 0] == pytest.approx(-(EXTENT - HALF_CELL) * (1 + 1j))
    assert grid[0, -1].real == -grid[0, 0].real
    cells = perfect_mirsky(4).cells()
    assert cells.imag.min() == 0
    assert perfect_mirsky(4).contains(cells).all()
    whole = int(perfect_mirsky(4).contains(grid).sum())
    assert whole == 2 * int((cells.imag > 0).sum()) + int((cells.imag == 0).sum())
    # The area of Π_4 by the shoelace formula, in cells.
    line = perfect_mirsky(4).boundary
    area = 0.5 * (line[:-1].conj() * line[1:]).imag.sum()
    assert whole * (2 * HALF_CELL) ** 2 == pytest.approx(area, rel=0.02)


def test_a_search_arrives(generator):
    """Targets inside the reach: each search ends with an eigenvalue there, at the θ returned."""
    mixer = make_mixer("mhc-lite", 3)
    targets = torch.tensor([0.2 + 0.3j, -0.3 + 0.4j, 0.5 + 0j, -0.2 - 0.3j])
    targets = targets.to(torch.complex128).repeat(8)
    visits = search_spectrum(
        mixer, targets, steps=300, learning_rate=0.05, generator=generator, handovers=5, stop=1e-4
    )
    assert (visits.distance < 1e-3).all()
    reached = eigenvalues(mixer(visits.theta))
    nearest = (reached - targets[:, None]).abs().amin(-1)
    torch.testing.assert_close(nearest, visits.distance, atol=1e-9, rtol=0)


def test_a_search_beside_the_trap_stays_in_it(generator):
    """From real eigenvalues the release's search never leaves the real axis; a handover does."""
    mixer = make_mixer("mhc-lite", 3)
    targets = torch.full((20,), 0.3j, dtype=torch.complex128)
    identity = torch.zeros(20, 6, dtype=torch.float64)
    identity[:, 0] = 2
    # Weights symmetric under transposition: real spectra.
    plain = search_spectrum(mixer, targets, start=identity, steps=150, generator=generator)
    assert plain.real == plain.total
    assert plain.distance.min() == pytest.approx(0.3, abs=1e-3)
    mixed = identity.clone()
    mixed[0] = torch.tensor([0.0, 0, 0, 3, 0, 0])  # mostly a 3-cycle
    helped = search_spectrum(mixer, targets, start=mixed, steps=150, handovers=5, stop=1e-3)
    assert (helped.distance < 5e-3).all()


def test_the_gradient_is_that_of_the_nearest_eigenvalue(generator):
    """One step of Adam has the size of the learning rate and the sign of autograd's gradient."""
    mixer = make_mixer("go-mhc", 4, s=2)
    targets = torch.tensor([0.3 + 0.4j, -0.1 + 0.6j, 0.4 + 0.2j], dtype=torch.complex128)
    start = torch.randn(3, mixer.num_parameters, generator=generator, dtype=torch.float64)
    theta = start.clone().requires_grad_()
    near = (eigenvalues(mixer(theta)) - targets[:, None]).abs().amin(-1)
    (gradient,) = torch.autograd.grad(near.square().sum(), theta)
    visits = search_spectrum(mixer, targets, start=start, steps=1, learning_rate=1e-4)
    moved = visits.theta - start
    assert (visits.distance < near.detach()).all()
    torch.testing.assert_close(moved, -1e-4 * gradient.sign(), atol=1e-7, rtol=0)


def test_defective_matrices_are_left(generator):
    """From a Jordan block, with gradient NaN, a search goes on; at a dead start it stays."""
    targets = torch.tensor([0.5 + 0.2j, 0.1 + 0.1j], dtype=torch.complex128)
    jordan = torch.zeros(2, 9, dtype=torch.float64)
    jordan[:, 1] = jordan[:, 5] = 1
    visits = search_spectrum(
        make_mixer("hc", 3), targets, start=jordan, steps=30, generator=generator
    )
    assert (visits.distance < 0.8 * targets.abs()).all()
    dead = torch.zeros(2, 3, dtype=torch.float64)
    visits = search_spectrum(make_mixer("go-mhc", 3, s=1), targets, start=dead, steps=5)
    torch.testing.assert_close(visits.distance, (1 - targets).abs())
    # A generator so large that the mixer gives NaN is no eigenvalue, and no error.
    dead[0] = torch.tensor([1e20, 2e20, -3e20])
    visits = search_spectrum(make_mixer("go-mhc", 3, s=1), targets, start=dead, steps=5)
    assert visits.distance.isinf().tolist() == [True, False]


def test_visits_count_every_eigenvalue(generator):
    mixer = make_mixer("mhc-lite", 3)
    targets = perfect_mirsky(3).cells()[::97]
    visits = search_spectrum(mixer, targets, steps=20, generator=generator)
    assert visits.total == len(targets) * 21 * 3 == visits.counts.sum()
    assert torch.equal(visits.counts > 0, visits.closest < torch.inf)
    assert visits.closest[visits.counts > 0].max() <= HALF_CELL * (1 + 1e-9)
    # Spectra of real matrices are symmetric about the real axis.
    assert torch.equal(visits.counts, visits.counts.flip(0))
    assert visits.counts[50, 50 + round(1 / (2 * HALF_CELL))] >= len(targets) * 21  # λ = 1


def test_share_counts_cells_near_an_eigenvalue():
    """The identity has the one eigenvalue 1, in one cell, whose centre it is not at."""
    visits = search_spectrum(make_mixer("identity", 3), perfect_mirsky(3).cells())
    cells = int(perfect_mirsky(3).contains(spectral_grid()).sum())
    assert visits.share(perfect_mirsky(3)) == pytest.approx(1 / cells)
    away = abs(1 - spectral_grid().real[50]).min()
    assert visits.share(perfect_mirsky(3), 0.9 * away) == 0
    assert visits.share(perfect_mirsky(3), 1.1 * away) == pytest.approx(1 / cells)


def test_searches_repeat_with_their_seed():
    mixer = make_mixer("go-mhc", 3, s=1)
    targets = perfect_mirsky(3).cells()[::50]
    one, two = (
        search_spectrum(mixer, targets, steps=30, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    assert torch.equal(one.counts, two.counts)
    assert torch.equal(one.theta, two.theta)
    assert released_search(mixer, 5, torch.Generator().manual_seed(1)).total == 5 * 101 * 3


def test_coverage_tells_mixers_apart():
    """A quick run: mHC-lite fills Π_3, level 1 of go-mHC only its deltoid, the identity a cell."""

    def share(name, **options):
        generator = torch.Generator().manual_seed(0)
        quick = {"steps": 100, "learning_rate": 0.1, "handovers": 8}
        return coverage(make_mixer(name, 3, **options), generator=generator, **quick)

    assert share("identity") < 0.001
    assert share("mhc-lite") > 0.95
    # The deltoid has 2π/9 of area, the triangle 3√3/4.
    deltoid = 2 * math.pi / 9 / (3 * math.sqrt(3) / 4)
    assert deltoid - 0.03 < share("go-mhc", s=1) < deltoid + 0.08


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_search_takes_gradients_wherever_it_is_called(mode):
    def share():
        generator = torch.Generator().manual_seed(0)
        return coverage(make_mixer("go-mhc", 3), generator=generator, steps=3, handovers=1)

    expected = share()
    with mode():
        assert share() == expected


def test_a_mixer_that_insists_on_compiled_code_is_searched_in_double_precision():
    found = [
        coverage(
            make_mixer("go-mhc", 3, backend=backend),
            generator=torch.Generator().manual_seed(0),
            steps=3,
            handovers=1,
        )
        for backend in ("fused", "reference")
    ]
    assert found[0] == found[1]


def test_kronecker_products_of_2x2_have_real_spectra(generator):
    for name in ("kromhc", "kron-go"):
        mixer = make_mixer(name, 4)
        theta = torch.randn(500, mixer.num_parameters, generator=generator, dtype=torch.float64)
        assert eigenvalues(mixer(theta)).imag.abs().max() < 1e-7
    real_cells = (perfect_mirsky(4).cells().imag == 0).sum()
    share = coverage(make_mixer("kromhc", 4), steps=40, generator=generator, handovers=0)
    assert share <= real_cells / perfect_mirsky(4).contains(spectral_grid()).sum()


@pytest.mark.parametrize("label", ["go-mhc s=2", "mhc iterations=10", "mhc-lite", "kromhc"])
def test_released_budgets(label, generator):
    visits = released_search(mixer(label, 4), 4, generator)
    steps = 100 if label.startswith("go") else 250
    assert visits.total == 4 * (steps + 1) * 4
    assert 0 < visits.share(perfect_mirsky(4)) < 0.3


def test_the_released_exponential_makes_the_same_matrices(generator):
    """exp(R − Rᵀ) and the Cayley transform have the same image; one is found from the other."""
    from gomhc.companion.released import _Exponential
    from gomhc.maps import block_frobenius, inverse_cayley, skew_symmetric

    theta = 2 * torch.randn(15, generator=generator, dtype=torch.float64)
    by_exponential = _Exponential(3, 2)
    rotation = torch.matrix_exp(skew_symmetric(theta))
    torch.testing.assert_close(by_exponential(theta), block_frobenius(rotation, 2))
    same = make_mixer("go-mhc", 3, s=2)(inverse_cayley(rotation))
    torch.testing.assert_close(same, by_exponential(theta), atol=1e-10, rtol=0)


class _Overflowing(Unconstrained):
    """Any matrix, but that of a θ with a first entry above 5 is infinite."""

    def mix(self, theta):
        return super().mix(theta) * torch.where(theta[..., :1, None] > 5, math.inf, 1.0)


def test_a_search_that_is_never_finite_leaves_the_others_alone():
    """From 25 points on `cdist` multiplies matrices, and an infinity among them becomes NaN."""
    targets = 0.5 * torch.exp(1j * torch.linspace(0.2, 3, 40, dtype=torch.float64))
    start = torch.zeros(40, 9, dtype=torch.float64)
    start += torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    start[7, 0] = 1e6
    visits = search_spectrum(
        _Overflowing(3),
        targets,
        start=start,
        steps=200,
        handovers=4,
        stop=1e-3,
        learning_rate=0.05,
        generator=torch.Generator().manual_seed(0),
    )
    others = torch.arange(40) != 7
    assert (visits.distance[others] < 0.1).all()


TARGETS = torch.zeros(3, dtype=torch.complex128)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: perfect_mirsky(0), "d >= 1, got 0"),
        (lambda: karpelevich(-1), "d >= 1, got -1"),
        (lambda: karpelevich(3).contains([0.5], -1), "tolerance >= 0, got -1"),
        (lambda: eigenvalues(torch.zeros(3, 4)), r"square.*\(3, 4\)"),
        (lambda: search_spectrum(make_mixer("mhc", 3), TARGETS[None]), r"targets.*\(1, 3\)"),
        (lambda: search_spectrum(make_mixer("mhc", 3), TARGETS / 0), "finite targets"),
        (lambda: search_spectrum(make_mixer("mhc", 3), TARGETS, steps=-1), "steps >= 0, got -1"),
        (lambda: search_spectrum(make_mixer("mhc", 3), TARGETS, learning_rate=0), "rate=0"),
        (lambda: search_spectrum(make_mixer("mhc", 3), TARGETS, stop=-1.0), "stop=-1"),
        (
            lambda: search_spectrum(make_mixer("mhc", 3), TARGETS, handovers=-1),
            "handovers >= 0, got -1",
        ),
        (
            lambda: search_spectrum(make_mixer("mhc", 3), TARGETS, steps=5, handovers=10),
            "fewer handovers than steps, got handovers=10, steps=5",
        ),
        (
            lambda: search_spectrum(make_mixer("mhc", 3), TARGETS, start=torch.zeros(3, 4)),
            r"starts \(3, 9\), got shape \(3, 4\)",
        ),
        (lambda: coverage(make_mixer("identity", 1)), "region with cells, got that of d = 1"),
        (lambda: coverage(make_mixer("identity", 3), tolerance=1.0), r"tolerance in \(0, 0.0104\]"),
        (lambda: released_search(make_mixer("kron-go", 4), 3), "mhc-lite or kromhc, got Kronecker"),
        (lambda: released_search(make_mixer("mhc", 4), 0), "targets >= 1, got 0"),
    ],
)
def test_bad_input(call, message, unchecked):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("number", [math.inf, 3.0, "3"])
@pytest.mark.parametrize("name", ["steps", "handovers"])
def test_what_counts_is_an_integer(name, number, unchecked):
    for search in (
        lambda **given: search_spectrum(make_mixer("mhc", 3), TARGETS, **given),
        lambda **given: coverage(make_mixer("mhc", 3), **given),
    ):
        with pytest.raises(TypeError, match=f"expected {name} as an integer, got {number!r}"):
            search(**{name: number})


@pytest.mark.parametrize("given", [{"targets": spectral_grid()[0]}, {"start": [0.0]}])
def test_targets_and_starts_are_tensors(given, unchecked):
    with pytest.raises(TypeError, match="targets as a tensor, start as one or None; got"):
        search_spectrum(make_mixer("mhc", 3), **{"targets": TARGETS} | given)


@pytest.mark.parametrize("region", [perfect_mirsky, karpelevich])
def test_an_order_is_an_integer(region, unchecked):
    with pytest.raises(TypeError, match=r"expected d as an integer, got 3\.0"):
        region(3.0)


def test_the_counterexample_of_order_five():
    """Doubly stochastic, with an eigenvalue outside Π_5 and inside Θ_5."""
    B = studies.midpoint()
    assert (B.sum(0) == 1).all() and (B.sum(1) == 1).all() and (B >= 0).all()
    values = eigenvalues(B)
    outside = values[(values.real < 0) & (values.imag > 0.5)]
    assert outside.item() == pytest.approx(-0.2793 + 0.7635j, abs=1e-4)
    assert not perfect_mirsky(5).contains(outside, 0.003).any()
    assert karpelevich(5).contains(values, 1e-12).all()
    assert perfect_mirsky(6).contains(outside).all()
    labels = ["identity", "go-mhc s=1", "go-mhc s=2"]
    metrics = studies.beyond_perfect_mirsky(labels, starts=4, steps=20, iterations=60).metrics
    assert metrics["matrix"]["go-mhc s=2"] < 1e-5 < 0.1 < metrics["matrix"]["go-mhc s=1"]
    assert metrics["reached"]["go-mhc s=2"] == pytest.approx(metrics["excess"], abs=1e-5)
    assert metrics["reached"]["go-mhc s=1"] < 0
    assert metrics["reached"]["identity"] is None


def test_the_spectral_studies():
    small = studies.equal(3, ["identity", "mhc-lite"], seeds=[0, 1, 2], steps=20, every=60)
    row = small.metrics["coverage"]["mhc-lite"]
    mean, spread = np.mean(row["values"]), np.std(row["values"], ddof=1)
    assert row["mean"] == pytest.approx(mean)
    assert row["high"] - row["mean"] == pytest.approx(t.ppf(0.975, 2) * spread / math.sqrt(3))
    assert small.metrics["together"]["mhc-lite"] >= max(row["values"])
    assert small.metrics["coverage"]["identity"]["low"] == pytest.approx(1 / 3067)
    histogram = np.array(small.series["histogram"]["mhc-lite"])
    assert histogram.shape == (51, 101)
    assert histogram[0, 98] > 0  # λ = 1
    ours = studies.released(4, ["mhc iterations=10", "go-mhc s=1"], targets=4, seeds=[0, 1])
    assert ours.metrics["targets"] == 8
    # Ten iterations from such logits are far from enough.
    assert ours.metrics["error"]["mhc iterations=10"] > 0.01 > ours.metrics["error"]["go-mhc s=1"]


def test_the_polytope_studies():
    labels = ["identity", "mhc-lite", "go-mhc s=1", "go-mhc s=2"]
    reach = polytope_studies.coverage({"3": labels}, samples=20, starts=4).metrics
    share = {label: row["share"] for label, row in reach["share"]["3"].items()}
    assert share["identity"] == share["go-mhc s=1"] == 0
    assert share["mhc-lite"] == 1
    assert share["go-mhc s=2"] > 0.8
    row = reach["share"]["3"]["go-mhc s=1"]
    assert row["low"] == 0 < row["high"] < 0.2  # Wilson's
    assert row["high"] == pytest.approx(1.96**2 / (20 + 1.96**2), rel=1e-3)
    assert reach["distance"]["3"]["mhc-lite"]["max"] < 1e-6

    error = polytope_studies.exactness({"go-mhc s=2": [2, 4], "mhc": [4]}, [1.0, 100.0], 20).metrics
    for dtype, bound in (("float32", 1e-6), ("float64", 1e-14)):
        assert max(max(s.values()) for s in error["error"][dtype]["go-mhc s=2"].values()) < bound
        assert error["error"][dtype]["mhc"]["4"]["100.0"] > 0.01


@pytest.mark.parametrize("unit", studies.UNITS + polytope_studies.UNITS, ids=lambda unit: unit.name)
def test_units_fit_their_functions(unit):
    inspect.signature(unit.run).bind(**unit.config)
    orders = {unit.config["d"]} if "d" in unit.config else {5}
    for d in orders:
        for label in unit.config.get("labels", []):
            mixer(label, d)
    for key, value in unit.config.get("families", {}).items():
        for other in value:
            mixer(*((other, int(key)) if key.isdigit() else (key, other)))


def test_regions_are_plain_values():
    assert isinstance(karpelevich(3), Region)
    assert (karpelevich(3).name, karpelevich(3).d) == ("Karpelevič", 3)


@pytest.mark.parametrize("make", [perfect_mirsky, karpelevich])
def test_regions_go_to_other_processes(make):
    region = make(5)
    again = pickle.loads(pickle.dumps(region))
    assert (again.name, again.d) == (region.name, region.d)
    assert (again.boundary == region.boundary).all()


@pytest.mark.parametrize(
    "change", [torch.conj, lambda z: z.conj().imag, lambda z: z.real.bfloat16()]
)
def test_lazy_and_narrow_tensors_are_points(change):
    points = change(torch.tensor([0.5 + 0.1j, 2.0 + 0.5j, -0.2 - 0.1j]))
    plain = points.to(torch.complex128).resolve_conj().resolve_neg()
    region = perfect_mirsky(4)
    assert torch.equal(region.contains(points), torch.as_tensor(region.contains(plain.numpy())))
