"""The Chromium that prints the book and that its tests read it with.

$CHROMIUM names the browser where it has no usual name.
"""

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # Chromium's own services must not call home.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class NoChromiumError(Exception):
    """No Chromium was found; the message says under which names."""


def find() -> str:
    """Path of a Chromium.

    Raises:
        NoChromiumError: If there is none under $CHROMIUM, or else under a usual name.
    """
    names = [os.environ["CHROMIUM"]] if "CHROMIUM" in os.environ else NAMES
    browser = next(filter(None, map(shutil.which, names)), None)
    if not browser:
        raise NoChromiumError(
            f"expected a browser, one of {', '.join(names)}; found none (see $CHROMIUM)"
        )
    return browser
