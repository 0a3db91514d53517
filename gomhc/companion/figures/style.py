"""The one style of the book's figures, and the parts that every chapter uses.

One colour per method in the whole book, from Okabe and Ito's palette, which colour-blind readers
can tell apart; where a line needs more than its colour it also has its own dash or marker. The
background is white in light and dark pages alike.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

COLORS = {
    "residual": "#000000",
    "identity": "#767676",
    "hc": "#D55E00",
    "mhc": "#E69F00",
    "mhc-lite": "#CC79A7",
    "kromhc": "#56B4E9",
    "go-mhc": "#0072B2",
    "kron-go": "#009E73",
    # The palette ends here; two of Tol's that keep apart from it.
    "orthogonal": "#882255",
    "transport": "#999933",
}
DASHES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3))]
THIN_DASHES = [":", "--"]
MARKERS = "osD^vP"


def use_style() -> None:
    """Set the book's figure style for everything drawn afterwards."""
    sns.set_theme(
        style="ticks",
        rc={
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e4e4e4",
            "axes.titlesize": 11,
            "axes.labelsize": 10.5,
            "xtick.labelsize": 9.5,
            "ytick.labelsize": 9.5,
            "legend.fontsize": 9.5,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "savefig.dpi": 150,
            "svg.hashsalt": "gomhc",
        },
    )


def color(label: str) -> str:
    """Colour of the method that a label such as `go-mhc s=2` begins with; grey if it names none."""
    return COLORS.get(label.split()[0].rstrip(",:"), "#4d4d4d")


def styles(labels: Sequence[str]) -> dict[str, dict]:
    """Line styles: the method's colour, and a dash and marker that differ among its variants."""
    seen: Counter[str] = Counter()
    styles = {}
    for label in labels:
        hue = color(label)
        variant = seen[hue]
        seen[hue] += 1
        styles[label] = {
            "color": hue,
            "linestyle": DASHES[variant % len(DASHES)],
            "marker": MARKERS[variant % len(MARKERS)],
        }
    return styles


def bands(
    panels: Mapping[str, Mapping[str, ArrayLike]],
    x: ArrayLike,
    *,
    xlabel: str,
    ylabel: str,
    xscale: str = "linear",
    yscale: str = "linear",
    references: Mapping[str, ArrayLike] | None = None,
) -> Figure:
    """Curves with their spread over repetitions, one panel a title.

    Args:
        panels: title -> label -> values of shape (repetitions, len(x)) or (len(x),). The line is
            the median, the band runs from the 10th to the 90th percentile.
        x: positions of the values.
        xlabel: label of every horizontal axis.
        ylabel: label of the first vertical axis; all panels share it.
        xscale: matplotlib scale of x.
        yscale: matplotlib scale of y.
        references: label -> values of a thin grey line drawn in every panel; two at most.
    """
    width = {1: 6.6, 2: 8.4}.get(len(panels), 9.4)
    fig, axes = plt.subplots(1, len(panels), figsize=(width, 4.1), sharey=True, squeeze=False)
    positions = np.asarray(x, dtype=float)
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for label, style in styles(list(curves)).items():
            values = np.atleast_2d(np.asarray(curves[label], dtype=float))
            low, middle, high = np.nanpercentile(values, [10, 50, 90], axis=0)
            every = max(len(positions) // 8, 1)
            ax.plot(positions, middle, label=label, markevery=every, markersize=4, **style)
            if len(values) > 1:
                ax.fill_between(positions, low, high, color=style["color"], alpha=0.15, linewidth=0)
        for k, (label, reference) in enumerate((references or {}).items()):
            thin = {"color": "#444444", "linewidth": 1, "linestyle": THIN_DASHES[k]}
            ax.plot(positions, np.asarray(reference), label=label, **thin)
        ax.set(xscale=xscale, yscale=yscale, xlabel=xlabel, title=title)
    axes[0, 0].set_ylabel(ylabel)
    handles = {
        label: handle
        for ax in axes[0]
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    rows = -(-len(handles) // 4)
    fig.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=-(-len(handles) // rows)
    )
    plt.close(fig)
    return fig
