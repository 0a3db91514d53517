"""Mixers as single passes over memory: which of them there are, and when they are taken.

Note [Choice]
    Who calls has the last word: an explicit backend of a fit counts before that of its mixer, and
    an explicit one of a Kronecker product before those of its factors, which must agree. "auto"
    leaves it to the inner one, and where none says anything means the following.

    With backend "auto" a mixer takes its fused path where it applies: to θ in float32, bfloat16 or
    float16, with Numba for a CPU and Triton for a GPU. float64 goes through PyTorch, since the
    fused path rounds to float32 what it stores, and so do mixers of one's own, what has an eps of
    its own, forward-mode derivatives and the transforms of `torch.func`.

    What it gives does not depend, but for rounding, on the number of tokens. On a CPU a few go
    through PyTorch, where a call of an operator does not pay, and so do single tokens for which
    elimination without pivoting would lose digits. On a GPU such tokens are NaN (|θ| above 1e5,
    logits of Sinkhorn more than 600 apart), since to look for them would stop it, and so a few
    tokens take the same way as many. With backend "reference" there are no such limits.

    The passes of a layer apply where its mixer's do, with hc and identity too, to streams in
    float32 and bfloat16: they divide by the norm only after the product with W, which float16 has
    no room for. They don't call the mixer as a module, so one with hooks goes through PyTorch. On a
    GPU a token whose H_res is NaN has NaN mixed streams and so has the derivative by its X; the
    derivatives by W_res, b_res and α_res, sums over all tokens, are NaN with it.
"""

import importlib
import importlib.util
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

import gomhc.fused.process  # noqa: F401 (watches for forks from now on)
from gomhc.extras import install_command
from gomhc.fused.stages import CAYLEY, FREE, PERMUTATIONS, Stage
from gomhc.maps import has_tangent

__all__ = ["backend_report"]

Backend = Literal["auto", "reference", "fused"]
BACKENDS = ("auto", "reference", "fused")
FEWEST_TOKENS = 256  # on a CPU; below, PyTorch's functions are as fast as a call of an operator
LARGEST_ORDER = 32  # of a matrix: n = ds of an orthogonal one
MOST_PERMUTED = 7  # streams, for a sum over all their permutations
THREADS = "gomhc.fused.threads"  # imports numba
NARROW = (torch.float32, torch.bfloat16, torch.float16)  # θ
STREAMED = (torch.float32, torch.bfloat16)  # streams: in float16 x'W overflows before its norm


class Choice(NamedTuple):
    """Which path runs, and why.

    Attributes:
        path: "fused" or "reference".
        reason: in words.
    """

    path: Literal["fused", "reference"]
    reason: str


def _installed() -> dict[str, tuple[bool, str]]:
    """Type of device -> whether its compiler is there, and its name or what is missing."""
    state = {}
    for device, package in (("cpu", "numba"), ("cuda", "triton")):
        if importlib.util.find_spec(package) is not None:
            state[device] = True, package
        else:
            cure = install_command("fast") if device == "cpu" else "PyTorch for CUDA brings it"
            state[device] = False, f"{package} is not installed: {cure}"
    return state


COMPILERS = _installed()  # looked up once, so that torch.compile can follow `choose`


def compiler(device: str) -> tuple[bool, str]:
    """Whether the compiler for a type of device can be used, and its name or what is wrong."""
    usable, name = COMPILERS.get(device, (False, f"there are no kernels for {device}"))
    if usable and not torch.compiler.is_compiling():
        # Only now, as loading takes a while. It may not go with the other packages here.
        try:
            loaded = importlib.import_module(name)
        except ImportError as error:
            usable, name = COMPILERS[device] = False, f"{name} cannot be imported: {error}"
        else:
            if device == "cpu" and loaded.config.DISABLE_JIT:
                usable, name = False, "NUMBA_DISABLE_JIT is set"
    return usable, name


def transformed(theta: Tensor) -> bool:
    """Whether derivatives by θ are asked for in a way that the operators do not have.

    Forward mode gives θ a tangent, and within `torch.func` it has no memory of its own. Under
    `torch.compile` only the first can be seen: vmap takes the operators there, and reverse mode of
    `torch.func` ends in an error of PyTorch's, which the reference (but Sinkhorn's) does not.
    """
    if has_tangent(theta):
        return True
    if torch.compiler.is_compiling():
        return False
    try:
        theta.data_ptr()
    except RuntimeError:
        return True
    return False


def _few(tokens: int) -> bool:
    """Whether compiled code does not pay; a graph of `torch.compile` is for any number."""
    return not torch.compiler.is_compiling() and tokens < FEWEST_TOKENS


def check_backend(backend: str) -> None:
    """Raise ValueError unless it is one of `BACKENDS`."""
    if backend not in BACKENDS:
        raise ValueError(f"expected a backend out of {', '.join(BACKENDS)}; got {backend!r}")


