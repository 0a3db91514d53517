"""Figures of the chapters on streams, reach and cost: what they draw is what they were given."""

import numpy as np
import pytest

from gomhc.companion.figures import circulant_slice, streams_diagram
from gomhc.companion.figures.cost import pareto
from gomhc.companion.records import shipped


def test_the_branch_touches_every_stream():
    for ax, streams in zip(streams_diagram().axes, (1, 4), strict=True):
        touched = [len(line.get_ydata()) for line in ax.lines if line.get_linestyle() == "None"]
        assert touched == [streams] * 3  # a dot, a ring and its plus on each
        ends = [note.xy[1] for note in ax.texts if hasattr(note, "arrowprops")]
        heights = {y for line in ax.lines if line.get_marker() == "+" for y in line.get_ydata()}
        assert len(heights) == streams
        assert heights <= set(ends)  # the streams themselves, each an arrow


def slice_points(cells, side=4):
    """Centres of equal cells of a triangle, then points of its sides."""

    def simplex(n):
        return np.array([(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)])

    centres = np.vstack([3 * simplex(cells - 1) + 1, 3 * simplex(cells - 2) + 2]) / (3 * cells)
    sides = simplex(side) / side
    return np.vstack([centres, sides[(sides == 0).any(1)]])


def test_a_slice_says_which_share_of_its_area_is_blue():
    weights = slice_points(12)
    reached = weights.min(1) > 1 / 12  # a triangle within the triangle, of side 1 - 3/12
    fig = circulant_slice(weights, {2: np.where(reached, 0.0, 0.1)})
    assert fig.axes[0].get_title() == f"s = 2: {(1 - 3 / 12) ** 2:.0%} of the area"


def test_a_slice_that_is_not_whole_is_not_called_whole():
    """Gaps along the sides that one sees count."""
    weights = slice_points(12)
    distance = np.where(weights.min(1) > 1 / 24, 0.0, 0.1)
    title = circulant_slice(weights, {8: distance}).axes[0].get_title()
    assert float(title.split(": ")[1].split("%")[0]) == pytest.approx(
        100 * (1 - 3 / 24) ** 2, abs=8
    )
    assert "100%" not in title


@pytest.mark.parametrize("value", ["relative", "loss_over_floor"])
def test_every_mixer_is_named_beside_its_dot(value):
    table = {d: shipped(f"cost/pareto-d{d}").metrics for d in (8, 16)}
    fig = pareto(table, value)
    assert not fig.legends
    for ax, rows in zip(fig.axes, table.values(), strict=True):
        assert ax.get_legend() is None
        possible = {k: row for k, row in rows.items() if "impossible" not in row}
        names = [tick.get_text() for tick in ax.get_yticklabels()]
        assert sorted(names) == sorted(label.replace("factors=", "") for label in possible)
        dots = {int(line.get_ydata()[0]): line.get_xdata()[0] for line in ax.lines}
        prices = []
        for label, row in possible.items():
            place = names.index(label.replace("factors=", ""))
            assert dots[place] == row[f"{value}_median"]
            prices.append((place, row["flops"]))
        prices = [price for _, price in sorted(prices)]
        assert prices == sorted(prices)  # the cheapest on top
