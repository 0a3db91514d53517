"""gomhc: exact doubly stochastic stream mixing for hyper-connections.

A companion to the paper go-mHC (arXiv 2604.02309). Maps make mixers, mixers make layers;
`birkhoff`, `reach` and `composition` observe. What belongs to one topic keeps its module's name:
`gomhc.spectra`, `gomhc.stream_mixing`, `gomhc.transportation`, `gomhc.lm`. What only the book needs
is in `gomhc.companion`, which none of these imports.
"""

from gomhc import spectra, stream_mixing, transportation
from gomhc.birkhoff import (
    Decomposition,
    birkhoff_von_neumann,
    haar_variance,
    project,
    sample_haar,
    sample_uniform,
)
from gomhc.composition import Gain, composite_gain, composites, smallest_singular_value
from gomhc.fused import backend_report
from gomhc.hyper_connections import HyperConnection, expand_streams, reduce_streams
from gomhc.maps import (
    block_frobenius,
    cayley,
    inverse_cayley,
    kronecker,
    marginal_error,
    permutation_matrices,
    sinkhorn_knopp,
    skew_symmetric,
)
from gomhc.mixers import (
    MIXERS,
    BirkhoffVonNeumann,
    Identity,
    Kronecker,
    Mixer,
    Orthogonal,
    Orthostochastic,
    Sinkhorn,
    Transport,
    Unconstrained,
    make_mixer,
)
from gomhc.reach import Nearest, distance_to_family, nearest_in_family
from gomhc.weight_decay import parameter_groups

__version__ = "0.1.0"

__all__ = [
    "MIXERS",
    "BirkhoffVonNeumann",
    "Decomposition",
    "Gain",
    "HyperConnection",
    "Identity",
    "Kronecker",
    "Mixer",
    "Nearest",
    "Orthogonal",
    "Orthostochastic",
    "Sinkhorn",
    "Transport",
    "Unconstrained",
    "backend_report",
    "birkhoff_von_neumann",
    "block_frobenius",
    "cayley",
    "composite_gain",
    "composites",
    "distance_to_family",
    "expand_streams",
    "haar_variance",
    "inverse_cayley",
    "kronecker",
    "make_mixer",
    "marginal_error",
    "nearest_in_family",
    "parameter_groups",
    "permutation_matrices",
    "project",
    "reduce_streams",
    "sample_haar",
    "sample_uniform",
    "sinkhorn_knopp",
    "skew_symmetric",
    "smallest_singular_value",
    "spectra",
    "stream_mixing",
    "transportation",
]
