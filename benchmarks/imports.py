"""How long `import gomhc` takes beside `import torch`, each in fresh processes, by turns.

    python -m benchmarks.imports

The target is at most 1.2 times as long, by the medians of ten. Run it on a quiet machine; one
process of each kind goes first and is not counted, as it fills the disk's cache.
"""

import argparse
import statistics
import subprocess
import sys
import time

STATEMENTS = ("import torch", "import gomhc")
TARGET = 1.2


def seconds(statement: str) -> float:
    """Wall time of a fresh process that executes one statement."""
    clock = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - clock


def modules(statement: str) -> int:
    """Number of modules that are loaded after a statement."""
    code = f"{statement}; import sys; print(len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout)


def compare(rounds: int) -> dict[str, float]:
    """Median seconds of each statement; the first round only warms up."""
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for number in range(rounds + 1):
        for statement in STATEMENTS:
            taken = seconds(statement)
            if number:
                times[statement].append(taken)
    return {statement: statistics.median(row) for statement, row in times.items()}


def main(arguments: list[str] | None = None) -> int:
    """Command line; the exit status is 0 where the target is met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="processes of each (%(default)s)")
    rounds = parser.parse_args(arguments).rounds
    if rounds < 1:
        parser.error(f"expected --rounds >= 1, got {rounds}")
    medians = compare(rounds)
    for statement, median in medians.items():
        print(f"{statement}: {median:.3f} s, {modules(statement)} modules")
    ratio = medians["import gomhc"] / medians["import torch"]
    print(f"ratio {ratio:.3f}, target at most {TARGET}")
    return int(ratio > TARGET)


if __name__ == "__main__":
    sys.exit(main())
