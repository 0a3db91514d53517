"""One Chromium, one server and one table of results for all tests of the built book."""

import functools
import http.server
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from book.tools.chromium import FLAGS, NoChromiumError, find

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
REPORT = ROOT / "_build" / "browser.json"
PATIENCE = 100_000  # milliseconds that a page on a busy machine may take over anything
RESULTS: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
DIFFERENCES: dict[str, float] = defaultdict(float)  # method -> of Play's matrices to the library's

expect.set_options(timeout=PATIENCE)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serve without a line on stderr for every request."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say at once what is missing, rather than fail in every test; Play needs no built book."""
    of_the_book = any(item.path.name == "test_site.py" for item in items)
    if of_the_book and not (HTML / "index.html").exists():
        pytest.exit(f"expected a built book in {HTML}: run 'make book' first", returncode=2)
    try:
        find()
    except NoChromiumError as error:
        pytest.exit(f"{error}: apt-get install chromium", returncode=2)


@contextmanager
def serving(handler: type[Quiet], folder: Path) -> Iterator[str]:
    """The address under which a handler serves a folder."""
    bound = functools.partial(handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), bound) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}/"
        served.shutdown()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address under which the built book is served."""
    with serving(Quiet, HTML) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The machine's Chromium."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=find(), args=FLAGS, headless=True, timeout=PATIENCE
        )
        yield chromium
        chromium.close()


def new_context(browser: Browser, **options: Any) -> BrowserContext:
    """A session of the browser's, with time enough."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    return context


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[[str, str, int], None]:
    """Note how many findings a check had on a page; it travels with the test's report."""
    return lambda page, check, count: record_property("findings", (page, check, count))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what the tests have noted, over all sessions and workers."""
    if report.when == "call":
        for name, value in report.user_properties:
            if name == "findings":
                page, check, count = value
                RESULTS[page][check] += count
            if name == "difference":
                method, difference = value
                DIFFERENCES[method] = max(DIFFERENCES[method], difference)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how well Play agrees; print pages × checks and keep the table as JSON."""
    if DIFFERENCES:
        terminalreporter.section("Play: largest difference of an entry to gomhc, by method")
        for method, difference in DIFFERENCES.items():
            terminalreporter.line(f"{method:11} {difference:.1e}")
    if not RESULTS:
        return
    checks = sorted({check for row in RESULTS.values() for check in row})
    wide = max(map(len, RESULTS))
    terminalreporter.section("findings: pages × checks, all schemes and widths together")
    terminalreporter.line(f"{'':{wide}}  " + "  ".join(checks))
    for page, row in sorted(RESULTS.items()):
        cells = "  ".join(f"{row.get(check, '–'):>{len(check)}}" for check in checks)
        terminalreporter.line(f"{page:{wide}}  {cells}")
    partial = REPORT.with_suffix(".tmp")
    partial.write_text(json.dumps(RESULTS, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.rename(REPORT)
    terminalreporter.line(f"{REPORT.relative_to(ROOT)} has the same as JSON")
