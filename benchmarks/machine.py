"""What a benchmark ran on, and how long it takes there to begin."""

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def timed_in_new_processes(code: str, *arguments: str) -> dict[str, float]:
    """What a script prints, first with an empty cache of compiled code, then with a full one.

    Args:
        code: Python that prints how many seconds something took.
        arguments: of the script.

    Returns:
        "compiled" and "cached" -> seconds.
    """
    seconds = {}
    with tempfile.TemporaryDirectory() as cache:
        places = {"NUMBA_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache}
        for name in ("compiled", "cached"):
            answer = subprocess.run(
                [sys.executable, "-c", code, *arguments],
                cwd=ROOT,
                env=os.environ | places,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            seconds[name] = float(answer.stdout)
    return seconds
