"""Chapter 8: what is left of a factor under each of its readings."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from gomhc.companion.figures.style import MARKERS, color


def readings(
    table: Mapping[str, Mapping[str, Sequence[float]]], *, claimed: float, xlabel: str
) -> Figure:
    """One row a reading of a claimed factor, one dot a case, on a log axis.

    Args:
        table: reading -> label of the rival -> factors, one a case.
        claimed: the factor as claimed, a dashed line.
        xlabel: label of the horizontal axis.
    """
    rivals = list(dict.fromkeys(label for row in table.values() for label in row))
    fig, ax = plt.subplots(figsize=(8.4, 0.75 * len(table) + 1.7))
    for k, label in enumerate(rivals):
        shift = 0.22 * (k - (len(rivals) - 1) / 2)
        cases = [(x, y) for y, row in enumerate(table.values()) for x in row.get(label, [])]
        ax.scatter(
            [x for x, _ in cases],
            [y + shift for _, y in cases],
            s=42,
            color=color(label),
            marker=MARKERS[k % len(MARKERS)],
            alpha=0.8,
            edgecolors="#222222",
            linewidths=0.6,
            label=label,
            zorder=3,
        )
    ax.axvline(1, color="#444444", linewidth=1)
    ax.axvline(claimed, color="#444444", linewidth=1.2, linestyle="--")
    ax.annotate(
        f"claimed: {claimed:g}×",
        (claimed, 1),
        xytext=(4, 4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=9.5,
    )
    ax.annotate(
        "equally fast",
        (1, 1),
        xytext=(0, 4),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        fontsize=9.5,
    )
    for y in range(1, len(table)):
        ax.axhline(y - 0.5, color="#e4e4e4", linewidth=1)
    ax.set(xscale="log", xlabel=xlabel, ylim=(len(table) - 0.5, -0.5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.set_yticks(range(len(table)), list(table))
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    fig.legend(loc="outside lower center", ncols=len(rivals))
    plt.close(fig)
    return fig
