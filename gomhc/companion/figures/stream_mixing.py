"""Chapter 5: losses and steps on the synthetic task."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from gomhc.companion.figures.style import color, styles

NEVER = "never"
BEYOND = 2.2  # limits: where runs are drawn that never got there


def _legend_below(fig: Figure, axes: Sequence[Axes], columns: int = 5) -> None:
    """One legend for all panels."""
    handles = {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    rows = -(-len(handles) // columns)
    fig.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=-(-len(handles) // rows)
    )


def loss_curves(
    panels: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
    *,
    ylabel: str,
    references: Mapping[str, float] | None = None,
    columns: int = 3,
    top: float | None = None,
) -> Figure:
    """Loss against step on two log axes, one panel a title.

    Args:
        panels: title -> label -> curve: `step`, a middle line `mean` or `median`, `low`, `high`.
        ylabel: label of the vertical axes.
        references: label -> height of a thin line in every panel.
        columns: panels a row.
        top: upper end of the vertical axes.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    fig, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.1 * columns, 2.5 * rows + 0.8),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    names = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    style = styles(names)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for ax, (title, curves) in zip(axes.flat, panels.items(), strict=False):
        for label, curve in curves.items():
            step = np.asarray(curve["step"]) + 1
            line: dict[str, Any] = {key: style[label][key] for key in ("color", "linestyle")}
            ax.plot(step, curve.get("mean", curve.get("median")), label=label, **line)
            ax.fill_between(
                step, curve["low"], curve["high"], color=line["color"], alpha=0.15, linewidth=0
            )
        for k, (label, height) in enumerate((references or {}).items()):
            thin: dict[str, Any] = {
                "color": "#444444",
                "linewidth": 1,
                "linestyle": [":", "--"][k % 2],
            }
            ax.axhline(height, label=label, **thin)
        ax.set(xscale="log", yscale="log", title=title)
        if top is not None:
            ax.set_ylim(top=top)
    for ax in axes[-1]:
        ax.set_xlabel("step")
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    _legend_below(fig, list(axes.flat[: len(panels)]))
    plt.close(fig)
    return fig


def against_published(
    measured: Mapping[str, Mapping[int, float | None]],
    published: Mapping[str, Mapping[int, float]],
    *,
    ylabel: str,
    xlabel: str = "number of streams d",
) -> Figure:
    """Our numbers (filled, joined) over d, beside those read off a published figure (hollow).

    Args:
        measured: label -> d -> value; None is left out.
        published: label -> d -> value.
        ylabel: label of the vertical axis.
        xlabel: label of the horizontal axis.
    """
    fig, ax = plt.subplots(figsize=(7.2, 4.3))
    for label, style in styles(list(measured)).items():
        points = {d: value for d, value in measured[label].items() if value is not None}
        ax.plot(list(points), list(points.values()), label=label, markersize=6, **style)
    for label, row in published.items():
        hollow: dict[str, Any] = {
            "markerfacecolor": "none",
            "markeredgewidth": 1.6,
            "linestyle": "none",
        }
        ax.plot(
            list(row),
            list(row.values()),
            marker="o",
            markersize=11,
            color=color(label),
            label=f"{label}, published",
            **hollow,
        )
    sizes = sorted({d for rows in (measured, published) for row in rows.values() for d in row})
    ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    ax.set_xticks(sizes, [str(d) for d in sizes])
    ax.minorticks_off()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    _legend_below(fig, [ax], columns=4)
    plt.close(fig)
    return fig


def _steps_panels(
    table: Mapping[str, Mapping[str, Mapping[str, Any]]],
    limit: int,
    draw: Callable[[Axes, int, Mapping[str, Any], str], None],
) -> Figure:
    """Panels of steps, one a family of targets; `draw` puts a method's row at its place."""
    fig, axes = plt.subplots(
        1, len(table), figsize=(2.4 * len(table) + 1.3, 3.9), sharey=True, sharex=True
    )
    panels = list(np.atleast_1d(axes))
    labels = list(dict.fromkeys(label for rows in table.values() for label in rows))
    for ax, (family, rows) in zip(panels, table.items(), strict=True):
        for place, label in enumerate(labels):
            if label in rows:
                draw(ax, place, rows[label], color(label))
        ax.axhline(limit, color="#444444", linewidth=1, linestyle=":")
        ax.set(yscale="log", title=family)
        ax.set_xticks(range(len(labels)), labels, rotation=60, ha="right", fontsize=9)
    # A limit ends autoscaling, so it is set when all panels are drawn.
    panels[0].set(ylim=(None, 3.2 * limit), ylabel="steps to 1.05 × floor")
    panels[0].text(-0.45, BEYOND * limit * 1.12, NEVER, fontsize=9, va="bottom")
    plt.close(fig)
    return fig


