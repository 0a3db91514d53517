"""Runs an experiment, notes where its numbers come from, and says it in words."""

import copy
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from gomhc.companion.git import GitError, git, head
from gomhc.companion.records.shape import Provenance, Record, check_name, check_plain

PACKAGE = Path(__file__).resolve().parents[2]
# Distributions by what they are imported as: those whose arithmetic may stand in a record.
_SAME = "gomhc torch numpy scipy numba clarabel tokenizers triton transformers"
LIBRARIES = {name: name for name in _SAME.split()}
LIBRARIES |= {"ot": "POT", "hyper_connections": "hyper-connections"}


def make(
    name: str,
    run: Callable[..., tuple[dict[str, Any], dict[str, Any]]],
    config: dict[str, Any],
    seeds: Sequence[int] = (),
    protocol: int = 1,
) -> Record:
    """Run an experiment and record what it found and how.

    Args:
        name: of the record, "study/unit".
        run: called as `run(**config)`, returns (metrics, series), such as a studies' Outcome.
        config: its arguments, plain JSON.
        seeds: every seed that the run uses, as a note.
        protocol: of the unit.

    Returns:
        The record; `save` stores it.

    Raises:
        RecordError: if the name or the config cannot be stored.
    """
    check_name(name)
    check_plain(config, f"{name}: config")
    commit, dirty = checkout()
    before = gpu_allocations()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    wall, cpu = time.perf_counter(), cpu_time()
    metrics, series = run(**copy.deepcopy(config))
    wall, cpu = time.perf_counter() - wall, cpu_time() - cpu
    provenance = Provenance(
        commit=commit,
        dirty=dirty,
        seeds=tuple(seeds),
        device=device(before),
        versions=versions(),
        started=started,
        wall_seconds=round(wall, 3),
        cpu_seconds=round(cpu, 3),
    )
    return Record(name, protocol, config, metrics, series, provenance)


def cpu_time() -> float:
    """Processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def checkout() -> tuple[str, bool]:
    """(commit, whether Python sources differ from it); "unknown" outside a repository.

    The sources are those of the whole checkout, so that the benchmarks count, which lie outside of
    the package.
    """
    try:  # Installed in somebody else's repository, say in their .venv, gomhc is not tracked there.
        git(PACKAGE, "ls-files", "--error-unmatch", "__init__.py")
    except GitError:
        return "unknown", False
    return head(PACKAGE, ":(top)*.py") or ("unknown", False)


def gpu_allocations() -> list[int]:
    """How many allocations this process has made on each GPU so far."""
    import torch

    if not torch.cuda.is_initialized():
        return []
    stats = map(torch.cuda.memory_stats, range(torch.cuda.device_count()))
    return [int(counts.get("allocation.all.allocated", 0)) for counts in stats]


def device(before: Sequence[int]) -> str:
    """The GPUs used since those counts of allocations, else the CPU."""
    after = gpu_allocations()
    before = [*before, *[0] * (len(after) - len(before))]
    return device_name([k for k, count in enumerate(after) if count > before[k]])


def device_name(gpus: Sequence[int]) -> str:
    """Names of these GPUs; for none, the CPU with the threads that torch uses there."""
    import torch

    if gpus:
        return ", ".join(torch.cuda.get_device_name(k) for k in gpus)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads != 1)}"


def versions() -> dict[str, str]:
    """Of Python, gomhc and those libraries that are loaded."""
    named = {"python": platform.python_version()}
    for module, distribution in LIBRARIES.items():
        if module in sys.modules:
            try:
                named[distribution] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                named[distribution] = "unknown"
    return named


def describe(record: Record) -> str:
    """One Markdown sentence: when, at which commit, where and how long the record was made.

    Args:
        record: what to describe.

    Returns:
        The sentence, without its full stop.
    """
    facts = record.provenance
    commit = f"commit `{facts.commit[:7]}`" if facts.commit != "unknown" else "an unknown commit"
    if facts.dirty:
        commit += " with changes not committed"
    torch = facts.versions.get("torch", "of unknown version").partition("+")[0]
    return (
        f"Made on {facts.started[:10]} at {commit}, protocol {record.protocol}, on {facts.device} "
        f"in {duration(facts.wall_seconds)} (torch {torch})"
    )


def duration(seconds: float | int) -> str:
    """A time to two or three digits in the unit that suits it.

    Args:
        seconds: the time.

    Returns:
        Such as "41 s" or "2.5 h".
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7170 else f"{seconds / 3600:.1f} h"
