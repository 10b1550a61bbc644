"""Rendering: templates, and the format of times, values and links in them; of numbers: `wording.py`."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from mini_platform.rows.wording import (
    NOTHING,
    duration,
    exact,
    file_status,
    money,
    number,
    percent,
    plain,
    plural,
    size,
)
from mini_platform.web.api.answers import answer
from mini_platform.web.api.export import MEDIA_TYPE, csv_stream
from mini_platform.web.auth.guard import readable
from mini_platform.web.pages.static_files import PLOTLY, static_url
from mini_platform.web.problems import NotFoundError
from mini_platform.web.site import Site

POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""The policy of every response, with inline styles allowed, as Plotly uses them."""
LONGEST_EXTREME = 28
MOMENT = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d):\d\d")
"""A timestamp as Postgres writes it."""
LINKED = ("http://", "https://")
TWIN = "_twin"
"""Parameter for which a page returns one of its tables as data; no column can have such a name."""


@pass_context
def page_of(context: Context, dataset: str) -> str:
    """Return the path of a dataset's page: its declared one, or the generic one."""
    site: Site = context["site"]
    declared = site.datasets.get(dataset)
    return f"/{dataset}" if declared is not None and declared.page is not None else f"/datasets/{quote(dataset)}"


def day(value: dt.date | None) -> str:
    """Return a date, such as 7 Nov 2026."""
    return f"{value.day} {value:%b} {value.year:04}" if value else NOTHING


def ago(moment: dt.datetime | None, now: dt.datetime | None = None) -> Markup:
    """Return a relative time as a `<time>`, with the exact time as its title."""
    if moment is None:
        return Markup.escape(NOTHING)
    seconds = ((now or dt.datetime.now(dt.UTC)) - moment).total_seconds()
    words = "just now"
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            words = f"{count} {unit}{'s' if count > 1 else ''} ago"
            break
    else:
        words = f"{int(seconds)} seconds ago" if seconds >= 10 else words
    return _time(moment, words)


def moment(value: dt.datetime | None) -> Markup:
    """Return a time in UTC, to the minute."""
    if value is None:
        return Markup.escape(NOTHING)
    value = value.astimezone(dt.UTC)
    return _time(value, f"{day(value)} {value:%H:%M}")


def _time(value: dt.datetime, words: str) -> Markup:
    exact = value.astimezone(dt.UTC)
    element = Markup('<time datetime="{}" title="{}">{}</time>')
    return element.format(f"{exact:%Y-%m-%dT%H:%M:%SZ}", f"{exact:%Y-%m-%d %H:%M:%S} UTC", words)


def cell(value: Any) -> Any:
    """Return a value of any column as text; a URL as a link."""
    match value:
        case None:
            return Markup('<span class="nothing">empty</span>')
        case bool():
            return "yes" if value else "no"
        case dt.datetime():
            return moment(value)
        case dt.date():
            return day(value)
        case Markup():
            return value
        case int() | float() | Decimal():
            return exact(value)
        case str() if value.startswith(LINKED) and len(value) < 500:
            return Markup('<a href="{0}" rel="noreferrer noopener nofollow">{0}</a>').format(value)
        case _:
            return str(value)


def extreme(value: str | None, kind: Any = str) -> str:
    """Return the minimum or maximum of a column from the quality report, shortened; times to the minute."""
    if value is None:
        return NOTHING
    if kind is dt.datetime and (match := MOMENT.match(value)):  # Texts may begin like one.
        return match[1]
    return value if len(value) <= LONGEST_EXTREME else f"{value[:LONGEST_EXTREME]}…"


def commands(sentence: str) -> Markup:
    """Return a sentence as HTML, with text in backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))  # noqa: S704 - it is escaped


def is_numeric(value: Any) -> bool:
    """Return True if a value is a number, to be right-aligned."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def link(path: str, params: Sequence[tuple[str, Any]]) -> str:
    """Return a path with the parameters that have a value."""
    pairs = [(name, str(value)) for name, value in params if value not in (None, "")]
    return f"{path}?{urlencode(pairs)}" if pairs else path