def steps_to_floor(table: Mapping[str, Mapping[str, Mapping[str, Any]]], limit: int) -> Figure:
    """Steps that each method needs, one panel a family of targets; a dot is a seed.

    Args:
        table: family -> label -> a mapping with `steps`, a list with None for never.
        limit: steps that were allowed; runs that never got there are drawn above it.
    """

    def seeds(ax: Axes, place: int, row: Mapping[str, Any], colour: str) -> None:
        steps = [BEYOND * limit if k is None else max(k, 1) for k in row["steps"]]
        shifts = np.linspace(-0.2, 0.2, len(steps)) if len(steps) > 1 else [0]
        faces = ["none" if k is None else colour for k in row["steps"]]
        ax.scatter(place + np.asarray(shifts), steps, s=26, c=faces, edgecolors=colour, zorder=3)
        ax.plot([place - 0.3, place + 0.3], [np.median(steps)] * 2, color=colour)

    return _steps_panels(table, limit, seeds)


def steps_at_rate(
    table: Mapping[str, Mapping[str, Mapping[str, Any]]], rate: str, limit: int
) -> Figure:
    """Steps that each method needs at one learning rate, over the range of all the others'.

    Args:
        table: family -> label -> a mapping with `tuning`: learning rate (as text) -> steps or None.
        rate: the learning rate, as `tuning` has it.
        limit: steps that were allowed; what never got there is drawn above it.
    """
    places = len({label for rows in table.values() for label in rows})
    every = [k for rows in table.values() for row in rows.values() for k in row["tuning"].values()]
    lowest = min((k for k in every if k is not None), default=1)

    def one(ax: Axes, place: int, row: Mapping[str, Any], colour: str) -> None:
        arrivals = [steps for steps in row["tuning"].values() if steps is not None]
        if arrivals:
            ax.plot([place] * 2, [min(arrivals), max(arrivals)], color="#d9d9d9", linewidth=7)
        steps = row["tuning"][rate]
        at, face = (BEYOND * limit, "none") if steps is None else (steps, colour)
        ax.plot(place, at, "o", color=colour, markerfacecolor=face, markersize=8)

    fig = _steps_panels(table, limit, one)
    fig.axes[0].set(ylim=(0.6 * lowest, None), xlim=(-0.6, places - 0.4))  # of all panels
    return fig


def tuning(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Figure:
    """Steps to the floor against the learning rate, one panel a family of targets.

    Args:
        table: family -> label -> a mapping with `tuning`: learning rate (as text) -> steps or None.
    """
    fig, axes = plt.subplots(1, len(table), figsize=(2.4 * len(table) + 1.0, 3.8), sharey=True)
    names = list(dict.fromkeys(label for rows in table.values() for label in rows))
    style = styles(names)
    for ax, (family, rows) in zip(np.atleast_1d(axes), table.items(), strict=True):
        for label, row in rows.items():
            arrivals = {float(rate): k for rate, k in row["tuning"].items() if k is not None}
            rates, steps = list(arrivals), list(arrivals.values())
            ax.plot(rates, steps, label=label, markersize=4.5, **style[label])
        ax.set(xscale="log", yscale="log", title=family, xlabel="learning rate")
    np.atleast_1d(axes)[0].set_ylabel("steps to 1.05 × floor")
    _legend_below(fig, list(np.atleast_1d(axes)))
    plt.close(fig)
    return fig


def variants(
    table: Mapping[str, Mapping[str, Mapping[str, Any]]], *, key: str, xlabel: str
) -> Figure:
    """One number a method, one row a variant of the protocol, on a log axis.

    Args:
        table: variant -> label -> row.
        key: entry of the row to draw; None is left out.
        xlabel: label of the axis.
    """
    fig, ax = plt.subplots(figsize=(8.6, 0.42 * len(table) + 1.6))
    names = list(dict.fromkeys(label for rows in table.values() for label in rows))
    style = styles(names)
    for place, rows in enumerate(table.values()):
        values = [row[key] for row in rows.values() if row[key] is not None]
        ax.plot([min(values), max(values)], [place, place], color="#cccccc", zorder=1)
    for label in names:
        points = [
            (rows[label][key], place)
            for place, rows in enumerate(table.values())
            if label in rows and rows[label][key] is not None
        ]
        look: dict[str, Any] = style[label] | {"linestyle": "none", "markersize": 8}
        ax.plot(*zip(*points, strict=True), label=label, **look)
    ax.set(xscale="log", xlabel=xlabel)
    ax.set_yticks(range(len(table)), list(table))
    ax.invert_yaxis()
    _legend_below(fig, [ax])
    plt.close(fig)
    return fig
