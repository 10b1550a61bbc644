"""Errors as programs and people read them: `application/problem+json`, with a sentence that says what to do.

https://www.rfc-editor.org/rfc/rfc9457
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from mini_platform.config import sentry
from mini_platform.storage.errors import RawStoreAwayError
from mini_platform.warehouse.connection import DatabaseAwayError

MEDIA_TYPE = "application/problem+json"
CANCELED = "57014"
"""SQLSTATE of a statement that ran into its time limit."""


class ProblemError(Exception):
    """What a request asked for cannot be had.

    Attributes:
        status: of the response.
        detail: a sentence for people.
        headers: of the response.
        more: further members of the problem, for programs.
    """

    status = HTTPStatus.BAD_REQUEST

    def __init__(
        self, detail: str, status: HTTPStatus | None = None, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        """See the attributes."""
        super().__init__(detail)
        self.status = status or self.status
        self.detail = detail
        self.headers = headers
        self.more = more


class NotFoundError(ProblemError):
    """There is no such thing."""

    status = HTTPStatus.NOT_FOUND


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> JSONResponse:
    """The response of a problem."""
    return JSONResponse(_content(status, detail, **more), status, headers, MEDIA_TYPE)


def _content(status: int, detail: str, **more: Any) -> dict[str, Any]:
    return {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}


class Problem(BaseModel):
    """What went wrong, by RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="A sentence for people")


EXAMPLES: Mapping[int, str] = {
    400: "limit: 0 is not 1 to 1000.",
    401: "This takes a key. Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.",
    403: "This key has not the scope read:DATASET, which this takes.",
    404: "There is no dataset 'NAME'.",
    408: "The body comes too slowly.",
    413: "At most 1,073,741,824 bytes can be sent at once.",
    415: "Files of DATASET have names that end in .csv, .csv.gz.",
    421: "This server is not called 'example.com'. Ask it by one of 127.0.0.1, localhost.",
    422: "offset: Input should be greater than or equal to 0",
    429: "Too many requests: 6000 a minute are taken. Try again in 12 s.",
    503: "The database cannot be reached; try again later.",
    507: "The disk that files are kept on is full: send it again later.",
}
"""What a problem may say, for the documentation; `openapi.py` names the datasets that there are."""


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Problems that a route answers with, for its documentation; those of all routes are added by `openapi.py`."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema, "example": _content(status, EXAMPLES[status])}},
        }
        for status in statuses
    }


def handle_problems(app: FastAPI) -> None:
    """Let the app answer every error as a problem."""
    for kind, handler in HANDLERS.items():
        app.exception_handler(kind)(handler)


async def _problem(_: Request, error: ProblemError) -> JSONResponse:
    return problem(error.status, error.detail, error.headers, **error.more)


async def _http(_: Request, error: HTTPException) -> JSONResponse:
    return problem(error.status_code, str(error.detail), dict(error.headers or {}))


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """What FastAPI could not read of a request: each parameter with what is wrong about it."""
    errors = [{"parameter": ".".join(map(str, e["loc"][1:])), "message": e["msg"]} for e in error.errors()]
    detail = "; ".join(f"{e['parameter']}: {e['message']}" for e in errors)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


async def _away(_: Request, __: Exception) -> JSONResponse:
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "The database cannot be reached; try again later.", {"Retry-After": "5"}
    )


async def _busy(_: Request, __: Exception) -> JSONResponse:
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "More is read at the same time than the database can answer; try again later.",
        {"Retry-After": "5"},
    )


def answers_late(error: Exception) -> bool:
    """Whether the database is there, but a statement ran into its time limit or found no connection."""
    return isinstance(error, PoolTimeoutError) or getattr(getattr(error, "orig", None), "pgcode", None) == CANCELED


async def _raw_store_away(_: Request, __: RawStoreAwayError) -> JSONResponse:
    said = "The store that files are kept in cannot be reached; try again later."
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, said, {"Retry-After": "30"})


async def _operational(request: Request, error: OperationalError) -> JSONResponse:
    if answers_late(error):
        return problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "This takes too long to compute: ask for less, by filters on indexed columns.",
        )
    return await _away(request, error)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    """A mistake of ours: the sentence says so, the log has the trace."""
    logging.getLogger(__name__).error("%s %s failed", request.method, request.url.path, exc_info=error)
    route = getattr(request.scope.get("route"), "path", "other")
    request_id = str(request.scope.get("state", {}).get("request_id", ""))
    dsn = request.app.state.site.settings.sentry_dsn
    sentry.capture(dsn, error, request_id=request_id, route=f"{request.method} {route}")
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "The server made a mistake; its log says which.")


AWAY = (DatabaseAwayError, OperationalError, PoolTimeoutError)
"""What is raised where the database does not answer."""
HANDLERS: Mapping[type[Exception], Callable[[Request, Any], Awaitable[JSONResponse]]] = {
    ProblemError: _problem,
    HTTPException: _http,
    RequestValidationError: _invalid,
    DatabaseAwayError: _away,
    RawStoreAwayError: _raw_store_away,
    PoolTimeoutError: _busy,
    OperationalError: _operational,
    Exception: _unexpected,
}
