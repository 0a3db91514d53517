"""Numba's compiler, with a cache of compiled code where it can be kept.

Numba takes cached code for current as long as the file of the function that Python calls is the
same. Ours takes in what stands in other files, so here the cache also goes by a digest of them all.
What is out of date is overwritten, as long as the function stands on the same line of its file.
"""

import functools
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from importlib import resources
from typing import Any

import numba
from numba.core.caching import FunctionCache


@functools.cache
def digest() -> str:
    """What the sources of all compiled code say: those of this package and `gomhc.kernels`."""
    package = resources.files("gomhc")
    files = [package / "kernels.py", *(package / "fused").iterdir()]
    sources = {file.name: file.read_bytes() for file in files if file.name.endswith(".py")}
    return hashlib.sha256(repr(sorted(sources.items())).encode()).hexdigest()


class Cache(FunctionCache):
    """A cache that never stands in the way: without it code is compiled anew."""

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        self._cache_file._source_stamp = self._cache_file._source_stamp, digest()

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception:  # cut short, or of classes that have gone
            self._forget()
            return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            super().save_overload(*arguments)
        except OSError:  # a full disk, a folder that may no longer be written
            # The index may already name the file that was to be written, and an older one be there.
            self._forget()

    def _forget(self) -> None:
        with suppress(OSError):
            os.unlink(self._cache_file._index_path)


def cached(**options: Any) -> Callable[[Callable], Any]:
    """A decorator as `numba.njit(cache=True)`, with a `Cache` if there is any place for one."""

    def compiled(function: Callable) -> Any:
        dispatcher = numba.njit(**options)(function)
        # Neither beside the source, nor at home, nor in $NUMBA_CACHE_DIR; or there is no source.
        with suppress(RuntimeError, OSError):
            dispatcher._cache = Cache(function)
        return dispatcher

    return compiled
