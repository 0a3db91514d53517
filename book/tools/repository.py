"""Where the book's repository is published: its URL, checked, and what hangs on it.

A book that is built without a repository links to none. `COLAB_BRANCH` holds the Colab editions,
which `book/tools/colab.py` writes and the publishing workflow pushes.
"""

import re
from urllib.parse import urlsplit

__all__ = [
    "COLAB",
    "COLAB_BRANCH",
    "RepositoryError",
    "checked",
    "colab_link",
    "file_link",
    "github",
]

COLAB = "https://colab.research.google.com"
COLAB_BRANCH = "colab"
# How the name of a host begins -> where a repository shows the files of a commit.
FORGES = {
    "github.": "blob/{}",
    "gitlab.": "-/blob/{}",
    "codeberg.org": "src/commit/{}",
    "bitbucket.org": "src/{}",
}


class RepositoryError(ValueError):
    """A repository or a commit that cannot be used; the message says what was expected."""


def checked(url: str) -> str:
    """The URL of a git repository that anybody can clone, or an error.

    Args:
        url: As the user gave it.

    Returns:
        The same, without a slash at its end, and with a host where it is a file's: pip before 24
        takes no other.

    Raises:
        RepositoryError: If it is no URL in https or file, or carries a name or a password.
    """
    parts = urlsplit(url)
    place = {"https": parts.netloc and parts.path.strip("/"), "file": parts.path.strip("/")}
    if not place.get(parts.scheme) or re.search(r"[\s\"'\\?#@]", url):
        if "@" in parts.netloc:  # not shown: it may be a password
            raise RepositoryError("expected a repository's URL without a user name, got one with")
        raise RepositoryError(
            "expected the URL of a git repository, https://host/owner/name or file:///path, "
            f"got {url!r}"
        )
    return re.sub(r"^file:///", "file://localhost/", url.rstrip("/"))


def github(url: str) -> str | None:
    """`owner/name` of a repository on GitHub, the only host that Colab opens notebooks from."""
    match = re.fullmatch(r"https://github\.com/([\w-]+/[\w.-]+?)(\.git)?", url)
    return match[1] if match else None


def colab_link(url: str, notebook: str) -> str | None:
    """Link that opens the Colab edition of a notebook, or None where the repository has none."""
    place = github(url)
    branch = f"{COLAB}/github/{place}/blob/{COLAB_BRANCH}"
    return f"{branch}/notebooks/{notebook}.ipynb" if place else None


def file_link(url: str, revision: str, path: str) -> str | None:
    """Address of a file at a commit, or None where nobody knows how the host names it."""
    host = urlsplit(url).netloc
    for name, folder in FORGES.items():
        if host.startswith(name):
            return f"{url.removesuffix('.git')}/{folder.format(revision)}/{path}"
    return None
