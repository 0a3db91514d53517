"""Comparisons seed by seed: the interval of a mean difference, and how many seeds it needs."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from scipy import stats

__all__ = ["Difference", "Power", "difference", "power"]

SURE = 0.975  # both tails of the intervals leave a twentieth


def _half_width(deviation: float, seeds: int) -> float:
    """Of the 95 % interval of a mean (Student's t)."""
    return float(stats.t.ppf(SURE, seeds - 1)) * deviation / math.sqrt(seeds)


def _percent(share: float) -> str:
    """To a tenth of a percent, or a hundredth where the sign could not be told otherwise."""
    for digits in (1, 2):
        said = f"{share:+.{digits}%}"
        if said.strip("+-0.%"):
            return said
    return "0.0%"


class Difference(NamedTuple):
    """Paired differences between two arms, as shares of the second one's mean.

    Attributes:
        mean: over the pairs.
        low: lower end of the 95 % interval of the mean (Student's t).
        high: its upper end.
        pairs: the differences, seed by seed.
    """

    mean: float
    low: float
    high: float
    pairs: list[float]

    def __str__(self) -> str:
        """Mean and interval in percent."""
        mean, low, high = (_percent(x) for x in self[:3])
        return f"{mean} ({low} to {high})"

    @property
    def half_width(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2

    def lowers(self, margin: float) -> Literal["yes", "no", "undecided"]:
        """Whether the first arm is the lower one.

        Args:
            margin: a share, so small that less is not worth having.

        Returns:
            "yes" if the interval lies below 0; "no" if it does not and excludes a gain of as much
            as the margin; "undecided" otherwise.
        """
        if self.high < 0:
            return "yes"
        return "no" if self.low > -margin else "undecided"

    def no_worse(self, margin: float) -> Literal["yes", "no", "undecided"]:
        """Whether the first arm is at most so much higher.

        Args:
            margin: a share.

        Returns:
            "yes" if the interval ends at the margin or below; "no" if it begins above; "undecided"
            if it holds it.
        """
        if self.high <= margin:
            return "yes"
        return "no" if self.low > margin else "undecided"


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """Compare two arms on the seeds that both have.

    Args:
        ours: seed -> loss.
        theirs: the same of the other arm; its mean over these seeds is the unit.

    Returns:
        The difference, ours less theirs; the same number in the place of an interval's ends where
        all pairs agree.

    Raises:
        ValueError: if they share fewer than two seeds.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    if len(seeds) < 2:
        raise ValueError(f"expected two seeds or more in common, got {seeds}")
    base = fmean(theirs[seed] for seed in seeds)
    pairs = [(ours[seed] - theirs[seed]) / base for seed in seeds]
    mean, half = fmean(pairs), _half_width(stdev(pairs), len(pairs))
    return Difference(mean, mean - half, mean + half, pairs)


class Power(NamedTuple):
    """What a pilot says of a comparison of two arms.

    Attributes:
        pairs: its differences.
        deviation: their standard deviation.
        half_width: of the 95 % interval of their mean, with as many seeds as the pilot had.
        seeds: how many are needed for the half-width that is wanted, if the deviation is this; by
            chance nearly half of such intervals come out wider.
        seeds_at_most: how many, if it is as large as the upper end of its 80 % interval.
    """

    pairs: tuple[float, ...]
    deviation: float
    half_width: float
    seeds: int
    seeds_at_most: int


def power(pairs: Iterable[float], wanted: float, most: int = 10**7) -> Power:
    """How many seeds make a 95 % interval of a mean difference narrow enough.

    Args:
        pairs: differences of a pilot, two or more.
        wanted: half-width.
        most: seeds, beyond which none are counted.

    Returns:
        Power; `most` where so many are not enough.

    Raises:
        ValueError: if there are fewer than two differences, or the half-width is not positive.

    Source: Student's t for the interval; chi-squared for that of the deviation.
    """
    seen: Sequence[float] = tuple(pairs)
    if len(seen) < 2 or not wanted > 0:
        raise ValueError(
            f"expected two differences or more and a half-width > 0, got {len(seen)} and {wanted}"
        )
    deviation, free = stdev(seen), len(seen) - 1
    upper = deviation * math.sqrt(free / stats.chi2.ppf(0.1, free))

    def needed(deviation: float) -> int:
        counts = range(2, most)
        return 2 + bisect_left(counts, True, key=lambda n: _half_width(deviation, n) <= wanted)

    return Power(
        tuple(seen), deviation, _half_width(deviation, len(seen)), needed(deviation), needed(upper)
    )
