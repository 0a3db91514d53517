"""The built book as its readers meet it: every page in a real browser, two widths, light and dark.

Run after `make book`, by `make browser`.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag, urljoin

import axe_playwright_python
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route, expect
from pypdf import PdfReader

from browser.conftest import HTML, new_context
from gomhc.companion import figures

FILES = sorted(path for path in HTML.rglob("*.html") if "_static" not in path.parts)
# The first page only leads on to book/index.html.
PAGES = [str(path.relative_to(HTML)) for path in FILES if path != HTML / "index.html"]
SESSIONS = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 390)]
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
GRAVE = {"serious", "critical"}

SETTLED = """async () => {
  if (window.MathJax?.startup) await MathJax.startup.promise;
  await document.fonts.ready;
  for (const image of document.images) image.loading = "eager";
  await Promise.all([...document.images].map(image => image.decode().catch(() => {})));
}"""
LOOK = """() => {
  const images = [...document.images];
  const broken = images.filter(image => !(image.complete && image.naturalWidth));
  const named = /\\.(svg|png|webp|jpe?g)$/;
  const silent = images.filter(image => !image.alt.trim() || named.test(image.alt.trim()));
  const formulas = document.querySelectorAll(".math").length;
  const typeset = document.querySelectorAll(".math mjx-container").length;
  const errors = document.querySelectorAll("mjx-merror, [data-mjx-error]").length;
  const page = document.documentElement;
  const cells = [...document.querySelectorAll("main th, main td")];
  const beyond = cells.filter(cell => cell.getBoundingClientRect().right > page.clientWidth + 1);
  const tables = new Set(beyond.map(cell => cell.closest("table")));
  return {
    images: broken.map(image => image.src.slice(0, 200)),
    alt: silent.map(image => image.src.slice(0, 200)),
    math: formulas > typeset || errors ? [`${typeset} of ${formulas}, ${errors} errors`] : [],
    scroll: page.scrollWidth > page.clientWidth ? [`${page.scrollWidth} px wide`] : [],
    columns: [...tables].map(table => table.innerText.slice(0, 80)),
  };
}"""
PAPER = {"width": 680, "height": 1009}  # A4 without its margins of 15 mm, at 96 dots an inch
CUT = """() => [...document.querySelectorAll("main table, main pre, main div.math")].filter(box => {
  const all = [];
  for (let at = box; at.tagName !== "MAIN"; at = at.parentElement) all.push(at);
  return all.some(at => at.scrollWidth > at.clientWidth + 2);
}).map(box => box.innerText.slice(0, 80))"""
JUDGE = """async contrast => {
  // Formulas are MathJax's, thousands of nodes in the colour of the text around them.
  const found = await axe.run({exclude: [["mjx-container"]]}, {
    preload: false,
    rules: {"color-contrast": {enabled: contrast}},
    resultTypes: ["violations"],
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
  });
  return found.violations.flatMap(({id, impact, nodes}) =>
    nodes.map(node => [impact, `${id}: ${node.target} ${node.html.slice(0, 120)}`]));
}"""


class Visitor:
    """Opens pages and takes down what goes wrong while they load."""

    def __init__(self, browser: Browser, base: str, scheme: str, width: int):
        self.base, self.width = base, width
        self.context = new_context(
            browser, color_scheme=scheme, viewport={"width": width, "height": 900}
        )
        self.context.route(lambda url: not url.startswith((base, "data:", "blob:")), self.refuse)
        self.page: Page = self.context.new_page()
        self.page.on("console", self.listen)
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.console: list[str] = []
        self.offsite: list[str] = []

    def refuse(self, route: Route) -> None:
        self.offsite.append(route.request.url)
        route.abort()

    def listen(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.console.append(f"{message.text} {message.location['url']}")

    def open(self, page: str) -> Page:
        self.console, self.offsite = [], []
        self.page.goto(self.base + page)
        self.page.evaluate(SETTLED)
        return self.page


@pytest.fixture(scope="session", params=SESSIONS, ids=lambda s: f"{s[0]}-{s[1]}")
def visitor(request, browser, server) -> Iterator[Visitor]:
    visitor = Visitor(browser, server, *request.param)
    yield visitor
    visitor.context.close()


@pytest.fixture(scope="session")
def reader(browser, server) -> Iterator[Visitor]:
    reader = Visitor(browser, server, "light", 1280)
    yield reader
    reader.context.close()


@pytest.fixture(scope="session")
def unzipped(browser) -> Iterator[Visitor]:
    """A reader of the book's folder, without a server."""
    unzipped = Visitor(browser, f"{HTML.as_uri()}/", "light", 1280)
    yield unzipped
    unzipped.context.close()


