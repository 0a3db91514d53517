"""What is provable of the construction, fact by fact, as chapters 1 to 3 derive it."""

import itertools
import math

import numpy as np
import pytest
import torch

import gomhc
from gomhc import block_frobenius, cayley, make_mixer, skew_symmetric

EYE = torch.eye(3, dtype=torch.float64)
CYCLE = EYE.roll(1, 1)


def random_theta(mixer, *batch, generator):
    return torch.randn(*batch, mixer.num_parameters, generator=generator, dtype=torch.float64)


def test_1_products_stay_doubly_stochastic(generator):
    mixer = make_mixer("go-mhc", 4, s=2)
    C = gomhc.composites(mixer(random_theta(mixer, 300, generator=generator)))
    assert gomhc.marginal_error(C).max() < 1e-12
    gain = gomhc.composite_gain(C)
    assert (gain.forward - 1).abs().max() < 1e-12
    assert (gain.backward - 1).abs().max() < 1e-12


def test_2_the_closed_form_derivative(generator):
    """dQ = −½ (I + Q) dA (I + Q) against a central difference."""
    A, dA = (skew_symmetric(torch.randn(15, generator=generator).double()) for _ in range(2))
    Q, h = cayley(A), 1e-5
    difference = (cayley(A + h * dA) - cayley(A - h * dA)) / (2 * h)
    eye = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(-0.5 * (eye + Q) @ dA @ (eye + Q), difference, atol=1e-8, rtol=0)


