"""Finish the rendered site: nothing in it asks another host, or is there without use.

Jupyter Book always loads sphinx-thebe, which the book doesn't use: its address of a script on
another host, declared twice on each page, and its script go. So do the builds of MathJax that no
page loads. What a page says of itself elsewhere needs the site's address, or must do without.
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
    "_static/*webpack-macros.html",  # templates of the theme, not rendered
    "_static/**/*.map",
    "_static/mathjax/*-svg*.js",
    "_static/mathjax/*mml*.js",
    "_static/mathjax/*-full*.js",
    "_static/mathjax/node-main*",
    "_static/mathjax/output/svg*",
    "_static/mathjax/input/mml*",
    "_static/mathjax/input/asciimath*",
]

# Its entries are no list items to assistive technology, so it is no list.
LIST = re.compile(r'<div role="list" (class="citation-list")')
ADDRESS = re.compile(r'(<meta property="og:(?:url|image)" content=")([^":]*")')
NO_ADDRESS = re.compile(r'<meta property="og:url" content="[^":]*" />\n?')


def finish(html: Path, site: str = "") -> None:
    """Take out of the site at `html` what no page needs.

    Args:
        html: the rendered site.
        site: the address it will have, with a slash at its end, or nothing if that is not known.
    """
    for page in html.rglob("*.html"):
        text = THEBE.sub("", page.read_text(encoding="utf-8"))
        text = LIST.sub(r"<div \1", text)
        up = site or "../" * (len(page.relative_to(html).parts) - 1)
        text = ADDRESS.sub(rf"\1{up}\2", text if site else NO_ADDRESS.sub("", text))
        page.write_text(text, encoding="utf-8")
    for pattern in UNUSED:
        for path in list(html.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
