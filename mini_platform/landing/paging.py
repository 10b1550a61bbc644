"""How one page leads to the next.

Here: the URL of a page, its rows, and the position of the page after it. A position is a text: a number, a URL or a cursor,
by the declared kind of paging. Pure; nothing is asked for.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from mini_platform.declare.sources import ApiSource, CursorPaginator, HeaderLinkPaginator, PageNumberPaginator
from mini_platform.landing.fetch import AgainError, Answer, SyncError
from mini_platform.rows.protection import MASK

if TYPE_CHECKING:
    from mini_platform.declare.sources import Json

POSITION_CHARACTERS = 10_000
"""A longer link or cursor is nothing that leads to a page."""


@dataclass(frozen=True)
class ApiPage:
    """What a page is about.

    Attributes:
        rows: how many.
        rows_sha256: of the rows, whatever stands beside them.
        next: position of the next page; None: this is the last one.
    """

    rows: int
    rows_sha256: str
    next: str | None


def first(source: ApiSource) -> str:
    """Position of the first page."""
    return str(source.paging.first) if isinstance(source.paging, PageNumberPaginator) else ""


def url_of(source: ApiSource, base: str, position: str, since: dt.datetime | None) -> str:
    """The URL of the page at a position.

    Raises:
        SyncError: there is none.
    """
    paging = source.paging
    if isinstance(paging, HeaderLinkPaginator) and position:
        return _with_secrets(position, base)
    asked: dict[str, str] = {}
    if paging.limit:
        asked[paging.limit] = str(source.page_size)
    if source.since and since:
        asked[source.since] = since.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(paging, PageNumberPaginator):
        asked[paging.page] = position
    elif isinstance(paging, CursorPaginator) and position:
        asked[paging.parameter] = position
    try:
        return str(httpx.URL(base).copy_merge_params(asked))
    except httpx.InvalidURL as error:
        raise SyncError(f"The URL that is set for it cannot be read: {error}.") from error


def _without_secrets(link: str, base: str) -> str:
    """A link as it is kept and shown: what the set URL has in its query too is masked, as it may be a key."""
    own = httpx.URL(base).params.multi_items()
    return _replaced(link, {pair: f"{MASK}{number}" for number, pair in enumerate(own)})


def _with_secrets(link: str, base: str) -> str:
    """A kept link as it was."""
    own = httpx.URL(base).params.multi_items()
    return _replaced(link, {(name, f"{MASK}{number}"): value for number, (name, value) in enumerate(own)})


def _replaced(link: str, values: Mapping[tuple[str, str], str]) -> str:
    """A link with other values of some of its parameters, by their name and value."""
    url = httpx.URL(link)
    found = url.params.multi_items()
    wanted = [(name, values.get((name, value), value)) for name, value in found]
    return link if wanted == found else str(url.copy_with(params=wanted))


def read(source: ApiSource, form: Json, base: str, position: str, answer: Answer) -> ApiPage:
    """Look into a page.

    Numbers are left as they stand, and what is wrong with a row is not validated here.

    Args:
        source: that gave it.
        form: of its pages.
        base: URL that is set for it.
        position: of the page.
        answer: to be looked into.

    Raises:
        AgainError: it is not JSON: an error page, perhaps, or half of one.
        SyncError: it has no list of rows, or no cursor that can be read.
    """
    try:
        body = json.loads(answer.body, parse_int=str, parse_float=str)
        rows = body if isinstance(body, list) else _within(body, form.rows or "")
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise AgainError(f"The page is not JSON ({said}).") from error
    if not isinstance(rows, list):
        where = f" at {form.rows}" if form.rows else ""
        raise SyncError(f"The page has no list of rows{where}.", goes_on=True)  # It may be an error, sent as a 200.
    following = _next(source, body, base, position, answer, len(rows))
    if following is not None and (len(following) > POSITION_CHARACTERS or not following.isprintable()):
        raise SyncError(
            f"The page leads to a next one by {len(following):,} characters that are no link and no cursor."
        )
    return ApiPage(len(rows), digest, following)


def _next(source: ApiSource, body: Any, base: str, position: str, answer: Answer, rows: int) -> str | None:
    paging = source.paging
    if isinstance(paging, PageNumberPaginator):
        return str(int(position) + 1) if rows else None
    if isinstance(paging, HeaderLinkPaginator):
        return linked(base, answer)
    cursor = _within(body, paging.path)
    if cursor in (None, "", False):
        return None
    if not isinstance(cursor, str):
        raise SyncError(f"The page has a cursor at {paging.path} that is neither text nor a number.")
    return cursor


def linked(base: str, answer: Answer) -> str | None:
    """Position of the page that an answer links to."""
    return answer.next_link and _without_secrets(answer.next_link, base)


def _within(body: Any, path: str) -> Any:
    """What stands at a path of names; None where nothing does."""
    for name in path.split("."):
        body = body.get(name) if isinstance(body, Mapping) else None
    return body
