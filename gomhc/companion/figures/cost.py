"""Chapter 6: what mixers cost against their size, and what they reach for it."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from gomhc.companion.figures.style import color, styles

SPREAD = ("low", "median", "high")
VALUES = {
    "relative": "reach error, in distances from J/d",
    "reach": "reach error ‖B − T‖",
    "vertex": "distance from permutations",
    "loss_over_floor": "fitted loss / floor",
    "heldout": "held-out error ‖B − T‖",
}


def scaling(
    panels: Mapping[str, Mapping[str, Mapping[str, float | None]]],
    xlabel: str = "streams d",
    limits: Mapping[str, float] | None = None,
) -> Figure:
    """Costs against size on logarithmic axes, one panel a kind of cost.

    Args:
        panels: title -> label -> size (as text) -> cost; None, or a cost of 0, draws nothing.
        xlabel: what the size is.
        limits: title -> cost drawn as a dotted line across that panel.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(4.7 * columns, 3.4 * rows + 0.7), squeeze=False
    )
    style = styles(list(dict.fromkeys(label for table in panels.values() for label in table)))
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for ax, (title, table) in zip(axes.flat, panels.items(), strict=False):
        for label, row in table.items():
            points = sorted((int(size), cost) for size, cost in row.items() if cost)
            if points:
                ax.plot(*zip(*points, strict=True), label=label, markersize=4.5, **style[label])
        ax.set_xscale("log", base=2)
        ax.set(yscale="log", title=title, xlabel=xlabel)
        ax.xaxis.set_major_formatter(lambda size, _: f"{size:g}")
        if limits and title in limits:
            ax.axhline(limits[title], color="#444444", linewidth=1, linestyle=":")
    handles = {
        label: handle
        for ax in axes.flat
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    if len(handles) > 1:
        fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    plt.close(fig)
    return fig


def pareto(
    table: Mapping[int, Mapping[str, Mapping[str, Any]]],
    value: str = "relative",
    xscale: str = "linear",
) -> Figure:
    """What mixers achieve, a row each, from the cheapest down to the dearest; one panel a d.

    Args:
        table: d -> label -> row, from the metrics of `gomhc.companion.studies.cost.pareto`; rows of
            mixers that are impossible at this d are left out.
        value: "relative", "reach", "vertex", "loss_over_floor" or "heldout": medians, with bars
            from the 10th to the 90th percentile.
        xscale: matplotlib scale of the value.
    """
    panels = {
        d: {label: row for label, row in rows.items() if "impossible" not in row}
        for d, rows in table.items()
    }
    columns = min(2, len(panels))
    lines, deepest = -(-len(panels) // columns), max(map(len, panels.values()))
    size = (4.7 * columns, (0.21 * deepest + 0.75) * lines)
    fig, axes = plt.subplots(lines, columns, figsize=size, sharex=True, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for ax, (d, rows) in zip(axes.flat, panels.items(), strict=False):
        order = sorted(rows, key=lambda label: rows[label]["flops"])
        for place, label in enumerate(order):
            low, middle, high = (rows[label][f"{value}_{part}"] for part in SPREAD)
            spread = [[middle - low], [high - middle]]
            ax.errorbar(middle, place, None, spread, fmt="o", color=color(label), markersize=5.5)
        ax.set(xscale=xscale, ylim=(deepest - 0.4, -0.6))
        ax.set_title(f"d = {d}", loc="left")
        names = [label.replace("factors=", "") for label in order]
        ax.set_yticks(range(len(order)), names, fontsize=8.5)
        _margin(ax, [EngFormatter(sep="", places=1)(rows[label]["flops"]) for label in order])
    for ax in axes[-1]:
        ax.set_xlabel(VALUES[value])
    if xscale == "log":
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        ax.xaxis.set_minor_locator(NullLocator())
    plt.close(fig)
    return fig


def _margin(ax: Axes, prices: list[str]) -> None:
    """The FLOPs of each row, right of its panel."""
    right: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "ha": "right", "fontsize": 8.5}
    for place, price in enumerate(prices):
        ax.text(1.16, place, price, va="center", **right)
    ax.text(1.16, -0.9, "FLOPs", va="bottom", **right)


def speed(panels: Mapping[str, Mapping[tuple[str, str], Mapping[str, float]]]) -> Figure:
    """Times of all methods over the copy time, a row a method, sorted by the first panel.

    Compiled methods are filled, all others are open.

    Args:
        panels: title -> (map, path) -> a row of `benchmarks.mixers`, with `over_floor`.
    """
    keys = list(dict.fromkeys(key for rows in panels.values() for key in rows))
    order = sorted(
        keys, key=lambda key: next(r[key]["over_floor"] for r in panels.values() if key in r)
    )
    fig, axes = plt.subplots(
        1,
        len(panels),
        figsize=(9.4, 0.25 * len(order) + 1.0),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for ax, (title, rows) in zip(axes.flat, panels.items(), strict=True):
        for place, key in enumerate(order):
            if key in rows:
                tint, filled = color(key[0]), key[1] == "fused"
                ax.plot(
                    rows[key]["over_floor"],
                    place,
                    "o",
                    color=tint,
                    markerfacecolor=tint if filled else "white",
                    markersize=6.5,
                )
        ax.axvline(1, color="#444444", linewidth=1, linestyle=":")
        ax.set(xscale="log", title=title, ylim=(len(order) - 0.4, -0.6))
        ax.set_xticks([1, 100], ["1", "100"])
        ax.set_yticks(range(len(order)), [" · ".join(key) for key in order], fontsize=8.5)
    fig.supxlabel("time / copy time", size=10)
    plt.close(fig)
    return fig
