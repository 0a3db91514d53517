"""Dress an executed notebook for the book: live views, knobs, and how figures were made.

The notebooks stay clean of all three. A cell with `play` in its metadata, such as
`{"play": "pad place", "controls": "s"}`, gets these live views below it: see
book/static/play/page.js. A knob (`gomhc.companion.figures.knob`) leaves two outputs, the
whole as HTML and its default frame as a picture. The book takes the picture, with the caption and
number of any figure, and keeps the rest in a template that book/static's copy of knob.js puts to
work.
"""

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell

from gomhc.companion.git import head

PICTURES = ("image/svg+xml", "image/png")
KNOB = re.compile(r'<div class="knob">.*</div>(?=\s*<script>)', re.DOTALL)
HIDDEN = {"remove-cell", "remove-output"}


def commit(root: Path) -> str:
    """The commit that is checked out at `root`, and whether files differ from it."""
    checkout = head(root)
    if checkout is None:
        return "not a git checkout"
    return checkout.commit[:12] + (", with changes" if checkout.dirty else "")


def dress(notebook: nbformat.NotebookNode, name: str, revision: str) -> nbformat.NotebookNode:
    """Put live views below cells, knobs beside figures, and below figures how they were made.

    Args:
        notebook: as `book.tools.execute.execute` leaves it; changed in place.
        name: its file's name without the ending.
        revision: the commit of the build.

    Returns:
        The same notebook.
    """
    cells, so_far = [], 0.0
    for cell in notebook.cells:
        cells.append(cell)
        timing = cell.metadata.get("papermill") or {}
        seconds = timing.get("duration") or 0.0
        so_far += seconds
        if wishes := cell.metadata.get("play"):
            cells.append(_below(cell, "live", live(wishes)))
        if cell.cell_type != "code" or HIDDEN.intersection(cell.metadata.get("tags", [])):
            continue
        below = [_template(output, cell) for output in cell.outputs if "data" in output]
        if any(kind in output.get("data", {}) for output in cell.outputs for kind in PICTURES):
            times = {"cell": seconds, "so_far": so_far, "start": timing.get("start_time")}
            below.append(_how(notebook.metadata["gomhc"], name, revision, times))
        if any(below):
            cells.append(_below(cell, "made", "\n\n".join(filter(None, below))))
    notebook.cells = cells
    return notebook


def live(wishes: Mapping[str, str]) -> str:
    """An element that live views fill.

    Args:
        wishes: attribute -> words apart by spaces: "play" for the views, "controls", "stops".

    Returns:
        HTML, empty on a page without JavaScript.
    """
    attributes = " ".join(f'data-{key}="{html.escape(words)}"' for key, words in wishes.items())
    return f"<div {attributes}></div>"


def _below(cell: nbformat.NotebookNode, what: str, text: str) -> nbformat.NotebookNode:
    added = new_markdown_cell(text)
    added.id = f"{cell.id[:56]}-{what}"
    return added


def _template(output: nbformat.NotebookNode, cell: nbformat.NotebookNode) -> str:
    """Take a knob out of an output, and return it in a template for its figure."""
    knob = KNOB.search("".join(output.data.get("text/html", "")))
    if not knob:
        return ""
    figure = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
    if not figure:
        raise ValueError(f"expected a figure name in the metadata of cell {cell.id}, got none")
    del output.data["text/html"]
    # Markdown leaves a block alone that begins with a div, not one that begins with a template.
    return f'<div><template data-knob-for="{html.escape(figure)}">{knob[0]}</template></div>'


def _how(run: dict[str, Any], name: str, revision: str, times: dict[str, Any]) -> str:
    """A folded list of facts, as HTML that a keyboard opens."""
    parameters = ", ".join(f"{key} = {run[key]}" for key in ("profile", "seed", "device"))
    started = str(times["start"] or run["started"])[:16].replace("T", " ")
    versions = ", ".join(f"{key} {value}" for key, value in run["versions"].items())
    facts = {
        "Notebook": f"notebooks/{name}.ipynb, source {run['source'][:12]}",
        "Parameters": parameters,
        "Commit": revision,
        "Device": run["ran_on"],
        "Time": f"this cell {times['cell']:.1f} s, the notebook up to its end "
        f"{times['so_far']:.1f} s, on {started} UTC",
        "Versions": versions,
    }
    listed = "".join(f"<dt>{key}</dt><dd>{html.escape(fact)}</dd>" for key, fact in facts.items())
    return (
        '<details class="provenance"><summary>How this figure was made</summary>'
        f"<dl>{listed}</dl></details>"
    )
