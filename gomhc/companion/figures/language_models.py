"""Chapter 7: losses of language models, their differences, and what their streams do."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from gomhc.companion.figures.style import color
from gomhc.companion.paired import Difference

Curve = Sequence[tuple[float, float]]  # (x, loss)
SHADE = "#d9d9d9"


def _mean(curves: Sequence[Curve]) -> tuple[Any, Any]:
    """x, and the mean over seeds, as far as all of them go."""
    common = min(len(curve) for curve in curves)
    table = np.array([curve[:common] for curve in curves], dtype=float).reshape(-1, common, 2)
    return table[0, :, 0], table[:, :, 1].mean(0)


def leads(
    runs: Mapping[str, Mapping[int, Curve]],
    base: str,
    dashed: str,
    *,
    columns: int = 5,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Losses less those of a base arm with the same seed at the same step, a panel an arm.

    Args:
        runs: arm -> seed -> its curve over the steps; the base has every seed.
        base: arm whose losses are taken off.
        dashed: arm whose mean is drawn in every panel.
        columns: panels in a row.
        limits: of the vertical axes.
    """
    apart = {
        arm: [
            [(x, y - off) for (x, y), (_, off) in zip(curve, runs[base][seed], strict=False)]
            for seed, curve in seeds.items()
        ]
        for arm, seeds in runs.items()
        if arm != base
    }
    rows = -(-len(apart) // columns)
    fig, axes = plt.subplots(
        rows, columns, figsize=(1.95 * columns, 2.1 * rows), sharex=True, sharey=True, squeeze=False
    )
    for ax, (arm, curves) in zip(axes.flat, apart.items(), strict=False):
        ax.axhline(0, color="#444444", linewidth=1, label=base)
        ax.plot(
            *_mean(apart[dashed]),
            color="#767676",
            linewidth=1.2,
            linestyle=(0, (4, 2)),
            label=f"mean of {dashed}",
        )
        for curve in curves:
            ax.plot(*zip(*curve, strict=True), color=color(arm), linewidth=0.7, alpha=0.45)
        if arm != dashed:
            ax.plot(*_mean(curves), color=color(arm), linewidth=2)
        ax.set_title(arm, color=color(arm), size=10)
        ax.xaxis.set_major_locator(MaxNLocator(3))
        if limits:
            ax.set_ylim(*limits)
    for ax in axes.flat[len(apart) :]:
        ax.axis("off")
    for ax in axes.flat[max(0, len(apart) - columns) : len(apart)]:
        ax.set_xlabel("step")
        ax.tick_params(labelbottom=True)
    fig.supylabel(f"loss − loss of {base}, nats", size=10)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    plt.close(fig)
    return fig


def falls(runs: Mapping[str, Sequence[Curve]], levels: Sequence[float], xlabel: str) -> Figure:
    """Losses above the floor, a panel an arm, a line a seed, with the levels dashed.

    Args:
        runs: arm -> a curve a seed.
        levels: losses.
        xlabel: what the horizontal axes are.
    """
    fig, axes = plt.subplots(
        1, len(runs), figsize=(2.6 * len(runs), 2.7), sharex=True, sharey=True, squeeze=False
    )
    for ax, (arm, curves) in zip(axes[0], runs.items(), strict=True):
        for level in levels:
            ax.axhline(level, color="#767676", linewidth=1, linestyle=(0, (4, 2)))
        for curve in curves:
            ax.plot(*zip(*curve, strict=True), color=color(arm), linewidth=1.2, alpha=0.8)
        ax.set_title(arm, color=color(arm), size=10)
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(xlabel)
    axes[0, 0].set_ylabel("loss above the floor, nats")
    plt.close(fig)
    return fig


def ends(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]],
    *,
    ylabel: str,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """The same mean curves against several measures of effort, labelled where they end.

    Args:
        panels: measure, the label of its axis -> arm -> one curve a seed.
        ylabel: of the vertical axis.
        limits: of the vertical axis; as large as the curves if None.
    """
    fig, axes = plt.subplots(
        1, len(panels), figsize=(4.4 * len(panels), 3.6), sharey=True, squeeze=False
    )
    for ax, (xlabel, runs) in zip(axes[0], panels.items(), strict=True):
        last = {}
        for arm, curves in runs.items():
            x, mean = _mean(curves)
            ax.plot(x, mean, color=color(arm))
            last[arm] = (x[-1], mean[-1])
        ax.set(xlabel=xlabel, ylim=limits)
        ax.set_xlim(right=1.02 * max(x for x, _ in last.values()))
        _label(ax, last)
    axes[0, 0].set_ylabel(ylabel)
    plt.close(fig)
    return fig


