"""Figures of chapter 7: what they draw is what they were given."""

import matplotlib.pyplot as plt
import pytest

from gomhc.companion.figures import language_models as draw
from gomhc.companion.figures.style import color
from gomhc.companion.paired import Difference

CURVES = {
    arm: [[(0, 3.0), (10, 2.0 + shift)], [(0, 3.2), (10, 2.2 + shift)]]
    for arm, shift in {"residual": 0.0, "identity": 0.001, "go-mhc s=2": 0.4}.items()
}


def test_a_panel_an_arm_with_a_line_a_seed():
    runs = {arm: dict(enumerate(curves)) for arm, curves in CURVES.items()}
    del runs["go-mhc s=2"][1]  # other arms may have more seeds
    fig = draw.leads(runs, "residual", "identity")
    panels = [ax for ax in fig.axes if ax.lines]
    assert [ax.get_title() for ax in panels] == ["identity", "go-mhc s=2"]
    for ax, (shift, seeds) in zip(panels, ((0.001, 2), (0.4, 1)), strict=True):
        zero, dashed, *lines = ax.lines
        assert set(zero.get_ydata()) == {0}
        assert list(dashed.get_ydata()) == pytest.approx([0, 0.001])
        for line in lines:
            assert list(line.get_ydata()) == pytest.approx([0, shift])
            assert line.get_color() == color(ax.get_title())
        assert len(lines) == seeds + (ax.get_title() != "identity")  # and their mean


def test_falls_have_a_panel_an_arm_and_a_line_a_seed():
    fig = draw.falls(CURVES, (0.2, 0.05), "million words")
    assert [ax.get_title() for ax in fig.axes] == list(CURVES)
    for ax, curves in zip(fig.axes, CURVES.values(), strict=True):
        high, low, *seeds = ax.lines
        assert (set(high.get_ydata()), set(low.get_ydata())) == ({0.2}, {0.05})
        assert [list(zip(*line.get_data(), strict=True)) for line in seeds] == curves
        assert (ax.get_yscale(), ax.get_xlabel()) == ("log", "million words")


def test_curves_end_where_the_shortest_seed_does():
    x, mean = draw._mean([[(0, 1.0), (1, 3.0), (2, 5.0)], [(0, 3.0), (1, 5.0)]])
    assert (list(x), list(mean)) == ([0, 1], [2, 4])


def test_names_at_the_ends_do_not_overlap():
    fig = draw.ends({"step": CURVES, "seconds": CURVES}, ylabel="loss", limits=(1.8, 3.2))
    for ax in fig.axes:
        places = sorted(text.xyann[1] for text in ax.texts)
        assert {text.get_text() for text in ax.texts} == set(CURVES)
        assert min(b - a for a, b in zip(places, places[1:], strict=False)) > 0.06 * 1.4


def test_an_interval_is_drawn_in_its_row():
    apart = {
        arm: Difference(0.01 * k, -0.02, 0.03 * k, [0.01, 0.02]) for k, arm in enumerate("abc")
    }
    texts = {
        "long": {"against a": {"b": apart["b"]}, "against b": {"a": apart["a"]}},
        "short": {"against a": {"c": apart["c"]}, "against b": {}},
    }
    fig = draw.forest(texts, {"long": 0.01, "short": 0.02}, ["c", "b", "d", "a"])
    left, right, below, empty = fig.axes
    assert [ax.get_title() for ax in (right, below)] == ["long, against b", "short, against a"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["b", "a"]
    assert [label.get_text() for label in below.get_yticklabels()] == ["c"]
    for ax, row, arm in ((left, 0, "b"), (right, 1, "a"), (below, 0, "c")):
        _, pairs, interval, mean = ax.lines
        assert list(interval.get_xdata()) == [apart[arm].low, apart[arm].high]
        assert (mean.get_xdata()[0], mean.get_ydata()[0]) == (apart[arm].mean, row)
        assert list(pairs.get_xdata()) == apart[arm].pairs
    assert len(empty.lines) == 1
    for ax, margin in ((right, 0.01), (below, 0.02)):
        (band,) = ax.patches
        assert (band.get_x(), band.get_width()) == pytest.approx((-margin, 2 * margin))
    assert left.get_xlim() == right.get_xlim() != below.get_xlim()  # a text has a scale of its own


def test_streams_over_a_training_have_a_line_a_connection():
    table = {key: [[0.1, 0.2, None], [0.3, 0.4, 0.5]] for key in draw.WATCHED}
    table["change"] = {"all as I": [0.01, 0.02]}
    fig = draw.watched({"identity": {"step": [5, 10], **table}, "hc": {"step": [5, 10], **table}})
    panels = [ax for ax in fig.axes if len(ax.lines) == 3]
    assert len(panels) == 2 * len(draw.WATCHED)
    assert list(panels[0].lines[1].get_ydata()) == [0.2, 0.4]
    rise = next(ax for ax in fig.axes if ax.get_title().startswith("rise of the loss,"))
    assert list(rise.lines[0].get_ydata()) == [0.01, 0.02]


def test_replacements_have_a_dot_a_seed():
    reports = {
        "mhc": [{"change": {"all as I": 0.1, "all as mean": 0.0}}],
        "hc": [{"change": {"all as I": 0.2, "all as mean": 0.3}}] * 2,
    }
    fig = draw.replacements(reports)
    assert [ax.get_title() for ax in fig.axes] == ["all as I", "all as mean"]
    _, one, two = fig.axes[1].lines
    assert (list(one.get_xdata()), list(two.get_xdata())) == ([0.0], [0.3, 0.3])
    assert list(two.get_ydata()) == [1, 1]


def test_a_figure_is_closed():
    draw.replacements({"mhc": [{"change": {"all as I": 0.1}}]})
    assert not plt.get_fignums()