class URLBuilder:
    """Builds URLs of the current page with changed parameters; a changed listing starts at its first page."""

    def __init__(self, request: Request) -> None:
        """Take the address from the request."""
        self.path = request.url.path
        self.params = [(n, value) for n, value in request.query_params.multi_items() if value and n != TWIN]

    def __call__(self, /, **changes: Any) -> str:
        """Return the URL with changed parameters; None removes one, a list repeats it."""
        params = [(n, v) for n, v in self.params if n not in changes and n != "cursor"]
        for name, value in changes.items():
            params += [(name, item) for item in (value if isinstance(value, list) else [value])]
        return link(self.path, params)

    def without(self, name: str, value: str) -> str:
        """Return the URL without one value of a parameter."""
        return link(self.path, [(n, v) for n, v in self.params if (n, v) != (name, value) and n != "cursor"])


@dataclass(frozen=True)
class TableData:
    """A table of a page as data; it is computed by the page, and no route of the API returns it.

    Attributes:
        columns: names of the columns, with units.
        rows: rows with one value per column.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


FILTERS = {
    "number": number, "money": money, "percent": percent, "size": size, "day": day, "duration": duration, "ago": ago,
    "moment": moment, "cell": cell, "plural": plural, "extreme": extreme, "page_of": page_of,
    "commands": commands, "file_status": file_status,
}  # fmt: skip


@cache
def environment() -> Environment:
    """Return the template environment: all values are escaped, and an undefined name is an error."""
    env = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= FILTERS
    env.tests["numeric"] = is_numeric
    env.globals |= {"static_url": static_url, "PLOTLY": PLOTLY, "link": link}
    return env


def render(
    request: Request,
    template: str,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
    tables: Mapping[str, TableData] | None = None,
    **context: Any,
) -> Response:
    """Return a page, or one of its tables as data if `TWIN` is a parameter: `rules.csv`, `rules.json`.

    Args:
        request: the request to answer.
        template: file name of the template.
        status: status of the response.
        headers: headers of the response.
        tables: tables of the page, by name.
        **context: values for the template.

    Raises:
        NotFoundError: the page has no such table.
    """
    if (table := request.query_params.get(TWIN)) and status == HTTPStatus.OK:  # The page of an error has no tables.
        return _as_data(request, table, tables or {})
    site: Site = request.app.state.site
    text = environment().get_template(template).render(
        request=request, site=site, readable=readable(request), here=URLBuilder(request),
        dagster=dagster_url(request, site), session=_session(request), **context,
    )  # fmt: skip
    # Pages hold what may change at any moment; a browser asks again, and never shows an old one as new.
    return HTMLResponse(
        text, status, {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY, **(headers or {})}
    )


def _as_data(request: Request, file_name: str, tables: Mapping[str, TableData]) -> Response:
    name, _, kind = file_name.rpartition(".")
    if name not in tables or kind not in ("csv", "json"):
        names = ", ".join(f"{known}.{kind}" for known in tables for kind in ("csv", "json"))
        raise NotFoundError(f"This page has no table {file_name!r}. Its tables: {names or 'none'}.")
    table = tables[name]
    if kind == "json":
        rows = [dict(zip(table.columns, map(plain, row), strict=True)) for row in table.rows]
        return answer(request, {"results": rows})
    headers = {"Cache-Control": "no-cache", "Content-Disposition": f'attachment; filename="{file_name}"'}
    return Response(b"".join(csv_stream(table.columns, table.rows)), headers=headers, media_type=MEDIA_TYPE)


def _session(request: Request) -> str | None:
    """Return the key of the visitor, to be shown; None if no key was required."""
    caller = getattr(request.state, "caller", None)
    return f"Key {caller.prefix}: {caller.name}" if caller else None


def dagster_url(request: Request, site: Site) -> str:
    """Return the URL of Dagster's UI for the browser: on the host of the current page, with its session."""
    return str(request.url.replace(port=site.settings.dagster_port, path="", query="", fragment=""))
