"""Eigenvalues of mixing matrices: the regions where they may lie, how much of them is reached."""

from gomhc.spectra.regions import Region, karpelevich, perfect_mirsky, spectral_grid
from gomhc.spectra.search import Visits, coverage, eigenvalues, search_spectrum

__all__ = [
    "Region",
    "Visits",
    "coverage",
    "eigenvalues",
    "karpelevich",
    "perfect_mirsky",
    "search_spectrum",
    "spectral_grid",
]
