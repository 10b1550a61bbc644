"""Sessions of the dashboard: a cookie that says by which key somebody logged in, signed so that nobody can make one up.

Nothing is kept of a session: it ends with its key, after `SESSION_SECONDS`, or when the browser drops the cookie.
"""

from __future__ import annotations

import secrets
from typing import Literal, TypedDict

from itsdangerous import BadSignature, URLSafeTimedSerializer

from mini_platform.config.settings import Settings
from mini_platform.rows.protection import kept_secret

COOKIE = "mini_platform_session"
SESSION_SECONDS = 7 * 86_400


class Cookie(TypedDict):
    """As `Response.set_cookie` takes it: `response.set_cookie(**cookie)`."""

    key: str
    value: str
    max_age: int
    path: str
    secure: bool
    httponly: bool
    samesite: Literal["lax"]


def make(settings: Settings, key_id: int, *, secure: bool) -> Cookie:
    """The cookie of a session that a key opened.

    Args:
        settings: of the site.
        key_id: of the key.
        secure: whether it is asked over https, and may be sent over https only.
    """
    return _cookie(_signer(settings).dumps(key_id), SESSION_SECONDS, secure=secure)


def ended(*, secure: bool) -> Cookie:
    """The cookie that takes the place of one, and goes at once."""
    return _cookie("", 0, secure=secure)


def opened_by(settings: Settings, value: str) -> int | None:
    """Id of the key that opened the session of a cookie; None if nobody here made it, or too long ago."""
    try:
        key_id = _signer(settings).loads(value, max_age=SESSION_SECONDS)
    except BadSignature:
        return None
    return key_id if isinstance(key_id, int) else None


def _cookie(value: str, max_age: int, *, secure: bool) -> Cookie:
    return Cookie(key=COOKIE, value=value, max_age=max_age, path="/", secure=secure, httponly=True, samesite="lax")


def _signer(settings: Settings) -> URLSafeTimedSerializer:
    given = settings.web_secret
    secret = given.get_secret_value() if given else kept_secret(settings.home / "web.secret", secrets.token_hex(32))
    return URLSafeTimedSerializer(secret, salt=COOKIE)
