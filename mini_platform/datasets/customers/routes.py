"""Customers and tokens under the paths of the system that this platform replaces.

Keys stand in for its users: a token is a key, which its owner gets for the name of the key and the key itself.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from mini_platform.declare.reserved import LIST_WORDS
from mini_platform.web.api.answers import NOT_MODIFIED, listing
from mini_platform.web.api.export import MEDIA_TYPE
from mini_platform.web.api.incoming import form, whole
from mini_platform.web.api.query import condition
from mini_platform.web.api.relations import Relation, rows
from mini_platform.web.api.replaced import BadRequestRoute, ReplacedRoute
from mini_platform.web.api.values import read
from mini_platform.web.auth.guard import allowed, is_key, may
from mini_platform.web.problems import ProblemError, documented
from mini_platform.web.site import SiteDep

DATASET = "customers"
CONTAINS = ("city", "country")
LOADED_FROM, LOADED_TO = "start_date", "end_date"
ALMOST_A_DAY = dt.timedelta(days=1) - dt.timedelta.resolution
CREDENTIALS = ("username", "password")
CREDENTIALS_BYTES = 2**16
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
REFUSED = "Unable to log in with provided credentials."


class CustomersRoute(BadRequestRoute):
    """A route that takes filters by column, which it does not declare, too."""

    def ignored(self, request: Request) -> Sequence[str]:
        """Return the names of the query parameters that are neither declared nor filter a column."""
        relation = rows(request.app.state.site.dataset(DATASET), clear=True)
        return [name for name in super().ignored(request) if name not in LIST_WORDS and not _filters(relation, name)]


router = APIRouter(route_class=ReplacedRoute)
reads = APIRouter(
    route_class=CustomersRoute,
    tags=["customers"],
    dependencies=[Depends(allowed("read", DATASET, masks=True))],
    responses=NOT_MODIFIED | documented(400, 404),
)


class Customers(BaseModel):
    """A page of customers."""

    next: str | None = Field(description="URL of the next page; null on the last one")
    previous: str | None = Field(description="URL of the previous page; null on the first one")
    results: list[dict[str, Any]] = Field(description="Customers, with the columns of /api/datasets/customers/")


class Token(BaseModel):
    """A token: `Authorization: Token <token>`."""

    token: str = Field(description="The key")


ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": Customers, "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
}
CREDENTIALS_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "username": {"type": "string", "description": "Name of a key", "examples": ["reports"]},
                        "password": {"type": "string", "description": "The key itself", "format": "password"},
                    },
                    "required": list(CREDENTIALS),
                }
            }
            for media_type in ("application/json", *FORMS)
        },
    }
}


@reads.get("/api/customers/", summary="Customers", responses=ANSWERS, response_model=None)
def customers(  # noqa: PLR0913, PLR0917 - read by `_params`; here they are documented
    request: Request,
    site: SiteDep,
    search: Annotated[
        str | None, Query(description="Words that must all occur in columns of text, ignoring case.", examples=["Oslo"])
    ] = None,
    city: Annotated[
        str | None, Query(description="Only cities that contain this text, ignoring case.", examples=["oslo"])
    ] = None,
    country: Annotated[
        str | None, Query(description="Only countries that contain this text, ignoring case.", examples=["nor"])
    ] = None,
    start_date: Annotated[
        str | None,
        Query(description="Only rows that last changed on this day, at this time or later.", examples=["2024-01-31"]),
    ] = None,
    end_date: Annotated[
        str | None,
        Query(
            description="Only rows that last changed on this day, at this time or earlier.",
            examples=["2999-12-31T12:00:00Z"],
        ),
    ] = None,
    ordering: Annotated[
        str | None,
        Query(
            description="Columns to order by; `-` before a column sorts descending.",
            examples=["country,-subscription_date"],
        ),
    ] = None,
    cursor: Annotated[str | None, Query(description="Position of the page, from `next` or `previous`.")] = None,
    limit: Annotated[
        int | None, Query(ge=1, le=1000, description="Customers per page; 100 by default.", examples=[100])
    ] = None,
) -> Response:
    """List the customers. Every filter of `/api/datasets/customers/rows/` works here too.

    Personal data is shown to keys with the scope `read:customers`. For keys with the scope `read` it is masked: it cannot be
    searched, filtered or sorted by either.
    """
    dataset = site.dataset(DATASET)
    relation = rows(dataset, clear=may(request, "read", dataset))
    return listing(request, site, relation, stored_for=dataset, params=list(_params(request)))


@router.post(
    "/api/token-auth/",
    tags=["customers"],
    summary="A token for a key",
    responses=documented(400, 408, 413, 415, 429, 503),
    openapi_extra=CREDENTIALS_BODY,
)
async def token(request: Request) -> Token:
    """Return a key as the token of its owner: the user name is the name of the key, the password the key itself.

    The token has the scopes of the key, and ends with it. Wrong credentials count as an invalid key: after too many of them
    from one address, the response is 429.
    """
    name, key = _texts(await _sent(request))
    if not await run_in_threadpool(is_key, request, name.strip(), key.strip()):
        raise ProblemError(REFUSED, non_field_errors=[REFUSED])
    return Token(token=key.strip())


router.include_router(reads)


def _params(request: Request) -> Iterator[tuple[str, str]]:
    """Yield the parameters of the listing: an empty value is none, and of several values of one name the last counts."""
    relation = rows(request.app.state.site.dataset(DATASET), clear=True)
    for name, value in request.query_params.items():
        if not value:
            continue
        if name in CONTAINS:
            yield f"{name}__contains", _read(name, str, value)
        elif name in {LOADED_FROM, LOADED_TO}:
            yield _loaded(name, value)
        elif name == "search":
            yield name, value.replace(",", " ")
        elif name in LIST_WORDS or _filters(relation, name):
            yield name, value


def _filters(relation: Relation, name: str) -> bool:
    """Return True if a parameter filters a column."""
    try:
        condition(relation, name)
    except ProblemError:
        return False
    return True


def _loaded(name: str, value: str) -> tuple[str, str]:
    """Return the parameter for the first or last time of `ingested_at`; a day is all of it."""
    moment = _read(name, dt.datetime, value)
    if name == LOADED_FROM:
        return "ingested_at__gte", moment.isoformat()
    is_day = len(value) == len("2024-01-31")
    return "ingested_at__lte", (moment + ALMOST_A_DAY if is_day else moment).isoformat()


def _read(name: str, kind: Any, value: str) -> Any:
    try:
        return read(kind, value)
    except ValueError as error:
        raise ProblemError(f"{name}: {value[:100]!a} {error}.", parameter=name) from error


async def _sent(request: Request) -> Mapping[str, Any]:
    """Return the fields of a body, JSON or a form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in FORMS:
        return await form(request, CREDENTIALS_BYTES)
    body = await whole(request, CREDENTIALS_BYTES)
    if kind == "application/json" or not body:
        return _object(body or b"{}")
    detail = f'Unsupported media type "{kind}" in request: send JSON or a form.'
    raise ProblemError(detail, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(body, parse_int=str, parse_float=str)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ProblemError(f"JSON parse error - {reason}") from error
    if not isinstance(content, dict):
        detail = f"Invalid data. Expected a dictionary, but got {type(content).__name__}."
        raise ProblemError(detail, non_field_errors=[detail])
    return content


def _texts(fields: Mapping[str, Any]) -> tuple[str, str]:
    """Return user name and password.

    Raises:
        ProblemError: one of them is missing; the problem has an error list for each field, as the replaced system had.
    """
    errors: dict[str, Any] = {}
    for name in CREDENTIALS:
        value = fields.get(name)
        if name not in fields:
            errors[name] = ["This field is required."]
        elif value is None:
            errors[name] = ["This field may not be null."]
        elif not isinstance(value, str):
            errors[name] = ["Not a valid string."]
        elif not value.strip():
            errors[name] = ["This field may not be blank."]
    if errors:
        raise ProblemError("; ".join(f"{name}: {sentences[0]}" for name, sentences in errors.items()), **errors)
    return fields["username"], fields["password"]
