"""Pagination: how one page leads to the next.

Here: the URL of a page, its rows, and the position of the page after it. A position is a text: a number, a URL or a cursor,
depending on the declared paginator. Pure functions without I/O.
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
from mini_platform.landing.fetch import Answer, RetryableError, SyncError
from mini_platform.rows.protection import MASK

if TYPE_CHECKING:
    from mini_platform.declare.sources import Json

POSITION_CHARACTERS = 10_000
"""Maximum length of a position; a longer link or cursor is an error."""


@dataclass(frozen=True)
class ApiPage:
    """The content of a page, as far as a sync needs it.

    Attributes:
        rows: number of rows.
        rows_sha256: hash of the rows, without the rest of the page.
        next: position of the next page; None on the last page.
    """

    rows: int
    rows_sha256: str
    next: str | None


def first(source: ApiSource) -> str:
    """Return the position of the first page."""
    return str(source.paging.first) if isinstance(source.paging, PageNumberPaginator) else ""


def url_of(source: ApiSource, base: str, position: str, since: dt.datetime | None) -> str:
    """Return the URL of the page at a position.

    Raises:
        SyncError: the configured URL is invalid.
    """
    # A link of the source is complete and used as it is; with numbers and cursors the position is one parameter of the
    # configured URL. An empty position stands for the first page, which has neither a link nor a cursor.
    paging = source.paging
    if isinstance(paging, HeaderLinkPaginator) and position:
        return _with_secrets(position, base)
    params: dict[str, str] = {}
    if paging and paging.limit:
        params[paging.limit] = str(source.page_size)
    if source.since and since:
        params[source.since] = since.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(paging, PageNumberPaginator):
        params[paging.page] = position
    elif isinstance(paging, CursorPaginator) and position:
        params[paging.parameter] = position
    try:
        url = httpx.URL(base)
        return str(url.copy_merge_params(params) if params else url)  # A signed query stays as it is written.
    except httpx.InvalidURL as error:
        raise SyncError(f"The configured URL is invalid: {error}.") from error


def _without_secrets(link: str, base: str) -> str:
    """Return a link as it is stored and shown: parameters that the configured URL has too are masked, as they may be keys."""
    own = httpx.URL(base).params.multi_items()
    return _replace_parameters(link, {pair: f"{MASK}{number}" for number, pair in enumerate(own)})


def _with_secrets(link: str, base: str) -> str:
    """Return a stored link with its masked parameters restored."""
    own = httpx.URL(base).params.multi_items()
    return _replace_parameters(link, {(name, f"{MASK}{number}"): value for number, (name, value) in enumerate(own)})


def _replace_parameters(link: str, values: Mapping[tuple[str, str], str]) -> str:
    """Return a link with the values of some parameters replaced, by their name and value."""
    url = httpx.URL(link)
    current = url.params.multi_items()
    replaced = [(name, values.get((name, value), value)) for name, value in current]
    return link if replaced == current else str(url.copy_with(params=replaced))


def read(source: ApiSource, form: Json, base: str, position: str, answer: Answer) -> ApiPage:
    """Parse a page of JSON: count its rows and find the position of the next page.

    Numbers keep their text, and rows are not validated here.

    Args:
        source: source of the page.
        form: declared JSON format of the pages.
        base: configured URL of the source.
        position: position of the page.
        answer: response with the page.

    Raises:
        RetryableError: the body is not JSON: perhaps an error page, or half of a page.
        SyncError: the page has no list of rows, or its cursor cannot be read.
    """
    try:
        body = json.loads(answer.body, parse_int=str, parse_float=str)
        rows = body if isinstance(body, list) else _value_at(body, form.rows or "")
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise RetryableError(f"The page is not JSON ({reason}).") from error
    if not isinstance(rows, list):
        where = f" at {form.rows}" if form.rows else ""
        raise SyncError(f"The page has no list of rows{where}.", resumable=True)  # Perhaps an error with status 200.
    next_page = _next(source, body, base, position, answer, len(rows))
    if next_page is not None and (len(next_page) > POSITION_CHARACTERS or not next_page.isprintable()):
        raise SyncError(
            f"The page leads to a next one by {len(next_page):,} characters that are neither a link nor a cursor."
        )
    return ApiPage(len(rows), digest, next_page)


def _next(source: ApiSource, body: Any, base: str, position: str, answer: Answer, rows: int) -> str | None:
    paging = source.paging
    if isinstance(paging, PageNumberPaginator):
        return str(int(position) + 1) if rows else None
    if isinstance(paging, HeaderLinkPaginator):
        return next_position(base, answer)
    if paging is None:
        return None
    cursor = _value_at(body, paging.path)
    if cursor in (None, "", False):
        return None
    if not isinstance(cursor, str):
        raise SyncError(f"The page has a cursor at {paging.path} that is neither text nor a number.")
    return cursor


def next_position(base: str, answer: Answer) -> str | None:
    """Return the position of the page that a response links to; None without a link."""
    return answer.next_link and _without_secrets(answer.next_link, base)


def _value_at(body: Any, path: str) -> Any:
    """Return the value at a dotted path of names; None if there is none."""
    for name in path.split("."):
        body = body.get(name) if isinstance(body, Mapping) else None
    return body
