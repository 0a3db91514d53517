"""From results to figures: the only part that imports matplotlib and seaborn.

Every function returns a closed figure, so that a notebook cell which ends with it shows it once.
"""

from gomhc.companion.figures.interactive import knob
from gomhc.companion.figures.polytope import (
    circulant_slice,
    coverage,
    edge_lattice,
    edge_rivals,
    landing,
)
from gomhc.companion.figures.stream_mixing import (
    against_published,
    loss_curves,
    steps_at_rate,
    steps_to_floor,
    tuning,
    variants,
)
from gomhc.companion.figures.streams import mixing_matrices, streams_diagram
from gomhc.companion.figures.style import COLORS, bands, color, use_style

__all__ = [
    "COLORS",
    "against_published",
    "bands",
    "circulant_slice",
    "color",
    "coverage",
    "edge_lattice",
    "edge_rivals",
    "knob",
    "landing",
    "loss_curves",
    "mixing_matrices",
    "steps_at_rate",
    "steps_to_floor",
    "streams_diagram",
    "tuning",
    "use_style",
    "variants",
]
