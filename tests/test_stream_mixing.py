"""The synthetic task: problems as stated, the exact floor, and fits that any path agrees on."""

import itertools
import math
import threading

import cvxpy as cp
import joblib
import numpy as np
import pytest
import torch

from gomhc import make_mixer
from gomhc.birkhoff import marginal_error
from gomhc.companion.released import released_problem, released_settings, released_start
from gomhc.mixers import Kronecker, Mixer
from gomhc.stream_mixing import FAMILIES, Problem, corrected_problem, fit, fits, steps_to, sweep
from gomhc.stream_mixing.fits import CHUNK

FUSED = [
    ("go-mhc", 4, {"s": 1}),
    ("go-mhc", 3, {"s": 2}),
    ("go-mhc", 2, {"s": 3}),
    ("mhc", 3, {}),
    ("mhc", 4, {"iterations": 3}),
    ("mhc-lite", 4, {}),
    ("kromhc", 8, {}),
    ("kromhc", 6, {"factors": (3, 2)}),
    ("kron-go", 6, {"s": 2}),
    ("kron-go", 8, {"factors": (2, 2, 2), "s": 1}),
    ("hc", 3, {}),
    ("orthogonal", 4, {}),
    ("transport", 4, {}),
]
REFERENCE_ONLY = [("identity", 3, {})]


def name(case):
    return " ".join([case[0], str(case[1]), *(f"{k}={v}" for k, v in case[2].items())])


def small(d, **changed):
    return corrected_problem(d, **({"problems": 3, "samples": 20} | changed))


# Problems.


def test_released_problem_is_as_the_release_states_it():
    problem = released_problem(4)
    assert problem.X.shape == problem.Y.shape == (64, 100, 4)
    # Rows first, columns last: the columns are exact, the rows nearly.
    torch.testing.assert_close(problem.targets.sum(-2), torch.ones(64, 4).double())
    assert marginal_error(problem.targets).max() < 1e-3
    assert problem.X.min() >= 0 and 3.9 < problem.X.max() <= 4
    noise = problem.Y - problem.X @ problem.targets.mT
    assert noise.min() > -1e-12 and noise.max() < 0.1 + 1e-12
    assert abs(noise.mean() - 0.05) < 4 * 0.1 / math.sqrt(12 * noise.numel())


def test_released_targets_are_sinkhorn_of_uniform_numbers():
    T = released_problem(3, problems=400, samples=1).targets
    raw = np.random.default_rng(0).random((4000, 3, 3))
    for _ in range(20):
        raw /= raw.sum(-1, keepdims=True)
        raw /= raw.sum(-2, keepdims=True)
    spread, ours = raw.std(0).mean(), T.std(0).mean().item()
    assert ours == pytest.approx(spread, rel=0.1)


def test_every_draw_shares_the_targets_and_nothing_else():
    one, two = released_problem(3, draw=0), released_problem(3, draw=1)
    assert torch.equal(one.targets, two.targets)
    assert not torch.equal(one.X, two.X)
    again = released_problem(3, draw=0)
    assert torch.equal(one.X, again.X) and torch.equal(one.Y, again.Y)
    assert not torch.equal(one.targets, released_problem(3, seed=1).targets)


def test_sparsity_scales_rows_unless_it_masks():
    plain = released_problem(5, scale_inputs=False)
    scaled = released_problem(5, sparsity=0.5)
    ratio = scaled.X / plain.X
    kept = ratio[..., :1]
    torch.testing.assert_close(ratio, kept.expand_as(ratio))
    assert {round(k) for k in kept.flatten().tolist()} <= set(range(6))
    masked = released_problem(5, sparsity=0.5, scale_inputs=False, mask_entries=True)
    assert 0.4 < (masked.X == 0).double().mean() < 0.6
    present = masked.X != 0
    assert torch.equal(masked.X[present], plain.X[present])


def test_each_defect_of_the_noise_and_the_targets_can_be_taken_away():
    problem = released_problem(4, centre_noise=True)
    noise = problem.Y - problem.X @ problem.targets.mT
    assert abs(noise.mean()) < 4 * 0.1 / math.sqrt(12 * noise.numel())
    other = torch.eye(4).expand(64, 4, 4)
    assert torch.equal(released_problem(4, targets=other).targets, other.double())