@pytest.mark.parametrize("page", PAGES)
def test_page(visitor, page, tally):
    opened = visitor.open(page)
    checks = opened.evaluate(LOOK)
    opened.add_script_tag(path=AXE)
    # The slowest rule by far; colours are the same at both widths but for the frame of the page,
    # which one page shows.
    axe = opened.evaluate(JUDGE, visitor.width == 1280 or page == "book/tour.html")
    checks |= {"console": visitor.console, "off-site": visitor.offsite}
    checks["axe"] = [what for impact, what in axe if impact in GRAVE]
    for check, findings in checks.items():
        tally(page, check, len(findings))
    assert {check: findings for check, findings in checks.items() if findings} == {}


@pytest.mark.parametrize("page", PAGES)
def test_page_needs_no_server_and_is_whole_on_paper(unzipped, page, tally):
    opened = unzipped.open(page)
    checks = opened.evaluate(LOOK)
    findings = [*unzipped.console, *unzipped.offsite, *checks["images"], *checks["math"]]
    tally(page, "file://", len(findings))
    assert findings == []

    screen = opened.viewport_size
    opened.emulate_media(media="print")
    opened.set_viewport_size(PAPER)
    cut = opened.evaluate(CUT)
    opened.emulate_media(media="null")
    opened.set_viewport_size(screen)
    tally(page, "print", len(cut))
    assert cut == []


# In the dark.


ILLUSTRATED = [page for page in PAGES if "<figure" in (HTML / page).read_text(encoding="utf-8")]


@pytest.fixture(scope="session")
def owl(browser, server) -> Iterator[Visitor]:
    """A reader in the dark."""
    owl = Visitor(browser, server, "dark", 1280)
    yield owl
    owl.context.close()


def seen(page: Page, x: float, y: float) -> tuple[int, ...]:
    """The colour of one pixel of the window."""
    picture = page.screenshot(clip={"x": x, "y": y, "width": 1, "height": 1})
    return Image.open(io.BytesIO(picture)).convert("RGB").getpixel((0, 0))


IN_VIEW = """image => {
  image.scrollIntoView({block: "center", behavior: "instant"});
  return image.getBoundingClientRect().toJSON();
}"""


@pytest.mark.parametrize("page", ILLUSTRATED)
def test_in_the_dark_a_figure_stands_on_the_page_and_not_on_a_slab(owl, page):
    opened = owl.open(page)
    for image in opened.query_selector_all("main figure img"):
        box = image.evaluate(IN_VIEW)
        if not box["width"]:  # a live view stands in its place
            continue
        top = max(box["y"], 80) + 2
        ground = seen(opened, box["x"] - 3, top)
        assert seen(opened, box["x"] + 2, top) == ground
        assert max(ground) < 64


def luminance(colour: tuple[int, ...]) -> float:
    """Relative luminance as WCAG 2.1 defines it."""
    parts = [c / 255 for c in colour]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("name", figures.COLORS)
def test_in_the_dark_the_colour_of_a_method_stands_out(owl, name):
    """At least 3 : 1, as WCAG asks of graphics."""
    opened = owl.open("book/notation.html")
    swatch = f"<rect width='100' height='100' fill='{figures.COLORS[name]}'/>"
    source = f"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'>{quote(swatch)}</svg>"
    opened.evaluate(
        """source => document.querySelector("article h1").insertAdjacentHTML(
             "afterend", `<img width=100 height=100 src="${source}">`)""",
        source,
    )
    box = opened.locator("article img").first.bounding_box()
    drawn = luminance(seen(opened, box["x"] + 50, box["y"] + 50))
    ground = luminance(seen(opened, box["x"] - 3, box["y"] + 50))
    assert (drawn + 0.05) / (ground + 0.05) > 3


# Links, in the files themselves.


def soup(page: str) -> BeautifulSoup:
    return BeautifulSoup((HTML / page).read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(scope="session")
def anchors() -> dict[str, set[str]]:
    """Page -> every name that a link may end in."""
    return {
        page: {tag["id"] for tag in soup(page).find_all(id=True)}
        | {tag["name"] for tag in soup(page).find_all("a", attrs={"name": True})}
        for page in PAGES
    }


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page, anchors, tally):
    lost = []
    for tag in soup(page).find_all(["a", "link", "script", "img", "source"]):
        link = tag.get("href") or tag.get("src") or ""
        if not link or re.match(r"[a-z][a-z+.-]*:", link) or link in ("#", "#top"):
            continue
        place, anchor = urldefrag(urljoin(page, link))
        place = unquote(place.split("?")[0])
        if not (HTML / place).exists() or (
            anchor and place in anchors and unquote(anchor) not in anchors[place]
        ):
            lost.append(link)
    tally(page, "links", len(lost))
    assert lost == []


