"""What a mixer costs, and what a Kronecker product of mixers buys for it.

Parameters, FLOPs, seconds and bytes against d and s; then, for the mixers of one d, how near they
come to matrices of the polytope and how well they fit noisy data, against what they cost.

Note [What is counted]
    torch.utils.flop_counter knows matrix products, convolutions and attention. To it a linear
    solve, an exponential and a sum are free, so that the 20 iterations of Sinkhorn count as 0.
    `PRICES` adds the rest: one FLOP for each element that an elementwise operation writes
    (whatever the function; comparisons too) and for each element that a reduction reads; a solve
    with k right-hand sides by LU factorization is ⅔n³ + 2n²k. A product of (m, k) and (k, n) is
    2mkn, as torch has it. Moving, copying, filling and selecting is free. An operation in none of
    the lists is an error, so nothing is left out unseen.

Note [The whole hyper-connection]
    A mixing matrix is made once a token, for all C features; but its generator is made from all
    d·C numbers of the token: x' = RMSNorm(flatten(X)), θ = α x'W + b and likewise H_pre and H_post,
    then X' = H_res X + H_postᵀ F(H_pre X). `_hyper_connection` is this without F. It is counted,
    never run: its tensors are torch's fake ones, which have shapes and no values.
"""

import math
import statistics
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.stats import linregress
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode  # so documented, and with no other name
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from gomhc.birkhoff import nearest_in_family, sample_uniform
from gomhc.maps import sinkhorn_knopp
from gomhc.mixers import BirkhoffVonNeumann, Kronecker, Orthostochastic, Sinkhorn
from gomhc.mixers.base import Mixer
from gomhc.stream_mixing import Problem, fit
from gomhc.studies.base import Outcome, Unit, mixer

__all__ = [
    "LABELS",
    "UNITS",
    "count_flops",
    "count_parameters",
    "feasible",
    "flops",
    "memory",
    "parameters",
    "pareto",
    "published_flops",
    "recovered",
    "targets",
    "timing",
]

LABELS = [
    "identity",
    "hc",
    "mhc",
    "mhc-lite",
    "kromhc",
    "go-mhc s=1",
    "go-mhc s=2",
    "go-mhc s=3",
    "kron-go s=2",
]
WIDTH = 384  # C of the paper's language model


# Counting FLOPs

aten = torch.ops.aten
FREE = {
    aten._to_copy,
    aten._unsafe_view,
    aten.alias,
    aten.cat,
    aten.clone,
    aten.copy_,
    aten.detach,
    aten.empty,
    aten.empty_like,
    aten.expand,
    aten.eye,
    aten.fill_,
    aten.full,
    aten.full_like,
    aten.index_copy,
    aten.index_select,
    aten.lift_fresh,
    aten.new_zeros,
    aten.ones_like,
    aten.permute,
    aten.scalar_tensor,
    aten.slice,
    aten.split,
    aten.split_with_sizes,
    aten.squeeze,
    aten.t,
    aten.transpose,
    aten.triu_indices,
    aten.unbind,
    aten.unsqueeze,
    aten.view,
    aten.where,
    aten.zeros,
    aten.zeros_like,
}


def _writes(*_: Any, out_shape: Sequence[int], **__: Any) -> int:
    return math.prod(out_shape)


def _reads(shape: Sequence[int], *_: Any, **__: Any) -> int:
    return math.prod(shape)


def _logsumexp(shape: Sequence[int], *_: Any, out_shape: Sequence[int], **__: Any) -> int:
    """Maximum, difference, exponential and sum of what is read; a logarithm and a sum written."""
    return 4 * math.prod(shape) + 2 * math.prod(out_shape)