def _label(ax: Axes, last: Mapping[str, tuple[float, float]]) -> None:
    """Names beside the ends of curves, spread so that they do not overlap."""
    low, high = ax.get_ylim()
    step, place = 0.07 * (high - low), -np.inf
    for arm, (x, y) in sorted(last.items(), key=lambda item: item[1][1]):
        place = max(y, place + step)
        ax.annotate(
            arm,
            (x, y),
            xytext=(1.03, place),
            textcoords=ax.get_yaxis_transform(),
            color=color(arm),
            va="center",
            size=9,
            arrowprops={"arrowstyle": "-", "color": color(arm), "linewidth": 0.5},
        )


def _percent(share: float, _: int) -> str:
    return f"{100 * share:.3g}%".replace("-", "\N{MINUS SIGN}")


def forest(
    texts: Mapping[str, Mapping[str, Mapping[str, Difference]]],
    margins: Mapping[str, float],
    rows: Sequence[str],
) -> Figure:
    """Mean differences with their 95 % intervals, a row an arm; every pair is a small dot.

    Args:
        texts: text -> what its arms are compared with -> arm -> its difference from that. Every
            text has a row of panels with one scale, and compares with the same as the others.
        margins: text -> a share; gains and losses below it lie in the grey band.
        rows: arms, from top to bottom; those that a text does not have are left out of its row.
    """
    arms = {
        text: [arm for arm in rows if any(arm in table for table in panels.values())]
        for text, panels in texts.items()
    }
    heights = [0.36 * len(each) + 0.75 for each in arms.values()]
    columns = max(map(len, texts.values()), default=1)
    names = max(1.4, 0.085 * max(map(len, chain(*arms.values())), default=0))  # inches they take
    fig, axes = plt.subplots(
        len(texts),
        columns,
        figsize=(2.9 * columns + names, sum(heights) + 0.55),
        sharex="row",
        sharey="row",
        squeeze=False,
        height_ratios=heights,
    )
    for line, (text, panels) in zip(axes, texts.items(), strict=True):
        for ax, (base, table) in zip(line, panels.items(), strict=True):
            ax.axvspan(-margins[text], margins[text], color=SHADE, alpha=0.5, linewidth=0)
            ax.axvline(0, color="#444444", linewidth=1)
            for row, arm in enumerate(arms[text]):
                if arm not in table:
                    continue
                apart, hue = table[arm], color(arm)
                level = [row + 0.22] * len(apart.pairs)
                ax.plot(apart.pairs, level, ".", color=hue, ms=3, alpha=0.6)
                ax.plot([apart.low, apart.high], [row, row], color=hue, linewidth=2.2)
                ax.plot(apart.mean, row, "o", color=hue, markersize=5.5)
            ax.set_title(", ".join(filter(None, (text, base))), size=10)
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.xaxis.set_major_formatter(_percent)
            ax.grid(visible=False, axis="y")
        line[0].set_yticks(range(len(arms[text])), arms[text])
        line[0].set_ylim(len(arms[text]) - 0.4, -0.6)
    fig.supxlabel("← lower loss      difference of the loss      higher loss →", size=10)
    plt.close(fig)
    return fig


