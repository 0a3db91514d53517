"""Figures with one knob to turn: a slider, or a picker of names, over frames drawn beforehand.

A frame is a picture inside the page, so nothing is fetched, and what moves it is the browser's own
input with a few lines of JavaScript, `knob.js`. In a notebook that is opened alone the output
brings the script along. In the book, book/tools/dress.py puts the static figure into the page and
the knob into a template beside it: without JavaScript, in print and in a PDF the figure is there.
"""

import hashlib
import html
import io
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from matplotlib.figure import Figure

SCRIPT = files("gomhc.companion.figures").joinpath("knob.js")
FRAME_DPI = 160


def _data(figure: Figure) -> str:
    """A figure as a URI that holds the picture: WebP without loss, a few dozen kilobytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="webp", dpi=FRAME_DPI, pil_kwargs={"lossless": True})
    return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode()}"


@dataclass(frozen=True)
class Knob:
    """Frames of which one is shown at a time, and the input that says which; see `knob`."""

    frames: Mapping[str, Figure]
    label: str
    alt: str
    kind: Literal["slider", "picker"]
    default: str

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """The whole for a notebook; the default frame as a picture, for whatever cannot turn it."""
        buffer = io.StringIO()
        self.frames[self.default].savefig(buffer, format="svg")
        return {
            "text/html": f"{self.markup()}\n<script>{SCRIPT.read_text(encoding='utf-8')}</script>",
            "image/svg+xml": buffer.getvalue(),
            "text/plain": f"{self.label}: {', '.join(self.frames)}",
        }

    def markup(self) -> str:
        """The input and all frames; those that are not shown are hidden."""
        control = self._slider() if self.kind == "slider" else self._picker()
        # On a phone small print scrolls in its box rather than shrink to nothing.
        width = 4 * self.frames[self.default].get_figwidth()
        style = f"max-width: 100%; min-width: min(36rem, {width:.1f}rem)"
        pictures = "".join(
            f'<img src="{_data(figure)}" data-name="{html.escape(name)}" '
            f'alt="{html.escape(f"{self.alt} {self.label}: {name}.")}"'
            f' style="{style}"{"" if name == self.default else " hidden"}>'
            for name, figure in self.frames.items()
        )
        return f'<div class="knob">{control}{pictures}</div>'

    def _slider(self) -> str:
        at, shown = list(self.frames).index(self.default), html.escape(self.default)
        return (
            f'<label class="knob-slider"><span>{html.escape(self.label)}</span> '
            f'<input type="range" min="0" max="{len(self.frames) - 1}" value="{at}" '
            f'aria-valuetext="{shown}" autocomplete="off"> <output>{shown}</output></label>'
        )

    def _picker(self) -> str:
        # Radio buttons of one name exclude each other: the name must be the knob's own.
        words = "\n".join([self.label, self.alt, *self.frames])
        group = f"knob-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
        choices = "".join(
            f'<label><input type="radio" name="{group}" value="{k}" autocomplete="off"'
            f"{' checked' if name == self.default else ''}> {html.escape(name)}</label> "
            for k, name in enumerate(self.frames)
        )
        return (
            f'<fieldset class="knob-picker"><legend>{html.escape(self.label)}</legend>'
            f"{choices}</fieldset>"
        )


def knob(
    frames: Mapping[Any, Figure],
    label: str,
    alt: str,
    kind: Literal["slider", "picker"] = "slider",
    default: Any = None,
) -> Knob:
    """An interactive figure; a notebook cell that ends with it shows it.

    Args:
        frames: what the knob stands at -> figure, in order; all of one size.
        label: what the knob changes.
        alt: text alternative of every frame, to which label and position are added.
        kind: "slider" for positions in an order, "picker" for names.
        default: the frame shown at first, and the only one in print; the first if not given.

    Raises:
        ValueError: If there is no frame, their sizes differ, or the default is not among them.
    """
    if not frames:
        raise ValueError("expected at least one frame, got none")
    sizes = {tuple(figure.get_size_inches()) for figure in frames.values()}
    if len(sizes) > 1:
        raise ValueError(f"expected frames of one size, got {sorted(sizes)}")
    default = next(iter(frames)) if default is None else default
    if default not in frames:
        raise ValueError(f"expected a default among {list(frames)}, got {default!r}")
    if kind not in ("slider", "picker"):
        raise ValueError(f"expected kind 'slider' or 'picker', got {kind!r}")
    return Knob({str(k): v for k, v in frames.items()}, label, alt, kind, str(default))
