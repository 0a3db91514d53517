"""Mixers: maps from generators θ to stream-mixing matrices, one family a file."""

import inspect
from collections.abc import Callable
from typing import Any

from gomhc.fused import Backend, check_backend
from gomhc.mixers.base import Mixer
from gomhc.mixers.birkhoff_von_neumann import BirkhoffVonNeumann
from gomhc.mixers.identity import Identity
from gomhc.mixers.kronecker import Kronecker, kromhc, kron_go
from gomhc.mixers.orthogonal import Orthogonal
from gomhc.mixers.orthostochastic import Orthostochastic
from gomhc.mixers.sinkhorn import Sinkhorn
from gomhc.mixers.transport import Transport
from gomhc.mixers.unconstrained import Unconstrained

__all__ = [
    "MIXERS",
    "BirkhoffVonNeumann",
    "Identity",
    "Kronecker",
    "Mixer",
    "Orthogonal",
    "Orthostochastic",
    "Sinkhorn",
    "Transport",
    "Unconstrained",
    "make_mixer",
]

MIXERS: dict[str, Callable[..., Mixer]] = {
    "identity": Identity,
    "hc": Unconstrained,
    "mhc": Sinkhorn,
    "mhc-lite": BirkhoffVonNeumann,
    "kromhc": kromhc,
    "go-mhc": Orthostochastic,
    "kron-go": kron_go,
    "orthogonal": Orthogonal,
    "transport": Transport,
}


def make_mixer(name: str, d: int, *, backend: Backend = "auto", **options: Any) -> Mixer:
    """Make a mixer by its name in the literature.

    Args:
        name: one of `MIXERS`.
        d: number of streams.
        backend: "auto" takes compiled code where it applies (Note [Choice] in `gomhc.fused`),
            "reference" PyTorch everywhere; "fused" raises where compiled code cannot run.
        options: `iterations` for mhc; `s` for go-mhc; `factors` for kromhc and kron-go; `s` too
            for kron-go.

    Raises:
        ValueError: if the name or the backend is unknown, or the family does not allow d or an
            option's value.
        TypeError: if the family has no such option, or a size is no integer.
    """
    if name not in MIXERS:
        raise ValueError(f"expected one of {', '.join(MIXERS)}; got {name!r}")
    allowed = [option for option in inspect.signature(MIXERS[name]).parameters if option != "d"]
    if not set(options) <= set(allowed):
        known = f"the options {', '.join(allowed)}" if allowed else "no options"
        raise TypeError(f"expected for {name} {known}; got {', '.join(options)}")
    check_backend(backend)
    mixer = MIXERS[name](d, **options)
    mixer.backend = backend
    return mixer