def choose(
    backend: Backend,
    stages: Sequence[Stage] | None,
    tokens: int,
    dtype: torch.dtype,
    device: str,
    transformed: bool = False,
    layer: bool = False,
    hooked: bool = False,
) -> Choice:
    """The path that a mixer takes, or a layer with that mixer.

    Args:
        backend: what was asked for.
        stages: of the mixer; None if there is no compiled code for it.
        tokens: number of matrices.
        dtype: of θ.
        device: its type, "cpu" or "cuda".
        transformed: see the function of this name.
        layer: whether it is for the passes of a layer; they are compiled for no stages too, which
            say that streams stay apart.
        hooked: whether the mixer has hooks, which the passes of a layer would not call.

    Returns:
        The choice.

    Raises:
        ValueError: if there is no such backend.
        RuntimeError: if the fused path was asked for and cannot run.
    """
    check_backend(backend)
    if backend == "reference":
        return Choice("reference", "as asked for")
    order = permuted = 0
    for stage in stages or ():
        order = max(order, stage.order)
        if stage.kind == PERMUTATIONS:
            permuted = max(permuted, stage.size)
    if stages is None:
        why = "the mixer has no compiled form, nor has mhc with an eps"
    elif not layer and all(stage.kind == FREE for stage in stages):
        why = "there is nothing to compute"
    elif dtype not in NARROW:
        why = f"{dtype} is wider than what the kernels store"
    elif layer and dtype not in STREAMED:
        why = f"streams in {dtype} are none of {', '.join(map(str, STREAMED))}"
    elif layer and hooked:
        why = "the mixer has hooks"
    elif order > LARGEST_ORDER:
        why = f"a matrix of order {order} is larger than {LARGEST_ORDER}"
    elif permuted > MOST_PERMUTED:
        why = f"{permuted}! permutations are more than {MOST_PERMUTED}!"
    elif transformed:
        why = "forward-mode derivatives and torch.func go through PyTorch"
    elif (backend, device) == ("auto", "cpu") and _few(tokens):
        why = f"{tokens} tokens are fewer than {FEWEST_TOKENS}"
    else:
        usable, why = compiler(device)
        if usable:
            return Choice("fused", why)
    if backend == "fused":
        raise RuntimeError(f"expected a case that the fused path can run: {why}")
    return Choice("reference", why)


def check_fused(stages: Sequence[Stage] | None) -> None:
    """Raise RuntimeError if there is no device here on which compiled code runs these stages."""
    reasons = []
    for device in COMPILERS:
        try:
            choose("fused", stages, FEWEST_TOKENS, torch.float32, device)
        except RuntimeError as error:
            reasons.append(error)
        else:
            return
    raise reasons[0]


def fused(theta: Float[Tensor, "*batch g"], stages: Sequence[Stage]) -> Float[Tensor, "..."]:
    """Mixing matrices by the fused path.

    Args:
        theta: of one of the dtypes `NARROW`.
        stages: of the mixer.

    Returns:
        (..., d, d) in float32; NaN where θ is not finite.
    """
    from gomhc.fused.ops import mix

    flat = [number for stage in stages for number in stage]
    *batch, g = theta.shape
    mixed = mix(theta.reshape(math.prod(batch), g), flat)  # no −1: g may be 0
    return mixed.reshape(*batch, *mixed.shape[1:])


def backend_report() -> str:
    """Say which path the mixers take on this machine, and why.

    Returns:
        A line for every type of device that PyTorch sees here, by the choice of backend "auto" for
        float32 and many tokens, and the cases that go through PyTorch.
    """
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    lines = []
    for device in devices:
        choice = choose("auto", [Stage(CAYLEY, 4, 2)], FEWEST_TOKENS, torch.float32, device)
        lines.append(f"{device}: {choice.path} ({choice.reason})")
        layer = choose("auto", [], FEWEST_TOKENS, torch.float32, device, layer=True)
        lines.append(f"HyperConnection on {device}: {layer.path} ({layer.reason})")
        if (device, choice.path) == ("cpu", "fused"):
            lines.append(f"threads of compiled code: {importlib.import_module(THREADS).report()}")
    return "\n".join(
        [
            *lines,
            f"always through PyTorch: float64, matrices of an order ds over {LARGEST_ORDER}, more "
            f"than {MOST_PERMUTED}! permutations, mixers of one's own, mhc with an eps, torch.func "
            "and forward-mode derivatives; hc and identity by themselves, which compute nothing",
            "a HyperConnection also for streams in float16, for a mixer with hooks, and with "
            "norm_eps or read_eps",
            f"with backend 'auto' on a CPU also, but not under torch.compile: fewer than "
            f"{FEWEST_TOKENS} tokens",
            "on a CPU |θ| over 1e3, and logits of mhc and mhc-lite over 600 apart, go through "
            "PyTorch too, slowly; on a GPU |θ| over 1e5 and logits of mhc over 600 apart give NaN, "
            "in a HyperConnection too",
        ]
    )
