"""What arguments must be, said once: counts, epsilons and sources of randomness."""

import math
import operator
from typing import Any

import torch


def check_count(name: str, value: Any, least: int = 0) -> int:
    """The value as an int (NumPy's integers too).

    Raises:
        TypeError: if it is no integer, such as 3.0.
        ValueError: if it is too small.
    """
    if not hasattr(value, "__index__"):
        raise TypeError(f"expected {name} as an integer, got {value!r}")
    if operator.index(value) < least:
        raise ValueError(f"expected {name} >= {least}, got {value!r}")
    return operator.index(value)


def check_epsilon(name: str, value: Any) -> float:
    """The value as a float.

    Raises:
        TypeError: if it is no number.
        ValueError: if it is negative or not finite.
    """
    if not hasattr(value, "__float__"):
        raise TypeError(f"expected {name} as a number, got {value!r}")
    if not 0 <= float(value) < math.inf:
        raise ValueError(f"expected {name} >= 0 and finite, got {value!r}")
    return float(value)


def check_generator(generator: Any) -> None:
    """Raise TypeError for what is neither a generator nor None, such as a seed."""
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(f"expected torch.Generator().manual_seed(…) or None, got {generator=}")
