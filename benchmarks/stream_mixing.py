"""How much faster `gomhc.stream_mixing.fit` is than the loop that one would write first.

Both sides run the released experiment: six methods one after the other, 64 problems with 100
samples each, 10,000 steps of Adam, the loss of every problem kept at every step. The baseline below
is plain PyTorch: all problems in one batch, the squared error of every sample, autograd through
`torch.linalg.solve`, `torch.optim.Adam`. It is written as the release states the task (the mean
over all problems as the loss, a full matrix R with A = R − Rᵀ, float32) and imports no map, mixer
or statistic of gomhc.

Before any clock starts, both sides run from the same θ on the same problem, the baseline in
float64, and their losses must agree: else they don't do the same work, and no ratio is given.
"""

import argparse
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import torch
from jaxtyping import Float
from torch import Tensor

import gomhc
from benchmarks.machine import processor, timed_in_new_processes
from gomhc.companion import records
from gomhc.companion.released import released_problem, released_settings, released_start
from gomhc.companion.studies.base import Outcome, mixer
from gomhc.files import check_writable
from gomhc.stream_mixing import Problem, fit

# At d = 8 the release leaves mhc-lite out (its max_safe_d is 7); go-mhc s=3 takes that place.
METHODS = {
    4: ["go-mhc s=1", "go-mhc s=2", "mhc", "mhc-lite", "kromhc", "kron-go s=2"],
    8: ["go-mhc s=1", "go-mhc s=2", "go-mhc s=3", "mhc", "kromhc", "kron-go s=2"],
}
SEED = 42
LEARNING_RATE, EPSILON = 1e-3, 1e-6  # the release's, for R and for the mean over all problems
CHECKED, TOLERANCE = 200, 1e-6  # steps that both sides run first; largest relative difference
PROBED = 100  # steps of a trial of one number of threads
REPEATS, CHEAP = 3, 20.0  # medians of three, unless one takes more seconds than this


# The baseline


class Part(NamedTuple):
    """One Kronecker factor: how its parameter is made of gomhc's θ, and a matrix of that."""

    size: int  # entries of θ
    parameter: Callable[[Tensor], Tensor]  # (problems, size) -> parameter
    matrix: Callable[[Tensor], Tensor]  # parameter -> (problems, k, k)


