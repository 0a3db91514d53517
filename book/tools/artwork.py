"""Draw the book's logo, favicon and social card: the slice of chapter 3, with its deltoid.

Run it when the drawing has changed: `python -m book.tools.artwork`. The results are stored in
`book/static`.
"""

import io
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from gomhc import distance_to_family, make_mixer
from gomhc.companion.figures import COLORS
from gomhc.companion.figures.polytope import CORNERS, deltoid
from gomhc.files import replacing

STATIC = Path(__file__).resolve().parents[1] / "static"
BLUE, ORANGE, NIGHT, SNOW = COLORS["go-mhc"], "#F2A65A", "#10202E", "#F7FAFC"
STEPS = 60  # along a side
CARD = (1200, 630)  # pixels, what social media show whole


def mark(ax: Axes, linewidth: float) -> None:
    """The logo: the triangle, and in it the curve; it brings its own ground, light or dark."""
    ax.fill(*CORNERS.T, facecolor=BLUE, edgecolor=BLUE, linewidth=3 * linewidth, joinstyle="round")
    ax.fill(*deltoid().T, facecolor=SNOW, edgecolor=ORANGE, linewidth=linewidth)
    ax.set(aspect="equal", xlim=(-0.08, 1.08), ylim=(-0.147, 1.013))
    ax.axis("off")


def logo() -> Figure:
    """A square with the mark."""
    fig = plt.figure(figsize=(1.28, 1.28))
    mark(fig.add_axes((0, 0, 1, 1)), linewidth=3.2)
    plt.close(fig)
    return fig


def reached(s: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of the slice, and their distance to level s; a sixth is computed and mirrored."""
    side = range(STEPS + 1)
    points = [(i, j, STEPS - i - j) for i in side for j in side if i + j <= STEPS]
    weights = torch.tensor(points, dtype=torch.float64) / STEPS
    ordered = weights.sort(-1, descending=True).values
    sector, mirror = torch.unique(ordered, dim=0, return_inverse=True)
    cycle = torch.eye(3, dtype=torch.float64).roll(1, 1)
    powers = torch.stack([cycle @ cycle @ cycle, cycle, cycle @ cycle])
    targets = torch.einsum("bk,kij->bij", sector, powers)
    generator = torch.Generator().manual_seed(0)
    distance = distance_to_family(make_mixer("go-mhc", 3, s=s), targets, generator=generator)
    return weights.numpy() @ CORNERS, distance[mirror].numpy()


def social_card() -> Figure:
    """The name of the book beside three levels of the slice."""
    fig = plt.figure(figsize=(CARD[0] / 100, CARD[1] / 100), facecolor=NIGHT)
    for k, s in enumerate((1, 2, 4)):
        place, distance = reached(s)
        ax = fig.add_axes((0.055 + 0.305 * k, 0.07, 0.28, 0.5))
        ax.fill(*CORNERS.T, facecolor="#1E3A52", linewidth=0)
        if s > 1:
            x, y = place.T
            ax.tricontourf(x, y, distance, levels=[-1, 0.002], colors=["#3FA0DC"])
        ax.fill(*deltoid().T, facecolor="none", edgecolor=ORANGE, linewidth=3)
        ax.text(0.0, 0.72, f"s = {s}", color=SNOW, fontsize=19)
        ax.set(aspect="equal", xlim=(-0.03, 1.03), ylim=(-0.03, 0.9))
        ax.axis("off")
    fig.text(0.055, 0.79, "go-mHC, step by step", color=SNOW, fontsize=46, fontweight="bold")
    words = "Exact doubly stochastic mixing for hyper-connections:\na book that you can run"
    fig.text(0.058, 0.64, words, color="#C9D6E2", fontsize=22, linespacing=1.3)
    plt.close(fig)
    return fig


def store(figure: Figure, name: str, **options: Any) -> None:
    """Write a figure to `book/static`."""
    target = STATIC / name
    with replacing(target) as draft:
        figure.savefig(draft, format=target.suffix[1:], facecolor="none", **options)


def main() -> None:
    """Write the three."""
    plt.rcParams["svg.hashsalt"] = "gomhc"
    store(logo(), "logo.svg", metadata={"Date": None})
    store(logo(), "favicon.png", dpi=75)
    card = social_card()
    buffer = io.BytesIO()
    card.savefig(buffer, dpi=100)
    with replacing(STATIC / "social-card.png") as draft:
        Image.open(buffer).convert("RGB").quantize(128).save(draft, format="png", optimize=True)


if __name__ == "__main__":
    main()
