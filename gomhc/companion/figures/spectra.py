"""Chapter 4: where eigenvalues may lie, and where a mixer's do."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from gomhc.companion.figures.style import COLORS, color, styles
from gomhc.spectra import karpelevich, perfect_mirsky
from gomhc.spectra.regions import EXTENT

INNER: dict[str, Any] = {"color": "#222222", "linewidth": 1.3}
OUTER: dict[str, Any] = {"color": COLORS["hc"], "linewidth": 1.3, "linestyle": (0, (4, 2))}
NAMES = ("Perfect–Mirsky Π", "Karpelevič Θ")


def _outlines(ax: Axes, d: int) -> None:
    """Both regions' boundaries; the inner one on top, where they agree."""
    for region, style in ((karpelevich(d), OUTER), (perfect_mirsky(d), INNER)):
        ax.plot(region.boundary.real, region.boundary.imag, **style)


def _plane(ax: Axes, title: str) -> None:
    ax.set(title=title, aspect="equal", xlim=(-1.09, 1.09), ylim=(-1.09, 1.09))
    ax.set(xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    ax.grid(visible=False)


def _shades(hue: str) -> ListedColormap:
    """From light to full colour; a single count can still be told from white."""
    return ListedColormap(sns.light_palette(hue, 256)[70:])


def _legend(fig: Figure, d: int) -> None:
    handles = [Line2D([], [], **style) for style in (INNER, OUTER)]
    labels = [f"{name}$_{d}$" for name in NAMES]
    fig.legend(handles, labels, loc="outside lower center", ncols=2)


def regions(d: int) -> Figure:
    """Π_d filled, the rest of Θ_d hatched, and the Farey points on the unit circle.

    Args:
        d: order of the matrices, at least 2.
    """
    fig, ax = plt.subplots(figsize=(4.9, 5.1))
    angle = np.linspace(0, 2 * np.pi, 400)
    ax.plot(np.cos(angle), np.sin(angle), color="#bbbbbb", linewidth=0.8)
    outer, inner = karpelevich(d).boundary, perfect_mirsky(d).boundary
    ax.fill(outer.real, outer.imag, color=COLORS["hc"], alpha=0.35, linewidth=0)
    ax.fill(inner.real, inner.imag, color="#d9e6f2", linewidth=0)
    _outlines(ax, d)
    roots = np.concatenate([np.exp(2j * np.pi * np.arange(k) / k) for k in range(1, d + 1)])
    ax.plot(roots.real, roots.imag, "o", color=INNER["color"], markersize=4)
    _plane(ax, f"d = {d}")
    ax.set(xlabel="Re λ", ylabel="Im λ")
    _legend(fig, d)
    plt.close(fig)
    return fig


def spectra_panels(
    histograms: Mapping[str, ArrayLike], d: int, columns: int = 3, most: float | None = None
) -> Figure:
    """Eigenvalues counted on the grid, one panel a mixer, with both regions' outlines.

    Args:
        histograms: title -> counts of the cells with imaginary part >= 0, (51, 101), the real axis
            first; they are mirrored. White: none.
        d: order of the matrices.
        columns: panels a row.
        most: count at the end of the scale; the largest one if not given.
    """
    columns = min(columns, len(histograms))
    rows = -(-len(histograms) // columns)
    panels = {title: np.asarray(counts, dtype=float) for title, counts in histograms.items()}
    most = most or max(2.0, *(counts.max() for counts in panels.values()))
    fig, axes = plt.subplots(
        rows,
        columns,
        figsize=(max(2.55 * columns + 0.8, 4.4), 2.6 * rows + 0.7),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for ax, (title, upper) in zip(axes.flat, panels.items(), strict=False):
        whole = np.concatenate([upper[:0:-1], upper])
        image = ax.imshow(
            np.where(whole > 0, whole, np.nan),
            origin="lower",
            extent=(-EXTENT, EXTENT, -EXTENT, EXTENT),
            norm=LogNorm(1, most),
            cmap=_shades(color(title)),
            interpolation="nearest",
        )
        _outlines(ax, d)
        _plane(ax, title)
    for ax in axes[:, 0]:
        ax.set_ylabel("Im λ")
    for ax in axes.flat[max(len(panels) - columns, 0) : len(panels)]:  # nothing below them
        ax.set_xlabel("Re λ")
        ax.tick_params(labelbottom=True)
    if len({color(title) for title in panels}) > 1:
        # The bar stands for the lightness alone: each method has its own hue.
        image = ScalarMappable(LogNorm(1, most), _shades("#222222"))
    fig.colorbar(image, ax=axes, shrink=0.7, label="eigenvalues in a cell (lightness)")
    _legend(fig, d)
    plt.close(fig)
    return fig


def spectral_coverage(
    table: Mapping[str, Mapping[str, Mapping[str, Any]]], ylabel: str = "share of Π reached"
) -> Figure:
    """Coverage with error bars, one panel a title.

    Args:
        table: title -> label -> {"mean", "low", "high", "values"}: the bar, its interval, and the
            single runs (small dots).
        ylabel: of the first panel.
    """
    fig, axes = plt.subplots(
        1,
        len(table),
        figsize=(10.4, 4.3),
        sharey=True,
        squeeze=False,
        width_ratios=[len(rows) for rows in table.values()],
    )
    for ax, (title, rows) in zip(axes[0], table.items(), strict=True):
        for place, (label, row) in enumerate(rows.items()):
            ax.bar(place, row["mean"], color=color(label), alpha=0.55, width=0.7)
            bar = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
            ax.errorbar(place, row["mean"], bar, color="#222222", capsize=4, linewidth=1.4)
            spots = np.linspace(-0.16, 0.16, len(row["values"])) if len(row["values"]) > 1 else [0]
            ax.plot(place + np.asarray(spots), row["values"], ".", color="#222222", markersize=3)
            ax.annotate(
                f"{row['mean']:.2f}",
                (place, row["high"]),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=7.5,
            )
        ax.set(title=title, ylim=(0, 1.12), yticks=np.arange(0, 1.01, 0.2))
        ax.set_xticks(range(len(rows)), list(rows), rotation=55, ha="right")
        ax.grid(visible=False, axis="x")
    axes[0, 0].set_ylabel(ylabel)
    plt.close(fig)
    return fig


def surrogate(
    spectral: Mapping[str, Mapping[str, float]], polytope: Mapping[str, Mapping[str, float]]
) -> Figure:
    """Share of the region of spectra against share of the polytope; on the line they agree.

    Args:
        spectral: title -> label -> share of Π_d.
        polytope: title -> label -> share of uniform samples of B_d; the labels that both have are
            drawn.
    """
    fig, axes = plt.subplots(1, len(spectral), figsize=(9.4, 4.6), sharey=True, squeeze=False)
    labels = list(dict.fromkeys(label for rows in spectral.values() for label in rows))
    look = styles(labels)
    for ax, (title, rows) in zip(axes[0], spectral.items(), strict=True):
        ax.plot([0, 1], [0, 1], color="#444444", linewidth=1, linestyle=":")
        # Larger marks below smaller ones, so that those at one place can all be seen.
        for size, label in zip(np.linspace(21, 7, len(rows)), rows, strict=True):
            if label in polytope[title]:
                ax.plot(
                    rows[label],
                    polytope[title][label],
                    look[label]["marker"],
                    color=look[label]["color"],
                    markersize=size,
                    markeredgecolor="white",
                    clip_on=False,
                    alpha=0.9,
                    label=label,
                )
        ax.set(title=title, xlim=(-0.02, 1.02), ylim=(-0.04, 1.04))
        ax.set(xlabel="share of Π reached by eigenvalues", xticks=np.arange(0, 1.01, 0.25))
    axes[0, 0].set_ylabel("share of uniform samples\nof the polytope reached")
    handles = {
        label: handle
        for ax in axes[0]
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    plt.close(fig)
    return fig


def beyond(
    eigenvalue: Sequence[float], counts: ArrayLike, title: str, half_width: float = 0.12
) -> Figure:
    """The corner between the arcs of Π_5 where a doubly stochastic matrix has an eigenvalue.

    Args:
        eigenvalue: real and imaginary part.
        counts: cells with imaginary part >= 0, (51, 101), drawn as visited or not.
        title: of the mixer they are of.
        half_width: of the detail.
    """
    x, y = eigenvalue
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 4.6))
    upper = np.asarray(counts) > 0
    for ax in (left, right):
        ax.imshow(
            np.where(np.concatenate([upper[:0:-1], upper]), 1.0, np.nan),
            origin="lower",
            extent=(-EXTENT, EXTENT, -EXTENT, EXTENT),
            cmap=sns.light_palette(color(title), as_cmap=True),
            vmin=0,
            vmax=2.5,
            interpolation="nearest",
        )
        _outlines(ax, 5)
        ax.plot(x, [y], "*", color=COLORS["hc"], markersize=14, markeredgecolor="white")
        ax.set(xlabel="Re λ")
    _plane(left, f"{title}, d = 5")
    left.set_ylabel("Im λ")
    frame = (x - half_width, y - half_width)
    left.add_patch(Rectangle(frame, 2 * half_width, 2 * half_width, fill=False, color="#444444"))
    right.set(title="detail", aspect="equal")
    right.set(xlim=(x - half_width, x + half_width), ylim=(y - half_width, y + half_width))
    right.grid(visible=False)
    _legend(fig, 5)
    plt.close(fig)
    return fig
