"""The parameters of a notebook, checked before anything runs."""

import operator
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch

__all__ = ["check_parameters"]

PROFILES = ("smoke", "book", "full")
DEVICES = ("auto", "cpu", "cuda")
NEAR = 0.7  # how like a word must be to one that is allowed to be taken for it: gpu is not cpu


def check_parameters(profile: Any, seed: Any, device: Any) -> str:
    """Refuse values of `profile`, `seed` and `device` that no notebook can run with.

    Args:
        profile: "smoke", "book" or "full".
        seed: a non-negative integer that PyTorch's generators take.
        device: "auto" (a GPU if there is one), "cpu" or "cuda".

    Returns:
        The device to compute on, "cpu" or "cuda".

    Raises:
        ValueError: if one is something else, or a GPU is asked for and PyTorch sees none.
    """
    _check_word("profile", profile, PROFILES)
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or operator.index(seed) < 0:
        raise ValueError(f"expected seed a non-negative integer; got {seed!r}")
    if operator.index(seed) >= 2**63:
        raise ValueError(f"expected seed below 2**63; got {seed!r}")
    _check_word("device", device, DEVICES)
    gpu = torch.cuda.is_available()
    if device == "cuda" and not gpu:
        raise ValueError("expected device auto or cpu, as PyTorch sees no GPU; got 'cuda'")
    return "cuda" if gpu and device != "cpu" else "cpu"


def _check_word(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value in allowed:
        return
    *first, last = allowed
    message = f"expected {name} {', '.join(first)} or {last}; got {value!r}"
    near = get_close_matches(str(value).lower(), allowed, n=1, cutoff=NEAR)
    raise ValueError(message + (f" (did you mean {near[0]!r}?)" if near else ""))
