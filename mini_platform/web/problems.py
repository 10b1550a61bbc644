"""Errors as `application/problem+json`, with a sentence that explains them and gives advice.

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
from mini_platform.warehouse.logins import ReadingRefusedError

MEDIA_TYPE = "application/problem+json"
CANCELED = "57014"
"""SQLSTATE of a statement that exceeded its time limit."""
DISK_FULL = "53100"


class ProblemError(Exception):
    """An error that is answered as a problem.

    Attributes:
        status: status of the response.
        detail: explanation as a sentence.
        headers: headers of the response.
        more: further members of the problem document.
    """

    status = HTTPStatus.BAD_REQUEST

    def __init__(
        self, detail: str, status: HTTPStatus | None = None, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        """Create an error; see the attributes."""
        super().__init__(detail)
        self.status = status or self.status
        self.detail = detail
        self.headers = headers
        self.more = more


class NotFoundError(ProblemError):
    """The requested resource does not exist."""

    status = HTTPStatus.NOT_FOUND


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> JSONResponse:
    """Return the response of a problem."""
    return JSONResponse(_content(status, detail, **more), status, headers, MEDIA_TYPE)


def _content(status: int, detail: str, **more: Any) -> dict[str, Any]:
    return {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}


class Problem(BaseModel):
    """An error response, by RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="Explanation of this error, as a sentence")


EXAMPLES: Mapping[int, str] = {
    400: "limit: 0 is not 1 to 1000.",
    401: "A key is required. Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.",
    403: "This key lacks the scope read:DATASET, which is required here.",
    404: "There is no dataset 'NAME'.",
    408: "The request body arrives too slowly.",
    413: "The body is too large: the limit is 1,073,741,824 bytes.",
    415: "Files of DATASET have names that end in .csv, .csv.gz.",
    421: "The host name 'example.com' is not allowed. Use one of 127.0.0.1, localhost.",
    422: "offset: Input should be greater than or equal to 0",
    429: "Too many requests: the limit is 6000 a minute. Try again in 12 s.",
    503: "The database cannot be reached; try again later.",
    507: "The disk for raw files is full; send the file again later.",
}
"""Example details by status, for the documentation; `openapi.py` inserts the names of datasets."""


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return problems of a route for its documentation; those of all routes are added by `openapi.py`."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema, "example": _content(status, EXAMPLES[status])}},
        }
        for status in statuses
    }


def handle_problems(app: FastAPI) -> None:
    """Answer every error of an app as a problem."""
    for kind, handler in HANDLERS.items():
        app.exception_handler(kind)(handler)


async def response_to(request: Request, error: Exception) -> JSONResponse:
    """Return the response to an error, made by the handler of its class or of the nearest base class."""
    return await next(HANDLERS[kind] for kind in type(error).__mro__ if kind in HANDLERS)(request, error)


async def _problem(_: Request, error: ProblemError) -> JSONResponse:
    return problem(error.status, error.detail, error.headers, **error.more)


async def _http(_: Request, error: HTTPException) -> JSONResponse:
    return problem(error.status_code, str(error.detail), dict(error.headers or {}))


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """Answer a request that FastAPI cannot parse: each parameter with its error."""
    errors = [{"parameter": ".".join(map(str, e["loc"][1:])), "message": e["msg"]} for e in error.errors()]
    detail = "; ".join(f"{e['parameter']}: {e['message']}" for e in errors)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


async def _away(_: Request, __: Exception) -> JSONResponse:
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "The database cannot be reached; try again later.", {"Retry-After": "5"}
    )


async def _reading_refused(_: Request, error: ReadingRefusedError) -> JSONResponse:
    logging.getLogger(__name__).error("%s", error)
    detail = (
        "Nothing is read, as the login for it is refused or may do too much; `mini-platform doctor` says what to do."
    )
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "30"})


async def _busy(_: Request, __: Exception) -> JSONResponse:
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Too many requests read the database at the same time; try again later.",
        {"Retry-After": "5"},
    )


def answers_late(error: Exception) -> bool:
    """Return True if the database is reachable, but a statement timed out or no connection was free."""
    return isinstance(error, PoolTimeoutError) or getattr(getattr(error, "orig", None), "pgcode", None) == CANCELED


async def _raw_store_away(_: Request, __: RawStoreAwayError) -> JSONResponse:
    detail = "The store of raw files cannot be reached; try again later."
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "30"})


async def _operational(request: Request, error: OperationalError) -> JSONResponse:
    if getattr(error.orig, "pgcode", None) == DISK_FULL:
        logging.getLogger(__name__).error("%s %s failed: %s", request.method, request.url.path, error.orig)
        return problem(HTTPStatus.INSUFFICIENT_STORAGE, "The disk of the database is full; try again later.")
    if answers_late(error):
        return problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The query takes too long; narrow it with filters on indexed columns.",
        )
    return await _away(request, error)


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    """Answer an unexpected exception, and log it with its traceback."""
    logging.getLogger(__name__).error("%s %s failed", request.method, request.url.path, exc_info=error)
    route = getattr(request.scope.get("route"), "path", "other")
    request_id = str(request.scope.get("state", {}).get("request_id", ""))
    dsn = request.app.state.site.settings.sentry_dsn
    sentry.capture(dsn, error, request_id=request_id, route=f"{request.method} {route}")
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error; the server log has the details.")


AWAY = (DatabaseAwayError, OperationalError, PoolTimeoutError)
"""Exceptions raised if the database does not answer."""
HANDLERS: Mapping[type[Exception], Callable[[Request, Any], Awaitable[JSONResponse]]] = {
    ProblemError: _problem,
    HTTPException: _http,
    RequestValidationError: _invalid,
    ReadingRefusedError: _reading_refused,
    DatabaseAwayError: _away,
    RawStoreAwayError: _raw_store_away,
    PoolTimeoutError: _busy,
    OperationalError: _operational,
    Exception: _unexpected,
}
