"""The units of cost, and their probes."""

from typing import Any

from gomhc.companion.studies.base import Probe, Unit
from gomhc.companion.studies.cost.front import pareto
from gomhc.companion.studies.cost.sweeps import flops, memory, parameters, timing

__all__ = ["LABELS", "PROBES", "UNITS"]

LABELS = [
    "identity",
    "hc",
    "mhc",
    "mhc-lite",
    "kromhc",
    "go-mhc s=1",
    "go-mhc s=2",
    "go-mhc s=3",
    "kron-go s=2",
    "orthogonal",
    "transport",
]
SIZES = [2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256]
BLOCKS = {"block_sizes": [1, 2, 3, 4, 6, 8, 16, 32], "block_d": 8, "block_start": 4}
# The 65,025 steps of transport at d = 256, one after the other in PyTorch, would take an hour.
LARGEST = {"transport": 128}
SWEEP: dict[str, Any] = {
    **{"labels": LABELS, "sizes": SIZES, "start": 32, "largest": LARGEST},
    **BLOCKS,
}
# The systems that do not compose, then the products of each d.
SINGLE = ["identity", "hc", "mhc", "mhc-lite", "go-mhc s=1", "go-mhc s=2", "orthogonal"]
PARETO: dict[int, dict[str, Any]] = {
    4: {
        "labels": [
            *SINGLE,
            "go-mhc s=3",
            "kromhc",
            "kron-go s=1 factors=2x2",
            "kron-go s=2 factors=2x2",
            "kron-go s=3 factors=2x2",
            "transport",
        ],
        "count": 60,
        "vertices": 10,
        "starts": 8,
        "iterations": 500,
        "problems": 32,
        "samples": 100,
        "learning_rates": [0.01, 0.03, 0.1, 0.3],
        "steps": 3000,
    },
    8: {
        "labels": [
            *SINGLE,
            "go-mhc s=3",
            "kromhc",
            "kromhc factors=2x4",
            "kron-go s=2 factors=2x2x2",
            "kron-go s=1 factors=2x4",
            "kron-go s=2 factors=2x4",
            "kron-go s=3 factors=2x4",
            "transport",
        ],
        "count": 12,
        "vertices": 3,
        "starts": 4,
        "iterations": 300,
        "problems": 8,
        "samples": 100,
        "learning_rates": [0.03, 0.1, 0.3],
        "steps": 1500,
    },
    16: {
        "labels": [
            *SINGLE,
            "kromhc",
            "kromhc factors=4x4",
            "kromhc factors=2x8",
            "kron-go s=1 factors=4x4",
            "kron-go s=2 factors=4x4",
            "kron-go s=3 factors=4x4",
            "kron-go s=1 factors=2x8",
            "kron-go s=2 factors=2x8",
            "transport",
        ],
        "count": 6,
        "vertices": 2,
        "starts": 3,
        "iterations": 300,
        "problems": 4,
        "samples": 200,
        "learning_rates": [0.03, 0.1, 0.3],
        "steps": 1000,
    },
    64: {
        "labels": [
            *SINGLE,
            "kromhc",
            "kromhc factors=4x4x4",
            "kromhc factors=8x8",
            "kron-go s=2 factors=4x4x4",
            "kron-go s=1 factors=8x8",
            "kron-go s=2 factors=8x8",
            "kron-go s=2 factors=4x16",
            "kron-go s=2 factors=2x32",
        ],
        "count": 4,
        "vertices": 1,
        "starts": 2,
        "iterations": 200,
        "problems": 2,
        "samples": 800,
        "learning_rates": [0.03, 0.1, 0.3],
        "steps": 500,
    },
}

UNITS: list[Unit] = [
    Unit("cost/parameters", parameters, {"labels": LABELS, "sizes": SIZES}, (), protocol=1),
    Unit("cost/flops", flops, SWEEP, (), protocol=1),
    Unit("cost/memory", memory, SWEEP, (0,), protocol=1),
    Unit("cost/time", timing, SWEEP, (0,), protocol=1),
    *(
        Unit(f"cost/pareto-d{d}", pareto, {"d": d, **config}, (0,), protocol=1)
        for d, config in PARETO.items()
    ),
]

SMALL: dict[str, Any] = {"labels": LABELS, "sizes": [2, 4, 8], "start": 2}
SMALL |= {"block_sizes": [1, 2, 4], "block_d": 4, "block_start": 1}
PROBES = [
    Probe("cost/parameters", parameters, {"labels": LABELS, "sizes": [4, 8]}, ("cost/parameters",)),
    Probe("cost/flops", flops, SMALL, ("cost/flops",)),
    Probe("cost/memory", memory, SMALL, ("cost/memory",)),
    Probe(
        "cost/time",
        timing,
        SMALL | {"sizes": [2, 4], "repeats": 2, "budget": 2**16},
        ("cost/time",),
        ignored=("seconds", "spread", "exponent"),
    ),
    Probe(
        "cost/pareto",
        pareto,
        {
            "d": 4,
            "labels": [
                *SINGLE,
                *("kromhc", "kron-go s=2 factors=2x2", "kromhc factors=2x4", "transport"),
            ],
            "count": 3,
            "vertices": 1,
            "starts": 2,
            "iterations": 100,
            "problems": 2,
            "samples": 20,
            "learning_rates": [0.1, 0.3],
            "steps": 40,
        },
        ("cost/pareto-*",),
        # A search ends when it is as near as 1e-6; one for a permutation on its way to infinity,
        # by rotations 1e-4 away, and two processors' ends are 2e-6 apart there.
        absolute=1e-5,
    ),
]
