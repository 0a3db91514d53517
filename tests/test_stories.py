"""The stories: their probabilities, against counting and against a text that cannot be."""

import math
from collections import Counter

import numpy as np
import pytest

from gomhc.lm import stories
from gomhc.lm.stories import BEGIN, log_probabilities, next_word, sample, vocabulary


@pytest.fixture(scope="module")
def words():
    text = sample(200_000, 0)
    return [vocabulary()[token] for token in text.tokens]


def test_several_hundred_words_and_all_of_them_occur():
    assert 300 < len(vocabulary()) < 800
    text = sample(1_000_000, 1)
    assert set(np.unique(text.tokens)) == set(range(len(vocabulary())))


def test_what_was_written_costs_what_reading_says(words):
    text = sample(20_000, 0)
    read = log_probabilities(words[:20_000])
    np.testing.assert_array_equal(read, text.log_probability)


def test_every_distribution_sums_to_one(words):
    for length in range(300):
        assert math.fsum(next_word(words[:length]).values()) == pytest.approx(1, abs=1e-12)


def test_the_frequencies_are_the_probabilities():
    # The second word after a fixed beginning is drawn from one table: a χ² test at 5 σ.
    begin = [BEGIN, "one"]
    expected = next_word(begin)
    text = sample(3_000_000, 5)
    starts = np.flatnonzero(text.tokens[:-2] == 0)
    counts = Counter(vocabulary()[token] for token in text.tokens[starts + 2])
    n = len(starts)
    statistic = sum((counts[w] - n * p) ** 2 / (n * p) for w, p in expected.items())
    freedom = len(expected) - 1
    assert abs(statistic - freedom) < 5 * math.sqrt(2 * freedom)


def test_words_are_drawn_as_what_is_known_of_them_says():
    # The cost of each word minus its expectation, given the words before, is a martingale: its sum
    # over a long text has the standard deviation of its steps and no more.
    text = sample(6000, seed=11)
    words = [vocabulary()[token] for token in text.tokens]
    excess, variance, begin = 0.0, 0.0, 0
    for k, word in enumerate(words):
        if word == BEGIN:
            begin = k
            continue
        weights = next_word(words[begin:k])
        costs = {w: -math.log(p) for w, p in weights.items()}
        mean = math.fsum(p * costs[w] for w, p in weights.items())
        excess += costs[word] - mean
        variance += math.fsum(p * (costs[w] - mean) ** 2 for w, p in weights.items())
        assert text.log_probability[k] == pytest.approx(-costs[word], abs=1e-9)
    assert abs(excess) < 4.5 * math.sqrt(variance)


def test_the_first_draw_has_the_weights_of_the_note():
    words = next_word([BEGIN, "one"])
    total = sum(1 / (k + 3) for k in range(1, len(words) + 1))
    assert words["morning"] == pytest.approx(1 / 4 / total)
    assert list(words.values()) == sorted(words.values(), reverse=True)


def test_no_one_is_drawn_twice(words):
    begin = words[: words.index("met") + 1]  # the next word is the friend's name
    options = next_word(begin)
    name = begin[len(begin) - begin[::-1].index("named")]
    assert name not in options
    assert math.fsum(options.values()) == pytest.approx(1)


def test_names_and_things_are_needed_later(words):
    # Blind to what came before, a reader pays for every name again.
    story = words[: words.index(BEGIN, 1)]
    cost = -log_probabilities(story)
    name = story[story.index("named") + 1]
    places = [k for k, word in enumerate(story) if word == name]
    assert cost[places[0]] > 1
    assert (cost[places[1:]] == 0).all()


def test_seeds():
    assert np.array_equal(sample(1000, 3).tokens, sample(1000, 3).tokens)
    assert not np.array_equal(sample(1000, 3).tokens, sample(1000, 4).tokens)
    assert np.array_equal(sample(2000, 3).tokens[:1000], sample(1000, 3).tokens)


@pytest.mark.parametrize(
    ("text", "position"), [(["once"], 0), ([BEGIN, "one", "purple"], 2), ([BEGIN, BEGIN], 1)]
)
def test_a_text_that_the_process_cannot_write(text, position):
    with pytest.raises(ValueError, match=f"at position {position} .* got '{text[-1]}'"):
        log_probabilities(text)


def test_choices_that_begin_alike_are_refused(monkeypatch):
    monkeypatch.setitem(stories.CHOICES, "greeting", ("and so", "and then"))
    stories._choice.cache_clear()
    with pytest.raises(ValueError, match="different first words in 'greeting', got 'and' twice"):
        stories._choice("greeting")
    stories._choice.cache_clear()