@pytest.mark.parametrize("family", FAMILIES)
def test_corrected_problem_has_targets_of_its_family(family):
    problem = corrected_problem(4, family, problems=200, samples=50)
    T = problem.targets
    assert marginal_error(T).max() < 1e-12 and T.min() >= 0
    assert abs(problem.X.mean()) < 0.02 and abs(problem.X.std() - 1) < 0.02
    noise = problem.Y - problem.X @ T.mT
    assert abs(noise.mean()) < 0.002 and abs(noise.std() - 0.1) < 0.002
    support = (T > 1e-9).sum(-1).amax(-1)
    match family:
        case "vertices":
            assert (T.amax(-1) == 1).all()
            assert len({tuple(P.argmax(-1).tolist()) for P in T}) > 20  # of 24
        case "edges":
            assert (support <= 2).all()
            for B in T[:50]:  # on an edge: what moves is one cycle
                moving = B.amax(-1) < 1
                step = (B > 0).double() @ torch.ones(4).double()
                assert (step[moving] == 2).all()
                graph = ((B > 0).double() @ (B > 0).double().mT)[moving][:, moving]
                reach = torch.linalg.matrix_power(graph, 4)
                assert (reach > 0).all()  # connected: one cycle, not two
        case "barycentre":
            assert (T - 0.25).norm(dim=(-2, -1)).max() < 0.25 * math.sqrt(3) + 1e-9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: released_problem(0), "d >= 1, got 0"),
        (lambda: released_problem(3, sparsity=1.0), "sparsity in"),
        (lambda: corrected_problem(3, noise=-1.0), "noise >= 0"),
        (lambda: corrected_problem(3, "corners"), "got 'corners'"),
        (lambda: corrected_problem(1, "edges"), "d = 1"),
        (lambda: fit(small(3), make_mixer("mhc", 4)), "expected a mixer with d = 3, got d = 4"),
        (lambda: fit(small(3), make_mixer("mhc", 3), steps=0), "steps >= 1"),
        (lambda: fit(small(3), make_mixer("mhc", 3), learning_rate=-1.0), "learning rates > 0"),
        (lambda: released_problem(3, sparsity=0.5, scale_inputs=False), "got sparsity=0.5 alone"),
        (lambda: released_problem(3, mask_entries=True), "sparsity > 0 for mask_entries"),
        (
            lambda: fit(
                small(3), make_mixer("mhc", 3), start=released_start, off_diagonal_mass=2.0
            ),
            "got both: off_diagonal_mass=2.0",
        ),
        (
            lambda: fit(small(3), make_mixer("mhc", 3), start=lambda *_: torch.zeros(2, 9)),
            r"starts of shape \(3, 9\), got \(2, 9\)",
        ),
        (lambda: fit(small(3), make_mixer("mhc", 3), backend="fast"), "got 'fast'"),
        (lambda: fit(small(3), make_mixer("identity", 3), backend="fused"), "no code for Identity"),
        (
            lambda: Problem(
                torch.eye(3)[None], torch.full((1, 2, 3), math.nan), torch.ones(1, 2, 3), 0.1
            ),
            "expected finite X, got 6 entries",
        ),
        (lambda: corrected_problem(3, noise=math.inf), "a finite noise >= 0"),
        (lambda: corrected_problem(3, seed=-1), r"expected a seed \(and draw\) >= 0, got -1"),
        (
            lambda: released_problem(3, problems=2, targets=torch.ones(2, 4, 4)),
            r"expected targets \(2, 3, 3\), got shape \(2, 4, 4\)",
        ),
        (lambda: released_settings(make_mixer("mhc", 3), 0), "problems >= 1, got 0"),
        (lambda: fit(small(3), make_mixer("mhc", 3), math.inf), "finite learning rates"),
        (lambda: list(sweep(small(3), {"a": make_mixer("mhc", 3)}, [])), "finite learning rates"),
        (
            lambda: list(sweep(small(3), {"a": make_mixer("mhc", 3)}, [0.1], seeds=[])),
            "one seed or more",
        ),
        (
            lambda: list(sweep(small(3), {"a": make_mixer("mhc", 3)}, {"b": [0.1]})),
            "learning rates for a; got b",
        ),
    ],
)
def test_bad_input_is_named(make, message, unchecked):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("mixers", "rates", "message"),
    [
        ([make_mixer("mhc", 3)], [0.1], "mixers as label -> mixer, got list"),
        ({"a": make_mixer("mhc", 3)}, 0.1, "several learning rates, got 0.1"),
    ],
)
def test_a_sweep_is_of_several(mixers, rates, message, unchecked):
    with pytest.raises(TypeError, match=message):
        sweep(small(3), mixers, rates)


