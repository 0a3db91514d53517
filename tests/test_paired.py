"""Paired comparisons: intervals against scipy's, verdicts at their borders, seeds for a width."""

import math
import random

import pytest
from scipy import stats

from gomhc.companion.paired import Difference, difference, power

PAIRS = [0.01, -0.02, 0.005, 0.012]


def test_the_interval_is_that_of_a_paired_t_test():
    ours, theirs = [1.8, 1.83, 1.79, 1.85], [1.81, 1.82, 1.80, 1.88]
    answer = difference(dict(enumerate(ours)), dict(enumerate(theirs)))
    interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    base = sum(theirs) / 4
    assert answer.low * base == pytest.approx(interval.low)
    assert answer.high * base == pytest.approx(interval.high)
    assert answer.mean == pytest.approx((answer.low + answer.high) / 2)
    assert answer.half_width == pytest.approx((interval.high - interval.low) / 2 / base)
    assert answer.pairs == pytest.approx([-0.01 / base, 0.01 / base, -0.01 / base, -0.03 / base])


def test_only_seeds_in_common_count():
    answer = difference({0: 1.1, 1: 2.2, 7: 100.0}, {1: 2.0, 0: 1.0, 8: 1e6})
    assert answer.pairs == pytest.approx([0.1 / 1.5, 0.2 / 1.5])
    with pytest.raises(ValueError, match=r"two seeds or more in common, got \[1\]"):
        difference({0: 1.0, 1: 1.0}, {1: 1.0, 2: 1.0})


@pytest.mark.parametrize(
    ("low", "high", "lowers", "no_worse"),
    [
        (-0.02, -0.001, "yes", "yes"),
        (-0.02, 0.0, "undecided", "yes"),
        (-0.005, 0.005, "no", "yes"),
        (-0.01, 0.02, "undecided", "undecided"),
        (-0.009, 0.02, "no", "undecided"),
        (0.005, 0.01, "no", "yes"),
        (0.01, 0.03, "no", "undecided"),
        (0.011, 0.03, "no", "no"),
    ],
)
def test_what_an_interval_says(low, high, lowers, no_worse):
    apart = Difference((low + high) / 2, low, high, [])
    assert (apart.lowers(0.01), apart.no_worse(0.01)) == (lowers, no_worse)


def test_the_half_width_is_that_of_a_t_interval():
    answer = power(PAIRS, 0.01)
    interval = stats.ttest_1samp(PAIRS, 0).confidence_interval(0.95)
    assert answer.half_width == pytest.approx((interval.high - interval.low) / 2)
    assert answer.seeds_at_most > answer.seeds > 4


def test_so_many_seeds_are_enough_and_one_fewer_is_not():
    answer = power(PAIRS, 0.01)

    def half(seeds):
        return stats.t.ppf(0.975, seeds - 1) * answer.deviation / math.sqrt(seeds)

    assert half(answer.seeds) <= 0.01 < half(answer.seeds - 1)


def test_the_deviation_lies_below_its_upper_end_in_nine_of_ten_pilots():
    source, covered = random.Random(0), 0
    truth = power([math.sqrt(0.5), -math.sqrt(0.5)], 0.8).seeds  # of a deviation of 1
    for _ in range(300):
        answer = power([source.gauss(0, 1) for _ in range(5)], 0.8)
        covered += answer.seeds_at_most >= truth
    assert 0.84 < covered / 300 < 0.96


@pytest.mark.parametrize(("pairs", "wanted"), [([0.1], 0.1), ([], 0.1), ([0.1, 0.2], 0.0)])
def test_no_pilot(pairs, wanted):
    with pytest.raises(ValueError, match="two differences or more and a half-width > 0"):
        power(pairs, wanted)


def test_more_seeds_than_one_can_have():
    assert power([0.0, 1.0], 1e-6, most=50).seeds == 50
