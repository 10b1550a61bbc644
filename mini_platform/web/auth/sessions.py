"""Sessions of the dashboard: a random token in a cookie, and a row with its hash in `ops.sessions`.

A session ends by logging out, from the command line, with its key, or after `SESSION`; a copy of its cookie is then of no use.
"""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypedDict

from sqlalchemy import ColumnElement, Connection, and_, func, insert, select, update

from mini_platform.config.settings import Settings
from mini_platform.warehouse import audit
from mini_platform.warehouse.tables import api_keys, sessions
from mini_platform.web.auth import keys

COOKIE = "mini_platform_session"
"""The name of the cookie begins with this; the port follows, as browsers send a cookie to all ports of a host."""
SESSION = dt.timedelta(days=7)
"""Duration of a session."""


class Cookie(TypedDict):
    """Arguments of `Response.set_cookie`: `response.set_cookie(**cookie)`."""

    key: str
    value: str
    max_age: int
    path: str
    secure: bool
    httponly: bool
    samesite: Literal["lax"]


@dataclass(frozen=True)
class Session:
    """An open session: the id of its key, and its times."""

    key_id: int
    opened_at: dt.datetime
    last_used_at: dt.datetime | None
    expires_at: dt.datetime


def begin(conn: Connection, settings: Settings, key: keys.ApiKey, *, secure: bool) -> Cookie:
    """Open a session with a key and return its cookie.

    Args:
        conn: the caller's transaction.
        settings: settings of the site.
        key: the key.
        secure: True if the request came over https; the cookie is then sent over https only.
    """
    token = secrets.token_urlsafe(32)
    conn.execute(insert(sessions).values(key_id=key.key_id, sha256=keys.sha256(token), expires_at=func.now() + SESSION))
    with audit.on_behalf_of(f"key {key.prefix}"):
        audit.record(conn, "opened a session", key.prefix)
    return _cookie(settings, token, int(SESSION.total_seconds()), secure=secure)


def end(conn: Connection, settings: Settings, cookies: Mapping[str, str], *, secure: bool) -> Cookie:
    """End the session of a request, if it has one, and return the cookie that replaces its own."""
    for prefix in _end(conn, sessions.c.sha256 == keys.sha256(_token(settings, cookies))):
        with audit.on_behalf_of(f"key {prefix}"):
            audit.record(conn, "ended a session", prefix)
    return _cookie(settings, "", 0, secure=secure)


def end_all(conn: Connection, key: keys.ApiKey) -> int:
    """End all sessions of a key, and return their number."""
    ended = _end(conn, sessions.c.key_id == key.key_id)
    audit.record_all(conn, "ended a session", ended)
    return len(ended)


def key_of(conn: Connection, settings: Settings, cookies: Mapping[str, str]) -> keys.ApiKey | None:
    """Return the key of the session of a request, and record its use once a minute; None if it has no open session.

    Raises:
        KeyRefusedError: the key is expired or revoked, and so is the session.
    """
    token, session = _token(settings, cookies), sessions.c
    if not token:
        return None
    row = conn.execute(
        keys.KEYS.add_columns(session.session_id, session.last_used_at.label("session_used_at"))
        .join(sessions, session.key_id == api_keys.c.key_id)
        .where(IS_OPEN, session.sha256 == keys.sha256(token))
    ).first()
    if row is None:
        return None
    minute = row.now.replace(second=0, microsecond=0)
    if row.session_used_at is None or row.session_used_at < minute:
        conn.execute(update(sessions).where(session.session_id == row.session_id).values(last_used_at=minute))
    return keys.used(conn, row)


def listed(conn: Connection) -> list[Session]:
    """Return the open sessions of valid keys, oldest first."""
    valid = [key.key_id for key in keys.listed(conn) if key.state == "valid"]
    columns = (sessions.c[name] for name in Session.__dataclass_fields__)
    rows = select(*columns).where(IS_OPEN, sessions.c.key_id.in_(valid)).order_by(sessions.c.session_id)
    return [Session(*row) for row in conn.execute(rows)]


IS_OPEN = and_(sessions.c.ended_at.is_(None), sessions.c.expires_at > func.now())


def _end(conn: Connection, which: ColumnElement[bool]) -> list[str]:
    """End open sessions, and return the prefixes of their keys."""
    ended = update(sessions).where(IS_OPEN, which, sessions.c.key_id == api_keys.c.key_id)
    return list(conn.execute(ended.values(ended_at=func.now()).returning(api_keys.c.prefix)).scalars())


def _token(settings: Settings, cookies: Mapping[str, str]) -> str:
    return cookies.get(_name(settings), "")


def _name(settings: Settings) -> str:
    return f"{COOKIE}_{settings.api_port}"


def _cookie(settings: Settings, value: str, max_age: int, *, secure: bool) -> Cookie:
    return Cookie(
        key=_name(settings), value=value, max_age=max_age, path="/", secure=secure, httponly=True, samesite="lax"
    )
