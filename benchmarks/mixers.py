"""What a mixing matrix costs in time: fused mixers, plain PyTorch, other packages.

One forward and one backward pass over many tokens, in float32. Methods take turns in every round of
a run, so that a ratio compares what ran side by side; medians over the rounds are given. Before any
clock starts, every method must give what its map gives in float64.

The floor of a method is the time in which the machine copies the bytes that must move: θ in and
H_res out; θ and the derivative by H_res in, and that by θ out. Its bandwidth is measured in the
same run. What a call of PyTorch costs by itself (some microseconds) is no part of the floor.
"""

import argparse
import functools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy.stats import linregress
from torch import Tensor

import gomhc
from benchmarks.machine import processor, timed_in_new_processes
from gomhc.companion import probes, records
from gomhc.companion.studies.base import BENCHMARKS, Outcome, Probe, mixer
from gomhc.files import check_writable
from gomhc.fused import choose
from gomhc.fused.stages import reference
from gomhc.maps import marginal_error

SEED = 5
TOLERANCE = 1e-3  # of a float32 method from its map in float64; truncated Sinkhorn's marginals
LARGEST = 2**31  # bytes of matrices of order ds beyond which the solve is left out
COPIED = 2**28  # bytes of the copy that measures the bandwidth
ROUNDS, PATIENCE = 7, 4.0  # rounds of a table; seconds after which a method has run often enough
GO, SOLVE = "go-mhc s=2", "solve and autograd"


class Method(NamedTuple):
    """A way to make mixing matrices."""

    label: str  # of the map, as in `gomhc.companion.studies.base.mixer`
    path: str  # "fused", "PyTorch" (the library's own, unfused), or another
    size: int  # g
    call: Callable[[Tensor], Tensor]


def solve(d: int, s: int) -> Callable[[Tensor], Tensor]:
    """go-mHC as the authors have it: R − Rᵀ, `torch.linalg.solve`, squared blocks, autograd."""
    n = d * s
    row, column = torch.triu_indices(n, n, offset=1)

    def call(theta: Tensor) -> Tensor:
        R = theta.new_zeros(len(theta), n, n)
        R[:, row, column] = theta
        A, eye = R - R.mT, torch.eye(n, device=theta.device)
        Q = torch.linalg.solve(eye + A, eye - A)
        return Q.square().reshape(-1, d, s, d, s).sum((2, 4)) / s

    return call


def linear(theta: Tensor, d: int, iterations: int = 20) -> Tensor:
    """Sinkhorn's iteration as one would write it first, on exponentials."""
    B = theta.unflatten(-1, (d, d))
    B = (B - B.amax((-2, -1), keepdim=True)).exp()
    for _ in range(iterations):
        B = B / B.sum(-2, keepdim=True)
        B = B / B.sum(-1, keepdim=True)
    return B


def pot(theta: Tensor, d: int, method: str) -> Tensor:
    """POT's batched Sinkhorn with as many iterations, differentiated through all of them."""
    import ot

    M = -theta.unflatten(-1, (d, d))
    one = theta.new_ones(len(theta), d)
    plan = ot.batch.solve_batch(
        M, reg=1.0, a=one, b=one, max_iter=20, tol=0.0, method=method, grad="autodiff"
    )
    return plan.plan


