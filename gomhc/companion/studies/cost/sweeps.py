"""Parameters, FLOPs, bytes and seconds of the mixers against d and s."""

import math
import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from scipy.stats import linregress
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gomhc.companion.studies import base
from gomhc.companion.studies.base import Outcome
from gomhc.companion.studies.cost.counting import (
    STEP,
    TOKENS,
    count_flops,
    count_parameters,
    published_flops,
    step,
    thetas,
)
from gomhc.mixers.base import Mixer

__all__ = ["feasible", "flops", "memory", "parameters", "timing"]

WIDTH = 384  # C of the paper's language model

Table = dict[str, dict[str, Any]]  # label -> d as text -> value; None where there is no mixer


def _part(table: Table, take: Callable[[Any], Any]) -> Table:
    """The same table with a part of every value."""
    return {
        label: {d: None if value is None else take(value) for d, value in row.items()}
        for label, row in table.items()
    }


def _sweep(
    measure: Callable[[Mixer], Any],
    labels: Sequence[str],
    sizes: Sequence[int],
    block_sizes: Sequence[int] = (),
    block_d: int = 8,
    largest: Mapping[str, int] = MappingProxyType({}),
) -> Table:
    """Measure every mixer at every d, and go-mHC at every block size for one d."""
    table: Table = {}
    cases = [(label, d) for label in labels for d in sizes if d <= largest.get(label, d)]
    for label, d in cases + [(f"go-mhc s={s}", block_d) for s in block_sizes]:
        mixer: Mixer | None
        try:
            mixer = base.mixer(label, d)
            mixer.backend = "reference"  # compiled code is opaque to counters, and timed apart
        except ValueError:  # the family has no such d
            mixer = None
        cell = table.setdefault(label, {})
        if str(d) not in cell:
            cell[str(d)] = None if mixer is None else measure(mixer)
    return table


def _exponent(points: Mapping[float, float | None]) -> dict[str, float] | None:
    """Slope of the line through the logarithms, its standard error, and that of the last two."""
    known = {x: y for x, y in points.items() if y}
    if len(known) < 3:
        return None
    line = linregress([math.log(x) for x in known], [math.log(y) for y in known.values()])
    (x, y), (next_x, next_y) = sorted(known.items())[-2:]
    last = math.log(next_y / y) / math.log(next_x / x)
    return {"value": float(line.slope), "stderr": float(line.stderr), "last": last}


def _exponents(table: Table, start: int, block_start: int, block_d: int) -> dict[str, Any]:
    """Exponents in d of every label, from d = start on, and of go-mHC in s at one d."""
    exponents: dict[str, Any] = {
        label: _exponent({int(d): value for d, value in row.items() if int(d) >= start})
        for label, row in table.items()
    }
    blocks = {
        int(label.partition("=")[2]): row[str(block_d)]
        for label, row in table.items()
        if label.startswith("go-mhc s=") and str(block_d) in row
    }
    in_s = _exponent({s: value for s, value in blocks.items() if s >= block_start})
    return {"d": {label: value for label, value in exponents.items() if value}, "s": in_s}


def parameters(labels: Sequence[str], sizes: Sequence[int], width: int = WIDTH) -> Outcome:
    """How many numbers a mixer asks for, and a hyper-connection around it has to train.

    Args:
        labels: mixers.
        sizes: numbers of streams d.
        width: C.

    Returns:
        metrics: generator[label][d] = g; layer, the trainable numbers of a hyper-connection,
        counted; formula, what (dC + 1)g + 2d²C + 2d + 3 gives for them.
    """

    def formula(mixer: Mixer) -> int:
        d, g = mixer.d, mixer.num_parameters
        return (d * width + 1) * g + 2 * d * d * width + 2 * d + 3

    metrics = {
        "generator": _sweep(lambda mixer: mixer.num_parameters, labels, sizes),
        "layer": _sweep(lambda mixer: count_parameters(mixer, width), labels, sizes),
        "formula": _sweep(formula, labels, sizes),
    }
    return Outcome(metrics, {})


def flops(
    labels: Sequence[str],
    sizes: Sequence[int],
    block_sizes: Sequence[int] = (),
    block_d: int = 8,
    start: int = 16,
    block_start: int = 4,
    largest: Mapping[str, int] = MappingProxyType({}),
    width: int = WIDTH,
) -> Outcome:
    """FLOPs a token of mixers, alone and inside a hyper-connection.

    Args:
        labels: mixers.
        sizes: numbers of streams d.
        block_sizes: values of s at which go-mHC is counted at d = block_d.
        block_d: see there.
        start: exponents in d are fitted from this d on.
        block_start: the exponent in s is fitted from this s on.
        largest: label -> the last d at which it is measured, if not the last of all.
        width: C.

    Returns:
        metrics: mixer[label][d], forward; training, forward and backward; layer, the whole hyper-
        connection forward; torch, what torch's counter alone sees of mixer; solve, the linear solve
        in it; published, the papers' order; exponent of mixer, in d and in s.
    """
    where = (labels, sizes, block_sizes, block_d, largest)
    forward = _sweep(count_flops, *where)
    known = {str(packet) for packet in flop_registry}

    def seen(cell: dict[str, float]) -> float:
        return sum(count for name, count in cell.items() if name in known)

    def total(mixer: Mixer, **options: Any) -> float:
        return sum(count_flops(mixer, **options).values())

    table = _part(forward, lambda cell: sum(cell.values()))
    metrics = {
        "mixer": table,
        "training": _sweep(lambda mixer: total(mixer, backward=True), *where),
        "layer": _sweep(lambda mixer: total(mixer, width=width), *where),
        "torch": _part(forward, seen),
        "solve": _part(forward, lambda cell: cell.get("aten._linalg_solve_ex", 0.0)),
        "published": _sweep(published_flops, *where),
        "exponent": _exponents(table, start, block_start, block_d),
    }
    return Outcome(metrics, {})