def mixing(reports: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Mean H_res of every connection, a row an arm; entries outside [0, 1] are drawn at its ends.

    Args:
        reports: arm -> a `StreamReport` as a dict.
    """
    layers = max(len(report["mixing"]) for report in reports.values())
    fig, axes = plt.subplots(
        len(reports),
        layers,
        figsize=(1.15 * layers + 1.6, 1.25 * len(reports) + 0.4),
        squeeze=False,
    )
    image = None
    for row, (arm, report) in zip(axes, reports.items(), strict=True):
        for layer, (ax, matrix) in enumerate(zip(row, report["mixing"], strict=True)):
            matrix = np.array(matrix, dtype=float)
            image = ax.imshow(matrix, vmin=0, vmax=1, cmap="Blues")
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            if ax in axes[0]:
                ax.set_title(f"{'attention' if layer % 2 == 0 else 'MLP'} {layer // 2 + 1}", size=8)
        row[0].set_ylabel(arm, rotation=0, ha="right", va="center")
    if image is not None:
        fig.colorbar(image, ax=axes, shrink=0.7, label="mean entry of H_res")
    plt.close(fig)
    return fig


WATCHED = {
    "distance": "‖H_res − I‖",
    "smallest": "σ_min of\nthe composite",
    "difference": "energy of\ndifferences kept",
    "effective": "effective streams",
}
REPLACED = "all as I"  # of the changes of the loss, the one that is watched


def watched(series: Mapping[str, Mapping[str, Any]]) -> Figure:
    """What the streams do over a training: a row an arm, a line a connection.

    The last column is of the whole network: how much its loss rises when every mixer is replaced.

    Args:
        series: arm -> `streams` of a record: `step`, and a list a step of every quantity.
    """
    fig, axes = plt.subplots(
        len(series),
        len(WATCHED) + 1,
        figsize=(10.8, 1.75 * len(series) + 0.7),
        sharex=True,
        sharey="col",
        squeeze=False,
    )
    for row, (arm, table) in zip(axes, series.items(), strict=True):
        row[-1].plot(table["step"], table["change"][REPLACED], color=color(arm))
        for ax, (key, title) in zip(row, WATCHED.items(), strict=False):
            values = np.array(table[key], dtype=float)  # None where it is not finite
            hues = plt.get_cmap("viridis")(np.linspace(0, 0.9, values.shape[1]))
            for connection, hue in enumerate(hues):
                ax.plot(table["step"], values[:, connection], color=hue, linewidth=1.3)
            if ax in axes[0]:
                ax.set_title(title, size=10)
        row[0].set_ylabel(arm, color=color(arm), rotation=0, ha="right", va="center")
        depth = values.shape[1]
    axes[0, -1].set_title(f"rise of the loss,\n{REPLACED}", size=10)
    for ax in axes[-1]:
        ax.set_xlabel("step")
    scale = plt.cm.ScalarMappable(plt.Normalize(1, depth / 0.9), "viridis")
    bar = fig.colorbar(scale, ax=axes, shrink=0.6, label="connection", ticks=[1, depth])
    bar.ax.set_ylim(1, depth)
    plt.close(fig)
    return fig


def replacements(reports: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """How much the loss rises when mixers are replaced, a panel a case, a row an arm.

    Args:
        reports: arm -> one `StreamReport` a seed, as dicts.
    """
    arms = list(reports)
    cases = list(reports[arms[0]][0]["change"])
    fig, axes = plt.subplots(
        1,
        len(cases),
        figsize=(1.45 * len(cases) + 1.2, 0.33 * len(arms) + 1.2),
        sharex=True,
        sharey=True,
    )
    for ax, case in zip(np.atleast_1d(axes), cases, strict=True):
        ax.axvline(0, color="#444444", linewidth=1)
        for row, arm in enumerate(arms):
            values = [report["change"][case] for report in reports[arm]]
            ax.plot(values, [row] * len(values), "o", color=color(arm), markersize=4.5, alpha=0.7)
        ax.set_xscale("symlog", linthresh=1e-2)
        ax.set_xticks([0, 1e-2, 1e-1, 1], ["0", ".01", ".1", "1"])
        ax.set_title(case, size=10)
        ax.grid(visible=False, axis="y")
    first = np.atleast_1d(axes)[0]
    first.set_yticks(range(len(arms)), arms)
    first.set_ylim(len(arms) - 0.4, -0.6)
    fig.supxlabel("change of the loss, nats a token", size=10)
    plt.close(fig)
    return fig
