"""MyST into the Markdown that Colab and GitHub show: roles, directives, links within the book."""

import re
from collections.abc import Callable
from pathlib import PurePosixPath

__all__ = ["plain"]

ROLE = re.compile(r"\{(?P<role>[\w:+-]+)\}`(?P<text>[^`<]*?)\s*(?:<(?P<target>[^`>]*)>)?`")
DIRECTIVE = re.compile(
    r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w-]+)\}[ ]*(?P<title>.*)\n"
    r"(?P<body>(?:.*\n)*?)(?P=fence)$",
    re.MULTILINE,
)
OPTION = re.compile(r"^:[\w-]+:.*\n?", re.MULTILINE)
LABEL = re.compile(r"^\([\w:-]+\)=\n", re.MULTILINE)
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>(?:\.\./|\d\d-)[^)\s]+)\)")


def plain(markdown: str, cite: Callable[[str], str], page: Callable[[str], str | None]) -> str:
    """Rewrite what only Jupyter Book understands.

    Args:
        markdown: A cell's source.
        cite: A bibliography key -> how it is shown.
        page: The path of a page in the repository -> its address, or None: then no link is made.

    Returns:
        The same text in common Markdown, its formulas untouched.
    """

    def role(match: re.Match[str]) -> str:
        name, text, target = match["role"], match["text"], match["target"]
        if name.split(":")[0] == "cite":
            return ", ".join(cite(key.strip()) for key in text.split(","))
        if name in ("numref", "eq", "ref") and target is None:
            return f"*{text}*"
        return text or target

    def directive(match: re.Match[str]) -> str:
        title = match["title"].strip() or match["name"].capitalize()
        body = OPTION.sub("", match["body"]).strip()
        return "\n".join(f"> {line}".rstrip() for line in [f"**{title}**", "", *body.split("\n")])

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match["target"].partition("#")
        path = target.removeprefix("../") if target.startswith("../") else f"notebooks/{target}"
        text = match["text"] or PurePosixPath(path).stem.replace("-", " ")
        address = page(path)
        return f"[{text}]({address}{'#' + anchor if anchor else ''})" if address else text

    text = LABEL.sub("", markdown + "\n")
    text = DIRECTIVE.sub(directive, text)
    return LINK.sub(link, ROLE.sub(role, text)).removesuffix("\n")
