"""Mixers: maps from generators θ to stream-mixing matrices, one family a file."""

import inspect
from collections.abc import Callable
from typing import Any

from gomhc.checks import check_count
from gomhc.fused import Backend, check_backend
from gomhc.mixers.base import Mixer
from gomhc.mixers.birkhoff_von_neumann import BirkhoffVonNeumann
from gomhc.mixers.identity import Identity
from gomhc.mixers.kronecker import Kronecker, checked_factors, kromhc, kron_go
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
        options: `iterations` for mhc; `s` for go-mhc and kron-go; `factors`, sizes with product d,
            for all: then it is the Kronecker product of that family's mixers of these sizes, each
            with the other options. kromhc and kron-go are those of mhc-lite and go-mhc, with
            factors of their own if none are given.

    Raises:
        ValueError: if the name or the backend is unknown, the family does not allow d or an
            option's value, or factors do not have the product d.
        TypeError: if the family has no such option, or a size is no integer.
    """
    if name not in MIXERS:
        raise ValueError(f"expected one of {', '.join(MIXERS)}; got {name!r}")
    own = [option for option in inspect.signature(MIXERS[name]).parameters if option != "d"]
    if not set(options) <= {*own, "factors"}:
        known = ", ".join(dict.fromkeys([*own, "factors"]))
        raise TypeError(f"expected for {name} the options {known}; got {', '.join(options)}")
    check_backend(backend)
    if "factors" in own or options.get("factors") is None:
        mixer = MIXERS[name](d, **{k: v for k, v in options.items() if k in own})
    else:
        sizes = checked_factors(name, check_count("number of streams d", d), options.pop("factors"))
        mixer = Kronecker([MIXERS[name](size, **options) for size in sizes])
    mixer.backend = backend
    return mixer
