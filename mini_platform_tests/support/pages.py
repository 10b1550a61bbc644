"""Pages as a browser gets them, and their content."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from html.parser import HTMLParser

import httpx
import pytest
from fastapi.testclient import TestClient

from mini_platform import Dataset
from mini_platform.platform import Platform
from mini_platform.warehouse import quality
from mini_platform.warehouse.tables import quality_report
from mini_platform.warehouse.upsert import upsert_frame
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.support.trial import Trial

VOID = {"meta", "link", "input", "br", "img", "path", "polyline", "hr"}


class Page(HTMLParser):
    """A page: its text, the text of each element with an id, its links, and every tag that it opens."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html, self.text = html, ""
        self.parts: dict[str, str] = {}
        self.spaced: dict[str, str] = {"": ""}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self._open.append((tag, attributes.get("id")))
            if element_id := attributes.get("id"):
                self.parts[element_id] = self.spaced[element_id] = ""
        self._space()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        # Optional end tags are written in these pages: what is closed is what was opened last.
        assert self._open, f"</{tag}> closes nothing"
        opened, _ = self._open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"
        self._space()

    def handle_data(self, data: str) -> None:
        self.text += data
        for _, named in self._open:
            if named:
                self.parts[named] += data
        if not {"script", "style", "svg"} & {tag for tag, _ in self._open}:
            for named in ("", *(named for _, named in self._open if named)):
                self.spaced[named] += data

    def _space(self) -> None:
        for named in ("", *(named for _, named in self._open if named)):
            self.spaced[named] += " "

    @property
    def links(self) -> list[str]:
        """Return the targets of all links."""
        return [str(attrs["href"]) for tag, attrs in self.tags if tag == "a" and attrs.get("href")]

    def part(self, named: str) -> str:
        """Return the text of an element, with single spaces."""
        return re.sub(r"\s+", " ", self.parts[named]).strip()

    def read(self, named: str = "") -> str:
        """Return the text of an element, or of the page, with a space for each tag."""
        return re.sub(r"\s+", " ", self.spaced[named]).strip()

    def figure(self, name: str) -> str:
        """Return the value of a card with a figure."""
        match = re.search(rf"<dt>{re.escape(name)}</dt>\s*<dd[^>]*>([^<]*)</dd>", self.html)
        assert match, f"no figure {name!r}"
        return match[1].strip()


Get = Callable[..., Page]


ListQuery = Callable[..., httpx.Response]


Opened = Callable[..., ListQuery]


@pytest.fixture
def opened(platform: Platform) -> Iterator[Opened]:
    """Return a function that serves datasets; its result takes a path and returns the response."""
    with ExitStack() as stack:

        def open_(*datasets: Dataset) -> ListQuery:
            site = Site(platform, {dataset.name: dataset for dataset in datasets})
            app = create_app(site)
            client = stack.enter_context(
                TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False, follow_redirects=True)
            )

            def ask(path: str, accept: str = "text/html", **headers: str) -> httpx.Response:
                answer: httpx.Response = client.get(path, headers={"Accept": accept, **headers})
                return answer

            return ask

        yield open_


def words(answer: httpx.Response) -> str:
    """Return the text of a page."""
    assert answer.status_code == 200, answer.text[:2000]
    return Page(answer.text).read()


def measure(trial: Trial) -> None:
    """Write the quality report, as a run does at its end."""
    with trial.platform.engine.begin() as conn:
        upsert_frame(conn, quality_report, quality.measure(conn, trial.dataset, "test"))


def keeps_to_itself(page: Page) -> None:
    """Check that a page has no inline code and nothing from other hosts, that ids are unique, and inputs have labels."""
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        if tag == "script":
            assert str(attrs.get("src", "")).startswith("/static/") or attrs.get("type") == "application/json"
        for name in ("src", "action", "formaction"):
            assert not attrs.get(name) or str(attrs[name]).startswith("/"), (tag, attrs)
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids)), sorted(i for i in ids if ids.count(i) > 1)
    labels = {attrs.get("for") for tag, attrs in page.tags if tag == "label"}
    for tag, attrs in page.tags:
        if tag in ("input", "select") and attrs.get("type") != "hidden":
            assert attrs.get("id") in labels, attrs