def cayley_part(d: int, s: int) -> Part:
    """go-mHC: squared blocks of the Cayley transform of R − Rᵀ."""
    n = d * s
    eye = torch.eye(n)
    row, column = torch.triu_indices(n, n, offset=1)

    def parameter(theta: Tensor) -> Tensor:
        R = theta.new_zeros(len(theta), n, n)
        R[:, row, column] = theta
        return R

    def matrix(R: Tensor) -> Tensor:
        A, one = R - R.mT, eye.to(R)
        Q = torch.linalg.solve(one + A, one - A)
        return Q.square().reshape(-1, d, s, d, s).sum((2, 4)) / s

    return Part(n * (n - 1) // 2, parameter, matrix)


def permutation_part(d: int) -> Part:
    """mHC-lite and the factors of KromHC: a softmax over all permutation matrices."""
    table = torch.eye(d)[torch.tensor(list(itertools.permutations(range(d))))].flatten(1)

    def matrix(logits: Tensor) -> Tensor:
        return (logits.softmax(-1) @ table.to(logits)).unflatten(-1, (d, d))

    return Part(math.factorial(d), torch.clone, matrix)


def sinkhorn_part(d: int, iterations: int = 20) -> Part:
    """mHC: Sinkhorn–Knopp in the log domain."""

    def matrix(logits: Tensor) -> Tensor:
        for _ in range(iterations):
            logits = logits - logits.logsumexp(-2, keepdim=True)
            logits = logits - logits.logsumexp(-1, keepdim=True)
        return logits.exp()

    return Part(d * d, lambda theta: theta.unflatten(-1, (d, d)).clone(), matrix)


def parts_of(label: str, d: int) -> list[Part]:
    """The factors of a method, outermost first; mostly one."""
    name, _, s = label.partition(" s=")
    match name:
        case "go-mhc":
            return [cayley_part(d, int(s))]
        case "mhc":
            return [sinkhorn_part(d)]
        case "mhc-lite":
            return [permutation_part(d)]
        case "kromhc":
            return [permutation_part(2)] * (d.bit_length() - 1)
        case "kron-go":
            return [cayley_part(2, int(s)), cayley_part(d // 2, int(s))]
        case _:
            raise ValueError(f"expected a method of the benchmark, got {label!r}")


def baseline(
    problem: Problem, label: str, theta: Float[Tensor, "problems g"], steps: int, dtype: torch.dtype
) -> Float[Tensor, "problems steps"]:
    """Fit one method to all problems with autograd, on the samples.

    Args:
        problem: what to fit.
        label: one of METHODS.
        theta: the start, in gomhc's parameters.
        steps: of Adam.
        dtype: float32, as in the release, or float64.

    Returns:
        (problems, steps): the loss before each step.
    """
    X, Y = problem.X.to(dtype), problem.Y.to(dtype)
    parts = parts_of(label, problem.d)
    pieces = theta.to(dtype).split([part.size for part in parts], -1)
    parameters = [
        part.parameter(piece).requires_grad_() for part, piece in zip(parts, pieces, strict=True)
    ]
    adam = torch.optim.Adam(parameters, lr=LEARNING_RATE, eps=EPSILON)
    history = []
    for _ in range(steps):
        B, *factors = [part.matrix(p) for part, p in zip(parts, parameters, strict=True)]
        for factor in factors:
            B = torch.einsum("pij,pkl->pikjl", B, factor).flatten(3, 4).flatten(1, 2)
        losses = (Y - X @ B.mT).square().mean((-2, -1))
        adam.zero_grad()
        losses.mean().backward()
        adam.step()
        history.append(losses.detach())
    return torch.stack(history, -1)


# Ours


def ours(problem: Problem, label: str, steps: int) -> Float[Tensor, "problems steps"]:
    """The same with gomhc; a fresh problem, so that making the statistics is part of it."""
    family = mixer(label, problem.d)
    settings = released_settings(family, len(problem)) | {"steps": steps}
    return fit(replace(problem), family, seed=SEED, **settings).loss


def start(problem: Problem, label: str) -> Float[Tensor, "problems g"]:
    """θ from which `ours` sets out: where one step of a length that rounds to nothing ends."""
    family, at = mixer(label, problem.d), released_start
    return fit(problem, family, learning_rate=1e-300, steps=1, seed=SEED, start=at).theta


def first_calls() -> dict[str, float]:
    """Seconds of the first fit in a new process: without and with compiled code in Numba's cache.

    Loading Numba is part of both, loading torch and gomhc of neither.
    """
    code = (
        "import time; from gomhc import make_mixer; from gomhc.stream_mixing import fit\n"
        "from gomhc.companion.released import *\n"
        "problem, mixer = released_problem(4), make_mixer('go-mhc', 4)\n"
        "clock = time.perf_counter(); fit(problem, mixer, steps=1)\n"
        "print(time.perf_counter() - clock)"
    )
    return timed_in_new_processes(code)


# Side by side


class Timing(NamedTuple):
    """Median wall and processor seconds of a call, how often it was made, and what it gave."""

    seconds: float
    cpu_seconds: float
    repeats: int
    loss: Tensor


def measure(call: Callable[[], Tensor]) -> Timing:
    """Time a call: the median of some repeats if it is cheap."""
    wall: list[float] = []
    cpu: list[float] = []
    while len(wall) < REPEATS and (not wall or wall[0] < CHEAP):
        at, used = time.perf_counter(), time.process_time()
        loss = call()
        wall.append(time.perf_counter() - at)
        cpu.append(time.process_time() - used)
    return Timing(statistics.median(wall), statistics.median(cpu), len(wall), loss)


def best_threads(call: Callable[[], Any]) -> int:
    """The number of torch's threads with which a call is fastest; it warms the call up too."""
    seconds = {}
    cores = joblib.cpu_count()
    for threads in sorted({1, min(2, cores), cores}):
        torch.set_num_threads(threads)
        seconds[threads] = math.inf
        for _ in range(2):
            clock = time.perf_counter()
            call()
            seconds[threads] = min(seconds[threads], time.perf_counter() - clock)
    return min(seconds, key=lambda threads: seconds[threads])


def difference(losses: Tensor, expected: Tensor) -> float:
    """Largest relative difference."""
    return ((losses.double() - expected).abs() / expected).max().item()


def check(problem: Problem, label: str, theta: Tensor, steps: int) -> float:
    """How far the losses of both sides are apart, the baseline in float64.

    Raises:
        RuntimeError: if that is more than rounding.
    """
    apart = difference(
        baseline(problem, label, theta, steps, torch.float64), ours(problem, label, steps)
    )
    if not apart <= TOLERANCE:
        raise RuntimeError(
            f"{label}, d = {problem.d}: expected the same losses from both sides in the first "
            f"{steps} steps, to {TOLERANCE:.0e}; got a relative difference of {apart:.1e}"
        )
    return apart


def compare_one(
    d: int, label: str, draw: int, steps: int, baseline_steps: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Check and time both sides for one method."""
    problem = released_problem(d, seed=SEED, draw=draw)
    theta = start(problem, label)
    checked = min(steps, CHECKED)
    apart = check(problem, label, theta, checked)
    probe = min(baseline_steps, PROBED)
    threads = best_threads(lambda: baseline(problem, label, theta, probe, dtype))
    torch.set_num_threads(threads)
    theirs = measure(lambda: baseline(problem, label, theta, baseline_steps, dtype))
    torch.set_num_threads(1)
    mine = measure(lambda: ours(problem, label, steps))
    scale = steps / baseline_steps
    at_same = mine.loss[:, baseline_steps - 1].mean().item()
    return {
        "ours": {
            "seconds": mine.seconds,
            "cpu_seconds": mine.cpu_seconds,
            "repeats": mine.repeats,
            "loss": at_same,
        },
        "baseline": {
            "seconds": theirs.seconds * scale,
            "cpu_seconds": theirs.cpu_seconds * scale,
            "repeats": theirs.repeats,
            "threads": threads,
            "loss": theirs.loss[:, -1].double().mean().item(),
        },
        "ratio": theirs.seconds * scale / mine.seconds,
        "cpu_ratio": theirs.cpu_seconds * scale / mine.cpu_seconds,
        "difference": apart,
    }


def totals(rows: Sequence[dict[str, Any]], compilation: float) -> dict[str, float]:
    """Sums over methods and their ratios; with compilation added to our wall time too."""
    mine, theirs = (
        {key: sum(row[side][key] for row in rows) for key in ("seconds", "cpu_seconds")}
        for side in ("ours", "baseline")
    )
    return {
        "ours": mine["seconds"],
        "baseline": theirs["seconds"],
        "ratio": theirs["seconds"] / mine["seconds"],
        "cpu_ratio": theirs["cpu_seconds"] / mine["cpu_seconds"],
        "ratio_with_compilation": theirs["seconds"] / (mine["seconds"] + compilation),
    }


def compare(
    sizes: Sequence[int],
    steps: int = 10_000,
    baseline_steps: int | None = None,
    dtype: str = "float32",
) -> Outcome:
    """Check and time both sides for every method of each size, and print the tables.

    Args:
        sizes: numbers of streams, 4 or 8.
        steps: of Adam.
        baseline_steps: how many of them the baseline runs; its times are scaled up from those. All
            if not given.
        dtype: the baseline's, "float32" or "float64".

    Returns:
        metrics["d4"]["methods"][label]: seconds of both sides (`ours`, `baseline`), their `ratio`
        and that of processor time, mean loss of both after the baseline's last step, and the
        largest relative `difference` in the check; metrics["d4"]["total"]; metrics["total"] where
        there are two sizes; metrics["first_calls"], what compilation takes; metrics["machine"].

    Raises:
        ValueError: if steps < 1, or baseline_steps is not between 1 and steps.
        RuntimeError: if the two sides disagree.
    """
    baseline_steps = steps if baseline_steps is None else baseline_steps
    if not 1 <= baseline_steps <= steps:
        raise ValueError(
            f"expected 1 <= baseline steps <= steps, got {baseline_steps=} and {steps=}"
        )
    machine = {"processor": processor(), "cores": joblib.cpu_count()}
    print(
        f"Released stream mixing, {steps:,} steps, 64 problems of 100 samples, on "
        f"{machine['cores']} cores of {machine['processor']}\n"
        f"ours: gomhc {gomhc.__version__}, float64, a thread a core; baseline: "
        f"torch {torch.__version__}, {dtype}, the better number of threads"
    )
    if baseline_steps < steps:
        print(f"ESTIMATE: baseline times are scaled up from {baseline_steps:,} steps")
    first = first_calls()
    print(
        f"first fit in a new process: {first['compiled']:.1f} s with compilation, "
        f"{first['cached']:.1f} s with the compiled code in the cache"
    )
    threads = torch.get_num_threads()
    metrics: dict[str, Any] = {
        "machine": machine,
        "estimate": baseline_steps < steps,
        "first_calls": first,
    }
    everything: list[dict[str, Any]] = []
    try:
        for d in sizes:
            print(f"\n{heading(d)}", flush=True)
            rows = {}
            for draw, label in enumerate(METHODS[d]):
                rows[label] = compare_one(
                    d, label, draw, steps, baseline_steps, getattr(torch, dtype)
                )
                print(line(label, rows[label]), flush=True)
            total = totals(list(rows.values()), first["compiled"])
            print(closing(f"total d = {d}", total), flush=True)
            metrics[f"d{d}"] = {"methods": rows, "total": total}
            everything += rows.values()
    finally:
        torch.set_num_threads(threads)
    if len(sizes) > 1:
        metrics["total"] = totals(everything, first["compiled"])
        print("\n" + closing("total", metrics["total"]))
    return Outcome(metrics, {})


def heading(d: int) -> str:
    """Of the columns that `line` fills."""
    return (
        f"{f'd = {d}':<13}{'ours':>9}{'baseline':>11}{'threads':>9}{'ratio':>8}{'CPU':>7}"
        f"{'loss ours':>13}{'baseline':>11}{'check':>10}"
    )


def line(label: str, row: dict[str, Any]) -> str:
    """One method of the table."""
    mine, theirs = row["ours"], row["baseline"]
    return (
        f"{label:<13}{mine['seconds']:7.2f} s{theirs['seconds']:9.1f} s{theirs['threads']:9}"
        f"{row['ratio']:7.1f}x{row['cpu_ratio']:6.1f}x"
        f"{mine['loss']:13.6f}{theirs['loss']:11.6f}{row['difference']:10.0e}"
    )


def closing(name: str, total: dict[str, float]) -> str:
    """The last line of the table."""
    return (
        f"{name:<13}{total['ours']:7.2f} s{total['baseline']:9.1f} s{'':9}{total['ratio']:7.1f}x"
        f"{total['cpu_ratio']:6.1f}x   with compilation {total['ratio_with_compilation']:.1f}x"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stream_mixing",
        description="Time gomhc.stream_mixing.fit against a plain PyTorch loop.",
    )
    parser.add_argument("--steps", type=int, default=10_000, help="of Adam (%(default)s)")
    parser.add_argument(
        "--baseline-steps", type=int, help="steps of the baseline, scaled up to all (all)"
    )
    parser.add_argument("--d", type=int, nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--dtype", choices=["float32", "float64"], default="float32", help="of the baseline"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="put a record into a folder")
    options = parser.parse_args(arguments)
    if options.baseline_steps is None:
        options.baseline_steps = options.steps
    config = {
        "sizes": options.d,
        "steps": options.steps,
        "baseline_steps": options.baseline_steps,
        "dtype": options.dtype,
    }
    if options.out is None:
        compare(**config)
        return
    check_writable(options.out)
    record = records.make("benchmarks/stream-mixing", compare, config, [SEED])
    print(f"\nrecord: {records.save(record, options.out)}")


if __name__ == "__main__":
    main()
