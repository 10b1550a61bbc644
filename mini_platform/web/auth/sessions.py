"""Sessions of the dashboard: a signed cookie with the id of the key that opened the session.

Sessions are not stored: one ends with its key, after `SESSION_SECONDS`, or when the browser deletes the cookie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict

from itsdangerous import BadSignature, URLSafeTimedSerializer

from mini_platform.config.settings import Settings
from mini_platform.web.secret import secret

COOKIE = "mini_platform_session"
"""The name of the cookie begins with this; the port follows, as browsers send a cookie to all ports of a host."""
SESSION_SECONDS = 7 * 86_400


class Cookie(TypedDict):
    """Arguments of `Response.set_cookie`: `response.set_cookie(**cookie)`."""

    key: str
    value: str
    max_age: int
    path: str
    secure: bool
    httponly: bool
    samesite: Literal["lax"]


def make(settings: Settings, key_id: int, *, secure: bool) -> Cookie:
    """Return the cookie of a session opened with a key.

    Args:
        settings: settings of the site.
        key_id: id of the key.
        secure: True if the request came over https; the cookie is then sent over https only.
    """
    return _cookie(settings, _signer(settings).dumps(key_id), SESSION_SECONDS, secure=secure)


def ended(settings: Settings, *, secure: bool) -> Cookie:
    """Return the cookie that replaces another one and expires at once."""
    return _cookie(settings, "", 0, secure=secure)


def opened_by(settings: Settings, cookies: Mapping[str, str]) -> int | None:
    """Return the id of the key that opened a session; None if there is no cookie, or it is invalid or expired."""
    try:
        key_id = _signer(settings).loads(cookies.get(_name(settings), ""), max_age=SESSION_SECONDS)
    except BadSignature:
        return None
    return key_id if isinstance(key_id, int) else None


def _name(settings: Settings) -> str:
    return f"{COOKIE}_{settings.api_port}"


def _cookie(settings: Settings, value: str, max_age: int, *, secure: bool) -> Cookie:
    return Cookie(
        key=_name(settings), value=value, max_age=max_age, path="/", secure=secure, httponly=True, samesite="lax"
    )


def _signer(settings: Settings) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(secret(settings), salt=COOKIE)
