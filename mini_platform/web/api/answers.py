"""Responses: a relation as a page of JSON or as an export, by content negotiation, with an ETag."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi import Request, Response
from pydantic_core import to_json

from mini_platform.declare.dataset import Dataset
from mini_platform.rows.wording import plain
from mini_platform.warehouse import changes
from mini_platform.web.api import export
from mini_platform.web.api.query import ListQuery, page
from mini_platform.web.api.relations import Relation
from mini_platform.web.secret import cipher
from mini_platform.web.site import Site

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    HTTPStatus.NOT_MODIFIED: {"description": "Unchanged: the ETag matches `If-None-Match`"}
}
"""Documentation of routes that return a response of this module."""
HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Accept"}
MASKED = "Masked-Columns"
"""Header of listings: the columns whose values are hidden, and which `search` leaves out."""


def listing(
    request: Request,
    site: Site,
    relation: Relation,
    *,
    form: export.Form | None = None,
    stored_for: Dataset | None = None,
    params: Sequence[tuple[str, str]] | None = None,
) -> Response:
    """Return a page of a relation as JSON, or an export of all of it.

    Args:
        request: the request, with its parameters and headers.
        site: the site to read from.
        relation: the relation to list.
        form: format of the export; None for a page, or CSV if the request prefers it.
        stored_for: the dataset whose state alone determines the response, for its ETag; None if only the rows do.
        params: parameters of the listing, if they are not those of the request.

    Raises:
        ProblemError: a parameter is invalid.
    """
    if form is None and _prefers_csv(request.headers.get("accept", "")):
        form = "csv"
    params = request.query_params.multi_items() if params is None else params
    query = ListQuery.parse(relation, params, export=form is not None, cipher=partial(cipher, site.settings))
    with site.read(personal=relation.is_personal) as conn:
        etag = None
        if stored_for is not None:
            etag = _etag(form, relation.mark, changes.state(conn, stored_for.name))
            if _is_known(request, etag):
                return _unchanged(etag)
        if form is None:
            result = page(conn, relation, query)
            decimals = [name for name in query.fields if relation.columns[name].type is Decimal]
            for row in result.results:
                for name in decimals:
                    row[name] = plain(row[name])
            content = {
                "next": _link(request, result.next),
                "previous": _link(request, result.previous),
                "results": result.results,
            }
            return answer(request, content, etag, {MASKED: ", ".join(relation.masked)} if relation.masked else {})
    return export.export(site, relation, query, HEADERS | ({"ETag": etag} if etag else {}), form)


def answer(
    request: Request, content: Any, etag: str | None = None, headers: Mapping[str, str] = MappingProxyType({})
) -> Response:
    """Return JSON: times in UTC, decimals as text, null for NaN and infinity. The default ETag is a hash of the body."""
    body = to_json(content, inf_nan_mode="null")
    etag = etag or _etag(body)
    if _is_known(request, etag):
        return _unchanged(etag)
    return Response(body, headers={**HEADERS, "ETag": etag, **headers}, media_type="application/json")


def _link(request: Request, cursor: str | None) -> str | None:
    return None if cursor is None else str(request.url.include_query_params(cursor=cursor))


def _etag(*content: Any) -> str:
    return f'W/"{hashlib.sha256(repr(content).encode()).hexdigest()[:20]}"'


def _is_known(request: Request, etag: str) -> bool:
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return "*" in known or etag.removeprefix("W/") in known


def _unchanged(etag: str) -> Response:
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=HEADERS | {"ETag": etag})


def _prefers_csv(accept: str) -> bool:
    """Return True if CSV is accepted by name, and with a higher quality than JSON."""
    qualities = {}
    for item in accept.split(","):
        kind, *options = (part.strip().lower() for part in item.split(";"))
        quality = next((option.removeprefix("q=") for option in options if option.startswith("q=")), "1")
        qualities[kind] = float(quality) if quality.replace(".", "", 1).isdecimal() else 0.0
    return qualities.get(export.MEDIA_TYPE, 0.0) > qualities.get("application/json", 0.0)
