"""Fits of mixers to problems by Adam, and sweeps over mixers, learning rates and seeds.

As the loss is quadratic in B = mixer(θ), no step touches a sample. Problems, seeds and learning
rates of a mixer are the rows of one batch; joblib hands it out, in small chunks to the cores of a
CPU or a cluster, whole to a GPU.
"""

import copy
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gomhc.adam import Adam
from gomhc.checks import check_count
from gomhc.extras import load
from gomhc.fused import Backend, check_backend, compiler
from gomhc.fused.stages import Stage
from gomhc.mixers import Mixer
from gomhc.mixers.base import check_mixer, own_stages
from gomhc.stream_mixing.problem import Problem, seeded

__all__ = ["Fit", "Run", "fit", "steps_to", "sweep"]

CHUNK = 8  # problems a job: compiled code takes so many at a time

# Draws starts: mixer, number of problems, source of randomness -> (problems, g).
Start = Callable[[Mixer, int, torch.Generator], Tensor]


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
    start: Start | None = None,
    *,
    off_diagonal_mass: float | None = None,
    epsilon: float = 1e-8,
    backend: Backend = "auto",
    progress: bool = False,
) -> Fit:
    """Fit a mixer to every problem by full-batch Adam with betas (0.9, 0.999).

    Args:
        problem: what to fit; the computation runs on its device.
        mixer: any mixer with the problem's d; one without parameters stays where it is.
        learning_rate: Adam's.
        steps: number of steps.
        seed: source of randomness of the starts; it has no part where they are not random, as
            those of mhc, mhc-lite, kromhc and hc.
        start: draws the starts, such as `gomhc.companion.released.released_start`: a function of
            mixer, number of problems and torch.Generator to (problems, g). If not given they lie
            near I with a gradient (`Mixer.initial_theta`).
        off_diagonal_mass: of the starts near I, 0.01 if not given; not beside `start`.
        epsilon: Adam's. The release takes the mean over its 64 problems as the loss and 1e-6 here,
            which is 64e-6 for the losses of the problems themselves.
        backend: "fused" is compiled by Numba and runs on a CPU, "reference" is PyTorch on any
            device. "auto" is the mixer's own backend; where that is "auto" too, the first of them
            where it applies.
        progress: show a progress bar.

    Returns:
        Fit in float64.

    Raises:
        TypeError: if it is not a mixer, or steps or seed is no integer.
        ValueError: if the mixer's d is not the problem's, a number is out of range, `start` gives
            another shape or comes with an off_diagonal_mass, the backend is unknown, or "fused"
            does not apply.
        ImportError: if joblib, or tqdm for the progress bar, is not installed.
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
    start: Start | None = None,
    *,
    off_diagonal_mass: float | None = None,
    epsilon: float = 1e-8,
    backend: Backend = "auto",
    progress: bool = True,
) -> Iterator[tuple[Run, Fit]]:
    """Fit every mixer at every learning rate from every seed, as one batch of jobs for joblib.

    By default the jobs share the cores of this machine; inside
    `with joblib.parallel_config("dask"):` (or "ray") they run on a cluster, with the same results
    to the bit on machines of the same kind.

    Args:
        problem: what to fit.
        mixers: label -> mixer.
        learning_rates: those to try, for all mixers or label -> those of that mixer.
        steps: see `fit`.
        seeds: of the starts. Several of them for a mixer whose starts are not random give the same
            fit again, and a UserWarning.
        start: see `fit`.
        off_diagonal_mass: see `fit`.
        epsilon: see `fit`.
        backend: see `fit`.
        progress: show a progress bar.

    Returns:
        Iterator over (Run, Fit), mixer by mixer, rate by rate, seed by seed. The fits of one mixer
        are in memory at a time.

    Raises:
        TypeError: as `fit`; if mixers or learning rates are not what is described.
        ValueError: as `fit`; if there are no learning rates or no seeds, or the labels of the
            learning rates are not those of the mixers.
        ImportError: as `fit`, when the first fit is asked for.
    """
    if not isinstance(mixers, Mapping):
        raise TypeError(f"expected mixers as label -> mixer, got {type(mixers).__name__}")
    if not hasattr(learning_rates, "__len__"):
        raise TypeError(f"expected several learning rates, got {learning_rates!r}")
    if isinstance(learning_rates, Mapping) and learning_rates.keys() != mixers.keys():
        raise ValueError(
            f"expected learning rates for {', '.join(mixers)}; got {', '.join(learning_rates)}"
        )
    if not len(seeds):
        raise ValueError("expected one seed or more, got none")
    steps = check_count("steps", steps, least=1)
    jobs: list[tuple[Callable, tuple]] = []
    plan: list[tuple[list[Run], int]] = []
    for label, mixer in mixers.items():
        check_mixer(mixer)
        rates = learning_rates[label] if isinstance(learning_rates, Mapping) else learning_rates
        positive = all(0 < rate < math.inf for rate in rates)
        if not (len(rates) and positive and 0 < epsilon < math.inf):
            raise ValueError(
                "expected finite learning rates > 0 and a finite epsilon > 0; "
                f"got learning_rate={list(rates)}, {epsilon=}"
            )
        starts = {seed: _start(problem, mixer, seed, start, off_diagonal_mass) for seed in seeds}
        first, *others = starts.values()
        if any(torch.equal(first, other) for other in others):
            warnings.warn(
                f"{label or mixer} has the same start for several seeds: so are its fits",
                stacklevel=2,
            )
        runs = [Run(label, rate, seed) for rate in rates for seed in seeds]
        theta = torch.cat([starts[run.seed] for run in runs])
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
    joblib = load("joblib", "companion", "a fit")
    # Threads by default: the compiled code holds no lock, and nothing has to be copied.
    parallel = joblib.Parallel(n_jobs=_workers(problem), prefer="threads", return_as="generator")
    results = parallel(joblib.delayed(run)(*arguments) for run, arguments in jobs)
    if bar:
        tqdm = load("tqdm.auto", "companion", "a progress bar").tqdm
        results = tqdm(results, total=len(jobs), desc="fits", leave=False)
    done = iter(results)
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
    problem: Problem,
    mixer: Mixer,
    seed: int,
    start: Start | None,
    off_diagonal_mass: float | None,
) -> Float[Tensor, "problems g"]:
    """One θ a problem, on the CPU."""
    if mixer.d != problem.d:
        raise ValueError(f"expected a mixer with d = {problem.d}, got d = {mixer.d}")
    generator, count = seeded(seed), len(problem)
    if start is None:
        mass = 0.01 if off_diagonal_mass is None else off_diagonal_mass
        return torch.stack([mixer.initial_theta(generator, mass) for _ in range(count)]).double()
    if not callable(start):
        raise TypeError(f"expected start as a function (mixer, count, generator), got {start!r}")
    if off_diagonal_mass is not None:
        raise ValueError(f"expected start or off_diagonal_mass, got both: {off_diagonal_mass=}")
    theta = start(mixer, count, generator)
    if theta.shape != (count, mixer.num_parameters):
        expected = (count, mixer.num_parameters)
        raise ValueError(f"expected starts of shape {expected}, got {tuple(theta.shape)}")
    return theta.double()


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
    reference = functools.partial(_descend_reference, steps=steps, epsilon=epsilon)
    fused = functools.partial(_descend_fused, steps=steps, epsilon=epsilon)
    jobs: list[tuple[Callable, tuple]] = []
    for k in range(0, len(theta), chunk):
        rows = slice(k, k + chunk)
        which = torch.arange(len(theta))[rows] % len(problem)
        statistics = [part[which] for part in (problem.best, problem.gram, problem.base)]
        data = (theta[rows], *statistics, learning_rate[rows])
        if stages is None:
            jobs.append((reference, (mixer, *data)))
        else:
            jobs.append((fused, (mixer, stages, *data)))
    return jobs


def _stages(problem: Problem, mixer: Mixer, required: bool) -> tuple[Stage, ...] | None:
    """What the compiled code needs of the mixer; None where it does not apply."""
    reason = ""
    if problem.targets.device.type != "cpu":
        reason = f"the problem is on {problem.targets.device}"
    else:
        stages = own_stages(mixer)
        if stages is None:
            reason = f"it has no code for {type(mixer).__name__}"
        else:
            is_installed, reason = compiler("cpu")
            if is_installed:
                return stages
    if required:
        raise ValueError(f"expected a case for the fused backend, but {reason}")
    return None


def _descend_fused(
    mixer: Mixer,
    stages: Sequence[Stage],
    theta: Tensor,
    best: Tensor,
    gram: Tensor,
    base: Tensor,
    learning_rate: Tensor,
    *,
    steps: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    from gomhc import kernels

    data = theta, best, gram, base, learning_rate
    arrays = (x.detach().double().numpy() for x in data)
    *results, hard = kernels.descend(stages, *arrays, steps=steps, epsilon=epsilon)
    loss, matrix, end = map(torch.from_numpy, results)
    if hard.any():
        rows = (x[hard] for x in data)
        exact = _descend_reference(mixer, *rows, steps=steps, epsilon=epsilon)
        loss[hard], matrix[hard], end[hard] = exact
    return loss, matrix, end


@torch.inference_mode(False)
@torch.enable_grad()
def _descend_reference(
    mixer: Mixer,
    theta: Tensor,
    best: Tensor,
    gram: Tensor,
    base: Tensor,
    learning_rate: Tensor,
    *,
    steps: int,
    epsilon: float,
) -> tuple[Tensor, Tensor, Tensor]:
    # Copies, as what was made in inference mode has no part in a gradient.
    theta, best, gram, base = (x.clone() for x in (theta.to(best), best, gram, base))
    length = learning_rate.to(best)[:, None]
    mixer = copy.deepcopy(mixer).to(best.device)
    mixer.backend = "reference"
    adam = Adam(theta)
    loss = torch.empty(len(theta), steps, dtype=best.dtype, device=best.device)
    for step in range(steps):
        live = theta.requires_grad_()
        off = mixer(live) - best
        losses = base + ((off @ gram) * off).sum((-2, -1))
        loss[:, step] = losses.detach()
        if not theta.numel():
            continue
        # The sum, as the rows have nothing to do with each other.
        (slope,) = torch.autograd.grad(losses.sum(), live)
        theta = theta.detach() - adam.step(slope, length, epsilon)
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
