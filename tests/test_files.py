"""Files that are whole or absent, whoever else writes them."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from gomhc.files import check_writable, replacing


def write(path, text):
    with replacing(path) as draft:
        draft.write_text(text)


def test_a_file_appears_whole_in_a_folder_made_for_it(tmp_path):
    path = tmp_path / "new" / "file"
    with replacing(path) as draft:
        draft.write_text("half")
        assert not path.exists()
        draft.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    write(path, "before")
    with pytest.raises(ZeroDivisionError), replacing(path) as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_threads_may_write_the_same_file(tmp_path):
    path = tmp_path / "file"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: write(path, f"{n:04}" * 1000), range(400)))
    text = path.read_text()
    assert text == text[:4] * 1000
    assert list(tmp_path.iterdir()) == [path]


def test_drafts_within_drafts_are_apart(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as outer, replacing(path) as inner:
        outer.write_text("outer")
        inner.write_text("inner")
    assert path.read_text() == "outer"


def test_whether_a_folder_can_be_written_to(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="expected a folder to write to, got .*file"):
        check_writable(tmp_path / "file")
