"""Chapter 7: losses of language models, and what their streams do."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from gomhc.companion.figures.style import styles


def _band(curves: Sequence[Sequence[Sequence[float]]], column: int) -> tuple[Any, ...]:
    """Steps, and mean, lowest and highest of a column over the seeds, as far as all seeds go."""
    common = min(len(curve) for curve in curves)
    if not common:
        return (np.empty(0),) * 4
    table = np.array([curve[:common] for curve in curves], dtype=float)
    values = table[:, :, column]
    return table[0, :, 0], values.mean(0), values.min(0), values.max(0)


def losses(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], floor: float | None, *, ylabel: str
) -> Figure:
    """Evaluation loss above the floor against steps and against seconds.

    Where a seed diverged the line of its arm ends; where it did so at once there is only a name.

    Args:
        runs: arm -> one run a seed, each with `evaluations`: (steps taken, loss, seconds).
        floor: taken off the losses; None takes nothing off.
        ylabel: label of the vertical axis.
    """
    base = 0.0 if floor is None else floor
    fig, axes = plt.subplots(1, 2, figsize=(9.2, 4.2), sharey=True)
    for arm, style in styles(list(runs)).items():
        curves = [run["evaluations"] for run in runs[arm]]
        steps, mean, low, high = _band(curves, 1)
        seconds = _band(curves, 2)[1]
        line = {key: style[key] for key in ("color", "linestyle")}
        for ax, x in zip(axes, (steps, seconds), strict=True):
            ax.plot(x, mean - base, label=arm, **line)
            ax.fill_between(
                x, low - base, high - base, alpha=0.15, linewidth=0, color=line["color"]
            )
    axes[0].set(xlabel="step", ylabel=ylabel, yscale="log")
    axes[1].set(xlabel="seconds of training")
    handles, names = axes[0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=4)
    plt.close(fig)
    return fig


def gradients(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Norm of the gradient against the step, mean over seeds with their range.

    Args:
        runs: arm -> one run a seed, each with `gradient`: (steps taken, norm).
    """
    fig, ax = plt.subplots(figsize=(7.2, 4.0))
    for arm, style in styles(list(runs)).items():
        steps, mean, low, high = _band([run["gradient"] for run in runs[arm]], 1)
        line = {key: style[key] for key in ("color", "linestyle")}
        ax.plot(steps, mean, label=arm, **line)
        ax.fill_between(steps, low, high, alpha=0.12, linewidth=0, color=line["color"])
    ax.set(xlabel="step", ylabel="norm of the gradient", yscale="log")
    fig.legend(loc="outside lower center", ncols=4)
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


def streams(reports: Mapping[str, Mapping[str, Any]]) -> Figure:
    """What the streams and their composites do along the depth of the network.

    Args:
        reports: arm -> a `StreamReport` as a dict.
    """
    panels = {
        "gain_forward": "forward gain",
        "gain_backward": "backward gain",
        "smallest": "σ_min of the composite",
        "difference": "energy of differences kept",
        "distance": "‖H_res − I‖",
        "marginal_error": "marginal error",
        "effective": "effective streams",
        "dominance": "share of the longest stream",
    }
    fig, axes = plt.subplots(2, 4, figsize=(10.4, 5.2), sharex=True)
    for ax, (key, title) in zip(axes.flat, panels.items(), strict=True):
        for arm, style in styles(list(reports)).items():
            values = np.array(reports[arm][key], dtype=float)  # None where it is not finite
            ax.plot(range(1, len(values) + 1), values, label=arm, markersize=4, **style)
        ax.set_title(title)
        if key == "marginal_error":
            ax.set_yscale("log", nonpositive="clip")
    for ax in axes[-1]:
        ax.set_xlabel("connection")
    handles, names = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, names, loc="outside lower center", ncols=4)
    plt.close(fig)
    return fig


def replacements(reports: Mapping[str, Mapping[str, Any]]) -> Figure:
    """How much the loss rises when mixers are replaced by I or by their mean.

    Args:
        reports: arm -> a `StreamReport` as a dict.
    """
    fig, ax = plt.subplots(figsize=(7.6, 4.0))
    arms = list(reports)
    cases = list(reports[arms[0]]["change"])
    width = 0.8 / len(arms)
    for k, (arm, style) in enumerate(styles(arms).items()):
        heights = np.array([reports[arm]["change"][case] for case in cases], dtype=float)
        ax.bar(np.arange(len(cases)) + k * width, heights, width, label=arm, color=style["color"])
    ax.axhline(0, color="#444444", linewidth=1)
    ax.set_xticks(np.arange(len(cases)) + 0.4 - width / 2, cases, rotation=15)
    ax.set_ylabel("change of the loss, nats a token")
    ax.set_yscale("symlog", linthresh=1e-3)
    fig.legend(loc="outside lower center", ncols=4)
    plt.close(fig)
    return fig


def absent(reason: str) -> Figure:
    """A place held free for a figure that has no numbers yet.

    Args:
        reason: why.
    """
    fig, ax = plt.subplots(figsize=(7.2, 1.2))
    ax.text(0.5, 0.5, reason, ha="center", va="center", size=11)
    ax.axis("off")
    plt.close(fig)
    return fig