class _Bytes(TorchDispatchMode):
    """Bytes of the tensors that were made inside and are alive: now, and at most."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.now = self.most = 0
        self.alive = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.alive:
            self.alive.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size


def _bytes(mixer: Mixer) -> tuple[float, float]:
    """Bytes a token, in float32: kept from forward to backward, and at most at any time."""
    sizes = []
    for tokens in TOKENS:
        theta = thetas(mixer, tokens)
        with _Bytes(theta, *mixer.buffers()) as kept:
            matrix = mixer(theta)
        with _Bytes(theta, *mixer.buffers()) as both:
            step(mixer, theta)
        sizes.append((kept.now, both.most))
        del matrix
    (kept_fewer, most_fewer), (kept_more, most_more) = sizes
    return (kept_more - kept_fewer) / STEP, (most_more - most_fewer) / STEP


def memory(
    labels: Sequence[str],
    sizes: Sequence[int],
    block_sizes: Sequence[int] = (),
    block_d: int = 8,
    start: int = 16,
    block_start: int = 4,
    largest: Mapping[str, int] = MappingProxyType({}),
) -> Outcome:
    """Bytes a token of the tensors that a mixer makes, forward and backward in float32.

    Torch's dispatcher shows every tensor that comes and goes; the workspace that a kernel takes and
    gives back inside one operation stays unseen. The arguments are those of
    `flops`, which see, without the width.

    Returns:
        metrics: bytes[label][d] kept from the forward to the backward pass (the matrix included,
        the generator not), peak[label][d] at any time, exponent of the first, in d and in s.
    """
    both = _sweep(_bytes, labels, sizes, block_sizes, block_d, largest)
    kept = _part(both, lambda pair: pair[0])
    most = _part(both, lambda pair: pair[1])
    exponent = _exponents(kept, start, block_start, block_d)
    return Outcome({"bytes": kept, "peak": most, "exponent": exponent}, {})


def timing(
    labels: Sequence[str],
    sizes: Sequence[int],
    block_sizes: Sequence[int] = (),
    block_d: int = 8,
    start: int = 16,
    block_start: int = 4,
    largest: Mapping[str, int] = MappingProxyType({}),
    repeats: int = 9,
    budget: int = 2**26,
    most_tokens: int = 4096,
) -> Outcome:
    """Processor seconds a token of a mixer, forward and backward, on one thread in float32.

    Of the mixers as they are in PyTorch; their compiled path is timed by `benchmarks.mixers`.

    Args:
        labels: mixers.
        sizes: numbers of streams d.
        block_sizes: see `flops`.
        block_d: see `flops`.
        start: see `flops`.
        block_start: see `flops`.
        largest: see `flops`.
        repeats: passes, after one that does not count; their median is taken.
        budget: bytes that a batch of tokens may take.
        most_tokens: tokens in a batch, if there is room for so many.

    Returns:
        metrics: seconds[label][d]; spread, the third quartile less the first over the median;
        tokens of a batch; exponent of the seconds, in d and in s; threads.
    """

    def measure(mixer: Mixer) -> tuple[float, float, int]:
        tokens = int(min(most_tokens, max(1, budget // max(_bytes(mixer)[1], 1))))
        theta = thetas(mixer, tokens)
        step(mixer, theta)
        passes = []
        for _ in range(repeats):
            # Processor time, on which other work on the machine has no claim.
            begin = time.process_time()
            step(mixer, theta)
            passes.append((time.process_time() - begin) / tokens)
        median = statistics.median(passes)
        low, _, high = statistics.quantiles(passes, n=4)
        return median, (high - low) / median, tokens

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        results = _sweep(measure, labels, sizes, block_sizes, block_d, largest)
    finally:
        torch.set_num_threads(threads)
    seconds = _part(results, lambda result: result[0])
    exponent = _exponents(seconds, start, block_start, block_d)
    metrics = {
        "seconds": seconds,
        "spread": _part(results, lambda result: result[1]),
        "tokens": _part(results, lambda result: result[2]),
        "exponent": exponent,
        "threads": 1,
    }
    return Outcome(metrics, {})


def feasible(table: Mapping[str, Mapping[str, float | None]], limit: float) -> dict[str, Any]:
    """Where each mixer stops: the largest d of a table at which it stays within a limit.

    Args:
        table: label -> d -> value.
        limit: largest value allowed.

    Returns:
        label -> {"largest": d or None, "next": the smallest d above it that was tried and is over
        the limit, or at which there is no such mixer, None if none was}.
    """
    stops = {}
    for label, row in table.items():
        values = {int(d): value for d, value in row.items()}
        within = [d for d, value in values.items() if value is not None and value <= limit]
        largest = max(within, default=None)
        beyond = [d for d in values if largest is None or d > largest]
        stops[label] = {"largest": largest, "next": min(beyond, default=None)}
    return stops
