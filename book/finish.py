"""Finish the rendered site: nothing in it asks another host, or is there without use.

Jupyter Book always loads sphinx-thebe, which the book doesn't use: its address of a script on
another host, declared twice on each page, and its script go. So do the builds of MathJax that no
page loads.
"""

import re
import shutil
from pathlib import Path

THEBE = re.compile(
    r"[ \t]*<script[^>]*>const THEBE_JS_URL[^<]*</script>\n?"
    r"|[ \t]*<script[^>]*sphinx-thebe\.js[^>]*></script>\n?"
    r"|[ \t]*<link[^>]*sphinx-thebe\.css[^>]*/>\n?"
)
# Of MathJax a page loads tex-chtml.js, and from there fonts, the menu and its accessible tree.
UNUSED = [
    "_static/sphinx-thebe.*",
    "_static/**/*.map",
    "_static/mathjax/*-svg*.js",
    "_static/mathjax/*mml*.js",
    "_static/mathjax/*-full*.js",
    "_static/mathjax/node-main*",
    "_static/mathjax/output/svg*",
    "_static/mathjax/input/mml*",
    "_static/mathjax/input/asciimath*",
]


def finish(html: Path) -> None:
    """Take out of the site at `html` what no page needs; a second call changes nothing."""
    for page in html.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(THEBE.sub("", text), encoding="utf-8")
    for pattern in UNUSED:
        for path in list(html.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
