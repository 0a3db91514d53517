"""Chapter 1: the streams, and the matrices that mix them."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from gomhc.companion.figures.style import COLORS, color


def streams_diagram() -> Figure:
    """One residual stream beside four that are read, transformed, written and mixed."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.4), width_ratios=[1, 1.7])
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": "#222222"}
    arrow = {"arrowstyle": "-|>", "color": "#222222", "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}

    def draw(
        ax: Axes, start: tuple[float, float], end: tuple[float, float], **style: object
    ) -> None:
        ax.annotate("", end, start, arrowprops=arrow | style)

    draw(left, (0, 0.3), (4, 0.3), color=COLORS["residual"], linewidth=2.5)
    draw(left, (0.8, 0.3), (0.8, 1.5))
    draw(left, (0.8, 1.5), (1.55, 1.5))
    draw(left, (2.25, 1.5), (3.1, 1.5))
    draw(left, (3.1, 1.5), (3.1, 0.5))
    left.text(1.9, 1.5, "F", ha="center", va="center", bbox=box)
    plus = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": "#222222"}
    left.text(3.1, 0.3, "+", ha="center", va="center", fontsize=12, bbox=plus)
    left.set(title="Residual stream:  x' = x + F(x)", xlim=(-0.2, 4.2), ylim=(-0.6, 2.4))

    for k in range(4):
        y = 0.3 * k
        right.plot([0, 2.6], [y, y], color=COLORS["go-mhc"], linewidth=2.2)
        draw(right, (3.6, y), (6.2, y), color=COLORS["go-mhc"], linewidth=2.2)
    right.text(3.1, 0.45, "$H_{res}$", ha="center", va="center", bbox=box | {"pad": 1.0})
    draw(right, (0.8, 0.9), (0.8, 1.9))
    draw(right, (0.8, 1.9), (2.5, 1.9))
    right.text(0.95, 1.4, "$H_{pre}$: read a mixture", fontsize=9)
    right.text(2.85, 1.9, "F", ha="center", va="center", bbox=box)
    draw(right, (3.2, 1.9), (5.2, 1.9))
    draw(right, (5.2, 1.9), (5.2, 0.95))
    right.text(5.05, 1.4, "$H_{post}$: write to each", fontsize=9, ha="right")
    right.set(
        title="Hyper-connection, d = 4 streams:  X' = $H_{res}$X + $H_{post}^T$F($H_{pre}$X)",
        xlim=(-0.2, 6.4),
        ylim=(-0.6, 2.4),
    )
    for ax in (left, right):
        ax.axis("off")
    plt.close(fig)
    return fig


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
