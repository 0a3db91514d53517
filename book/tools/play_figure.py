"""Draw what the page Play shows at first, for print and for readers without JavaScript.

Run it when book/static/play/scene.js begins elsewhere: `python -m book.tools.play_figure`. The
result is stored in `book/static/play.svg`.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from book.tools.artwork import STATIC
from gomhc import composites, make_mixer
from gomhc.companion.figures import COLORS, use_style
from gomhc.companion.figures.polytope import CORNERS, circulant_weights, deltoid
from gomhc.files import replacing
from gomhc.spectra import perfect_mirsky

D, S, DEPTH = 3, 2, 16
STREAMS = np.array([[230, 159, 0], [0, 114, 178], [0, 158, 115]]) / 255


def first_matrix() -> Tensor:
    """H_res at the θ that is nothing special."""
    mixer = make_mixer("go-mhc", D, s=S)
    return mixer(0.2 * torch.sin(2.0 * torch.arange(mixer.num_parameters).double() + 1))


def entries(ax: Axes, H: np.ndarray) -> None:
    """The matrix with the sums of its rows and columns."""
    ax.imshow(H, cmap="Blues", vmin=0, vmax=1.4)
    for (i, j), value in np.ndenumerate(H):
        ax.text(j, i, f"{value:.3f}", ha="center", va="center")
    for k in range(D):
        ax.text(D - 0.3, k, f"Σ {H[k].sum():.4f}", va="center")
        ax.text(k, D - 0.3, f"Σ {H[:, k].sum():.4f}", ha="center")
    ax.set(title="The matrix H", xlim=(-0.5, D + 0.3), ylim=(D, -0.5))
    ax.axis("off")


def place(ax: Axes, H: np.ndarray) -> None:
    """Its projection onto the circulants aI + bZ + cZ²."""
    ax.plot(*np.vstack([CORNERS, CORNERS[:1]]).T, color="#222222", linewidth=1)
    ax.plot(*deltoid().T, color=COLORS["hc"], linewidth=1.3)
    ax.plot(*(circulant_weights(H) @ CORNERS), "o", color=COLORS["go-mhc"], markersize=8)
    for corner, name, shift in zip(
        CORNERS, ["$I$", "$Z$", "$Z^2$"], (0.03, -0.1, -0.1), strict=True
    ):
        ax.text(corner[0], corner[1] + shift, name, ha="center")
    ax.set(title="Where it lies", aspect="equal", ylim=(-0.14, 0.98))
    ax.axis("off")


def spectrum(ax: Axes, H: np.ndarray) -> None:
    """Its eigenvalues in the Perfect–Mirsky region."""
    border, values = perfect_mirsky(D).boundary, np.linalg.eigvals(H)
    ax.fill(border.real, border.imag, color="#dddddd")
    ax.add_patch(plt.Circle((0, 0), 1, fill=False, color="#222222"))
    ax.plot(values.real, values.imag, "o", color=COLORS["go-mhc"], markersize=8)
    ax.set(title="Eigenvalues", aspect="equal", xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
    ax.axis("off")


def threads(ax: Axes, H: Tensor) -> None:
    """Streams through a stack of such layers, each in the colours that it is made of."""
    products = np.concatenate([np.eye(D)[None], composites(H.expand(DEPTH, D, D)).numpy()])
    heights = products @ np.linspace(1, -1, D)
    for i in range(D):
        points = np.stack([np.arange(DEPTH + 1), heights[:, i]], -1)
        pieces = np.stack([points[:-1], points[1:]], 1)
        ax.add_collection(
            LineCollection(list(pieces), colors=products[:-1, i] @ STREAMS, linewidths=4)
        )
    ax.set(title="A stack of such layers", xlim=(0, DEPTH), ylim=(-1.3, 1.3), xlabel="layer")
    ax.set_yticks([])


def figure() -> Figure:
    """The four panels."""
    use_style()
    fig, axes = plt.subplots(2, 2, figsize=(8.4, 6.6))
    H = first_matrix()
    for ax, draw in zip(axes.flat, (entries, place, spectrum), strict=False):
        draw(ax, H.numpy())
    threads(axes[1, 1], H)
    plt.close(fig)
    return fig


def main() -> None:
    """Write it; without its date the file changes only when the figure does."""
    with replacing(STATIC / "play.svg") as draft:
        figure().savefig(draft, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
