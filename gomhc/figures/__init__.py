"""From results to figures: the only part that imports matplotlib and seaborn.

Every function returns a closed figure, so that a notebook cell which ends with it shows it once.
"""

from gomhc.figures.polytope import circulant_slice, coverage, edge_lattice, landing
from gomhc.figures.streams import mixing_matrices, streams_diagram
from gomhc.figures.style import COLORS, bands, color, slider, use_style

__all__ = [
    "COLORS",
    "bands",
    "circulant_slice",
    "color",
    "coverage",
    "edge_lattice",
    "landing",
    "mixing_matrices",
    "slider",
    "streams_diagram",
    "use_style",
]
