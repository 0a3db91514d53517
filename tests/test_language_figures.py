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
    apart = {arm: Difference(0.01 * k, -0.02, 0.03 * k, [0.01, 0.02]) for k, arm in enumerate("ab")}
    panels = {"against a": {"b": apart["b"]}, "against b": {"a": apart["a"]}}
    fig = draw.forest(panels, {"against a": 0.01, "against b": 0.02}, ["b", "a", "c"])
    left, right = fig.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["b", "a"]
    for ax, row, arm in ((left, 0, "b"), (right, 1, "a")):
        _, pairs, interval, mean = ax.lines
        assert list(interval.get_xdata()) == [apart[arm].low, apart[arm].high]
        assert (mean.get_xdata()[0], mean.get_ydata()[0]) == (apart[arm].mean, row)
        assert list(pairs.get_xdata()) == apart[arm].pairs


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