def test_a_problem_checks_its_parts(unchecked):
    T, X = torch.eye(3).expand(2, 3, 3), torch.zeros(2, 5, 3)
    with pytest.raises(ValueError, match=r"expected targets \(problems, d, d\)"):
        Problem(T, X, torch.zeros(2, 4, 3), 0.1)
    with pytest.raises(ValueError, match="expected finite"):
        Problem(T, X, X * math.nan, 0.1)


# The loss and its floor.


@pytest.mark.parametrize("make", [released_problem, corrected_problem])
def test_sufficient_statistics_give_the_loss_of_the_samples(make, generator):
    problem = make(4, problems=5, samples=30)
    B = torch.randn(5, 4, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(problem.loss(B), problem.sample_loss(B), rtol=1e-12, atol=0)
    plain = ((problem.Y - torch.einsum("pij,pnj->pni", B, problem.X)) ** 2).mean((1, 2))
    torch.testing.assert_close(problem.loss(B), plain, rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", FUSED, ids=name)
def test_gradients_are_those_of_the_plain_loss_on_the_samples(case, generator):
    mixer = make_mixer(case[0], case[1], **case[2])
    problem = small(case[1])
    theta = torch.randn(3, mixer.num_parameters, generator=generator, dtype=torch.float64)
    theta.requires_grad_()
    residual = problem.Y - torch.einsum("pij,pnj->pni", mixer(theta), problem.X)
    (plain,) = torch.autograd.grad(residual.square().mean((1, 2)).sum(), theta)
    (ours,) = torch.autograd.grad(problem.loss(mixer(theta)).sum(), theta)
    torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("d", [2, 4])
def test_floor_is_the_minimum_of_another_solver(d, family):
    problem = small(d, family=family, noise=0.3)
    floor = problem.floor()
    assert (floor.gap >= -1e-14).all() and (floor.gap < 1e-9).all()
    assert marginal_error(floor.matrix).max() < 1e-12 and floor.matrix.min() >= 0
    torch.testing.assert_close(floor.value, problem.sample_loss(floor.matrix), rtol=1e-10, atol=0)
    for k in range(len(problem)):
        B = cp.Variable((d, d), nonneg=True)
        error = cp.sum_squares(problem.Y[k].numpy() - problem.X[k].numpy() @ B.T)
        sums = [cp.sum(B, axis=0) == 1, cp.sum(B, axis=1) == 1]
        task = cp.Problem(cp.Minimize(error / problem.Y[k].numel()), sums)
        task.solve(solver=cp.OSQP, eps_abs=1e-9, eps_rel=1e-9, max_iter=200_000)
        assert floor.value[k].item() == pytest.approx(task.value, rel=1e-5)


def test_no_doubly_stochastic_matrix_is_below_the_certified_bound(generator):
    problem = small(4, noise=1.0)
    floor = problem.floor()
    for family in FAMILIES:
        for seed in range(20):
            other = corrected_problem(4, family, problems=3, samples=1, seed=seed).targets
            near = 0.999 * floor.matrix + 0.001 * other
            assert (problem.loss(near) >= floor.value - floor.gap).all()


def test_floor_of_noiseless_samples_is_zero_at_the_target():
    problem = small(4, noise=0.0)
    floor = problem.floor()
    assert floor.value.abs().max() < 1e-12
    torch.testing.assert_close(floor.matrix, problem.targets, atol=1e-5, rtol=0)


# Fits.


@pytest.mark.parametrize("case", FUSED, ids=name)
@pytest.mark.parametrize("start", [None, released_start])
def test_compiled_fit_takes_the_steps_of_autograd(case, start):
    problem = small(case[1])
    mixer = make_mixer(case[0], case[1], **case[2])
    fused, reference = (
        fit(problem, mixer, 0.05, 40, seed=1, start=start, epsilon=1e-6, backend=backend)
        for backend in ("fused", "reference")
    )
    for part, other in zip(fused, reference, strict=True):
        torch.testing.assert_close(part, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("of_mixer", "of_fit", "path"),
    [
        ("auto", "auto", "fused"),
        ("reference", "auto", "reference"),
        ("fused", "auto", "fused"),
        ("fused", "reference", "reference"),
        ("reference", "fused", "fused"),
    ],
)
def test_a_fit_asks_its_mixer(of_mixer, of_fit, path, monkeypatch):
    taken = []

    def noted(name):
        run = getattr(fits, f"_descend_{name}")
        return lambda *arguments, **options: taken.append(name) or run(*arguments, **options)

    for name in ("fused", "reference"):
        monkeypatch.setattr(fits, f"_descend_{name}", noted(name))
    mixer = make_mixer("mhc", 3, backend=of_mixer)
    result = fit(small(3), mixer, 0.05, 5, backend=of_fit)
    assert taken == [path]
    assert mixer.backend == of_mixer
    torch.testing.assert_close(result.loss, fit(small(3), make_mixer("mhc", 3), 0.05, 5).loss)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_a_fit_takes_gradients_wherever_it_is_called(mode, backend):
    mixer = make_mixer("mhc", 3)
    expected = fit(small(3), mixer, 0.05, 5, backend=backend)
    with mode():
        result = fit(small(3), mixer, 0.05, 5, backend=backend)
    for part, other in zip(result, expected, strict=True):
        torch.testing.assert_close(part, other)


def test_a_fit_of_a_mixer_that_insists_where_there_is_no_code():
    mixer = make_mixer("identity", 3)
    mixer.backend = "fused"
    with pytest.raises(ValueError, match="no code for Identity"):
        fit(small(3), mixer)


FACTORS = [
    ("hc", 2, {}),
    ("mhc", 2, {}),
    ("mhc", 3, {"iterations": 3}),
    ("mhc-lite", 3, {}),
    ("go-mhc", 2, {"s": 1}),
    ("go-mhc", 2, {"s": 3}),
]


@pytest.mark.parametrize(
    "cases",
    [*itertools.product(FACTORS, repeat=2), FACTORS[:3]],
    ids=lambda c: " x ".join(map(name, c)),
)
def test_compiled_gradients_of_a_product_are_those_of_autograd(cases, generator):
    """Every family beside every other, and beside itself."""
    from gomhc import kernels

    mixer = Kronecker([make_mixer(name, d, **options) for name, d, options in cases])
    problem = small(mixer.d)
    theta = torch.randn(3, mixer.num_parameters, generator=generator, dtype=torch.float64)
    theta.requires_grad_()
    expected = problem.loss(mixer(theta))
    (slopes,) = torch.autograd.grad(expected.sum(), theta)

    # Adam's first step of length 1 with an epsilon of 1 is g / (|g| + 1).
    statistics = [part.numpy() for part in (theta.detach(), problem.best, problem.gram)]
    loss, _, moved, _ = kernels.descend(
        mixer.stages(), *statistics, problem.base.numpy(), np.ones(3), steps=1, epsilon=1.0
    )
    torch.testing.assert_close(torch.from_numpy(loss)[:, 0], expected.detach())
    step = theta.detach() - torch.from_numpy(moved)
    torch.testing.assert_close(step / (1 - step.abs()), slopes, rtol=1e-8, atol=1e-10)


def test_a_compiled_fit_of_more_streams_than_the_fused_mixers_take():
    # ds = 74
    problem, mixer = released_problem(37, problems=1, samples=5), make_mixer("go-mhc", 37)
    fused, reference = (
        fit(problem, mixer, 1e-3, 3, start=released_start, backend=backend)
        for backend in ("fused", "reference")
    )
    torch.testing.assert_close(fused.theta, reference.theta, rtol=1e-8, atol=1e-9)


def test_fits_run_on_all_cores_unless_configured_otherwise(monkeypatch):
    def threads(run, expected):
        """How many take the jobs; each waits for the others, so that none takes another's."""
        workers, complete = set(), threading.Event()

        def noted(*arguments, **options):
            workers.add(threading.get_ident())
            if len(workers) >= expected:
                complete.set()
            assert complete.wait(timeout=300), f"expected {expected} threads, got {len(workers)}"
            return descend(*arguments, **options)

        descend = fits._descend_fused
        with monkeypatch.context() as patch:
            patch.setattr(fits, "_descend_fused", noted)
            run()
        return len(workers)

    problem, mixer = released_problem(2, problems=64, samples=5), make_mixer("go-mhc", 2)

    def plain():
        fit(problem, mixer, steps=2)

    def configured(jobs):
        with joblib.parallel_config("threading", n_jobs=jobs):
            plain()

    cores = min(joblib.cpu_count(), 8)
    assert threads(plain, cores) == cores
    assert threads(lambda: configured(1), 1) == 1
    assert threads(lambda: configured(3), 3) == 3


@pytest.mark.parametrize("case", [FUSED[1], *REFERENCE_ONLY], ids=name)
def test_fit_reports_what_it_did(case):
    problem = small(case[1])
    mixer = make_mixer(case[0], case[1], **case[2])
    result = fit(problem, mixer, 0.01, 30, seed=3)
    torch.testing.assert_close(result.matrix, mixer(result.theta))
    expected = (result.matrix - problem.targets).square().sum((1, 2)).sqrt()
    torch.testing.assert_close(result.distance, expected)
    longer = fit(problem, mixer, 0.01, 31, seed=3)
    torch.testing.assert_close(longer.loss[:, :30], result.loss)
    torch.testing.assert_close(longer.loss[:, 30], problem.sample_loss(result.matrix))


def test_problems_do_not_see_each_other():
    problem = small(3, problems=CHUNK + 3)
    mixer = make_mixer("mhc", 3)
    whole = fit(problem, mixer, 0.05, 20)
    for part in (slice(0, 2), slice(CHUNK, CHUNK + 2)):
        alone = Problem(problem.targets[part], problem.X[part], problem.Y[part], problem.noise)
        torch.testing.assert_close(
            fit(alone, mixer, 0.05, 20).loss, whole.loss[part], rtol=1e-12, atol=0
        )


def test_a_reachable_target_is_found():
    problem = small(3, noise=0.0)
    result = fit(problem, make_mixer("go-mhc", 3, s=2), 0.03, 4000, seed=2)
    assert (result.loss[:, -1] < 1e-10).all()
    assert (result.distance < 1e-4).all()


def test_released_go_mhc_moves_twice_as_fast_as_its_learning_rate():
    """Adam on R with A = R − Rᵀ at lr 1e-3 is Adam on θ at 2e-3."""
    problem = small(3)
    mixer = make_mixer("go-mhc", 3, s=2)
    settings = released_settings(mixer, len(problem))
    ours = fit(problem, mixer, **(settings | {"steps": 50}))

    n = 6
    rows, columns = torch.triu_indices(n, n, 1)
    start = fit(problem, mixer, 1e-12, 1, start=released_start).theta
    R = torch.zeros(3, n, n, dtype=torch.float64)
    R[:, rows, columns] = start / 2
    R[:, columns, rows] = -start / 2
    R.requires_grad_()
    adam = torch.optim.Adam([R], lr=1e-3, eps=1e-6)
    for step in range(50):
        A = R - R.mT
        eye = torch.eye(n, dtype=R.dtype)
        Q = torch.linalg.solve(eye + A, eye - A)
        B = Q.square().reshape(3, 3, 2, 3, 2).sum((2, 4)) / 2
        losses = problem.sample_loss(B)
        torch.testing.assert_close(losses.detach(), ours.loss[:, step], rtol=1e-6, atol=0)
        adam.zero_grad()
        losses.mean().backward()
        adam.step()


def test_released_starts_have_the_stated_distributions():
    problem = corrected_problem(4, problems=400, samples=5)
    triangular = fit(problem, make_mixer("go-mhc", 4, s=2), 1e-12, 1, start=released_start).theta
    assert triangular.abs().max() < 1 and abs(triangular.var() - 1 / 6) < 0.01
    normal = fit(problem, make_mixer("mhc-lite", 4), 1e-12, 1, start=released_start).theta
    assert abs(normal.mean()) < 0.05 and abs(normal.var() - 1) < 0.05


def test_live_start_is_near_the_identity():
    problem = corrected_problem(4, problems=100, samples=5)
    start = fit(problem, make_mixer("go-mhc", 4), 1e-12, 1, off_diagonal_mass=0.05).matrix
    off = 1 - start.diagonal(dim1=-2, dim2=-1).mean()
    assert off == pytest.approx(0.05, rel=0.15)


def test_a_mixer_of_ones_own_runs_by_the_reference():
    class Average(Mixer):
        exact = True

        def __init__(self):
            super().__init__(d=2, num_parameters=1)

        def mix(self, theta):
            keep = theta.sigmoid()[..., None]
            return keep * torch.eye(2).to(theta) + (1 - keep) * 0.5

        def initial_theta(self, generator=None, off_diagonal_mass=0.01):
            return torch.zeros(1)

    result = fit(small(2), Average(), 0.1, 200)
    assert (result.loss[:, -1] <= result.loss[:, 0]).all()


@pytest.mark.filterwarnings("ignore:.*same start:UserWarning")
def test_sweep_is_the_fits_in_order():
    problem = small(3)
    mixers = {"mhc": make_mixer("mhc", 3), "identity": make_mixer("identity", 3)}
    rates = {"mhc": [0.1, 0.01], "identity": [0.02]}
    runs = list(sweep(problem, mixers, rates, 15, [0, 1], progress=False))
    assert [run for run, _ in runs] == [
        ("mhc", 0.1, 0), ("mhc", 0.1, 1), ("mhc", 0.01, 0), ("mhc", 0.01, 1),
        ("identity", 0.02, 0), ("identity", 0.02, 1),
    ]  # fmt: skip
    for run, result in runs:
        alone = fit(problem, mixers[run.label], run.learning_rate, 15, run.seed)
        assert torch.equal(alone.loss, result.loss)


def test_steps_to_a_level():
    loss = torch.tensor([[3.0, 2.0, 1.0, 2.0], [3.0, 3.0, 3.0, 3.0]])
    assert steps_to(loss, torch.tensor([2.0, 2.0])).tolist() == [1, math.inf]
    assert steps_to(loss[0], 1.0).item() == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*same start:UserWarning")
def test_a_dask_cluster_of_two_processes_gives_the_same_bits():
    from distributed import Client, LocalCluster

    problem = small(3, problems=2 * CHUNK)
    mixers = {
        "go-mhc s=2": make_mixer("go-mhc", 3, s=2),
        "mhc": make_mixer("mhc", 3),
        "identity": make_mixer("identity", 3),  # the reference path
    }

    def run():
        return list(sweep(problem, mixers, [0.05], 30, [0, 1], progress=False))

    def loaded():
        import sys

        return "gomhc.kernels" in sys.modules

    local = run()
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
        joblib.parallel_config("dask"),
    ):
        assert list(client.run(loaded).values()) == [False, False]
        remote = run()
        # Nothing but a job loads the compiled code, so both processes had some.
        assert list(client.run(loaded).values()) == [True, True]
    for (one, ours), (other, theirs) in zip(local, remote, strict=True):
        assert one == other
        for part, same in zip(ours, theirs, strict=True):
            assert torch.equal(part, same)


# Inputs that leave something open.


@pytest.mark.parametrize("samples", [1, 2, 20])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_floor_is_certified_where_the_inputs_are_singular(samples, noise, generator):
    targets = corrected_problem(3, problems=4, samples=1).targets
    X = torch.randn(4, samples, 3, generator=generator, dtype=torch.float64)
    X[..., 2] = X[..., 1]
    Y = X @ targets.mT + noise * torch.randn(X.shape, generator=generator, dtype=X.dtype)
    problem = Problem(targets, X, Y, noise)
    floor = problem.floor()
    assert (floor.gap >= -1e-14).all() and (floor.gap < 1e-8).all()
    for seed in range(20):
        other = corrected_problem(3, problems=4, samples=1, seed=seed).targets
        for share in (0.001, 0.1, 1.0):
            near = (1 - share) * floor.matrix + share * other
            assert (problem.loss(near) >= floor.value - floor.gap - 1e-14).all()


def test_a_problem_of_ones_own_in_float32():
    exact = corrected_problem(3, problems=2, samples=20)
    narrow = Problem(exact.targets.float(), exact.X.float(), exact.Y.float(), 0.1)
    assert narrow.X.dtype == narrow.floor().value.dtype == torch.float64
    torch.testing.assert_close(narrow.floor().value, exact.floor().value, rtol=1e-5, atol=0)
    result = fit(narrow, make_mixer("go-mhc", 3), steps=3, backend="reference")
    assert result.loss.dtype == torch.float64


def test_a_name_is_no_mixer():
    with pytest.raises(TypeError):
        fit(small(3), "go-mhc", steps=1)
    with pytest.raises(TypeError):
        released_settings("go-mhc")


@pytest.mark.parametrize("steps", [math.inf, 3.0, "3"])
def test_steps_are_an_integer(steps, unchecked):
    with pytest.raises(TypeError, match=f"expected steps as an integer, got {steps!r}"):
        fit(small(3), make_mixer("mhc", 3), steps=steps)


def test_a_start_is_a_function(unchecked):
    with pytest.raises(TypeError, match="start as a function.*got 'dead'"):
        fit(small(3), make_mixer("mhc", 3), start="dead")


def test_seeds_that_change_nothing_are_told():
    problem, seeds = small(3), range(3)
    with pytest.warns(UserWarning, match="mhc has the same start for several seeds"):
        runs = sweep(problem, {"mhc": make_mixer("mhc", 3)}, [0.1], 3, seeds, progress=False)
    one, *others = [result.loss for _, result in runs]
    assert all(torch.equal(one, other) for other in others)
    runs = sweep(problem, {"go": make_mixer("go-mhc", 3)}, [0.1], 3, seeds, progress=False)
    one, *others = [result.loss for _, result in runs]
    assert not any(torch.equal(one, other) for other in others)


@pytest.mark.parametrize(
    ("case", "change"),
    [
        (("mhc", 3, {}), lambda theta: 900 * theta),
        (("go-mhc", 3, {}), lambda theta: theta + 3e4 * (torch.arange(15) % 2 == 0)),
    ],
    ids=["mhc", "go-mhc"],
)
def test_a_fit_beyond_the_formulas_of_compiled_code_is_that_of_autograd(case, change, generator):
    """One start of three is where exponentials or elimination without pivoting are not enough."""
    mixer = make_mixer(case[0], case[1], **case[2])
    theta = torch.randn(3, mixer.num_parameters, generator=generator, dtype=torch.float64)
    theta[1] = change(theta[1])

    compiled, reference = (
        fit(small(3), mixer, 0.05, 20, start=lambda *_: theta.clone(), backend=backend)
        for backend in ("fused", "reference")
    )
    for part, other in zip(compiled, reference, strict=True):
        torch.testing.assert_close(part, other, rtol=1e-8, atol=1e-9)


def test_a_mixer_that_was_changed_is_not_fitted():
    mixer = make_mixer("go-mhc", 3, s=3)
    mixer.s = 2
    with pytest.raises(ValueError, match="was the mixer changed|mix to give"):
        fit(small(3), mixer, 0.01, steps=3)


@pytest.mark.parametrize("parts", [(0, 5, 3), (2, 0, 3), (2, 5, 0)])
def test_a_problem_has_targets_and_samples(parts, unchecked):
    problems, samples, d = parts
    X = torch.zeros(problems, samples, d)
    with pytest.raises(ValueError, match="none empty"):
        Problem(torch.zeros(problems, d, d), X, X, 0.1)
    with pytest.raises(ValueError, match="none empty"):
        Problem(torch.tensor(1.0), X, X, 0.1)


def test_a_problem_takes_no_part_in_a_graph():
    X = torch.randn(2, 5, 3, requires_grad=True)
    problem = Problem(torch.eye(3).expand(2, 3, 3), X, X, 0.1)
    assert not problem.X.requires_grad
    assert fit(problem, make_mixer("mhc", 3), 0.1, steps=2).loss.isfinite().all()


def test_a_seed_fixes_targets_whatever_the_default_dtype():
    before = corrected_problem(4, "vertices", problems=8).targets
    torch.set_default_dtype(torch.float64)
    try:
        after = corrected_problem(4, "vertices", problems=8).targets
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(before, after)
