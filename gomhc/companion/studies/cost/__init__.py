"""What a mixer costs, and what a Kronecker product of mixers buys for it.

Parameters, FLOPs, seconds and bytes against d and s; then, for the mixers of one d, how near they
come to matrices of the polytope and how well they fit noisy data, against what they cost.
"""

from gomhc.companion.studies.cost.counting import count_flops, count_parameters, published_flops
from gomhc.companion.studies.cost.front import pareto, targets
from gomhc.companion.studies.cost.sweeps import (
    WIDTH,
    feasible,
    flops,
    memory,
    parameters,
    timing,
)
from gomhc.companion.studies.cost.units import LABELS, PROBES, UNITS

__all__ = [
    "LABELS",
    "PROBES",
    "UNITS",
    "WIDTH",
    "count_flops",
    "count_parameters",
    "feasible",
    "flops",
    "memory",
    "parameters",
    "pareto",
    "published_flops",
    "targets",
    "timing",
]
