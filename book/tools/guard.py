"""What a notebook may touch: its own folder. And what it took: the peak of its kernel's memory."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

__all__ = ["changes", "peak_memory", "snapshot"]

# Made by the build and by tools; where Python and Numba keep compiled code lies beside the sources.
APART = re.compile(r"_build|__pycache__|\..*|.*\.egg-info")
Snapshot = dict[str, tuple[int, int]]


def snapshot(root: Path, but: Path) -> Snapshot:
    """Size and time of change of every file of a project.

    Args:
        root: The project.
        but: A folder that is left out, besides those that tools write.
    """
    states = {}
    for folder, names, files in os.walk(root):
        names[:] = [n for n in names if not APART.fullmatch(n) and Path(folder, n) != but]
        for name in files:
            path = Path(folder, name)
            state = path.lstat()
            states[str(path.relative_to(root))] = (state.st_size, state.st_mtime_ns)
    return states


def changes(before: Snapshot, after: Snapshot) -> list[str]:
    """Files that were added, removed or written between two snapshots."""
    return sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))


def peak_memory() -> tuple[Callable[..., None], Callable[[], int | None]]:
    """Follow the memory of the kernel that this process starts.

    Returns:
        A hook for after each cell, and a function that says the largest peak of any child so far,
        in bytes, as Linux counts it (None elsewhere).
    """
    largest = 0

    def look(**_: Any) -> None:
        nonlocal largest
        for child in psutil.Process().children(recursive=True):
            try:
                status = Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8")
            except OSError:  # it has ended, or this is no Linux
                continue
            if peak := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE):
                largest = max(largest, int(peak[1]) * 1024)

    return look, lambda: largest or None