@pytest.mark.parametrize("d", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("s", [1, 2, 3])
def test_3_the_rank_of_the_derivative(d, s, generator):
    mixer = make_mixer("go-mhc", d, s=s)
    jacobian = torch.func.jacrev(mixer)(random_theta(mixer, generator=generator)).flatten(0, 1)
    expected = d * (d - 1) // 2 if s == 1 else (d - 1) ** 2
    assert torch.linalg.matrix_rank(jacobian, rtol=1e-9) == expected


@pytest.mark.parametrize(("d", "s", "k"), [(3, 1, 2), (3, 2, 2), (2, 1, 3), (4, 2, 3)])
def test_4_level_s_lies_inside_level_ks(d, s, k, generator):
    Q = cayley(torch.randn(d * s, d * s, generator=generator, dtype=torch.float64))
    lifted = torch.kron(Q, torch.eye(k, dtype=torch.float64))
    torch.testing.assert_close(block_frobenius(lifted, k * s), block_frobenius(Q, s))


def test_4_neither_of_the_levels_2_and_3_contains_the_other(generator):
    """On the edge of a 3-cycle, 1/2 is in level 2 and 4 alone, and 1/3 in level 3 but not in 2."""
    midpoint = (EYE + CYCLE) / 2
    distance = [
        gomhc.distance_to_family(make_mixer("go-mhc", 3, s=s), midpoint, 16, generator).item()
        for s in (1, 2, 3, 4)
    ]
    assert distance[1] < 1e-6 and distance[3] < 1e-6
    assert distance[0] > 0.2 and distance[2] > 0.05
    third = (2 * EYE + CYCLE) / 3
    assert gomhc.distance_to_family(make_mixer("go-mhc", 3, s=2), third, 16, generator) > 0.05
    assert gomhc.distance_to_family(make_mixer("go-mhc", 3, s=3), third, 16, generator) < 1e-6


def test_5_the_lattice_on_a_three_cycle_edge(generator):
    t = torch.arange(13, dtype=torch.float64) / 12
    edge = (1 - t)[:, None, None] * EYE + t[:, None, None] * CYCLE
    for s in (1, 2, 3):
        distance = gomhc.distance_to_family(make_mixer("go-mhc", 3, s=s), edge, 16, generator)
        on_lattice = torch.arange(13) * s % 12 == 0
        assert distance[on_lattice].max() < 1e-6
        assert distance[~on_lattice].min() > 1e-2


def test_5_transposition_edges_are_reached_whole():
    """By the plane rotation with cos² = 1 − t, at s = 1."""
    swap = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    mixer = make_mixer("go-mhc", 3, s=1)
    for t in torch.linspace(0, 1, 7, dtype=torch.float64):
        angle = torch.atan2(t.sqrt(), (1 - t).sqrt())
        theta = torch.stack([torch.tan(angle / 2), 0 * t, 0 * t])
        torch.testing.assert_close(mixer(theta), (1 - t) * EYE + t * swap)


def nearby_signature(Q):
    """A signature D with the Cayley generator of DQ inside [−1, 1], by trying all of them."""
    n = len(Q)
    eye = torch.eye(n, dtype=Q.dtype)
    for signs in itertools.product([1.0, -1.0], repeat=n):
        DQ = torch.tensor(signs, dtype=Q.dtype)[:, None] * Q
        if abs(torch.linalg.det(eye + DQ)) > 1e-9:
            A = torch.linalg.solve(eye + DQ, eye - DQ)
            if A.abs().max() <= 1 + 1e-9:
                return A
    return None


def test_6_signatures_make_the_finite_chart_complete(generator):
    gaussian = torch.randn(20, 5, 5, generator=generator, dtype=torch.float64)
    for Q in torch.linalg.qr(gaussian)[0]:
        A = nearby_signature(Q)
        assert A is not None
        torch.testing.assert_close(block_frobenius(cayley(A), 1), block_frobenius(Q, 1))


@pytest.mark.parametrize("n", [1, 2, 3, 6, 12, 30])
def test_6_the_bounded_generator_of_any_orthogonal_matrix(n, generator):
    gaussian = torch.randn(5, n, n, generator=generator, dtype=torch.float64)
    shuffled = torch.eye(n, dtype=torch.float64)[torch.randperm(n, generator=generator)]
    for Q in [*torch.linalg.qr(gaussian)[0], -torch.eye(n, dtype=torch.float64), -shuffled]:
        theta = gomhc.inverse_cayley(Q)
        assert theta.abs().amax() <= 1 if n > 1 else theta.numel() == 0
        again = cayley(skew_symmetric(theta))
        torch.testing.assert_close(again.abs(), Q.abs(), atol=1e-10, rtol=0)
        # Row signs and nothing else.
        torch.testing.assert_close((again @ Q.T).abs(), torch.eye(n).double(), atol=1e-10, rtol=0)


def test_6_the_bounded_generator_of_a_float32_matrix(generator):
    """Orthogonal to 1e-7 only, with entries of A at the bound: the search still has to end."""
    for n in (2, 4, 7):
        for _ in range(20):
            signs = torch.randint(-1, 2, (n * (n - 1) // 2,), generator=generator).float()
            A, eye = skew_symmetric(signs), torch.eye(n)
            Q = torch.linalg.solve(eye + A, eye - A)
            again = cayley(skew_symmetric(gomhc.inverse_cayley(Q)))
            torch.testing.assert_close(again.abs(), Q.abs(), atol=1e-5, rtol=0)


def test_6_flipping_two_signs_multiplies_the_determinant_by_the_entry_squared(generator):
    Q = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    eye = torch.eye(6, dtype=torch.float64)
    flipped = torch.ones(6, dtype=torch.float64)
    flipped[[1, 4]] = -1
    if torch.linalg.det(Q) < 0:
        Q[0] *= -1
    A = torch.linalg.solve(eye + Q, eye - Q)
    ratio = torch.linalg.det(eye + flipped[:, None] * Q) / torch.linalg.det(eye + Q)
    torch.testing.assert_close(ratio, A[1, 4].square())


@pytest.mark.parametrize("d", [2, 3, 4])
def test_6_every_permutation_matrix_has_a_finite_theta(d):
    for P in gomhc.permutation_matrices(d).double():
        A = nearby_signature(P)
        torch.testing.assert_close(block_frobenius(cayley(A), 1), P)


def test_7_the_barycentre(generator):
    def distance(d, s):
        J = torch.full((d, d), 1 / d, dtype=torch.float64)
        return gomhc.distance_to_family(make_mixer("go-mhc", d, s=s), J, 16, generator).item()

    assert distance(4, 1) < 1e-6  # a real Hadamard matrix
    assert distance(3, 1) > 0.05 and distance(5, 1) > 0.05
    assert max(distance(d, 2) for d in (3, 4, 5)) < 1e-6


@pytest.mark.parametrize("d", [2, 3, 4, 7])
def test_7_the_barycentre_at_s_2_by_the_fourier_matrix(d):
    """The unitary Fourier matrix as 2×2 rotation blocks is orthogonal and gives J/d for any d."""
    k = torch.arange(d, dtype=torch.float64)
    angle = 2 * math.pi * k[:, None] * k / d
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1)
    blocks = rotation.unflatten(-1, (2, 2)) / math.sqrt(d)
    Q = blocks.permute(0, 2, 1, 3).reshape(2 * d, 2 * d)
    torch.testing.assert_close(Q @ Q.T, torch.eye(2 * d, dtype=torch.float64))
    torch.testing.assert_close(block_frobenius(Q, 2), torch.full((d, d), 1 / d).double())


@pytest.mark.parametrize("s", [1, 2, 3])
def test_8_the_dead_start(s):
    mixer = make_mixer("go-mhc", 4, s=s)
    theta = torch.zeros(mixer.num_parameters, requires_grad=True)
    B = mixer(theta)
    assert torch.equal(B, torch.eye(4))
    (gradient,) = torch.autograd.grad((torch.randn(4, 4) * B).sum(), theta)
    assert gradient.eq(0).all()


def test_8_every_vertex_is_dead():
    mixer = make_mixer("go-mhc", 3, s=1)
    for P in gomhc.permutation_matrices(3).double():
        theta = nearby_signature(P)[*torch.triu_indices(3, 3, 1)]
        torch.testing.assert_close(mixer(theta), P)
        assert torch.func.jacrev(mixer)(theta).abs().max() < 1e-12


def test_8_the_mass_of_the_live_start(generator):
    for d, s in ((2, 1), (4, 2), (6, 3)):
        mixer = make_mixer("go-mhc", d, s=s)
        sigma = math.sqrt(0.01 / (4 * s * (d - 1)))
        off = 1 - mixer(sigma * random_theta(mixer, 4000, generator=generator)).diagonal(
            dim1=-2, dim2=-1
        ).mean(-1)
        assert abs(off.mean() - 0.01) < 5 * off.std() / math.sqrt(4000) + 2e-4


@pytest.mark.parametrize(("d", "s"), [(3, 1), (3, 2), (4, 3)])
def test_9_haar_moments(d, s, generator):
    """Monte Carlo against the closed form; a false alarm has probability below 1e-5 each."""
    count = 20_000
    B = gomhc.sample_haar(d, s, count, generator)[:, 0, 0]
    assert abs(B.mean() - 1 / d) < 4.5 * B.std() / math.sqrt(count)
    spread = (B - B.mean()).square()
    assert abs(spread.mean() - gomhc.haar_variance(d, s)) < 4.5 * spread.std() / math.sqrt(count)


def test_9_haar_variance_at_sizes_known_by_hand():
    """At d = 2, s = 1 an entry is cos² of a uniform angle, with variance 1/8."""
    assert gomhc.haar_variance(2, 1) == pytest.approx(1 / 8)
    assert gomhc.haar_variance(1, 3) == 0
    with pytest.raises(ValueError, match="s >= 1, got 0"):
        gomhc.haar_variance(3, 0)


def in_perfect_mirsky(z, d, slack=1e-9):
    """Whether z lies in the convex hull of the k-th roots of unity for some k <= d."""
    if abs(z.imag) <= slack and abs(z.real) <= 1 + slack:
        return True
    for k in range(3, d + 1):
        corners = np.exp(2j * np.pi * np.arange(k) / k)
        edges = np.roll(corners, -1) - corners
        if ((edges.conj() * (z - corners)).imag >= -slack).all():
            return True
    return False


@pytest.mark.parametrize("d", [3, 4])
def test_10_perfect_mirsky_holds_up_to_four(d, generator):
    corners = gomhc.permutation_matrices(d).double()
    weights = torch.rand(500, 3, generator=generator, dtype=torch.float64)
    picks = torch.randint(len(corners), (500, 3), generator=generator)
    faces = torch.einsum("bk,bkij->bij", weights / weights.sum(-1, keepdim=True), corners[picks])
    for B in (faces, gomhc.sample_uniform(d, 500, generator)):
        assert all(in_perfect_mirsky(z, d) for z in torch.linalg.eigvals(B).flatten().tolist())


def test_10_perfect_mirsky_fails_at_five():
    """A midpoint of two permutation matrices of order 5 has an eigenvalue outside."""
    B = (np.eye(5)[[1, 2, 3, 0, 4]] + np.eye(5)[[1, 2, 0, 4, 3]]) / 2
    assert not all(in_perfect_mirsky(z, 5) for z in np.linalg.eigvals(B))


def test_10_products_of_two_by_two_have_a_real_spectrum(generator):
    mixer = make_mixer("kromhc", 8)
    eigenvalues = torch.linalg.eigvals(mixer(random_theta(mixer, 50, generator=generator)))
    assert eigenvalues.imag.abs().max() < 1e-7
    three_cycle = torch.block_diag(CYCLE, torch.ones(1, 1, dtype=torch.float64))
    assert gomhc.distance_to_family(make_mixer("kromhc", 4), three_cycle, 8, generator) > 1


def test_11_a_plain_solve_loses_what_newton_schulz_keeps(generator):
    eye = torch.eye(15)
    for scale, at_least in ((1e2, 2e-6), (1e4, 2e-4)):
        theta = scale * (2 * torch.rand(200, 105, generator=generator) - 1)
        A = skew_symmetric(theta)
        plain = block_frobenius(torch.linalg.solve(eye + A, eye - A), 3)
        assert gomhc.marginal_error(plain).max() > at_least
        assert gomhc.marginal_error(block_frobenius(cayley(A), 3)).max() < 1e-6
