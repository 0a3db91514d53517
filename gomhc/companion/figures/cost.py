"""Chapter 6: what mixers cost against their size, and what they reach for it."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from gomhc.companion.figures.style import color, styles

COSTS = {"layer_parameters": "parameters", "flops": "FLOPs a token"}
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


def _front(ax: Axes, points: list[tuple[float, float]]) -> None:
    """Steps along the points that no other one beats in both coordinates."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not best or y < best[-1][1]:
            best.append((x, y))
    ax.step(*zip(*best, strict=True), where="post", color="#888888", linewidth=1, zorder=1)


def pareto(
    table: Mapping[int, Mapping[str, Mapping[str, Any]]],
    value: str = "relative",
    yscale: str = "linear",
) -> Figure:
    """What mixers of one d achieve against what they cost, one row of panels a d.

    The grey steps join the mixers that are doubly stochastic and not beaten in both coordinates.

    Args:
        table: d -> label -> row, from the metrics of `gomhc.companion.studies.cost.pareto`; rows of
            mixers that are impossible at this d are left out.
        value: "relative", "reach", "vertex", "loss_over_floor" or "heldout": medians, with bars
            from the 10th to the 90th percentile.
        yscale: matplotlib scale of the value.
    """
    fig, axes = plt.subplots(
        len(table), 2, figsize=(9.4, 2.9 * len(table)), sharey="row", squeeze=False
    )
    for (left, right), (d, rows) in zip(axes, table.items(), strict=True):
        rows = {label: row for label, row in rows.items() if "impossible" not in row}
        style = styles(list(rows))
        for ax, cost in zip((left, right), COSTS, strict=True):
            for label, row in rows.items():
                low, middle, high = (row[f"{value}_{part}"] for part in ("low", "median", "high"))
                look = {key: style[label][key] for key in ("color", "marker")}
                spread = [[middle - low], [high - middle]]
                ax.errorbar(
                    row[cost], middle, spread, label=label, linestyle="", markersize=6.5, **look
                )
            _front(
                ax,
                [(row[cost], row[f"{value}_median"]) for row in rows.values() if row["exact"]],
            )
            ax.set(xscale="log", yscale=yscale, xlabel=COSTS[cost])
            low, high = ax.get_xlim()
            subs = (1, 2, 5) if high / low < 50 else (1,)
            ax.xaxis.set_major_locator(LogLocator(subs=subs))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        left.set(title=f"d = {d}", ylabel=VALUES[value])
        right.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8.5)
    plt.close(fig)
    return fig


def speed(panels: Mapping[str, Mapping[tuple[str, str], Mapping[str, float]]]) -> Figure:
    """Times of all methods over the floor of memory, a row a method, sorted by the first panel.

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
        ax.set(xscale="log", title=title, xlabel="time / floor", ylim=(len(order) - 0.4, -0.6))
        ax.set_yticks(range(len(order)), [" · ".join(key) for key in order], fontsize=8.5)
    plt.close(fig)
    return fig
