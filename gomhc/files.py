"""Files that are whole or absent, and files that one holds alone."""

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft that takes the place of a file at once, or not at all.

    Args:
        path: of the file; its folder is made if it is not there.

    Yields:
        Path of the draft, which the caller writes. It gets the file's name if nothing was raised,
        and is removed if something was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, as a rename is atomic only within one file system. Two threads, or two
    # machines on one disk, may write the same file.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """See that files can be put into a folder, before what is to go there has taken hours.

    Args:
        folder: made if it is not there.

    Raises:
        ValueError: if it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(f"expected a folder to write to, got {folder}: {error}") from error


@contextmanager
def holding(path: Path) -> Iterator[bool]:
    """A file that nobody else holds meanwhile, in this process or another.

    However a process ends, the system lets go of what it held.

    Args:
        path: of the file, which is made where there is none, and stays.

    Yields:
        Whether it is held: False on Windows, and on file systems that have no such locks.

    Raises:
        BlockingIOError: if somebody else holds it.
    """
    if sys.platform == "win32":
        yield False
        return
    import fcntl

    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            raise
        except OSError:
            held = False
        try:
            yield held
        finally:
            if held:  # closing it would not do while a child process has it open too
                fcntl.flock(file, fcntl.LOCK_UN)