def _solve(shape: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
    *batch, n, k = right
    return math.prod(batch) * round(2 / 3 * n**3 + 2 * n**2 * k)


PRICES: dict[Any, Callable[..., int]] = {
    aten._linalg_solve_ex: _solve,
    aten.logsumexp: _logsumexp,
    **dict.fromkeys([aten.all, aten.amax, aten.mean, aten.sum], _reads),
    **dict.fromkeys(
        [
            aten.abs,
            aten.add,
            aten.add_,
            aten.div,
            aten.eq,
            aten.exp,
            aten.lt,
            aten.mul,
            aten.ne,
            aten.neg,
            aten.pow,
            aten.rsqrt,
            aten.sigmoid,
            aten.sub,
        ],
        _writes,
    ),
}


class _Refuse(TorchDispatchMode):
    """Raise on an operation without a price."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        packet = func._overloadpacket
        if func.namespace == "aten" and not {packet} & (
            FREE | PRICES.keys() | flop_registry.keys()
        ):
            raise NotImplementedError(f"expected an operation with a price, got {func}")
        return func(*args, **(kwargs or {}))


# A token's share is the difference of two batches, which leaves out what all tokens share, such as
# the places of θ in A. With a single token some products take another way.
TOKENS = (2, 4)
STEP = TOKENS[1] - TOKENS[0]


@contextmanager
def _counting(device: str) -> Iterator[FlopCounterMode]:
    """Count all that runs inside, on tensors made there: without values on the device "meta"."""
    with ExitStack() as stack:
        stack.enter_context(torch.device(device))
        # The counter takes an operation apart before it passes it on, so it stands inside.
        stack.enter_context(_Refuse())
        yield stack.enter_context(FlopCounterMode(display=False, custom_mapping=PRICES))


def count_flops(mixer: Mixer, width: int | None = None, backward: bool = False) -> dict[str, float]:
    """FLOPs a token, operation by operation (Note [What is counted] above).

    Args:
        mixer: any mixer.
        width: None counts the mixer alone; a number C counts the whole hyper-connection around a
            layer of that width, without the layer (Note [The whole hyper-connection]).
        backward: whether to add the gradient in θ; of the mixer alone.

    Returns:
        aten operation -> FLOPs; those that cost nothing are left out.

    Raises:
        ValueError: if backward is asked for the whole hyper-connection.
        NotImplementedError: if the mixer runs an operation that has no price.
    """
    if width is not None and backward:
        raise ValueError(f"expected width=None with backward, got {width}")
    found = []
    for tokens in TOKENS:
        theta = _thetas(mixer, tokens)
        with _counting("cpu" if width is None else "meta") as counter:
            if width is None:
                _step(mixer, theta, backward)
            else:
                X = torch.empty(tokens, mixer.d, width)
                _hyper_connection(mixer, _weights(mixer, width), X)
        found.append(counter.get_flop_counts().get("Global", {}))
    fewer, more = found
    per_token = {str(packet): (more[packet] - fewer[packet]) / STEP for packet in more}
    return {name: count for name, count in per_token.items() if count}


def count_parameters(mixer: Mixer, width: int) -> int:
    """Trainable numbers of one hyper-connection, counted on its tensors.

    Args:
        mixer: any mixer.
        width: C.

    Returns:
        The number, which does not come from a formula.
    """
    with torch.device("meta"):
        return sum(weight.numel() for weight in _weights(mixer, width).values())


def _weights(mixer: Mixer, width: int) -> dict[str, Tensor]:
    inputs, g, d = mixer.d * width, mixer.num_parameters, mixer.d
    sizes = {"res": g, "pre": d, "post": d}
    weights = {f"W_{name}": torch.empty(inputs, size) for name, size in sizes.items()}
    weights |= {f"b_{name}": torch.empty(size) for name, size in sizes.items()}
    return weights | {f"α_{name}": torch.empty(()) for name in sizes}


def _hyper_connection(mixer: Mixer, weights: Mapping[str, Tensor], X: Tensor) -> Tensor:
    x = X.flatten(-2)
    x = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()

    def generated(name: str) -> Tensor:
        return weights[f"α_{name}"] * (x @ weights[f"W_{name}"]) + weights[f"b_{name}"]

    H_res = mixer(generated("res"))
    H_pre = generated("pre").sigmoid()[..., None, :]
    H_post = 2 * generated("post").sigmoid()[..., None, :]
    read = H_pre @ X  # and F of it, which is not counted
    return H_res @ X + H_post.mT * read


def published_flops(mixer: Mixer) -> int | None:
    """The order of FLOPs that the papers give, without its constant and its factor C.

    mHC S·d² with S iterations; mHC-lite d²·d!; KromHC Σ i²·i! + d² over its factors of order i;
    go-mHC s³·d³. None for a mixer of which none is published.

    Source: go-mHC, arXiv 2604.02309; KromHC, arXiv 2601.21579.
    """
    match mixer:
        case Sinkhorn(d=d, iterations=iterations):
            return iterations * d**2
        case BirkhoffVonNeumann(d=d):
            return d**2 * math.factorial(d)
        case Orthostochastic(d=d, s=s):
            return (s * d) ** 3
        case Kronecker(d=d, factors=factors):
            if all(isinstance(factor, BirkhoffVonNeumann) for factor in factors):
                return d**2 + sum(f.d**2 * math.factorial(f.d) for f in factors)
    return None


# Against d and s

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
) -> Table:
    """Measure every mixer at every d, and go-mHC at every block size for one d."""
    table: Table = {}
    cases = [(label, d) for label in labels for d in sizes]
    for label, d in cases + [(f"go-mhc s={s}", block_d) for s in block_sizes]:
        try:
            made = mixer(label, d)
            made.backend = "reference"  # compiled code is opaque to counters, and timed apart
        except ValueError:  # the family has no such d
            made = None
        cell = table.setdefault(label, {})
        if str(d) not in cell:
            cell[str(d)] = None if made is None else measure(made)
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
    found: dict[str, Any] = {
        label: _exponent({int(d): value for d, value in row.items() if int(d) >= start})
        for label, row in table.items()
    }
    blocks = {
        int(label.partition("=")[2]): row[str(block_d)]
        for label, row in table.items()
        if label.startswith("go-mhc s=") and str(block_d) in row
    }
    in_s = _exponent({s: value for s, value in blocks.items() if s >= block_start})
    return {"d": {label: value for label, value in found.items() if value}, "s": in_s}


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

    def formula(made: Mixer) -> int:
        d, g = made.d, made.num_parameters
        return (d * width + 1) * g + 2 * d * d * width + 2 * d + 3

    metrics = {
        "generator": _sweep(lambda made: made.num_parameters, labels, sizes),
        "layer": _sweep(lambda made: count_parameters(made, width), labels, sizes),
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
        width: C.

    Returns:
        metrics: mixer[label][d], forward; training, forward and backward; layer, the whole hyper-
        connection forward; torch, what torch's counter alone sees of mixer; solve, the linear solve
        in it; published, the papers' order; exponent of mixer, in d and in s.
    """
    where = (labels, sizes, block_sizes, block_d)
    forward = _sweep(count_flops, *where)
    known = {str(packet) for packet in flop_registry}

    def seen(cell: dict[str, float]) -> float:
        return sum(count for name, count in cell.items() if name in known)

    def total(made: Mixer, **options: Any) -> float:
        return sum(count_flops(made, **options).values())

    table = _part(forward, lambda cell: sum(cell.values()))
    metrics = {
        "mixer": table,
        "training": _sweep(lambda made: total(made, backward=True), *where),
        "layer": _sweep(lambda made: total(made, width=width), *where),
        "torch": _part(forward, seen),
        "solve": _part(forward, lambda cell: cell.get("aten._linalg_solve_ex", 0.0)),
        "published": _sweep(published_flops, *where),
        "exponent": _exponents(table, start, block_start, block_d),
    }
    return Outcome(metrics, {})


# Measuring seconds and bytes


def _step(made: Mixer, theta: Tensor, backward: bool = True) -> None:
    """One forward and, where anything depends on θ, one backward pass."""
    theta.grad = None
    matrix = made(theta)
    if backward and matrix.requires_grad:
        matrix.backward(torch.ones_like(matrix))


def _thetas(made: Mixer, tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (tokens, made.num_parameters)
    return torch.randn(shape, generator=generator, dtype=torch.float32).requires_grad_()


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


def _bytes(made: Mixer) -> tuple[float, float]:
    """Bytes a token, in float32: kept from forward to backward, and at most at any time."""
    found = []
    for tokens in TOKENS:
        theta = _thetas(made, tokens)
        with _Bytes(theta, *made.buffers()) as kept:
            matrix = made(theta)
        with _Bytes(theta, *made.buffers()) as both:
            _step(made, theta)
        found.append((kept.now, both.most))
        del matrix
    (kept_fewer, most_fewer), (kept_more, most_more) = found
    return (kept_more - kept_fewer) / STEP, (most_more - most_fewer) / STEP


def memory(
    labels: Sequence[str],
    sizes: Sequence[int],
    block_sizes: Sequence[int] = (),
    block_d: int = 8,
    start: int = 16,
    block_start: int = 4,
) -> Outcome:
    """Bytes a token of the tensors that a mixer makes, forward and backward in float32.

    Torch's dispatcher shows every tensor that comes and goes; the workspace that a kernel takes and
    gives back inside one operation stays unseen.

    Args:
        labels: mixers.
        sizes: numbers of streams d.
        block_sizes: values of s at which go-mHC is measured at d = block_d.
        block_d: see there.
        start: exponents in d are fitted from this d on.
        block_start: the exponent in s is fitted from this s on.

    Returns:
        metrics: bytes[label][d] kept from the forward to the backward pass (the matrix included,
        the generator not), peak[label][d] at any time, exponent of the first, in d and in s.
    """
    both = _sweep(_bytes, labels, sizes, block_sizes, block_d)
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
    repeats: int = 9,
    budget: int = 2**26,
    most_tokens: int = 4096,
) -> Outcome:
    """Processor seconds a token of a mixer, forward and backward, on one thread in float32.

    Of the mixers as they are in PyTorch; their compiled path is timed by `benchmarks.mixers`.

    Args:
        labels: mixers.
        sizes: numbers of streams d.
        block_sizes: values of s at which go-mHC is measured at d = block_d.
        block_d: see there.
        start: exponents in d are fitted from this d on.
        block_start: the exponent in s is fitted from this s on.
        repeats: passes, after one that does not count; their median is taken.
        budget: bytes that a batch of tokens may take.
        most_tokens: tokens in a batch, if there is room for so many.

    Returns:
        metrics: seconds[label][d]; spread, the third quartile less the first over the median;
        tokens of a batch; exponent of the seconds, in d and in s; threads.
    """

    def measure(made: Mixer) -> tuple[float, float, int]:
        tokens = int(min(most_tokens, max(1, budget // max(_bytes(made)[1], 1))))
        theta = _thetas(made, tokens)
        _step(made, theta)
        passes = []
        for _ in range(repeats):
            # Processor time, on which other work on the machine has no claim.
            begin = time.process_time()
            _step(made, theta)
            passes.append((time.process_time() - begin) / tokens)
        median = statistics.median(passes)
        low, _, high = statistics.quantiles(passes, n=4)
        return median, (high - low) / median, tokens

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = _sweep(measure, labels, sizes, block_sizes, block_d)
    finally:
        torch.set_num_threads(threads)
    seconds = _part(found, lambda result: result[0])
    exponent = _exponents(seconds, start, block_start, block_d)
    metrics = {
        "seconds": seconds,
        "spread": _part(found, lambda result: result[1]),
        "tokens": _part(found, lambda result: result[2]),
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
    found = {}
    for label, row in table.items():
        values = {int(d): value for d, value in row.items()}
        within = [d for d, value in values.items() if value is not None and value <= limit]
        largest = max(within, default=None)
        beyond = [d for d in values if largest is None or d > largest]
        found[label] = {"largest": largest, "next": min(beyond, default=None)}
    return found


# What a Kronecker product buys

LARGEST_JACOBIAN = 10_000  # entries, up to which the search is by least squares
LARGE = 10_000  # generators, above which a search is so long that it starts once


def targets(d: int, count: int, seed: int = 0, chains_to: int = 8) -> Float[Tensor, "count d d"]:
    """Doubly stochastic matrices to come near to: uniform in the polytope, or close to it.

    Up to d = 8 by hit-and-run. Beyond, where chains of 40(d−1)³ steps would be too long, Sinkhorn
    scaling of independent exponential entries: as d grows, small submatrices of a uniform doubly
    stochastic matrix, times d, become independent exponentials themselves. At d = 8 the median
    distances from J/d of the two differ by less than 3 %.

    Args:
        d: number of streams.
        count: how many.
        seed: fixes them.
        chains_to: the largest d at which hit-and-run is used.

    Returns:
        (count, d, d), float64.

    Source: Chatterjee, Diaconis, Sly, "Properties of uniform doubly stochastic matrices", 2014.
    """
    generator = torch.Generator().manual_seed(seed)
    if d <= chains_to:
        return sample_uniform(d, count, generator)
    exponential = -torch.rand(count, d, d, generator=generator, dtype=torch.float64).log()
    return sinkhorn_knopp(exponential.log(), 200)


def _vertices(d: int, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(count, d, generator=generator).argsort(-1)
    return torch.eye(d, dtype=torch.float64)[order]


def _distances(made: Mixer, T: Tensor, starts: int, iterations: int) -> list[float]:
    """Frobenius distance of each target to the mixer's reach; both methods give upper bounds."""
    generator = torch.Generator().manual_seed(0)
    made = made.double()
    if made.d**2 * made.num_parameters <= LARGEST_JACOBIAN:
        found = nearest_in_family(made, T, starts, generator, iterations)
        return found.distance.tolist()
    starts = 1 if made.num_parameters > LARGE else starts
    return [_descend(made, target, starts, iterations, generator) for target in T]


def _descend(
    made: Mixer, target: Tensor, starts: int, iterations: int, generator: torch.Generator
) -> float:
    """The least distance that L-BFGS finds from several starts."""

    def half_square(flat: Any) -> tuple[float, Any]:
        theta = torch.tensor(flat, requires_grad=True)
        value = (made(theta) - target).square().sum() / 2
        (gradient,) = torch.autograd.grad(value, theta)
        return value.item(), gradient.numpy()

    g = made.num_parameters
    found = []
    for k in range(1, starts + 1):
        # At size g^(−¼) the Cayley transform is a rotation by angles of order 1, whatever n.
        size = min(1, 2 / g**0.25) * k / starts
        theta = size * torch.randn(g, generator=generator, dtype=torch.float64)
        options = {"maxiter": iterations, "maxfun": 2 * iterations, "ftol": 1e-16, "gtol": 1e-10}
        result = minimize(
            half_square,
            theta.numpy(),
            jac=True,
            method="L-BFGS-B",
            options=options | {"maxcor": 20},
        )
        found.append(math.sqrt(2 * result.fun))
    return min(found)


def _summary(name: str, values: Tensor) -> dict[str, float]:
    """Median, 10th and 90th percentile."""
    low, median, high = values.quantile(values.new_tensor([0.1, 0.5, 0.9])).tolist()
    return {f"{name}_median": median, f"{name}_low": low, f"{name}_high": high}


def pareto(
    d: int,
    labels: Sequence[str],
    count: int,
    vertices: int,
    starts: int,
    iterations: int,
    problems: int,
    samples: int,
    learning_rates: Sequence[float],
    steps: int,
    noise: float = 0.1,
    width: int = WIDTH,
    seed: int = 0,
) -> Outcome:
    """Reach and fitted loss of mixers of one d, beside what they cost.

    Reach is the distance from a target to the nearest matrix that the mixer can make, the best of
    several starts of `nearest_in_family` or, where its Jacobians would be large, of L-BFGS: an
    upper bound. The loss is that of the corrected stream-mixing problem on the first
    of the same targets (X ~ N(0, I), noise of mean 0), after Adam from a live start at the best of
    the learning rates, over the exact minimum in the polytope.

    Args:
        d: number of streams.
        labels: mixers. One that does not allow d gets a row that says why.
        count: targets, see `targets`.
        vertices: how many random permutation matrices are searched for besides.
        starts: of the search, a target; one where there are more than 10,000 generators.
        iterations: of the search, a start.
        problems: how many of the targets are learned from samples.
        samples: of each.
        learning_rates: those tried; the one with the lowest median ratio counts.
        steps: of Adam.
        noise: σ.
        width: C, for the FLOPs and parameters of the hyper-connection.
        seed: fixes targets, samples and starts.

    Returns:
        metrics[label]: parameters (g), layer_parameters, mixer_flops, flops (of the hyper-
        connection, forward, a token), then reach, relative (reach over the distance of J/d),
        vertex, loss_over_floor and heldout (‖B − T‖), each as _median, _low, _high, the
        learning_rate taken, and exact; or only `impossible`, the reason. series: reach, vertex and
        loss_over_floor, target by target.

    Raises:
        ValueError: if there are more problems than targets.
    """
    if not 1 <= problems <= count:
        raise ValueError(f"expected 1 <= problems <= count = {count}, got {problems}")
    T, P = targets(d, count, seed), _vertices(d, vertices, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    X = torch.randn(problems, samples, d, generator=generator, dtype=torch.float64)
    Y = X @ T[:problems].mT
    Y = Y + noise * torch.randn(Y.shape, generator=generator, dtype=Y.dtype)
    problem = Problem(T[:problems], X, Y, noise)
    floor = problem.floor().value
    centre = (T - 1 / d).norm(dim=(-2, -1))
    metrics: dict[str, Any] = {}
    series: dict[str, dict[str, list[float]]] = {"reach": {}, "vertex": {}, "loss_over_floor": {}}
    for label in labels:
        try:
            made = mixer(label, d)
        except ValueError as error:
            metrics[label] = {"impossible": str(error)}
            continue
        reach = torch.tensor(_distances(made, T, starts, iterations))
        vertex = torch.tensor(_distances(made, P, starts, iterations))
        fits = {
            rate: fit(problem, made, learning_rate=rate, steps=steps, seed=seed)
            for rate in learning_rates
        }
        ratios = {rate: problem.loss(found.matrix) / floor for rate, found in fits.items()}
        best = min(ratios, key=lambda rate: ratios[rate].median().nan_to_num(math.inf).item())
        metrics[label] = {
            "parameters": made.num_parameters,
            "layer_parameters": count_parameters(made, width),
            "mixer_flops": sum(count_flops(made).values()),
            "flops": sum(count_flops(made, width).values()),
            **_summary("reach", reach),
            **_summary("relative", reach / centre),
            **_summary("vertex", vertex),
            **_summary("loss_over_floor", ratios[best]),
            **_summary("heldout", fits[best].distance),
            "learning_rate": best,
            "exact": made.exact,
        }
        series["reach"][label] = reach.tolist()
        series["vertex"][label] = vertex.tolist()
        series["loss_over_floor"][label] = ratios[best].tolist()
    return Outcome(metrics, series)


def recovered(
    metrics: Mapping[str, Mapping[str, Any]], cost: str = "flops", factor: float = 2.0
) -> dict[str, Any]:
    """What composition recovers at similar FLOPs: kron-go against the best KromHC near its cost.

    Args:
        metrics: of `pareto`.
        cost: "flops" of the hyper-connection, or "mixer_flops".
        factor: costs within this factor of each other are similar.

    Returns:
        label of each kron-go -> `rival`, the KromHC of similar cost with the lowest median reach
        error; `below`, by what share of it kron-go's median is lower; `closed`, the share of the
        gap between the rival and go-mHC s=2 that this closes. {} where no KromHC costs about as
        much.
    """
    rows = {label: row for label, row in metrics.items() if "impossible" not in row}
    reach = {label: row["reach_median"] for label, row in rows.items()}
    found: dict[str, Any] = {}
    for label in rows:
        if not label.startswith("kron-go"):
            continue
        similar = [
            other
            for other in rows
            if other.startswith("kromhc")
            and 1 / factor <= rows[other][cost] / rows[label][cost] <= factor
        ]
        found[label] = {}
        if similar:
            rival = min(similar, key=lambda other: reach[other])
            gain, gap = reach[rival] - reach[label], reach[rival] - reach["go-mhc s=2"]
            found[label] = {"rival": rival, "below": gain / reach[rival], "closed": gain / gap}
    return found


# The full profile

SIZES = [2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256]
BLOCKS = {"block_sizes": [1, 2, 3, 4, 6, 8, 16, 32], "block_d": 8, "block_start": 4}
SWEEP: dict[str, Any] = {"labels": LABELS, "sizes": SIZES, "start": 32, **BLOCKS}
# The systems that do not compose, then the products of each d.
SINGLE = ["identity", "hc", "mhc", "mhc-lite", "go-mhc s=1", "go-mhc s=2"]
PARETO: dict[int, dict[str, Any]] = {
    4: {
        "labels": [
            *SINGLE,
            "go-mhc s=3",
            "kromhc",
            "kron-go s=1 factors=2x2",
            "kron-go s=2 factors=2x2",
            "kron-go s=3 factors=2x2",
        ],
        "count": 60,
        "vertices": 10,
        "starts": 8,
        "iterations": 500,
        "problems": 32,
        "samples": 100,
        "learning_rates": [0.01, 0.03, 0.1, 0.3],
        "steps": 3000,
    },
    8: {
        "labels": [
            *SINGLE,
            "go-mhc s=3",
            "kromhc",
            "kromhc factors=2x4",
            "kron-go s=2 factors=2x2x2",
            "kron-go s=1 factors=2x4",
            "kron-go s=2 factors=2x4",
            "kron-go s=3 factors=2x4",
        ],
        "count": 12,
        "vertices": 3,
        "starts": 4,
        "iterations": 300,
        "problems": 8,
        "samples": 100,
        "learning_rates": [0.03, 0.1, 0.3],
        "steps": 1500,
    },
    16: {
        "labels": [
            *SINGLE,
            "kromhc",
            "kromhc factors=4x4",
            "kromhc factors=2x8",
            "kron-go s=1 factors=4x4",
            "kron-go s=2 factors=4x4",
            "kron-go s=3 factors=4x4",
            "kron-go s=1 factors=2x8",
            "kron-go s=2 factors=2x8",
        ],
        "count": 6,
        "vertices": 2,
        "starts": 3,
        "iterations": 300,
        "problems": 4,
        "samples": 200,
        "learning_rates": [0.03, 0.1, 0.3],
        "steps": 1000,
    },
    64: {
        "labels": [
            *SINGLE,
            "kromhc",
            "kromhc factors=4x4x4",
            "kromhc factors=8x8",
            "kron-go s=2 factors=4x4x4",
            "kron-go s=1 factors=8x8",
            "kron-go s=2 factors=8x8",
            "kron-go s=2 factors=4x16",
            "kron-go s=2 factors=2x32",
        ],
        "count": 4,
        "vertices": 1,
        "starts": 2,
        "iterations": 200,
        "problems": 2,
        "samples": 800,
        "learning_rates": [0.03, 0.1, 0.3],
        "steps": 500,
    },
}

UNITS: list[Unit] = [
    Unit("cost/parameters", parameters, {"labels": LABELS, "sizes": SIZES}, ()),
    Unit("cost/flops", flops, SWEEP, ()),
    Unit("cost/memory", memory, SWEEP, (0,)),
    Unit("cost/time", timing, SWEEP, (0,)),
    *(Unit(f"cost/pareto-d{d}", pareto, {"d": d, **config}, (0,)) for d, config in PARETO.items()),
]
