"""A browser for the session, a watched page for each test.

look        opens pages, at a size and in a colour scheme; at the end of the test none of them may have done wrong
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from mini_platform_tests.support.chromium import MISSING, SIZES, Look, Watched, executable, launched


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if executable() is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        warnings.warn(MISSING, stacklevel=1)
        pytest.skip(MISSING)
    with launched() as chromium:
        yield chromium


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    opened: list[Watched] = []
    contexts = []

    def look(origin: str, size: str = "wide", scheme: str = "light") -> Watched:
        context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, accept_downloads=True)
        contexts.append(context)
        opened.append(Watched(context, origin))
        return opened[-1]

    yield look
    for context in contexts:
        context.close()
    assert [sentence for watched in opened for sentence in watched.wrong] == []