# What readers do.


@pytest.mark.parametrize("way", ["reader", "unzipped"])
def test_search_finds_birkhoff(way, request):
    visitor = request.getfixturevalue(way)
    page = visitor.open("search.html")
    field = page.locator("form.bd-search:visible input[name=q], input#searchbox:visible").first
    field.fill("Birkhoff")
    field.press("Enter")
    results = page.locator("#search-results li a")
    expect(results.first).to_be_visible()
    expect(results.filter(has_text="polytope").first).to_be_visible()
    assert visitor.console == []
    assert visitor.offsite == []


def search(page: Page, words: str) -> Locator:
    """The results of a search, all there."""
    page.goto(f"{page.url.partition('?')[0]}?q={quote(words)}")
    expect(page.locator("#search-results h2")).to_have_text("Search Results")
    return page.locator("#search-results ul.search > li")


def test_search_for_learning_rate_finds_chapter_7(reader):
    first = search(reader.open("search.html"), "learning rate").first
    assert first.locator("> a").get_attribute("href").startswith("notebooks/07-language-model.html")
    expect(first.locator("p.context")).to_contain_text("learning rate")
    assert reader.console == []


@pytest.mark.parametrize("words", ["Birkhoff", "learning rate", "Cayley", "orthogonal", "deltoid"])
def test_excerpts_of_a_search_show_no_tex(reader, words):
    results = search(reader.open("search.html"), words)
    excerpts = results.locator("p.context")
    expect(excerpts.first).to_be_visible()
    reader.page.wait_for_load_state("networkidle")
    for excerpt in excerpts.all_text_contents():
        assert not re.search(r"\\[a-zA-Z([]|\$[^$]+\$|[_^]\{", excerpt), excerpt


KNOBS = [page for page in PAGES if "data-knob-for" in (HTML / page).read_text(encoding="utf-8")]


def test_three_chapters_have_a_knob():
    assert len(KNOBS) >= 3


def frame(knob) -> Locator:
    """The one picture that a knob shows, whichever that is when it is looked at."""
    shown = knob.locator("img:visible")
    expect(shown).to_have_count(1)
    return shown


@pytest.mark.parametrize("page", KNOBS)
def test_knobs_turn_by_keyboard(reader, page):
    opened = reader.open(page)
    knobs = opened.locator(".knob").all()
    turned = [knob for knob in knobs if knob.locator("img").count() > 1]
    assert turned or "profile = smoke" in opened.content()  # a small run may have one frame
    for knob in turned:
        shown = frame(knob)
        before = shown.get_attribute("src")
        control = knob.locator("input:checked, input[type=range]").first
        expect(control).to_have_count(1)
        control.focus()
        forward = "ArrowRight"
        if control.get_attribute("value") == control.get_attribute("max"):
            forward = "ArrowLeft"
        opened.keyboard.press(forward)
        expect(shown).not_to_have_attribute("src", before)
        opened.keyboard.press("ArrowLeft" if forward == "ArrowRight" else "ArrowRight")
        expect(shown).to_have_attribute("src", before)


@pytest.mark.parametrize("page", KNOBS)
def test_print_shows_the_static_figure_and_no_word_of_its_knob(reader, page):
    opened = reader.open(page)
    opened.emulate_media(media="print")
    for figure in opened.locator("figure.has-knob").all():
        expect(figure.locator(".knob")).to_be_hidden()
        expect(figure.locator("> img, > a > img").first).to_be_visible()
    expect(opened.locator(".bd-sidebar-primary")).to_be_hidden()
    assert not re.search(r"turn the knob|arrow keys", opened.locator("main").inner_text(), re.I)
    opened.emulate_media(media="null")


@pytest.mark.parametrize("page", KNOBS)
def test_print_opens_solutions_and_leaves_code_and_provenance_folded(reader, page):
    opened = reader.open(page)
    folded = "[...document.querySelectorAll('details:not([open])')].map(fold => fold.className)"
    before = opened.evaluate(folded)
    assert "" in before  # the solutions of exercises
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    left = opened.evaluate(folded)
    assert left
    assert all({"hide", "provenance"} & set(name.split()) for name in left), left
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.evaluate(folded) == before


