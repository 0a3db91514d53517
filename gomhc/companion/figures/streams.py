"""Chapter 1: the streams, and the matrices that mix them."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from numpy.typing import ArrayLike

from gomhc.companion.figures.style import COLORS, color

INK = "#222222"
HEAD = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0}  # of an arrow that ends where it says


def streams_diagram() -> Figure:
    """One residual stream beside four that are read, transformed, written and mixed."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.4), width_ratios=[1, 1.7])
    _stream(left, 0.0, 4.0, COLORS["residual"])
    _branch(left, [0.0], read=0.7, write=3.1, top=1.3)
    left.set(title="Residual stream:  x' = x + F(x)", xlim=(-0.2, 4.2))

    heights = [0.0, 0.3, 0.6, 0.9]
    for height in heights:
        _stream(right, height, 6.2, COLORS["go-mhc"])
    _branch(right, heights, read=0.8, write=5.2, top=1.8)
    _box(right, "$H_{res}$", (2.6, 3.4), (-0.2, 1.1))
    right.text(0.95, 1.35, "$H_{pre}$: read a mixture of all", fontsize=9)
    right.text(5.05, 1.35, "$H_{post}$: write to each", fontsize=9, ha="right")
    right.set(
        title="Hyper-connection, d = 4 streams:  X' = $H_{res}$X + $H_{post}^T$F($H_{pre}$X)",
        xlim=(-0.2, 6.4),
    )
    for ax in (left, right):
        ax.set_ylim(-0.4, 2.3)
        ax.axis("off")
    plt.close(fig)
    return fig


def _stream(ax: Axes, height: float, end: float, colour: str) -> None:
    """A stream that runs from left to right."""
    ax.annotate(
        "", (end, height), (0, height), arrowprops={"color": colour, "linewidth": 2.3, **HEAD}
    )


def _box(ax: Axes, name: str, x: tuple[float, float], y: tuple[float, float]) -> None:
    """A named map, drawn over the lines that enter and leave it."""
    size = (x[1] - x[0], y[1] - y[0])
    look: dict[str, Any] = {
        "boxstyle": "round,pad=0,rounding_size=0.08",
        "facecolor": "white",
        "edgecolor": INK,
    }
    ax.add_patch(FancyBboxPatch((x[0], y[0]), *size, zorder=3, **look))
    ax.text(sum(x) / 2, sum(y) / 2, name, ha="center", va="center", zorder=4)


def _branch(ax: Axes, heights: Sequence[float], read: float, write: float, top: float) -> None:
    """What reads every stream (a dot), goes through F, and is added to every stream (a plus)."""
    low, high, middle = min(heights), max(heights), (read + write) / 2
    path = [read, read, middle, write, write], [low, top, top, top, low]
    ax.plot(*path, color=INK, linewidth=1.2, zorder=2)
    arrow = {"color": INK, "linewidth": 1.2, **HEAD}
    ax.annotate("", (middle - 0.35, top), (read, top), arrowprops=arrow)
    ax.annotate("", (write, high + 0.07), (write, top), arrowprops=arrow)
    _box(ax, "F", (middle - 0.35, middle + 0.35), (top - 0.2, top + 0.2))
    ax.plot([read] * len(heights), heights, "o", color=INK, markersize=6, zorder=3)
    ring: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": INK, "markersize": 11}
    ax.plot([write] * len(heights), heights, "o", zorder=3, **ring)
    ax.plot([write] * len(heights), heights, "+", color=INK, markersize=7, zorder=4)


def mixing_matrices(matrices: Mapping[str, ArrayLike]) -> Figure:
    """One H_res of each method as a heat map, with row sums at the right and column sums below."""
    rows = 1 if len(matrices) <= 4 else 2
    columns = -(-len(matrices) // rows)
    fig, axes = plt.subplots(rows, columns, figsize=(8.6, 2.45 * rows), squeeze=False)
    for ax in axes.flat[len(matrices) :]:
        ax.axis("off")
    for ax, (label, matrix) in zip(axes.flat, matrices.items(), strict=False):
        matrix = np.asarray(matrix)
        d = len(matrix)
        ax.imshow(matrix, cmap="RdBu", vmin=-1, vmax=1)
        for (i, j), value in np.ndenumerate(matrix):
            shade = "white" if abs(value) > 0.6 else "black"
            ax.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=shade)
        for i in range(d):
            ax.text(d - 0.4, i, f"{matrix[i].sum():.3f}", va="center", fontsize=7.5)
            ax.text(i, d - 0.15, f"{matrix[:, i].sum():.3f}", ha="center", fontsize=7.5)
        ax.set_title(label, color=color(label), fontweight="bold")
        ax.set(xticks=[], yticks=[], ylim=(d - 0.1, -0.5), xlim=(-0.5, d))
        ax.grid(visible=False)
        for spine in ax.spines.values():
            spine.set_visible(False)
    plt.close(fig)
    return fig
