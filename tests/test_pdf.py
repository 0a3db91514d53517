"""`make pdf`: pages joined in the order of the book, with bookmarks and without local links."""

from pathlib import Path

import pytest
from pypdf import PdfReader, PdfWriter
from pypdf.annotations import Link

from book.tools.chromium import NoChromiumError, find
from book.tools.pdf import PdfError, inputs_of, join, make, pages, title_of

ROOT = Path(__file__).resolve().parents[1]


def printed(path: Path, count: int, *links: str) -> Path:
    writer = PdfWriter()
    for _ in range(count):
        writer.add_blank_page(200, 200)
    for link in links:
        writer.add_annotation(0, Link(rect=(0, 0, 9, 9), url=link))
    writer.write(path)
    return path


def test_pages_are_joined_with_bookmarks(tmp_path):
    one, two = printed(tmp_path / "1.pdf", 2), printed(tmp_path / "2.pdf", 1)
    assert join([("One", one), ("Two", two)], tmp_path / "all.pdf", "abc") == 3
    joined = PdfReader(tmp_path / "all.pdf")
    marks = [(mark.title, joined.get_destination_page_number(mark)) for mark in joined.outline]
    assert marks == [("One", 0), ("Two", 2)]
    assert inputs_of(tmp_path / "all.pdf") == "abc"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.pdf", "2.pdf", "all.pdf"]


def test_links_to_files_of_this_machine_are_dropped(tmp_path):
    one = printed(tmp_path / "1.pdf", 1, "file:///home/me/x.html", "https://example.org/")
    join([("One", one)], tmp_path / "all.pdf", "")
    notes = PdfReader(tmp_path / "all.pdf").pages[0]["/Annots"]
    assert [note.get_object()["/A"]["/URI"] for note in notes] == ["https://example.org/"]


def test_pages_are_those_of_the_book_from_its_first():
    listed = pages(ROOT)
    assert listed[0] == "book/index"
    assert len(listed) == len(set(listed))
    assert "notebooks/08-verdicts" in listed and "book/execution" in listed


def test_title_is_the_pages(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<title>1. Streams &amp; gains &#8212; The book</title>")
    assert title_of(page) == "1. Streams & gains"


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(PdfError, match="expected a book in _build/html"):
        make(tmp_path)
    monkeypatch.setenv("CHROMIUM", "no-such-browser")
    missing = "expected a browser, one of no-such-browser; found none"
    with pytest.raises(NoChromiumError, match=missing):
        find()
