"""The synthetic stream-mixing task: learn a doubly stochastic matrix from noisy samples.

A `Problem` has a target T and samples y = Tx + noise; a mixer is fitted by Adam on the mean squared
error, and `Problem.floor` is what no doubly stochastic matrix can beat.
"""

from gomhc.stream_mixing.fits import Fit, Run, fit, steps_to, sweep
from gomhc.stream_mixing.problem import FAMILIES, Floor, Problem, corrected_problem

__all__ = [
    "FAMILIES",
    "Fit",
    "Floor",
    "Problem",
    "Run",
    "corrected_problem",
    "fit",
    "steps_to",
    "sweep",
]
