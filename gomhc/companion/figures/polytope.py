"""Chapter 3: what each family reaches of the Birkhoff polytope."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation, TriContourSet
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from gomhc.companion.figures.style import COLORS, color, styles

REACHED = 1e-6  # distance to a family below which a matrix counts as reached
NEARLY = 0.002  # distance up to which a point between grid points is drawn as reached
CORNERS = np.array([[0.5, np.sqrt(3) / 2], [0.0, 0.0], [1.0, 0.0]])  # I, Z, Z²


def deltoid() -> np.ndarray:
    """What s = 1 reaches of the slice: the curve of the eigenvalue (2e^{it} + e^{-2it})/3."""
    t = np.linspace(0, 2 * np.pi, 400)
    z = (2 * np.exp(1j * t) + np.exp(-2j * t)) / 3
    roots = np.exp(2j * np.pi * np.arange(3) / 3)
    weights = (1 + 2 * (z[:, None] * roots.conj()).real) / 3
    return weights @ CORNERS


def circulant_weights(B: np.ndarray) -> np.ndarray:
    """Barycentric coordinates of the circulants nearest to (..., 3, 3): projections on I, Z, Z²."""
    shifts = np.stack([np.roll(np.eye(3), k, axis=1) for k in range(3)])
    return np.einsum("...ij,kij->...k", B, shifts) / 3


def _frame(ax: Axes, title: str, linewidth: float) -> None:
    """Draw the deltoid and the sides of the slice, and nothing else around them."""
    ax.plot(*deltoid().T, color=COLORS["hc"], linewidth=linewidth)
    ax.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color="#222222", linewidth=1)
    ax.set(title=title, aspect="equal")
    ax.axis("off")


def _triangle(
    ax: Axes, weights: np.ndarray, distance: np.ndarray, title: str, scale: float
) -> TriContourSet:
    """Fill the slice {aI + bZ + cZ²} by distance, the reached part in the method's colour."""
    x, y = (weights @ CORNERS).T
    mesh = Triangulation(x, y)
    greys = sns.light_palette("#555555", as_cmap=True)
    levels = np.linspace(0, scale, 11)
    filled = ax.tricontourf(mesh, distance, levels=levels, cmap=greys, extend="max")
    ax.tricontourf(mesh, distance, levels=[0, NEARLY], colors=[COLORS["go-mhc"]], extend="min")
    on_side = (distance < REACHED) & (weights.min(1) == 0)
    ax.scatter(x[on_side], y[on_side], s=14, color=COLORS["go-mhc"], zorder=3)
    _frame(ax, title, linewidth=1.3)
    for corner, name, shift in zip(
        CORNERS, ["$I$", "$Z$", "$Z^2$"], [(0, 0.03), (-0.07, -0.08), (0.0, -0.08)], strict=True
    ):
        ax.text(
            corner[0] + shift[0],
            corner[1] + shift[1],
            name,
            fontsize=11,
            ha="center" if shift[0] == 0 else "left",
        )
    ax.set(xlim=(-0.09, 1.09), ylim=(-0.13, 0.98))
    return filled


