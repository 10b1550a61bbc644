"""How pages are made: the templates, and how moments, values and links are written in them; numbers: `wording.py`."""

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

from mini_platform.rows.wording import NOTHING, duration, exact, money, number, percent, plain, plural, size
from mini_platform.web.api.answers import answer
from mini_platform.web.api.export import MEDIA_TYPE, csv_stream
from mini_platform.web.pages.static_files import PLOTLY, static_url
from mini_platform.web.problems import NotFoundError
from mini_platform.web.site import Site

POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""As every response's, but for inline styles: Plotly sets the look of its parts by them."""
LONGEST_EXTREME = 28
MOMENT = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d):\d\d")
"""As Postgres writes a moment."""
LINKED = ("http://", "https://")
TWIN = "_twin"
"""The parameter by which a page answers with one of its tables as data; no column has a name like this."""


@pass_context
def page_of(context: Context, dataset: str) -> str:
    """Path of a dataset's page: its own if it declares one, else the one that every dataset has."""
    site: Site = context["site"]
    declared = site.datasets.get(dataset)
    return f"/{dataset}" if declared is not None and declared.page is not None else f"/datasets/{quote(dataset)}"


def day(value: dt.date | None) -> str:
    """A day, such as 7 Nov 2026."""
    return f"{value.day} {value:%b} {value.year:04}" if value else NOTHING


def ago(moment: dt.datetime | None, now: dt.datetime | None = None) -> Markup:
    """How long ago, as a `<time>` whose title is the exact moment."""
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
    """A moment in UTC, to the minute."""
    if value is None:
        return Markup.escape(NOTHING)
    value = value.astimezone(dt.UTC)
    return _time(value, f"{day(value)} {value:%H:%M}")


def _time(value: dt.datetime, words: str) -> Markup:
    exact = value.astimezone(dt.UTC)
    said = Markup('<time datetime="{}" title="{}">{}</time>')
    return said.format(f"{exact:%Y-%m-%dT%H:%M:%SZ}", f"{exact:%Y-%m-%d %H:%M:%S} UTC", words)


def cell(value: Any) -> Any:
    """A value of any column as people read it; a link where it is one."""
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
    """The least or the most of a column of a type, as the quality report has it: short, moments to the minute."""
    if value is None:
        return NOTHING
    if kind is dt.datetime and (found := MOMENT.match(value)):  # Texts may begin like one.
        return found[1]
    return value if len(value) <= LONGEST_EXTREME else f"{value[:LONGEST_EXTREME]}…"


def commands(sentence: str) -> Markup:
    """A sentence of ours, with what it has between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(sentence))))  # noqa: S704 - it is escaped


def is_numeric(value: Any) -> bool:
    """Whether a column of such values stands at the right."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def link(path: str, params: Sequence[tuple[str, Any]]) -> str:
    """A path with the parameters that have a value."""
    given = [(name, str(value)) for name, value in params if value not in (None, "")]
    return f"{path}?{urlencode(given)}" if given else path


class URLBuilder:
    """The address of the page, to link to it with something changed; the page of a listing is left where it changes."""

    def __init__(self, request: Request) -> None:
        """Take the address from the request."""
        self.path = request.url.path
        self.params = [(n, value) for n, value in request.query_params.multi_items() if value and n != TWIN]

    def __call__(self, /, **changes: Any) -> str:
        """The address with these parameters instead; None takes one out, a list gives it several times."""
        kept = [(n, v) for n, v in self.params if n not in changes and n != "cursor"]
        for name, value in changes.items():
            kept += [(name, item) for item in (value if isinstance(value, list) else [value])]
        return link(self.path, kept)

    def without(self, name: str, value: str) -> str:
        """The address without one of the values of a parameter."""
        return link(self.path, [(n, v) for n, v in self.params if (n, v) != (name, value) and n != "cursor"])


@dataclass(frozen=True)
class TableData:
    """A table of a page as data: no API has it, as the page computes it.

    Attributes:
        columns: their names, with units.
        rows: n rows of as many values.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


FILTERS = {
    "number": number, "money": money, "percent": percent, "size": size, "day": day, "duration": duration, "ago": ago,
    "moment": moment, "cell": cell, "plural": plural, "extreme": extreme, "page_of": page_of,
    "commands": commands,
}  # fmt: skip


@cache
def environment() -> Environment:
    """The templates: everything is escaped, and a name that a page does not give is a mistake."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= FILTERS
    made.tests["numeric"] = is_numeric
    made.globals |= {"static_url": static_url, "PLOTLY": PLOTLY, "link": link}
    return made


def render(
    request: Request,
    template: str,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
    tables: Mapping[str, TableData] | None = None,
    **given: Any,
) -> Response:
    """A page; or, where the request asks for it by `TWIN`, one of its tables as data: `rules.csv`, `rules.json`.

    Args:
        request: that it answers.
        template: its file.
        status: of the response.
        headers: of the response.
        tables: by name.
        **given: what the template shows.

    Raises:
        NotFoundError: it has no such table.
    """
    if (asked := request.query_params.get(TWIN)) and status == HTTPStatus.OK:  # The page of an error has no tables.
        return _as_data(request, asked, tables or {})
    site: Site = request.app.state.site
    text = environment().get_template(template).render(
        request=request, site=site, here=URLBuilder(request), dagster=_dagster(request, site), **given
    )  # fmt: skip
    # Pages hold what may change at any moment; a browser asks again, and never shows an old one as new.
    return HTMLResponse(
        text, status, {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY, **(headers or {})}
    )


def _as_data(request: Request, asked: str, tables: Mapping[str, TableData]) -> Response:
    name, _, kind = asked.rpartition(".")
    if name not in tables or kind not in ("csv", "json"):
        names = ", ".join(f"{known}.{kind}" for known in tables for kind in ("csv", "json"))
        raise NotFoundError(f"This page has no table {asked!r}. It has: {names or 'none'}.")
    table = tables[name]
    if kind == "json":
        rows = [dict(zip(table.columns, map(plain, row), strict=True)) for row in table.rows]
        return answer(request, {"results": rows})
    headers = {"Cache-Control": "no-cache", "Content-Disposition": f'attachment; filename="{asked}"'}
    return Response(b"".join(csv_stream(table.columns, table.rows)), headers=headers, media_type=MEDIA_TYPE)


def _dagster(request: Request, site: Site) -> str:
    """Where the browser finds the Dagster UI: on the host that it found this page on."""
    return f"http://{request.url.hostname}:{site.settings.dagster_port}"
