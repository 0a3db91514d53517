"""Numba's compiler, with its cache of compiled code where there is a place for one."""

from collections.abc import Callable
from typing import Any

import numba


def cached(**options: Any) -> Callable[[Callable], Any]:
    """A decorator as `numba.njit(cache=True)`, without the cache if no folder can be written."""

    def compiled(function: Callable) -> Any:
        try:
            return numba.njit(**options, cache=True)(function)
        except RuntimeError:  # neither beside the source, nor at home, nor in $NUMBA_CACHE_DIR
            return numba.njit(**options)(function)

    return compiled