def circulant_slice(
    weights: ArrayLike,
    distances: Mapping[int, ArrayLike],
    columns: int = 3,
    scale: float | None = None,
) -> Figure:
    """The triangle of I, Z, Z² at d = 3: which points each level s of go-mHC reaches.

    Args:
        weights: (points, 3) barycentric coordinates of aI + bZ + cZ²: the centres of equal cells,
            whose reached share is the share of the area, and points of the sides.
        distances: s -> (points,) Frobenius distance to the nearest matrix of level s.
        columns: panels a row.
        scale: distance at the end of the grey scale; the largest one if not given.
    """
    weights = np.asarray(weights)
    scale = scale or max(float(np.asarray(d).max()) for d in distances.values())
    columns = min(columns, len(distances))
    rows = -(-len(distances) // columns)
    width = 4.6 if columns == 1 else 2.9
    figsize = (width * columns + 0.6, 0.95 * width * rows)
    fig, axes = plt.subplots(rows, columns, figsize=figsize, squeeze=False)
    for ax in axes.flat[len(distances) :]:
        ax.axis("off")
    for ax, (s, distance) in zip(axes.flat, distances.items(), strict=False):
        distance = np.asarray(distance)
        share = (distance < REACHED)[weights.min(1) > 0].mean()
        filled = _triangle(ax, weights, distance, f"s = {s}: {share:.0%} of the area", scale)
    bar = fig.colorbar(filled, ax=axes, shrink=0.7, label="distance to the nearest reached matrix")
    bar.set_ticks([0, scale / 2, scale], labels=[f"{v:.2f}" for v in (0, scale / 2, scale)])
    plt.close(fig)
    return fig


def edge_lattice(t: ArrayLike, distances: Mapping[int, ArrayLike]) -> Figure:
    """Distance along the edge (1−t)I + tZ to each level s; it vanishes exactly at t = j/s.

    Args:
        t: positions on the edge, from 0 to 1.
        distances: s -> (len(t),) distances.
    """
    fig, axes = plt.subplots(
        len(distances), 1, figsize=(7.4, 1.05 * len(distances) + 0.7), sharex=True, sharey=True
    )
    for ax, (s, distance) in zip(np.atleast_1d(axes), distances.items(), strict=True):
        ax.fill_between(t, np.asarray(distance), color=COLORS["go-mhc"], alpha=0.25, linewidth=0)
        ax.plot(t, np.asarray(distance), color=COLORS["go-mhc"])
        ax.plot(np.arange(s + 1) / s, np.zeros(s + 1), "o", color=COLORS["hc"], clip_on=False)
        ax.set_ylabel(f"s = {s}", rotation=0, ha="right", va="center")
        ax.set_ylim(0, None)
    ax.set(xlabel="t, position on the edge from I (t = 0) to the 3-cycle Z (t = 1)", xlim=(0, 1))
    fig.supylabel("distance to the nearest reached matrix", fontsize=10)
    plt.close(fig)
    return fig


def edge_rivals(t: ArrayLike, distances: Mapping[str, ArrayLike]) -> Figure:
    """Which points of an edge of the polytope each family reaches, and how far it is from the rest.

    Args:
        t: positions on the edge, from 0 to 1.
        distances: label -> (len(t),) distances.
    """
    t = np.asarray(t)
    rows = {label: np.asarray(values) for label, values in distances.items()}
    fig, (far, near) = plt.subplots(
        2, 1, figsize=(7.4, 2.9 + 0.28 * len(rows)), sharex=True, height_ratios=[2.3, len(rows) / 3]
    )
    for place, (label, style) in enumerate(styles(list(rows)).items()):
        reached = rows[label] < REACHED
        near.plot(t, np.full_like(t, place), color="#e4e4e4", linewidth=1, zorder=1)
        dots = {"color": style["color"], "clip_on": False, "zorder": 2}
        near.plot(t[reached], np.full(reached.sum(), place), "o", markersize=5, **dots)
        if not reached.all():
            far.plot(t, rows[label], color=style["color"], linestyle=style["linestyle"])
            tops = np.flatnonzero(rows[label] > 0.999 * rows[label].max())
            top = min(tops, key=lambda k: abs(t[k] - 0.5))  # of equal arcs the middle one
            far.annotate(
                label,
                (t[top], rows[label][top]),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                color=style["color"],
            )
    far.set(ylim=(0, None), ylabel="distance of the points\nthat are not reached")
    near.set_yticks(range(len(rows)), list(rows))
    near.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6), ylabel="points reached")
    near.set_xlabel("t, position on the edge from I (t = 0) to the 3-cycle Z (t = 1)")
    near.grid(visible=False)
    near.spines["left"].set_visible(False)
    near.tick_params(axis="y", length=0, pad=8)
    plt.close(fig)
    return fig


def coverage(table: Mapping[int, Mapping[str, ArrayLike]]) -> Figure:
    """How much of the polytope each family reaches: share of samples, and distance where it fails.

    Args:
        table: d -> label -> distances from uniform samples of B_d to the family. Bars are 95 %
            Wilson intervals of the share, and 10th to 90th percentiles of the distance.
    """
    fig, axes = plt.subplots(
        2, len(table), figsize=(9.2, 6.4), sharey="row", sharex="col", squeeze=False
    )
    for (share_ax, distance_ax), (d, families) in zip(axes.T, table.items(), strict=True):
        for place, (label, values) in enumerate(families.items()):
            values = np.asarray(values)
            n, hits = len(values), int((values < REACHED).sum())
            p = hits / n
            interval = binomtest(hits, n).proportion_ci(method="wilson")
            style = {"color": color(label), "marker": "o", "markersize": 5, "capsize": 3}
            share_ax.errorbar(place, p, [[p - interval.low], [interval.high - p]], **style)
            low, middle, high = np.percentile(np.maximum(values, 1e-10), [10, 50, 90])
            distance_ax.errorbar(place, middle, [[middle - low], [high - middle]], **style)
        share_ax.set(title=f"d = {d}", ylim=(-0.05, 1.05))
        distance_ax.set(yscale="log", ylim=(3e-11, 5))
        distance_ax.axhline(REACHED, color="#444444", linewidth=1, linestyle=":")
        distance_ax.set_xticks(range(len(families)), list(families), rotation=60, ha="right")
    axes[0, 0].set_ylabel("share of uniform samples\nreached (distance < 1e-6)")
    axes[1, 0].set_ylabel("distance to the family\n(median, 10–90 %)")
    plt.close(fig)
    return fig


def landing(samples: Mapping[int, ArrayLike]) -> Figure:
    """Haar-random starts on the circulant slice, averaged over cyclic shifts, one panel a level s.

    Args:
        samples: s -> (count, 3, 3) matrices.
    """
    fig, axes = plt.subplots(1, len(samples), figsize=(2.3 * len(samples), 2.4))
    for ax, (s, B) in zip(np.atleast_1d(axes), samples.items(), strict=True):
        ax.scatter(
            *(circulant_weights(np.asarray(B)) @ CORNERS).T,
            s=3,
            alpha=0.35,
            color=COLORS["go-mhc"],
            linewidths=0,
            rasterized=True,
        )
        _frame(ax, f"s = {s}", linewidth=1)
    plt.close(fig)
    return fig