def test_what_is_folded_is_not_printed_and_solutions_are(reader, tmp_path):
    opened = reader.open("notebooks/04-spectra.html")
    code = opened.locator("details.hide div.cell_input pre").first.text_content()
    solution = opened.locator("details:not([class]) pre").first.text_content()
    opened.pdf(path=tmp_path / "page.pdf")
    pages = PdfReader(tmp_path / "page.pdf").pages
    printed = "".join("".join(page.extract_text() for page in pages).split())
    assert "".join(solution.split()) in printed
    assert "".join(code.split()) not in printed
    for word in ("How this figure was made", "Show code cell", "this cell"):
        assert "".join(word.split()) not in printed


@pytest.mark.parametrize("page", KNOBS)
def test_without_javascript_the_static_figure_is_there(browser, server, page):
    context = new_context(browser, java_script_enabled=False)
    opened = context.new_page()
    opened.goto(server + page)
    for template in opened.locator("template[data-knob-for]").all():
        figure = opened.locator(f"[id='{template.get_attribute('data-knob-for')}']")
        expect(figure.locator("img").first).to_be_visible()
    context.close()


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("notebooks/")])
def test_figures_say_how_they_were_made(reader, page):
    opened = reader.open(page)
    summaries = opened.locator("details.provenance > summary").all()
    assert len(summaries) >= 1
    summaries[0].focus()
    opened.keyboard.press("Enter")
    told = opened.locator("details.provenance").first
    expect(told.locator("dl")).to_be_visible()
    for word in ("Notebook", "seed", "Commit", "Device", "Time"):
        expect(told).to_contain_text(word)


def test_play_is_live_without_a_server(unzipped):
    opened = unzipped.open("book/play.html")
    expect(opened.locator(".play .play-entries tbody tr")).to_have_count(4)
    expect(opened.locator("#fig-play")).to_be_hidden()


@pytest.mark.parametrize(
    "page",
    [
        page
        for page in PAGES
        if page.startswith("notebooks/0") and page[10:12] in {"01", "02", "03", "05"}
    ],
)
def test_chapters_have_live_views(unzipped, page):
    opened = unzipped.open(page)
    expect(opened.locator("[data-play] .play-card").first).to_be_visible()


def test_the_first_page_fits_one_screen(reader):
    """Problem, live picture, three verdicts, three doors."""
    opened = reader.open("book/index.html")
    expect(opened.locator("[data-play] .play-card")).to_have_count(2)
    doors = [door.bounding_box() for door in opened.locator(".bd-article .sd-card").all()]
    assert len(doors) == 3
    assert max(door["y"] + door["height"] for door in doors) <= opened.viewport_size["height"]
    verdicts = opened.locator(".bd-article li").all()
    assert len(verdicts) == 3
    for verdict in verdicts:
        expect(verdict).to_have_text(re.compile("^[✓◐✗≈–] "))


def test_claims_are_chosen_by_verdict_and_topic(reader):
    opened = reader.open("notebooks/08-verdicts.html")
    claims, shown = (opened.locator(f"details.claim{end}") for end in ("", ":visible"))
    total = claims.count()
    expect(shown).to_have_count(total)
    opened.get_by_label("Verdict", exact=True).select_option("holds")
    expect(shown).to_have_count(opened.locator("details.claim[data-verdict=holds]").count())
    assert 0 < shown.count() < total
    opened.get_by_label("Topic", exact=True).select_option("The construction")
    few = shown.count()
    assert 0 < few < total
    expect(opened.locator(".claim-filter output")).to_have_text(f"{few} of {total} claims")
    shown.first.locator("summary").click()
    expect(shown.first.get_by_text("Criterion.")).to_be_visible()


def test_a_knob_turns_in_a_notebook_alone(browser):
    """The output of a cell brings its own script: no page of the book around it."""
    frames = {}
    for k in (1, 2):
        frames[k] = Figure(figsize=(2, 1))
        frames[k].text(0.5, 0.5, str(k))
    context = new_context(browser)
    opened = context.new_page()
    opened.set_content(figures.knob(frames, "k", "A number.")._repr_mimebundle_()["text/html"])
    shown = frame(opened)
    before = shown.get_attribute("src")
    opened.get_by_label("k").press("ArrowRight")
    expect(shown).not_to_have_attribute("src", before)
    expect(opened.locator("output")).to_have_text("2")
    context.close()
