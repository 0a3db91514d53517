"""What git knows about a folder."""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple


class GitError(RuntimeError):
    """Git could not do what it was asked to; the message is its own."""


class Head(NamedTuple):
    """Where a checkout stands.

    Attributes:
        commit: its full hash.
        dirty: whether any of the files asked about differs from that commit, or is not in it.
    """

    commit: str
    dirty: bool


def git(folder: Path, *arguments: str) -> str:
    """What git prints in a folder; it asks nobody for a password.

    Raises:
        GitError: if git fails, or is not there.
    """
    # In a hook of another repository, GIT_DIR and its kin would point there.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *arguments],
            env=environment | {"GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise GitError(str(error)) from error
    if answer.returncode:
        raise GitError(answer.stderr.strip())
    return answer.stdout.strip()


def head(folder: Path, *patterns: str) -> Head | None:
    """The commit that a folder's checkout stands on, or None outside of one.

    Args:
        folder: of the checkout, or inside it.
        patterns: pathspecs of the files that count as changes; all files if none is given.
    """
    try:
        commit = git(folder, "rev-parse", "HEAD")
        changes = git(folder, "status", "--porcelain", "--untracked-files=all", "--", *patterns)
    except GitError:
        return None
    return Head(commit, changes != "")