def sinkhorns(d: int, device: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """Sinkhorn by hand, and by other packages if they are installed."""

    def squared(call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda theta: call(theta.unflatten(-1, (d, d)))

    calls: dict[str, Callable[[Tensor], Tensor]] = {"linear domain": functools.partial(linear, d=d)}
    if find_spec("hyper_connections"):
        from hyper_connections import mHCv2, triton_sinkhorn

        calls["hyper-connections"] = squared(mHCv2.sinkhorn_knopps)
        calls["hyper-connections, log"] = squared(mHCv2.log_domain_sinkhorn_knopps)
        if device == "cuda":
            calls["hyper-connections, Triton"] = squared(triton_sinkhorn.triton_sinkhorn)
    if find_spec("ot"):
        if device == "cpu":  # where POT makes its scaling vectors, wherever the costs are
            calls["POT"] = functools.partial(pot, d=d, method="sinkhorn")
        calls["POT, log"] = functools.partial(pot, d=d, method="log_sinkhorn")
    return calls


LABELS = (
    *("go-mhc s=1", GO, "go-mhc s=3", "mhc", "mhc-lite", "kromhc", "kron-go s=2"),
    *("orthogonal", "transport"),
)


def methods(d: int, tokens: int, device: str) -> list[Method]:
    """All that there is at this size."""
    entries = []
    for label in LABELS:
        try:
            family = mixer(label, d)
        except ValueError:  # the family has no such d
            continue
        if family.num_parameters * tokens * 4 > LARGEST:
            continue  # d! numbers a token
        g = family.num_parameters
        path = choose("auto", family.stages(), tokens, torch.float32, device).path
        if path == "fused":
            entries.append(Method(label, "fused", g, family))
        plain = mixer(label, d)
        plain.backend = "reference"
        entries.append(Method(label, "PyTorch", g, plain.to(device)))
        name, _, s = label.partition(" s=")
        if name == "go-mhc" and (d * int(s)) ** 2 * tokens * 4 <= LARGEST:
            entries.append(Method(label, SOLVE, g, solve(d, int(s))))
        if label == "mhc":
            entries += [Method(label, path, g, call) for path, call in sinkhorns(d, device).items()]
    return entries


def floor_bytes(method: Method, d: int) -> int:
    """Bytes a token that must move, see the head of this module."""
    return 4 * (3 * method.size + 2 * d * d)


def check(method: Method, d: int, device: str) -> float:
    """How far a method is from its map in float64.

    Raises:
        RuntimeError: if that is more than rounding.
    """
    theta = draw(300, method.size, device)
    matrices = method.call(theta).double().cpu()
    if method.path.startswith("POT"):  # rows first: not the same truncated iteration
        apart = marginal_error(matrices).max().item()
    else:
        family = mixer(method.label, d)
        exact = reference(theta.double().cpu(), family.stages() or ())
        apart = (matrices - exact).abs().max().item()
    if not apart <= TOLERANCE:
        raise RuntimeError(
            f"{method.label} by {method.path}, d = {d}: expected the map of float64 to "
            f"{TOLERANCE:.0e}, got a difference of {apart:.1e}"
        )
    return apart


def without_clocks(sizes: Sequence[int], tokens: int) -> Outcome:
    """What the methods give on the CPU, and what their floors count.

    Args:
        sizes: numbers of streams d.
        tokens: number of matrices.

    Returns:
        metrics[str(d)]["label, path"]: `error`, how far it is from its map in float64; `bytes` of
        the floor, a token; norms of the `matrices` and of a `gradient`.
    """
    metrics: dict[str, Any] = {}
    for d in sizes:
        metrics[str(d)] = {}
        for method in methods(d, tokens, "cpu"):
            theta = draw(tokens, method.size, "cpu").requires_grad_()
            matrices = method.call(theta)
            (gradient,) = torch.autograd.grad(matrices.square().sum(), theta)
            metrics[str(d)][f"{method.label}, {method.path}"] = {
                "error": check(method, d, "cpu"),
                "bytes": floor_bytes(method, d),
                "matrices": matrices.norm().item(),
                "gradient": gradient.norm().item(),
            }
    return Outcome(metrics, {})


PROBE = Probe(
    "benchmarks/mixers",
    without_clocks,
    {"sizes": [3, 4, 8], "tokens": 256},
    ("benchmarks/mixers-cpu", "benchmarks/mixers-gpu"),
    relative=1e-5,  # norms of many float32 numbers
    absolute=2e-6,  # the rounding of one
)


def draw(tokens: int, size: int, device: str) -> Tensor:
    """The generators of all methods of that size."""
    source = torch.Generator().manual_seed(SEED)
    return torch.randn(tokens, size, generator=source).to(device)


# Clocks


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], Any], device: str) -> float:
    """Of one call."""
    wait(device)
    clock = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - clock


def turns(calls: Sequence[Callable[[], Any]], device: str, rounds: int) -> list[float]:
    """Median seconds of calls that take turns; those that are slow run less often."""
    spent: list[list[float]] = []
    for call in calls:
        first = seconds(call, device)  # compiles, warms caches
        spent.append([first] if first > PATIENCE else [])
    for _ in range(rounds):
        for own, call in zip(spent, calls, strict=True):
            if sum(own) < PATIENCE:
                own.append(seconds(call, device))
    return [statistics.median(own) for own in spent]


