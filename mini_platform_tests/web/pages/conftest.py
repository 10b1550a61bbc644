"""Pages as a browser gets them, and what stands in them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from mini_platform_tests.support.pages import Get, Page, opened
from mini_platform_tests.support.trial import declared

__all__ = ["declared", "opened"]


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client of the test's own web process; of the one with samples that tests share, if it asks for `samples_engine`."""
    name = "samples_web" if "samples_engine" in request.fixturenames else "web"
    with httpx.Client(base_url=request.getfixturevalue(name), timeout=60, headers={"Accept": "text/html"}) as client:
        yield client


@pytest.fixture
def get(browser: httpx.Client) -> Get:
    def page(path: str, status: int = 200, **params: str | list[str]) -> Page:
        answer = browser.get(path, params=params or None)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        return Page(answer.text)

    return page
