"""What surrounds the pages: artwork, and the last touch that keeps the site to itself."""

from pathlib import Path
from xml.etree import ElementTree

import yaml
from PIL import Image

from book.tools.artwork import CARD, deltoid
from book.tools.finish import finish

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "book" / "static"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
PAGE = """<html><head>
    <link rel="stylesheet" type="text/css" href="_static/sphinx-thebe.css?v=4f" />
    <script>const THEBE_JS_URL = "https://elsewhere.example/thebe.js"; const a = "b"</script>
    <script async="async" src="_static/sphinx-thebe.js?v=c1"></script>
    <script>const THEBE_JS_URL = "https://elsewhere.example/thebe.js"; const a = "b"</script>
    <script src="_static/ours.js"></script>
</head><body><script>const kept = "THEBE_JS_URL";</script></body></html>
"""


def test_finished_pages_know_no_other_host(tmp_path):
    for name in ("index.html", "deep/page.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(PAGE)
    for name in ("sphinx-thebe.js", "ours.js", "mathjax/tex-chtml.js", "mathjax/tex-svg-full.js"):
        (tmp_path / "_static" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "_static" / name).write_text("")
    (tmp_path / "_static" / "mathjax" / "output" / "svg").mkdir(parents=True)

    finish(tmp_path)
    for name in ("index.html", "deep/page.html"):
        text = (tmp_path / name).read_text()
        assert "elsewhere" not in text
        assert "sphinx-thebe" not in text
        assert '<script src="_static/ours.js"></script>' in text
        assert 'const kept = "THEBE_JS_URL"' in text
    left = sorted(path.name for path in (tmp_path / "_static").rglob("*.js"))
    assert left == ["ours.js", "tex-chtml.js"]
    assert not (tmp_path / "_static" / "mathjax" / "output" / "svg").exists()


def test_a_page_says_where_its_picture_is(tmp_path):
    page = tmp_path / "deep" / "page.html"
    page.parent.mkdir()
    tags = [f'<meta property="og:{k}" content="{v}" />' for k, v in (("url", "a"), ("image", "b"))]
    page.write_text("\n".join([*tags, '<div role="list" class="citation-list">']))
    finish(tmp_path)
    image = '<meta property="og:image" content="../b" />'
    assert page.read_text() == f'{image}\n<div class="citation-list">'

    page.write_text("\n".join(tags))
    finish(tmp_path, "https://book.example/")
    assert "https://book.example/a" in page.read_text()
    assert "https://book.example/b" in page.read_text()


def test_artwork_has_the_sizes_that_others_expect():
    with Image.open(STATIC / "social-card.png") as card:
        assert card.size == CARD == (1200, 630)
    assert (STATIC / "social-card.png").stat().st_size < 300_000
    with Image.open(STATIC / "favicon.png") as icon:
        assert icon.size == (96, 96)
        assert icon.mode == "RGBA"
        assert icon.getpixel((0, 0))[3] == 0  # no ground of its own, for light and dark
    svg = ElementTree.parse(STATIC / "logo.svg").getroot()
    assert svg.tag.endswith("svg")
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    assert width == height
    assert (STATIC / "logo.svg").stat().st_size < 20_000


def test_artwork_is_what_the_configuration_names():
    assert (ROOT / CONFIG["logo"]).exists()
    assert (ROOT / CONFIG["html"]["favicon"]).exists()
    card = CONFIG["sphinx"]["config"]["ogp_image"]
    assert (STATIC / card.removeprefix("_static/")).exists()


def test_the_curve_lies_in_the_triangle_and_touches_its_corners():
    x, y = deltoid().T
    assert y.min() > -1e-9
    assert (y <= 3**0.5 * x + 1e-9).all()
    assert abs(y.max() - 3**0.5 / 2) < 1e-3
