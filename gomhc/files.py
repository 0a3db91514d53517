"""Files that are whole or absent."""

import os
import secrets
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
