"""Chromium as the tests and the screenshots of the README use it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

FLAGS = (
    "--no-sandbox",  # it may run as root in a container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZES = {"wide": {"width": 1360, "height": 900}, "phone": {"width": 390, "height": 844}}
MISSING = "Chromium is missing, so no page was looked at: apt-get install chromium"


def executable() -> str | None:
    """Return the path of Debian's Chromium; None if it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def launched() -> Iterator[Browser]:
    """Open a separate browser."""
    path = executable()
    if path is None:
        raise FileNotFoundError(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


class Watched:
    """A page, with records of errors on the console, failed requests, requests to other hosts and error responses.

    Attributes:
        page: page of Playwright.
        wrong: these records, as sentences.
    """

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.page: Page = context.new_page()
        self.origin = origin
        self.wrong: list[str] = []
        self.expected: set[int] = set()
        """Statuses of responses that the test expects."""
        self.page.on("console", lambda m: self._note(m.type in ("error", "warning"), f"console {m.type}: {m.text}"))
        self.page.on("pageerror", lambda error: self._note(True, f"exception: {error}"))
        self.page.on("request", lambda r: self._note(not self._ours(r.url), f"asked another host: {r.url}"))
        self.page.on("requestfailed", lambda r: self._note(self._lost(r.failure), f"failed: {r.url} {r.failure}"))
        self.page.on("response", lambda r: self._note(r.status >= 400, f"{r.status}: {r.url}", r.status))

    def _ours(self, url: str) -> bool:
        return url.startswith((self.origin, "data:", "blob:"))

    def _lost(self, failure: str | None) -> bool:
        """Return True if a request failed, other than because the page was left."""
        return "ERR_ABORTED" not in (failure or "")

    def _note(self, is_wrong: bool, sentence: str, status: int | None = None) -> None:
        if is_wrong and not self._is_expected(sentence, status):
            self.wrong.append(sentence)

    def _is_expected(self, sentence: str, status: int | None) -> bool:
        """Return True if a test expects this; Chromium reports responses of 4xx on the console, too."""
        return status in self.expected or any(f"status of {code}" in sentence for code in self.expected)

    def open(self, path: str) -> Page:
        """Open a page and wait until it is complete, including charts."""
        self.page.goto(self.origin + path, wait_until="networkidle")
        return self.page


Look = Callable[..., Watched]
