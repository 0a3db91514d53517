"""Print the built book into one PDF, with a bookmark for each page: `_build/gomhc-book.pdf`.

Chromium prints each page as a browser shows it, formulas and figures included; pypdf joins them.
Run it after `make book`: `python -m book.tools.pdf`.
"""

import html
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, NameObject
from sphinx_external_toc.parsing import parse_toc_yaml

from book.tools.build import rendered_from
from book.tools.chromium import FLAGS, NoChromiumError, find
from gomhc.files import replacing

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120  # for one page
RENDERED_FROM = "/RenderedFrom"  # a field of the PDF's own metadata
PRINTING = [
    *FLAGS,
    "--headless",
    "--no-pdf-header-footer",
    "--virtual-time-budget=30000",  # MathJax sets formulas after the page has loaded
]


class PdfError(Exception):
    """The book cannot be printed; the message says why."""


def pages(root: Path) -> list[str]:
    """Pages of the book in the order of its table of contents, without their suffix."""
    toc = parse_toc_yaml(root / "_toc.yml")
    rest = [name for name in toc if name != toc.root.docname]
    return [toc.root.docname, *rest]


def print_page(chromium: str, page: Path, target: Path) -> None:
    """Print one HTML file."""
    with tempfile.TemporaryDirectory() as profile:
        command = [chromium, *PRINTING, f"--user-data-dir={profile}", f"--print-to-pdf={target}"]
        try:
            subprocess.run(
                [*command, page.as_uri()], capture_output=True, timeout=SECONDS, check=True
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise PdfError(f"expected {page.name} printed, {chromium} failed: {error}") from error
    if not target.exists():
        raise PdfError(f"expected {page.name} printed, {chromium} wrote no file")


def join(printed: Iterable[tuple[str, Path]], target: Path, inputs: str) -> int:
    """Join PDFs, a bookmark for each; say how many pages they have.

    `inputs` says which book it is, for `inputs_of`.

    Links to files of this machine, which those within the book have become, are dropped.
    """
    writer = PdfWriter()
    for title, path in printed:
        writer.append(PdfReader(path), outline_item=title, import_outline=False)
    for page in writer.pages:
        notes = [note for note in page.get("/Annots", []) if not is_local(note.get_object())]
        page[NameObject("/Annots")] = ArrayObject(notes)
    writer.compress_identical_objects()
    writer.add_metadata({"/Title": "go-mHC: the reproducible companion", RENDERED_FROM: inputs})
    with replacing(target) as draft:
        writer.write(draft)
    return len(writer.pages)


def inputs_of(path: Path) -> str:
    """Hash of what the book was rendered from that a PDF was printed of; "" if it says nothing."""
    about = PdfReader(path).metadata
    return str(about.get(RENDERED_FROM, "")) if about else ""


def is_local(note: dict) -> bool:
    """Whether an annotation is a link to a file."""
    action = note.get("/A", {})
    return str(action.get_object().get("/URI", "") if action else "").startswith("file:")


def title_of(page: Path) -> str:
    """Title of a page, without the book's."""
    title = page.read_text(encoding="utf-8").partition("<title>")[2].partition("</title>")[0]
    return html.unescape(title).partition(" — ")[0].strip()


def make(root: Path) -> tuple[Path, int]:
    """Print the book of the project at `root`; return the PDF and its number of pages.

    Raises:
        PdfError: If there is no book, or a page cannot be printed.
        NoChromiumError: If there is no browser.
    """
    book, target = root / "_build" / "html", root / "_build" / "gomhc-book.pdf"
    if not book.exists():
        raise PdfError("expected a book in _build/html, found none: run 'make book' first")
    chromium = find()
    with tempfile.TemporaryDirectory() as folder:
        printed = []
        for number, name in enumerate(pages(root)):
            page, one = book / f"{name}.html", Path(folder, f"{number}.pdf")
            print_page(chromium, page, one)
            printed.append((title_of(page), one))
            print(f"{name} …", flush=True)
        return target, join(printed, target, rendered_from(book).get("inputs", ""))


def main() -> int:
    """Command line."""
    try:
        path, count = make(ROOT)
    except (PdfError, NoChromiumError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path.relative_to(ROOT)}: {count} pages, {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