def bandwidth(device: str, rounds: int) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.ones(COPIED // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED / turns([lambda: target.copy_(source)], device, rounds)[0]


def both_ways(method: Method, tokens: int, d: int, device: str) -> Callable[[], Any]:
    """One forward and one backward pass, to be timed."""
    theta = draw(tokens, method.size, device).requires_grad_()
    slope = draw(tokens, d * d, device).unflatten(-1, (d, d))
    return lambda: torch.autograd.grad(method.call(theta), theta, slope)


def first_calls(device: str) -> dict[str, float]:
    """Seconds of the first pass in a new process: with an empty cache of compiled code, and after.

    Loading the compiler is part of both, loading torch and gomhc of neither.
    """
    code = (
        "import sys, time, torch; from gomhc import make_mixer\n"
        "mixer = make_mixer('go-mhc', 4, s=2)\n"
        "theta = torch.randn(4096, 28, device=sys.argv[1], requires_grad=True)\n"
        "clock = time.perf_counter(); mixer(theta).sum().backward()\n"
        "print(time.perf_counter() - clock)"
    )
    return timed_in_new_processes(code, device)


# Tables


def table(tokens: int, d: int, device: str, speed: float, rounds: int) -> list[dict[str, Any]]:
    """All methods at one size, with times over the floor and over fused go-mHC, s = 2."""
    rows: list[dict[str, Any]] = []
    chosen = methods(d, tokens, device)
    apart = [check(method, d, device) for method in chosen]
    spent = turns([both_ways(method, tokens, d, device) for method in chosen], device, rounds)
    ours = next(t for m, t in zip(chosen, spent, strict=True) if m.label == GO and m.path != SOLVE)
    for method, took, error in zip(chosen, spent, apart, strict=True):
        floor = tokens * floor_bytes(method, d) / speed
        rows.append(
            {
                "label": method.label,
                "path": method.path,
                "seconds": took,
                "over_floor": took / floor,
                "over_go": took / ours,
                "error": error,
            }
        )
    return rows


def exponent(times: dict[int, float]) -> dict[str, float]:
    """Slope of log seconds against log d, and its standard error."""
    line = linregress([math.log(d) for d in times], [math.log(t) for t in times.values()])
    return {"value": float(line.slope), "stderr": float(line.stderr)}


def compare(tokens: Sequence[int], sizes: Sequence[int], device: str, rounds: int) -> Outcome:
    """Time everything, and print the tables.

    Args:
        tokens: numbers of matrices.
        sizes: numbers of streams d.
        device: "cpu" or "cuda".
        rounds: of which the medians are taken.

    Returns:
        metrics: machine, bandwidth (bytes a second), first_calls (seconds), tables (a list of
        `tokens`, `d`, `rows`), and exponent of the fused go-mHC in d.
    """
    machine = {
        "processor": torch.cuda.get_device_name() if device == "cuda" else processor(),
        "threads": torch.get_num_threads(),
    }
    speed = bandwidth(device, rounds)
    first = first_calls(device)
    print(
        f"{machine['processor']}, {machine['threads']} threads; copies {speed / 1e9:.1f} GB/s\n"
        f"first call: {first['compiled']:.1f} s with compilation, {first['cached']:.1f} s after\n"
        f"{gomhc.backend_report()}"
    )
    tables: list[dict[str, Any]] = []
    for count in tokens:
        for d in sizes:
            rows = table(count, d, device, speed, rounds)
            tables.append({"tokens": count, "d": d, "rows": rows})
            print(f"\n{count:,} tokens, d = {d}:  forward and backward, over the floor, {GO} = 1")
            for row in rows:
                print(
                    f"  {row['label']:<12}{row['path']:<24}{1e3 * row['seconds']:10.3f} ms"
                    f"{row['over_floor']:10.1f}{row['over_go']:10.2f}",
                    flush=True,
                )
    fused = {
        t["d"]: row["seconds"]
        for t in tables
        for row in t["rows"]
        if t["tokens"] == max(tokens) and (row["label"], row["path"]) == (GO, "fused")
    }
    slope = exponent(fused) if len(fused) > 2 else None
    if slope:
        print(f"\n{GO}, fused: seconds grow like d^({slope['value']:.2f} ± {slope['stderr']:.2f})")
    metrics = {
        "machine": machine,
        "bandwidth": speed,
        "first_calls": first,
        "tables": tables,
        "exponent": slope,
    }
    return Outcome(metrics, {})


def run(
    kind: str, compare: Callable[..., Outcome], config: dict[str, Any], out: Path | None
) -> None:
    """Compare, and put a record of it into a folder if there is one."""
    if out is None:
        compare(**config)
        return
    check_writable(out)
    name = f"benchmarks/{kind}-{'gpu' if config['device'] == 'cuda' else 'cpu'}"
    record = records.make(name, compare, config, [SEED], BENCHMARKS[name])
    print(f"\nrecord: {records.save(record, out)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mixers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    gpu = torch.cuda.is_available()
    parser.add_argument("--tokens", type=int, nargs="+", default=[16384, 65536])
    parser.add_argument("--d", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if gpu else "cpu")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of all methods (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="put a record into a folder")
    parser.add_argument("--probe", action="store_true", help="make the probe anew, time nothing")
    options = parser.parse_args(arguments)
    if options.probe:
        print(probes.renew(PROBE))
        return
    config = {
        "tokens": options.tokens,
        "sizes": options.d,
        "device": options.device,
        "rounds": options.rounds,
    }
    run("mixers", compare, config, options.out)


if __name__ == "__main__":
    main()
