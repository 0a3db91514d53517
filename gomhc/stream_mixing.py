"""The synthetic stream-mixing task: learn a doubly stochastic matrix from noisy samples.

A problem has a target T and samples y = Tx + noise; a mixer is fitted by Adam on the mean squared
error. The loss is quadratic in B = mixer(θ), so XᵀX and YᵀX are sufficient statistics and no step
touches a sample. Problems, seeds and learning rates of a mixer are the rows of one batch; joblib
hands it out, in small chunks to the cores of a CPU or a cluster, whole to a GPU.

`released_problem` has the protocol of the go-mHC release with its defects, `corrected_problem` has
none of them; the book's chapter 5 shows what each defect does.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.birkhoff import project, sample_uniform
from gomhc.fused import Backend, check_backend, compiler
from gomhc.fused.stages import Stage
from gomhc.maps import check_floating, sinkhorn_knopp
from gomhc.mixers import Kronecker, Mixer, Orthostochastic
from gomhc.mixers.base import check_mixer

__all__ = [
    "FAMILIES",
    "Fit",
    "Floor",
    "Problem",
    "Run",
    "corrected_problem",
    "fit",
    "released_problem",
    "released_settings",
    "steps_to",
    "sweep",
]

FAMILIES = ("uniform", "vertices", "edges", "barycentre")
CHUNK = 8  # problems a job: compiled code takes so many at a time


class Floor(NamedTuple):
    """The exact minimum of the loss over the Birkhoff polytope, and its certificate."""

    value: Float[Tensor, " problems"]  # loss of `matrix`, an upper bound of the minimum
    gap: Float[Tensor, " problems"]  # duality gap: value minus a lower bound of the minimum
    matrix: Float[Tensor, "problems d d"]


@dataclass(frozen=True, eq=False)
class Problem:
    """Independent regression problems of one size: samples of y = Tx + noise for each target T.

    Attributes:
        targets: (problems, d, d), doubly stochastic.
        X: (problems, samples, d), inputs.
        Y: (problems, samples, d), outputs.
        noise: σ of the noise, in the sense of the function that made the problem.

    Tensors of another floating dtype are taken to float64.

    Raises:
        TypeError: if a part is not a tensor of a real floating dtype.
        ValueError: if the shapes don't fit together, or an entry is not finite.
    """

    targets: Float[Tensor, "problems d d"]
    X: Float[Tensor, "problems samples d"]
    Y: Float[Tensor, "problems samples d"]
    noise: float

    def __post_init__(self) -> None:
        """Refuse what would only fail later, or not at all."""
        for name in ("targets", "X", "Y"):
            part = getattr(self, name)
            check_floating(name, part)
            object.__setattr__(self, name, part.double())  # the class is frozen
        problems, d = self.targets.shape[0], self.targets.shape[-1]
        fits = self.X.shape == self.Y.shape and self.X.shape[:1] + self.X.shape[2:] == (problems, d)
        if self.targets.shape != (problems, d, d) or self.X.ndim != 3 or not fits:
            raise ValueError(
                "expected targets (problems, d, d) and X, Y (problems, samples, d), got "
                f"{tuple(self.targets.shape)}, {tuple(self.X.shape)}, {tuple(self.Y.shape)}"
            )
        for name in ("targets", "X", "Y"):
            bad = int((~getattr(self, name).isfinite()).sum())
            if bad:
                raise ValueError(f"expected finite {name}, got {bad} entries that are not")

    def __len__(self) -> int:
        """Number of problems."""
        return len(self.targets)

    @property
    def d(self) -> int:
        """Number of streams."""
        return self.targets.shape[-1]

    def to(self, device: torch.device | str) -> "Problem":
        """The same problems on another device; `fit` runs where they are."""
        return Problem(
            self.targets.to(device), self.X.to(device), self.Y.to(device), noise=self.noise
        )

    @cached_property
    def gram(self) -> Float[Tensor, "problems d d"]:
        """XᵀX / (samples·d), what of the inputs the loss depends on."""
        return self.X.mT @ self.X / self.X[0].numel()

    @cached_property
    def best(self) -> Float[Tensor, "problems d d"]:
        """The unconstrained least-squares matrix: YᵀX (XᵀX)⁺."""
        return (torch.linalg.pinv(self.X) @ self.Y).mT

    @cached_property
    def base(self) -> Float[Tensor, " problems"]:
        """The loss at `best`: what no matrix at all can beat."""
        return self.sample_loss(self.best)

    def loss(self, B: Float[Tensor, "problems d d"]) -> Float[Tensor, " problems"]:
        """Mean squared error of each problem, from the sufficient statistics.

        ‖Y − XBᵀ‖² = ‖Y − XB*ᵀ‖² + tr((B − B*) XᵀX (B − B*)ᵀ) with B* the least-squares matrix, as
        the residual of B* is orthogonal to X: two terms that are not negative, so that nothing
        cancels.

        Args:
            B: (problems, d, d), or anything that broadcasts to it.

        Returns:
            (problems,), the mean over samples and streams.
        """
        off = B - self.best
        return self.base + ((off @ self.gram) * off).sum((-2, -1))

    def sample_loss(self, B: Float[Tensor, "problems d d"]) -> Float[Tensor, " problems"]:
        """The same loss, computed on the samples one by one."""
        return (self.Y - self.X @ B.mT).square().mean((-2, -1))

    def floor(self) -> Floor:
        """Solve min_B loss(B) over the doubly stochastic matrices, for each problem.

        A convex quadratic program in d² variables, given to Clarabel's interior-point method. Its
        answer is projected onto the polytope, so `value` is the loss of a doubly stochastic matrix
        B. As the loss L is convex, no matrix of the polytope has less than
        L(B) + min_P ⟨∇L(B), P − B⟩, and that minimum of a linear function lies at a permutation
        matrix, which a linear assignment finds. The bound needs nothing of the solver but B, and
        nothing of the inputs: XᵀX may be singular.

        Returns:
            Floor with value ≥ minimum ≥ value − gap, up to rounding.

        Raises:
            RuntimeError: if the solver stops without a solution.

        Source: Goulart, Chen 2024 (Clarabel); Jaggi 2013, section 2 (the gap).
        """
        import clarabel
        from scipy import sparse
        from scipy.optimize import linear_sum_assignment

        d = self.d
        eye, ones = sparse.eye_array(d), np.ones((1, d))
        sums = sparse.vstack([sparse.kron(eye, ones), sparse.kron(ones, eye)])
        rows = sparse.vstack([sums, -sparse.eye_array(d * d)], format="csc")
        bounds = np.concatenate([np.ones(2 * d), np.zeros(d * d)])
        cones = [clarabel.ZeroConeT(2 * d), clarabel.NonnegativeConeT(d * d)]
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
        grams, bests = self.gram.cpu().numpy(), self.best.cpu().numpy()
        matrices = []
        for gram, best in zip(grams, bests, strict=True):
            quadratic = sparse.kron(eye, 2 * gram, format="csc")
            linear = -(2 * best @ gram).ravel()
            solver = clarabel.DefaultSolver(
                sparse.triu(quadratic, format="csc"), linear, rows, bounds, cones, settings
            )
            solution = solver.solve()
            if solution.status not in (
                clarabel.SolverStatus.Solved,
                clarabel.SolverStatus.AlmostSolved,
            ):
                raise RuntimeError(f"expected a solved quadratic program, got {solution.status}")
            matrices.append(np.reshape(solution.x, (d, d)))
        matrix = project(torch.as_tensor(np.stack(matrices)).to(self.targets.device))
        slope = 2 * (matrix - self.best) @ self.gram
        lowest = [part[linear_sum_assignment(part)].sum() for part in slope.cpu().numpy()]
        gap = (slope * matrix).sum((-2, -1)) - torch.as_tensor(np.array(lowest)).to(slope)
        return Floor(self.loss(matrix), gap, matrix)


def released_problem(
    d: int,
    noise: float = 0.1,
    problems: int = 64,
    samples: int = 100,
    sparsity: float = 0.0,
    seed: int = 42,
    draw: int = 0,
    *,
    scale_inputs: bool = True,
    centre_noise: bool = False,
    mask_entries: bool = False,
    targets: Float[Tensor, "problems d d"] | None = None,
) -> Problem:
    """The problems of the go-mHC release, with its defects, each of which can be taken away.

    T is U[0,1]^{d×d} after 20 Sinkhorn steps, rows first. X is U[0,1]^d times the number of entries
    of a sample that a mask of the given sparsity keeps: at sparsity 0 times d. Y = TX + σU[0,1].

    Args:
        d: number of streams.
        noise: σ, the width of the uniform noise.
        problems: number of targets.
        samples: samples a target.
        sparsity: probability that the mask drops an entry, in [0, 1).
        seed: fixes the targets; with `draw`, X and the noise.
        draw: which draw of X and noise. In the release every method has its own.
        scale_inputs: False takes the factor away.
        centre_noise: True makes the noise σ(U[0,1] − ½), of mean 0.
        mask_entries: True makes the mask set entries to 0 instead of scaling rows.
        targets: other targets in place of the released ones.

    Returns:
        Problem in float64 on the CPU.

    Raises:
        ValueError: if a count is below 1, noise < 0 or not finite, sparsity is outside [0, 1), or
            the targets are not (problems, d, d).

    Source: `toy_models/dynamics.ipynb` of the go-mHC release.
    """
    _check(d, noise, problems, samples)
    if not 0 <= sparsity < 1:
        raise ValueError(f"expected sparsity in [0, 1), got {sparsity}")
    if targets is not None and targets.shape != (problems, d, d):
        raise ValueError(f"expected targets {(problems, d, d)}, got shape {tuple(targets.shape)}")
    generator = _generator(seed)
    T = torch.rand(problems, d, d, generator=generator, dtype=torch.float64)
    # Rows first and columns last: our order, transposed.
    T = sinkhorn_knopp(T.mT.log(), 20).mT if targets is None else targets.double()
    generator = _generator(seed, draw)
    X = torch.rand(problems, samples, d, generator=generator, dtype=torch.float64)
    kept = (torch.rand(X.shape, generator=generator, dtype=X.dtype) > sparsity).to(X)
    jitter = torch.rand(X.shape, generator=generator, dtype=X.dtype)
    if mask_entries:
        X = X * kept
    if scale_inputs:
        X = X * kept.sum(-1, keepdim=True)
    if centre_noise:
        jitter = jitter - 0.5
    return Problem(T, X, X @ T.mT + noise * jitter, noise)


def released_settings(mixer: Mixer, problems: int = 64) -> dict[str, Any]:
    """How the release trains this mixer: the keyword arguments to give to `fit`.

    Adam at 1e-3 for 10,000 steps from random starts, with two peculiarities that this makes
    explicit. The loss is the mean over all problems, so Adam's ε of 1e-6 counts `problems` times
    as much for the loss of one. And go-mHC's parameter is a full matrix R of which A = R − Rᵀ
    is taken: R_ij and R_ji both move by the learning rate, in opposite directions, so that θ
    moves by twice as much. Adam on θ at 2e-3 takes exactly the same steps.

    Args:
        mixer: any mixer.
        problems: number of problems that the release would have averaged over.

    Returns:
        learning_rate, steps, start and epsilon.

    Raises:
        TypeError: if it is not a mixer.
        ValueError: if problems < 1.

    Source: `toy_models/dynamics.ipynb` of the go-mHC release.
    """
    check_mixer(mixer)
    if problems < 1:
        raise ValueError(f"expected problems >= 1, got {problems}")
    factors = mixer.factors if isinstance(mixer, Kronecker) else [mixer]
    doubled = all(isinstance(factor, Orthostochastic) for factor in factors)
    return {
        "learning_rate": 2e-3 if doubled else 1e-3,
        "steps": 10_000,
        "start": "released",
        "epsilon": 1e-6 * problems,
    }


def corrected_problem(
    d: int,
    family: str = "uniform",
    noise: float = 0.1,
    problems: int = 64,
    samples: int = 100,
    seed: int = 0,
) -> Problem:
    """Stream-mixing problems without the defects: X ~ N(0, I), Y = TX + N(0, σ²), T from a family.

    Args:
        d: number of streams.
        family: where the targets lie. `uniform`: uniformly in the Birkhoff polytope, by
            hit-and-run. `vertices`: random permutation matrices. `edges`: uniformly on a random
            edge, which joins P and P·(a cycle) with the length of the cycle uniform in 2..d.
            `barycentre`: a quarter of the way from J/d to a uniform sample.
        noise: σ, the standard deviation of the noise.
        problems: number of targets.
        samples: samples a target.
        seed: fixes everything; every method that is given the problem sees the same samples.

    Returns:
        Problem in float64 on the CPU.

    Raises:
        ValueError: if a count is below 1, noise < 0 or not finite, the family is unknown, or it is
            `edges` and d = 1.
    """
    _check(d, noise, problems, samples)
    if family not in FAMILIES:
        raise ValueError(f"expected a family out of {', '.join(FAMILIES)}; got {family!r}")
    generator = _generator(seed)
    if family in ("vertices", "edges"):
        T = _permutations(d, problems, generator)
        if family == "edges":
            T = _along_edges(T, generator)
    else:
        T = sample_uniform(d, problems, generator)
        if family == "barycentre":
            T = (3 / d + T) / 4
    X = torch.randn(problems, samples, d, generator=generator, dtype=torch.float64)
    jitter = torch.randn(X.shape, generator=generator, dtype=X.dtype)
    return Problem(T, X, X @ T.mT + noise * jitter, noise)


def _check(d: int, noise: float, problems: int, samples: int) -> None:
    if min(d, problems, samples) < 1 or not 0 <= noise < math.inf:
        raise ValueError(
            "expected d, problems, samples >= 1 and a finite noise >= 0; "
            f"got {d=}, {problems=}, {samples=}, {noise=}"
        )


def _generator(*seeds: int) -> torch.Generator:
    """One source of randomness for a tuple of seeds, unlike that of any other tuple."""
    if min(seeds) < 0:
        raise ValueError(f"expected a seed (and draw) >= 0, got {', '.join(map(str, seeds))}")
    state = np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def _permutations(d: int, count: int, generator: torch.Generator) -> Tensor:
    order = torch.rand(count, d, generator=generator).argsort(-1)
    return torch.eye(d, dtype=torch.float64)[order]


def _along_edges(P: Tensor, generator: torch.Generator) -> Tensor:
    """Points of the edges from P to P·cycle: two vertices are joined iff they differ by a cycle."""
    problems, d = P.shape[:2]
    if d == 1:
        raise ValueError("expected d >= 2 for edges: at d = 1 the polytope is a point; got d = 1")
    lengths = torch.randint(2, d + 1, (problems,), generator=generator).tolist()
    cycles = []
    for length in lengths:
        places = torch.randperm(d, generator=generator)[:length]
        images = torch.arange(d)
        images[places] = places.roll(-1)
        cycles.append(torch.eye(d, dtype=P.dtype)[images])
    t = torch.rand(problems, 1, 1, generator=generator, dtype=P.dtype)
    return (1 - t) * P + t * (P @ torch.stack(cycles))


class Fit(NamedTuple):
    """One mixer fitted to every problem."""

    loss: Float[Tensor, "problems steps"]  # before each step, so the first is that of the start
    matrix: Float[Tensor, "problems d d"]  # mixer(theta)
    theta: Float[Tensor, "problems g"]  # after the last step
    distance: Float[Tensor, " problems"]  # held-out error ‖matrix − target‖_F


class Run(NamedTuple):
    """One fit of a sweep: which mixer (by its label), learning rate and seed of the start."""

    label: str
    learning_rate: float
    seed: int


def fit(
    problem: Problem,
    mixer: Mixer,
    learning_rate: float = 1e-3,
    steps: int = 10_000,
    seed: int = 0,
    start: Literal["live", "released"] = "live",
    *,
    off_diagonal_mass: float = 0.01,
    epsilon: float = 1e-8,
    backend: Backend = "auto",
    progress: bool = False,
) -> Fit:
    """Fit a mixer to every problem by full-batch Adam with betas (0.9, 0.999).

    Args:
        problem: what to fit; the computation runs on its device.
        mixer: any mixer with the problem's d.
        learning_rate: Adam's.
        steps: number of steps.
        seed: source of randomness of the starts.
        start: "live", near I with a gradient (`Mixer.initial_theta`), or "released": R − Rᵀ with
            R ~ U[0,1] for go-mHC and its products, N(0, 1) for every other mixer.
        off_diagonal_mass: of a live start.
        epsilon: Adam's. The release takes the mean over its 64 problems as the loss and 1e-6 here,
            which is 64e-6 for the losses of the problems themselves.
        backend: "fused" is compiled by Numba and runs on a CPU, "reference" is PyTorch on any
            device. "auto" is the mixer's own backend; where that is "auto" too, the first of them
            where it applies.
        progress: show a progress bar.

    Returns:
        Fit in float64.

    Raises:
        TypeError: if it is not a mixer.
        ValueError: if the mixer's d is not the problem's, a number is out of range, start or
            backend is unknown, or "fused" does not apply.
    """
    runs = sweep(
        problem,
        {"": mixer},
        [learning_rate],
        steps,
        [seed],
        start,
        off_diagonal_mass=off_diagonal_mass,
        epsilon=epsilon,
        backend=backend,
        progress=progress,
    )
    return next(runs)[1]


def sweep(
    problem: Problem,
    mixers: Mapping[str, Mixer],
    learning_rates: Sequence[float] | Mapping[str, Sequence[float]],
    steps: int = 10_000,
    seeds: Sequence[int] = (0,),
    start: Literal["live", "released"] = "live",
    *,
    off_diagonal_mass: float = 0.01,
    epsilon: float = 1e-8,
    backend: Backend = "auto",
    progress: bool = True,
) -> Iterator[tuple[Run, Fit]]:
    """Fit every mixer at every learning rate from every seed, as one batch of jobs for joblib.

    Without more ado the jobs share the cores of this machine; inside
    `with joblib.parallel_config("dask"):` (or "ray") they run on a cluster, with the same results
    to the bit on machines of the same kind.

    Args:
        problem: what to fit.
        mixers: label -> mixer.
        learning_rates: those to try, for all mixers or label -> those of that mixer.
        steps: see `fit`.
        seeds: of the starts.
        start: see `fit`.
        off_diagonal_mass: see `fit`.
        epsilon: see `fit`.
        backend: see `fit`.
        progress: show a progress bar.

    Returns:
        Iterator over (Run, Fit), mixer by mixer, rate by rate, seed by seed. The fits of one mixer
        are in memory at a time.

    Raises:
        TypeError: as `fit`.
        ValueError: as `fit`; if there are no learning rates or no seeds, or the labels of the
            learning rates are not those of the mixers.
    """
    if isinstance(learning_rates, Mapping) and learning_rates.keys() != mixers.keys():
        raise ValueError(
            f"expected learning rates for {', '.join(mixers)}; got {', '.join(learning_rates)}"
        )
    if not seeds:
        raise ValueError("expected one seed or more, got none")
    jobs: list[tuple[Callable, tuple]] = []
    plan: list[tuple[list[Run], int]] = []
    for label, mixer in mixers.items():
        check_mixer(mixer)
        rates = learning_rates[label] if isinstance(learning_rates, Mapping) else learning_rates
        lengths_fit = rates and all(0 < rate < math.inf for rate in rates)
        if not (lengths_fit and steps >= 1 and steps == int(steps) and 0 < epsilon < math.inf):
            raise ValueError(
                "expected finite learning rates > 0, a whole number of steps >= 1 and a finite "
                f"epsilon > 0; got learning_rate={list(rates)}, {steps=}, {epsilon=}"
            )
        begun = {seed: _start(problem, mixer, seed, start, off_diagonal_mass) for seed in seeds}
        runs = [Run(label, rate, seed) for rate in rates for seed in seeds]
        theta = torch.cat([begun[run.seed] for run in runs])
        lengths = torch.tensor([run.learning_rate for run in runs], dtype=theta.dtype)
        lengths = lengths.repeat_interleave(len(problem))
        chunks = _chunks(problem, mixer, theta, lengths, steps, epsilon, backend)
        jobs += chunks
        plan.append((runs, len(chunks)))
    return _collect(problem, plan, jobs, progress)


def _collect(
    problem: Problem,
    plan: list[tuple[list[Run], int]],
    jobs: list[tuple[Callable, tuple]],
    bar: bool,
) -> Iterator[tuple[Run, Fit]]:
    """Run the jobs, put together what belongs to one mixer, and hand it out run by run."""
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    # Threads by default: the compiled code holds no lock, and nothing has to be copied.
    parallel = Parallel(n_jobs=_workers(problem), prefer="threads", return_as="generator")
    results = parallel(delayed(run)(*arguments) for run, arguments in jobs)
    done = iter(tqdm(results, total=len(jobs), disable=not bar, desc="fits", leave=False))
    for runs, count in plan:
        parts = [next(done) for _ in range(count)]
        rows = [torch.cat(part).split(len(problem)) for part in zip(*parts, strict=True)]
        for run, loss, matrix, theta in zip(runs, *rows, strict=True):
            distance = (matrix - problem.targets).norm(dim=(-2, -1))
            yield run, Fit(loss, matrix, theta, distance)


def _workers(problem: Problem) -> int | None:
    """All cores unless joblib is configured otherwise; on a GPU one job at a time."""
    from joblib import cpu_count, effective_n_jobs
    from joblib.parallel import get_active_backend

    if problem.targets.device.type != "cpu":
        return 1
    _, configured = get_active_backend()
    # None asks joblib for what is configured, which without a configuration is one job.
    return int(cpu_count()) if configured is None and effective_n_jobs(None) == 1 else None


def _start(
    problem: Problem, mixer: Mixer, seed: int, start: str, off_diagonal_mass: float
) -> Float[Tensor, "problems g"]:
    """One θ a problem, on the CPU."""
    if mixer.d != problem.d:
        raise ValueError(f"expected a mixer with d = {problem.d}, got d = {mixer.d}")
    generator = _generator(seed)
    count = len(problem)
    match start:
        case "live":
            starts = [mixer.initial_theta(generator, off_diagonal_mass) for _ in range(count)]
            return torch.stack(starts).double()
        case "released":
            return _released_start(mixer, count, generator)
        case _:
            raise ValueError(f"expected start 'live' or 'released', got {start!r}")


def _released_start(mixer: Mixer, count: int, generator: torch.Generator) -> Tensor:
    if isinstance(mixer, Kronecker):
        return torch.cat([_released_start(f, count, generator) for f in mixer.factors], -1)
    shape = (count, mixer.num_parameters)
    if isinstance(mixer, Orthostochastic):
        upper, lower = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
        return upper - lower
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _chunks(
    problem: Problem,
    mixer: Mixer,
    theta: Float[Tensor, "rows g"],
    learning_rate: Float[Tensor, " rows"],
    steps: int,
    epsilon: float,
    backend: Backend,
) -> list[tuple[Callable, tuple]]:
    """The jobs of one mixer; a row is one problem of one run, and all the rows are one batch.

    Small jobs for the compiled code, and a single one for PyTorch.
    """
    backend = mixer.backend if backend == "auto" else backend
    check_backend(backend)
    stages = None if backend == "reference" else _stages(problem, mixer, backend == "fused")
    chunk = len(theta) if stages is None else CHUNK
    jobs: list[tuple[Callable, tuple]] = []
    for k in range(0, len(theta), chunk):
        rows = slice(k, k + chunk)
        which = torch.arange(len(theta))[rows] % len(problem)
        statistics = [part[which] for part in (problem.best, problem.gram, problem.base)]
        data = (theta[rows], *statistics, learning_rate[rows])
        if stages is None:
            jobs.append((_descend_reference, (mixer, *data, steps, epsilon)))
        else:
            arrays = (part.double().numpy() for part in data)
            jobs.append((_descend_fused, (stages, *arrays, steps, epsilon)))
    return jobs


def _stages(problem: Problem, mixer: Mixer, required: bool) -> tuple[Stage, ...] | None:
    """What the compiled code needs of the mixer; None where it does not apply."""
    reason = ""
    if problem.targets.device.type != "cpu":
        reason = f"the problem is on {problem.targets.device}"
    else:
        stages = mixer.stages()
        if stages is None:
            reason = f"it has no code for {type(mixer).__name__}"
        else:
            there, reason = compiler("cpu")
            if there:
                return stages
    if required:
        raise ValueError(f"expected a case for the fused backend, but {reason}")
    return None


def _descend_fused(
    stages: Sequence[Stage],
    theta: np.ndarray,
    best: np.ndarray,
    gram: np.ndarray,
    base: np.ndarray,
    learning_rate: np.ndarray,
    steps: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    from gomhc import kernels

    parts = kernels.descend(stages, theta, best, gram, base, learning_rate, steps, epsilon)
    loss, matrix, end = (torch.from_numpy(part) for part in parts)
    return loss, matrix, end


def _descend_reference(
    mixer: Mixer,
    theta: Tensor,
    best: Tensor,
    gram: Tensor,
    base: Tensor,
    learning_rate: Tensor,
    steps: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    theta, length = theta.to(best).clone(), learning_rate.to(best)[:, None]
    mixer = copy.deepcopy(mixer).to(best.device)
    mixer.backend = "reference"
    mean, square = torch.zeros_like(theta), torch.zeros_like(theta)
    loss = torch.empty(len(theta), steps, dtype=best.dtype, device=best.device)
    for step in range(steps):
        live = theta.requires_grad_()
        off = mixer(live) - best
        losses = base + ((off @ gram) * off).sum((-2, -1))
        loss[:, step] = losses.detach()
        if not theta.numel():
            continue
        # The sum, as the rows have nothing to do with each other. Adam by hand, as torch's has
        # one learning rate for all of them.
        (slope,) = torch.autograd.grad(losses.sum(), live)
        theta = theta.detach()
        mean.lerp_(slope, 0.1)
        square.mul_(0.999).addcmul_(slope, slope, value=0.001)
        root = (square / (1 - 0.999 ** (step + 1))).sqrt_()
        theta = theta - length / (1 - 0.9 ** (step + 1)) * mean / root.add_(epsilon)
    with torch.no_grad():
        return loss, mixer(theta), theta.detach()


def steps_to(loss: Float[Tensor, "*batch steps"], level: Float[Tensor, "*batch"] | float) -> Tensor:
    """First step at which each curve is at or below its level; infinity where it never is.

    Args:
        loss: (..., steps).
        level: (...) or a number.

    Returns:
        (...), float.
    """
    below = loss <= torch.as_tensor(level).to(loss)[..., None]
    first = below.to(torch.uint8).argmax(-1).to(loss)
    return torch.where(below.any(-1), first, math.inf)
