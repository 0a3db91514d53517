"""Mixers: maps from parameters θ to stream-mixing matrices, one family a file."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any, Literal

from gomhc.checks import check_count
from gomhc.fused import Backend, check_backend, check_fused
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

MixerName = Literal[
    "identity",
    "hc",
    "mhc",
    "mhc-lite",
    "kromhc",
    "go-mhc",
    "kron-go",
    "orthogonal",
    "transport",
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


def make_mixer(
    name: MixerName | str, d: int, *, backend: Backend = "auto", **options: Any
) -> Mixer:
    """Make a mixer by its name in the literature.

    Args:
        name: one of `MIXERS`.
        d: number of streams.
        backend: "auto" takes compiled code where it applies (Note [Choice] in `gomhc.fused`),
            "reference" PyTorch everywhere; "fused" raises where compiled code cannot run.
        options: `iterations` and `eps` for mhc; `s` for go-mhc and kron-go; `factors`, sizes with
            product d, for all: then it is the Kronecker product of that family's mixers of these
            sizes, each with the other options. kromhc and kron-go are those of mhc-lite and go-mhc,
            with factors of their own if none are given.

    Raises:
        ValueError: if the name or the backend is unknown, the family does not allow d or an
            option's value, or factors do not have the product d.
        TypeError: if the family has no such option, or a size is no integer.
        RuntimeError: if the backend is "fused" and there is no compiled code for this mixer, or no
            compiler.
    """
    if name not in MIXERS:
        near = difflib.get_close_matches(str(name).lower().replace("_", "-"), MIXERS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"expected one of {', '.join(MIXERS)}; got {name!r}{hint}")
    own = [option for option in inspect.signature(MIXERS[name]).parameters if option != "d"]
    known = dict.fromkeys([*own, "factors"])
    unknown = [option for option in options if option not in known]
    if unknown:
        raise TypeError(
            f"expected for {name} the options {', '.join(known)}; got {', '.join(unknown)}"
        )
    check_backend(backend)
    if "factors" in own or options.get("factors") is None:
        mixer = MIXERS[name](d, **{k: v for k, v in options.items() if k in own})
    else:
        sizes = checked_factors(name, check_count("number of streams d", d), options.pop("factors"))
        mixer = Kronecker([MIXERS[name](size, **options) for size in sizes])
    mixer.backend = backend
    if backend == "fused":
        check_fused(mixer.stages())
    return mixer
