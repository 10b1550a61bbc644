"""Access control: scopes of routes, rate limits, and origins of browsers.

    keys.py         keys: made, listed, revoked, verified
    sessions.py     sessions of the dashboard: opened, listed, ended
    origins.py      Host headers and requests that other sites' pages send
    gate.py         the same for an app that is not ours: Dagster's

A route or its router declares its scope: `dependencies=[Depends(allowed("read"))]`. On loopback no key is required unless the
settings require it; then only host names of this machine are accepted, and pages of other sites cannot change anything.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import APIKeyHeader, HTTPBearer
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from sqlalchemy import Engine
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from mini_platform.config.settings import Settings
from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse import audit
from mini_platform.web.auth import keys, sessions
from mini_platform.web.auth.origins import SAFE, Origins, allow_origins, is_same_origin
from mini_platform.web.auth.sessions import Cookie
from mini_platform.web.envelope import Envelope, no_store
from mini_platform.web.problems import ProblemError
from mini_platform.web.serving import client_network
from mini_platform.web.site import Site

Scope = Literal["read", "write", "admin"]
About = str | Callable[[Site], Sequence[Dataset]] | None
"""Datasets that a route is about: see `allowed`."""
REALM = 'Bearer realm="Mini Platform"'
HOW = "Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`; create one with `mini-platform key create`."


def protect(app: FastAPI, settings: Settings) -> None:
    """Guard every route of the app. Each route must still declare its scope by `allowed`."""
    app.state.guard = Guard(settings)
    allow_origins(app, settings)
    app.add_middleware(Origins, settings=settings, trusted=settings.api_origins)
    app.add_middleware(Envelope)


def allowed(scope: Scope, about: About = None, *, masks: bool = False, several: bool = False) -> Allowed:
    """Return the scope that a route requires, as a dependency: `Depends(allowed("read"))`.

    Args:
        scope: `read`, `write` or `admin`.
        about: name of the dataset that the route is about, or a function that returns several, for all of which the scope is
            required; the default is the path parameter `dataset`, if there is one.
        masks: True if the route masks personal data unless `personal.reveals`: then the scope without the name of a dataset
            suffices, too. A key that is sent counts even where none is required, as it may be one for personal data.
        several: True if a route without the name of a dataset is about those only that are `readable`, or that it requires by
            `require`: then the scope in one dataset suffices.
    """
    return Allowed(scope, about, masks, several)


def may(request: Request, scope: Scope, dataset: Dataset | None = None) -> bool:
    """Return True if the caller has this scope in a dataset, or outside of datasets. Nobody has one before `allowed` ran."""
    guard: Guard = request.app.state.guard
    caller: keys.ApiKey | None = getattr(request.state, "caller", None)
    return caller.may(scope, dataset) if caller else not guard.settings.needs_keys


def require(request: Request, scope: Scope, dataset: Dataset | None = None) -> None:
    """Refuse callers without this scope in a dataset, or outside of datasets.

    Raises:
        ProblemError: the caller lacks the scope (403).
    """
    if not may(request, scope, dataset):
        needed = keys.needed(scope, dataset)
        raise ProblemError(
            f"This key lacks the scope {needed}, which is required here.",
            HTTPStatus.FORBIDDEN,
            {"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{needed}"'},
        )


def readable(request: Request, name: str | None = None) -> dict[str, Dataset]:
    """Return the datasets that the caller may read, by name, or only the one of this name: pages about several read these only.

    A select from a table of several datasets takes its condition from here. Parameters of the request are further conditions.

    Raises:
        NotFoundError: no dataset has this name.
        ProblemError: the caller may not read it (403), or it cannot be used.
    """
    site = Guard.site(request)
    if name:
        require(request, "read", site.datasets.get(name))
        return {name: site.dataset(name)}
    return {known: one for known, one in site.datasets.items() if may(request, "read", one)}


def log_in(request: Request, key: str) -> Cookie:
    """Open a session with a key instead of that of this browser: `response.set_cookie(**log_in(request, key))`.

    Raises:
        ProblemError: the key is invalid (401), or too many invalid keys were tried (429).
    """
    guard, engine = _guard(request)
    api_key = guard.verified(request, engine, key.strip())
    secure = request.url.scheme == "https"
    with engine.begin() as conn:
        sessions.end(conn, guard.settings, request.cookies, secure=secure)
        return sessions.begin(conn, guard.settings, api_key, secure=secure)


def is_key(request: Request, name: str, key: str) -> bool:
    """Return True if there is a valid key with this name and text.

    Raises:
        ProblemError: too many invalid keys were tried (429).
    """
    guard, engine = _guard(request)
    no_store()
    try:
        guard.verified(request, engine, key, name)
    except ProblemError as error:
        if error.status != HTTPStatus.UNAUTHORIZED:
            raise
        return False
    return True


def log_out(request: Request) -> Cookie:
    """End the session of this browser: `response.set_cookie(**log_out(request))`."""
    guard, engine = _guard(request)
    with engine.begin() as conn:
        return sessions.end(conn, guard.settings, request.cookies, secure=request.url.scheme == "https")


def _guard(request: Request) -> tuple[Guard, Engine]:
    return request.app.state.guard, Guard.site(request).platform.engine


@dataclass(frozen=True)
class Allowed:
    """The dependency that `allowed` returns. It sets `request.state.caller`: the key, or None if no key is required."""

    scope: Scope
    about: About = None
    masks: bool = False
    several: bool = False

    async def __call__(
        self,
        request: Request,
        _bearer: Annotated[Any, Security(HTTPBearer(auto_error=False, description="An API key"))],
        _key: Annotated[Any, Security(APIKeyHeader(name="x-api-key", auto_error=False, description="An API key"))],
    ) -> None:
        """Check the key and the rate limit of a request.

        Raises:
            ProblemError: access is refused (401, 403), or there are too many requests (429).
        """
        guard: Guard = request.app.state.guard
        if not hasattr(request.state, "caller"):
            has_key = guard.settings.needs_keys or (self.masks and presented(request.headers) is not None)
            caller = await run_in_threadpool(_caller, request) if has_key else None
            guard.count(request, caller)
            request.state.caller = caller
            audit.current_actor.set(f"key {caller.prefix}" if caller else "anybody on this machine")
        caller = request.state.caller
        if caller is None or (self.masks and caller.may(self.scope)):
            return
        site = guard.site(request)
        is_several = self.several and "dataset" not in request.path_params
        if is_several and any(caller.may(self.scope, dataset) for dataset in site.datasets.values()):
            return
        for dataset in self._datasets(request, site):
            require(request, self.scope, dataset)

    def _datasets(self, request: Request, site: Site) -> Sequence[Dataset | None]:
        """Return the datasets of the request; None for an unknown dataset, or if it is about none."""
        if callable(self.about):
            return self.about(site) or [None]
        return [site.datasets.get(self.about or request.path_params.get("dataset", ""))]


class Guard:
    """The settings and rate limits of an app, in `app.state.guard`."""

    def __init__(self, settings: Settings) -> None:
        """Start with empty rate limits."""
        self.settings = settings
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._once = RateLimitItemPerMinute(1)
        self._limits = {
            "read": RateLimitItemPerMinute(settings.api_reads),
            "write": RateLimitItemPerMinute(settings.api_writes),
            "failed": RateLimitItemPerMinute(settings.api_failed_keys),
        }

    @staticmethod
    def site(request: Request) -> Site:
        """Return the site that the app serves."""
        site: Site = request.app.state.site
        return site

    def caller(self, connection: HTTPConnection, engine: Engine) -> keys.ApiKey:
        """Return the key of a request or a WebSocket of any app, from a header or from the session of a cookie.

        Raises:
            ProblemError: no key, or an invalid one (401); a cookie that another site may have sent (403).
            DatabaseAwayError: the database cannot be reached.
        """
        if text := presented(connection.headers):
            return self.verified(connection, engine, text)
        try:
            with engine.begin() as conn:
                key = sessions.key_of(conn, self.settings, connection.cookies)
        except keys.KeyRefusedError as error:
            raise _refused(error) from None
        no_store()  # After logging out, the button Back shows nothing.
        if key is None:
            raise ProblemError(f"A key is required. {HOW}", HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": REALM})
        is_safe = connection.scope.get("method") in SAFE  # A WebSocket has no method, and may make changes.
        if not is_safe and not is_same_origin(connection.headers):
            raise ProblemError("A session can make changes only from pages of this site.", HTTPStatus.FORBIDDEN)
        return key

    def verified(self, connection: HTTPConnection, engine: Engine, text: str, name: str | None = None) -> keys.ApiKey:
        """Return the key with this text, and with this name unless it is None.

        Raises:
            ProblemError: the key is invalid (401), or too many invalid ones came from the address (429).
            DatabaseAwayError: the database cannot be reached.
        """
        try:
            with engine.begin() as conn:
                return keys.verify(conn, text, name)
        except keys.KeyRefusedError as error:
            self._hit("failed", _address(connection))
            raise _refused(error) from None

    def count(self, request: Request, caller: keys.ApiKey | None) -> None:
        """Count a request.

        Raises:
            ProblemError: the limit is exceeded (429).
        """
        kind = "read" if request.method in SAFE else "write"
        self._hit(kind, caller.prefix if caller else "", _address(request))

    def once_a_minute(self, act: Callable[[], None], *what: str) -> None:
        """Do something, unless this was done in the last minute; what fails was not done."""
        if self._limiter.test(self._once, *what):
            act()
            self._limiter.hit(self._once, *what)

    def _hit(self, kind: str, *who: str) -> None:
        limit = self._limits[kind]
        if not self._limiter.hit(limit, kind, *who):
            seconds = max(1, math.ceil(self._limiter.get_window_stats(limit, kind, *who).reset_time - time.time()))
            noun = {"read": "requests", "write": "changes", "failed": "invalid keys"}[kind]
            raise ProblemError(
                f"Too many {noun}: the limit is {limit.amount} a minute. Try again in {seconds} s.",
                HTTPStatus.TOO_MANY_REQUESTS,
                {"Retry-After": str(seconds)},
            )


def presented(headers: Headers) -> str | None:
    """Return the key in the headers of a request, or None."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() in {"bearer", "token"} else headers.get("x-api-key")


def _refused(error: keys.KeyRefusedError) -> ProblemError:
    headers = {"WWW-Authenticate": f'{REALM}, error="invalid_token"'}
    return ProblemError(f"{error} {HOW}", HTTPStatus.UNAUTHORIZED, headers)


def _caller(request: Request) -> keys.ApiKey:
    guard, engine = _guard(request)
    return guard.caller(request, engine)


def _address(connection: HTTPConnection) -> str:
    return client_network(connection.client.host if connection.client else "")
