"""Copy the figure of README.md and the landing page out of the executed chapter 3.

Run it after `make book`, when the figure has changed: `python -m book.tools.readme_figure`.
"""

import re
from pathlib import Path

import nbformat

from gomhc.files import replacing

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = ROOT / "_build" / "executed" / "book" / "03-birkhoff-polytope.ipynb"
TARGET = ROOT / "book" / "static" / "circulant-slice.svg"


def main() -> None:
    """Write the SVG of the figure named fig-slice."""
    for cell in nbformat.read(CHAPTER, as_version=4).cells:
        if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == "fig-slice":
            svg = cell.outputs[-1].data["image/svg+xml"]
            # Without its date the file changes only when the figure does.
            with replacing(TARGET) as draft:
                draft.write_text(re.sub(r"<dc:date>.*?</dc:date>", "", svg), encoding="utf-8")
            return
    raise SystemExit(f"expected a cell with the figure fig-slice in {CHAPTER}, found none")


if __name__ == "__main__":
    main()
