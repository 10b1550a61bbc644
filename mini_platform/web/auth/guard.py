"""Who gets in: what a key may do on which route, how often, and from where a browser may ask.

    keys.py         keys: made, listed, revoked, verified
    sessions.py     the cookie of the dashboard
    origins.py      Host headers and requests that other sites' pages send

A route, or its router, says what it takes: `dependencies=[Depends(allowed("read"))]`. On loopback nobody needs a key
unless the settings say so; then only names of this machine are answered to, and no other site's page can change anything.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import APIKeyHeader, HTTPBearer
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.datastructures import Headers

from mini_platform.config.settings import Settings
from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse import audit
from mini_platform.web.auth import keys, sessions
from mini_platform.web.auth.origins import SAFE, Origins, allow_origins, from_here
from mini_platform.web.auth.sessions import COOKIE, Cookie
from mini_platform.web.envelope import Envelope
from mini_platform.web.problems import ProblemError
from mini_platform.web.site import Site

Scope = Literal["read", "write", "admin"]
About = str | Callable[[Site], Sequence[Dataset]] | None
"""Which datasets a route is about: see `allowed`."""
REALM = 'Bearer realm="Mini Platform"'
HOW = "Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`; `mini-platform key create` makes one."


def protect(app: FastAPI, settings: Settings) -> None:
    """Stand before every route of the app. Routes are still to say what they take, by `allowed`."""
    app.state.guard = Guard(settings)
    allow_origins(app, settings)
    app.add_middleware(Origins, settings=settings)
    app.add_middleware(Envelope)


def allowed(scope: Scope, about: About = None) -> Allowed:
    """What a route takes, as a dependency: `Depends(allowed("read"))`.

    Args:
        scope: `read`, `write` or `admin`.
        about: name of the dataset that the route is about, or what returns several, each of which it takes; without it, that
            of the path parameter `dataset`, if it has one.
    """
    return Allowed(scope, about)


def may(request: Request, scope: Scope, dataset: Dataset) -> bool:
    """Whether who asks may do this in a dataset too: for routes that show several. They must take `allowed` themselves."""
    caller: keys.ApiKey | None = request.state.caller
    return caller is None or caller.may(scope, dataset)


def log_in(request: Request, key: str) -> Cookie:
    """Open a session with a key: `response.set_cookie(**log_in(request, key))`.

    Raises:
        ProblemError: the key lets nobody in (401), or too many were tried (429).
    """
    guard: Guard = request.app.state.guard
    found = guard.verified(request, key.strip())
    return sessions.make(guard.settings, found.key_id, secure=request.url.scheme == "https")


def log_out(request: Request) -> Cookie:
    """End the session of this browser: `response.set_cookie(**log_out(request))`."""
    return sessions.ended(secure=request.url.scheme == "https")


@dataclass(frozen=True)
class Allowed:
    """See `allowed`. As a dependency it sets `request.state.caller`: the key, or None where nobody needs one."""

    scope: Scope
    about: About = None

    async def __call__(
        self,
        request: Request,
        _bearer: Annotated[Any, Security(HTTPBearer(auto_error=False, description="A key"))],
        _key: Annotated[Any, Security(APIKeyHeader(name="x-api-key", auto_error=False, description="A key"))],
    ) -> None:
        """Let a request pass.

        Raises:
            ProblemError: it may not (401, 403), or too many came (429).
        """
        guard: Guard = request.app.state.guard
        if not hasattr(request.state, "caller"):
            caller = await run_in_threadpool(guard.caller, request) if guard.settings.needs_keys else None
            guard.count(request, caller)
            request.state.caller = caller
            audit.working_for.set(f"key {caller.prefix}" if caller else "anybody on this machine")
        if request.state.caller is None:
            return
        for dataset in self._datasets(request, guard.site(request)):
            if not request.state.caller.may(self.scope, dataset):
                needed = keys.needed(self.scope, dataset)
                raise ProblemError(
                    f"This key has not the scope {needed}, which this takes.",
                    HTTPStatus.FORBIDDEN,
                    {"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{needed}"'},
                )

    def _datasets(self, request: Request, site: Site) -> Sequence[Dataset | None]:
        """Those that the request is about; None for one that there is not, and where it is about none."""
        if callable(self.about):
            return self.about(site) or [None]
        return [site.datasets.get(self.about or request.path_params.get("dataset", ""))]


class Guard:
    """One per app, in `app.state.guard`: the settings, and who came how often within the last minute."""

    def __init__(self, settings: Settings) -> None:
        """Nobody came yet."""
        self.settings = settings
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._limits = {
            "read": RateLimitItemPerMinute(settings.api_reads),
            "write": RateLimitItemPerMinute(settings.api_writes),
            "failed": RateLimitItemPerMinute(settings.api_failed_keys),
        }

    @staticmethod
    def site(request: Request) -> Site:
        """What the app serves."""
        site: Site = request.app.state.site
        return site

    def caller(self, request: Request) -> keys.ApiKey:
        """The key that a request came with, in a header or by the session of a cookie.

        Raises:
            ProblemError: none, or one that lets nobody in (401); a cookie that another site may have sent (403).
            DatabaseAwayError: the database cannot be reached.
        """
        if text := presented(request.headers):
            return self.verified(request, text)
        key_id = sessions.opened_by(self.settings, request.cookies[COOKIE]) if COOKIE in request.cookies else None
        if key_id is None:
            raise ProblemError(f"This takes a key. {HOW}", HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": REALM})
        if request.method not in SAFE and not from_here(request.headers):
            raise ProblemError("A session changes things only from its own pages.", HTTPStatus.FORBIDDEN)
        try:
            with self.site(request).platform.engine.begin() as conn:
                return keys.by_id(conn, key_id)
        except keys.KeyRefusedError as error:
            raise _refused(error) from None

    def verified(self, request: Request, text: str) -> keys.ApiKey:
        """The key of this text.

        Raises:
            ProblemError: it lets nobody in (401), or too many such came from its address (429).
            DatabaseAwayError: the database cannot be reached.
        """
        try:
            with self.site(request).platform.engine.begin() as conn:
                return keys.verify(conn, text)
        except keys.KeyRefusedError as error:
            self._hit("failed", _address(request))
            raise _refused(error) from None

    def count(self, request: Request, caller: keys.ApiKey | None) -> None:
        """One more request.

        Raises:
            ProblemError: it is one too many (429).
        """
        kind = "read" if request.method in SAFE else "write"
        self._hit(kind, caller.prefix if caller else "", _address(request))

    def _hit(self, kind: str, *who: str) -> None:
        limit = self._limits[kind]
        if not self._limiter.hit(limit, kind, *who):
            seconds = max(1, math.ceil(self._limiter.get_window_stats(limit, kind, *who).reset_time - time.time()))
            what = {"read": "requests", "write": "changes", "failed": "keys that let nobody in"}[kind]
            raise ProblemError(
                f"Too many {what}: {limit.amount} a minute are taken. Try again in {seconds} s.",
                HTTPStatus.TOO_MANY_REQUESTS,
                {"Retry-After": str(seconds)},
            )


def presented(headers: Headers) -> str | None:
    """The key in the headers of a request, if there is one."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() in {"bearer", "token"} else headers.get("x-api-key")


def _refused(error: keys.KeyRefusedError) -> ProblemError:
    told = {"WWW-Authenticate": f'{REALM}, error="invalid_token"'}
    return ProblemError(f"{error} {HOW}", HTTPStatus.UNAUTHORIZED, told)


def _address(request: Request) -> str:
    """Of whom asks; of IPv6 the network, of which everybody has as many addresses as they like."""
    host = request.client.host if request.client else ""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return str(ip_network((int(address), 64), strict=False)) if isinstance(address, IPv6Address) else host
