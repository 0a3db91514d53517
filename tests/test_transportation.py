"""The chart of the polytope, against linear programs, its own inverse and finite differences."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from gomhc import make_mixer, marginal_error, sample_uniform
from gomhc.fused.stages import TRANSPORT, Stage
from gomhc.transportation import inverse_transportation, transportation


def feasible(known, d):
    """Least and largest next entry of a doubly stochastic matrix that begins with those known."""
    sums = np.zeros((2 * d, d * d))
    for k in range(d):
        sums[k, k * d : (k + 1) * d] = 1
        sums[d + k, k::d] = 1
    places = [i * d + j for i in range(d - 1) for j in range(d - 1)]
    bounds = [(0, None)] * (d * d)
    for place, value in zip(places, known, strict=False):
        bounds[place] = value, value
    goal = np.zeros(d * d)
    goal[places[len(known)]] = 1
    ends = [linprog(sign * goal, A_eq=sums, b_eq=np.ones(2 * d), bounds=bounds) for sign in (1, -1)]
    return ends[0].fun, -ends[1].fun


@pytest.mark.parametrize("d", [2, 3, 4])
def test_every_entry_goes_from_the_least_to_the_largest_that_can_be_completed(d, generator):
    theta = 2 * torch.randn((d - 1) ** 2, generator=generator, dtype=torch.float64)
    known = transportation(theta)[:-1, :-1].flatten().tolist()
    for k in range((d - 1) ** 2):
        least, largest = feasible(known[:k], d)
        share = theta[k].sigmoid().item()
        assert known[k] == pytest.approx(least + (largest - least) * share, abs=1e-9)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 8])
def test_it_reaches_every_matrix_without_a_zero(d, generator):
    targets = sample_uniform(d, 50, generator=generator).double()
    theta = torch.stack([inverse_transportation(B) for B in targets])
    assert theta.shape == (50, (d - 1) ** 2)
    torch.testing.assert_close(transportation(theta), targets, rtol=0, atol=1e-12)
    again = torch.stack([inverse_transportation(B) for B in transportation(theta)])
    torch.testing.assert_close(again, theta, rtol=1e-6, atol=1e-6)


def test_a_matrix_of_single_precision(generator):
    B = sample_uniform(4, 1, generator=generator)[0].float()
    theta = inverse_transportation(B)
    assert theta.dtype == torch.float32
    torch.testing.assert_close(transportation(theta), B, rtol=0, atol=1e-6)


def test_far_out_it_is_exact(generator):
    theta = 1e4 * (2 * torch.rand(500, 15**2, generator=generator) - 1)
    B = transportation(theta)
    assert B.dtype == torch.float32
    assert marginal_error(B).max() < 1e-5
    assert B.min() >= 0


@pytest.mark.parametrize(
    ("B", "message"),
    [
        (torch.eye(3), r"inside the Birkhoff polytope; B\[0, 0\] = 1 lies at the rim"),
        (torch.full((3, 3), 0.3), "doubly stochastic matrix, got sums off 1 by 1.0e-01"),
        (torch.full((3, 3), torch.nan), "doubly stochastic matrix, got sums off 1 by nan"),
        (torch.ones(2, 3), r"one square matrix \(n, n\), got shape \(2, 3\)"),
    ],
)
def test_what_has_no_place_on_the_chart(B, message, unchecked):
    with pytest.raises(ValueError, match=message):
        inverse_transportation(B)


def test_a_zero_in_what_remains():
    B = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [0.25, 0.25, 0.5]])
    with pytest.raises(ValueError, match=r"B\[0, 1\] = 0\.5 lies at the rim of what is possible"):
        inverse_transportation(B)


@pytest.mark.parametrize("g", [2, 3, 5])
def test_a_number_of_generators_that_no_order_has(g, unchecked):
    with pytest.raises(ValueError, match=r"\(d − 1\)², got shape"):
        transportation(torch.zeros(g))


def one_sided(k, step):
    """Change of B_11 at a kink, where r = c_1, by one generator in one direction."""
    theta = torch.tensor([0.3, -0.7, -0.7, 0.2], dtype=torch.float64)
    moved = theta.clone()
    moved[k] += step
    return ((transportation(moved) - transportation(theta))[1, 1] / step).item()


def test_derivatives_at_a_kink_are_those_of_the_row():
    """θ_01 = θ_10 makes c_1 = r; more of θ_10 leaves less of the row, of θ_01 of the column."""
    theta = torch.tensor([0.3, -0.7, -0.7, 0.2], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(transportation(theta)[1, 1], theta)
    by_column, by_row = 1, 2
    assert slope[by_row].item() == pytest.approx(one_sided(by_row, 1e-7), rel=1e-5)
    assert slope[by_column].item() == pytest.approx(one_sided(by_column, -1e-7), rel=1e-5)
    for k, step in ((by_row, -1e-7), (by_column, 1e-7)):  # the other side is another number
        assert abs(slope[k].item() - one_sided(k, step)) > 0.01


def test_compiled_code_takes_the_same_side():
    pytest.importorskip("numba")
    from gomhc.fused.ops import mix_backward

    theta = torch.tensor([[0.3, -0.7, -0.7, 0.2]]).requires_grad_()
    slope = torch.zeros(1, 3, 3)
    slope[0, 1, 1] = 1
    (expected,) = torch.autograd.grad(transportation(theta.double()), theta, slope.double())
    compiled = mix_backward(slope, theta.detach(), list(Stage(TRANSPORT, 3)))
    torch.testing.assert_close(compiled, expected)


def test_other_names_of_the_streams_are_another_chart(generator):
    """A matrix and the same with two streams renamed: not the same θ in another order."""
    B = sample_uniform(3, 1, generator=generator)[0].double()
    P = torch.eye(3, dtype=torch.float64)[[1, 0, 2]]
    one, other = inverse_transportation(B), inverse_transportation(P @ B @ P.mT)
    assert (one.sort().values - other.sort().values).abs().max() > 1e-3


# Rotations, the other rival


@pytest.mark.parametrize("d", [2, 3, 4, 7])
def test_rotations_are_cayley_of_numpy(d, generator):
    mixer = make_mixer("orthogonal", d)
    theta = torch.randn(mixer.num_parameters, generator=generator, dtype=torch.float64)
    A = np.zeros((d, d))
    A[np.triu_indices(d, 1)] = theta.numpy()
    A -= A.T
    expected = (np.eye(d) - A) @ np.linalg.inv(np.eye(d) + A)
    Q = mixer(theta)
    np.testing.assert_allclose(Q, expected, atol=1e-12)
    assert np.linalg.det(Q) == pytest.approx(1)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e2, 1e4])
@pytest.mark.parametrize("d", [2, 3, 5, 16])
def test_rotations_keep_lengths(d, scale, dtype, rounding, generator):
    mixer = make_mixer("orthogonal", d)
    assert mixer.isometric
    assert not mixer.exact
    theta = scale * (2 * torch.rand(300, mixer.num_parameters, generator=generator) - 1)
    Q = mixer(theta.to(dtype)).double()
    assert (Q @ Q.mT - torch.eye(d)).abs().max() < rounding


def test_rotations_start_at_the_identity_and_move():
    """dQ = −2 dA: so no dead start, as a vertex of the polytope has it."""
    mixer = make_mixer("orthogonal", 4)
    theta = mixer.initial_theta().double().requires_grad_()
    Q = mixer(theta)
    assert torch.equal(Q, torch.eye(4, dtype=torch.float64))
    (slope,) = torch.autograd.grad(Q[0, 1] - Q[1, 0], theta)
    assert slope.tolist() == [-4, 0, 0, 0, 0, 0]


def test_products_of_isometries_are_isometries():
    assert make_mixer("identity", 3).isometric
    assert not make_mixer("transport", 3).isometric
    assert not make_mixer("kron-go", 4).isometric


@pytest.mark.parametrize("name", ["orthogonal", "transport"])
def test_a_single_stream_has_no_generator(name):
    mixer = make_mixer(name, 1)
    assert mixer.num_parameters == 0
    assert torch.equal(mixer(torch.zeros(300, 0)), torch.ones(300, 1, 1))
