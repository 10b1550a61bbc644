"""Keys of the HTTP API: creating, listing, revoking and verifying them, and their scopes.

A key is shown once, when it is made; the table `ops.api_keys` has its SHA-256, which is enough for 256 random bits. Not
here: requests (`guard.py`) and the command line, which both use this.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, func, insert, or_, select, update

from mini_platform.config.sections import is_loopback
from mini_platform.config.settings import Settings
from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse import audit
from mini_platform.warehouse.tables import api_keys

SCOPES = ("read", "write", "admin")
FORM = re.compile(r"(mp_[a-z0-9]{8})_[A-Za-z0-9_-]{43}")
"""A key: its prefix, which identifies it, and 256 random bits."""
NONE_YET = (
    "The API requires keys ({why}), but no valid key exists. Create one, for example: "
    "mini-platform key create me --scope admin --expires 90d"
)


class KeyRefusedError(Exception):
    """A key is unknown, expired or revoked; the message is a sentence."""


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret.

    Attributes:
        key_id: id in `ops.api_keys`.
        name: purpose of the key.
        prefix: first characters of the key.
        scopes: permissions: `read`, `write`, `admin`, or one of the first two in one dataset, as `read:DATASET`.
        created_at: time of creation; `expires_at`, `revoked_at` and `last_used_at` are times, too, or None for never.
        state: `valid`, `expired` or `revoked`.
    """

    key_id: int
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: dt.datetime
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    last_used_at: dt.datetime | None
    state: str

    def may(self, scope: str, dataset: Dataset | None = None) -> bool:
        """Return True if the key has this scope, in a dataset or outside of datasets. See `needed`."""
        wide = {"admin"} if dataset and dataset.is_personal else {"admin", scope}
        narrow = {f"{scope}:{dataset.name}"} if dataset else set()
        return not (wide | narrow).isdisjoint(self.scopes)


def needed(scope: str, dataset: Dataset | None = None) -> str:
    """Return the required scope: for personal data that of the dataset by name."""
    return f"{scope}:{dataset.name}" if dataset and dataset.is_personal else scope


def checked_scopes(scopes: Collection[str], datasets: Collection[str]) -> tuple[str, ...]:
    """Return scopes as they are stored.

    Raises:
        ValueError: no scope, or an unknown one; the message is a sentence.
    """
    if not scopes:
        example = next(iter(datasets), "DATASET")
        raise ValueError(f"A key needs a scope: read, write or admin, or in one dataset such as read:{example}.")
    for scope in scopes:
        action, colon, name = scope.partition(":")
        if action not in SCOPES or (colon and action == "admin"):
            raise ValueError(
                f"There is no scope {scope!r}: it should be read, write, admin, read:DATASET or write:DATASET."
            )
        if colon and name not in datasets:
            raise ValueError(f"Scope {scope!r}: there is no dataset {name!r}. The datasets are: {', '.join(datasets)}.")
    return tuple(dict.fromkeys(scopes))


def create(conn: Connection, name: str, scopes: Sequence[str], expires_at: dt.datetime | None = None) -> str:
    """Create a key and return it; it cannot be read again."""
    word = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
    key = f"mp_{word}_{secrets.token_urlsafe(32)}"
    values = {"name": name, "prefix": f"mp_{word}", "sha256": sha256(key), "scopes": list(scopes)}
    conn.execute(insert(api_keys).values(**values, expires_at=expires_at))
    audit.record(conn, "created a key", f"mp_{word}", scopes=list(scopes))
    return key


def listed(conn: Connection) -> list[ApiKey]:
    """Return all keys, oldest first."""
    return [_key(row) for row in conn.execute(KEYS.order_by(api_keys.c.key_id))]


def revoke(conn: Connection, prefix: str) -> ApiKey | None:
    """Revoke the key with this prefix and return it; None if there is none. Its sessions end with it."""
    revoked_at = func.coalesce(api_keys.c.revoked_at, func.now())
    conn.execute(update(api_keys).where(api_keys.c.prefix == prefix).values(revoked_at=revoked_at))
    key = by_prefix(conn, prefix)
    if key is not None:
        audit.record(conn, "revoked a key", prefix)
    return key


def verify(conn: Connection, text: str, name: str | None = None) -> ApiKey:
    """Return the key with this text.

    Args:
        conn: connection that may record the use of the key.
        text: the key.
        name: name that the key must have; None for any.

    Raises:
        KeyRefusedError: the key is unknown, expired or revoked.
    """
    form = FORM.fullmatch(text)
    row = conn.execute(KEYS.where(api_keys.c.prefix == form[1])).first() if form else None
    if row is None or not hmac.compare_digest(row.sha256, sha256(text)) or name not in (None, row.name):
        raise KeyRefusedError("This key is unknown.")
    return used(conn, row)


def by_prefix(conn: Connection, prefix: str) -> ApiKey | None:
    """Return the key with this prefix; None if there is none."""
    row = conn.execute(KEYS.where(api_keys.c.prefix == prefix)).first()
    return _key(row) if row else None


def refusal(conn: Connection, settings: Settings) -> str | None:
    """Return why the server must not start with these settings, as a sentence; None if it may."""
    valid = and_(
        api_keys.c.revoked_at.is_(None), or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > func.now())
    )
    if not settings.needs_keys or conn.scalar(select(exists().where(valid))):
        return None
    why = f"MINI_PLATFORM_HOST={settings.host}"
    if is_loopback(settings.host):
        why = "MINI_PLATFORM_API_" + (
            "AUTH=always" if settings.api_auth == "always" else f"PROXIES={settings.api_proxies}"
        )
    return NONE_YET.format(why=why)


KEYS = select(*api_keys.columns, (api_keys.c.expires_at <= func.now()).label("expired"), func.now().label("now"))


def _key(row: Row[Any]) -> ApiKey:
    state = "revoked" if row.revoked_at else "expired" if row.expired else "valid"
    times = (row.created_at, row.expires_at, row.revoked_at, row.last_used_at)
    return ApiKey(row.key_id, row.name, row.prefix, tuple(row.scopes), *times, state)


def used(conn: Connection, row: Row[Any]) -> ApiKey:
    """Return the key of a row of `KEYS`, and record its use, once a minute: a write per request would cost more than that.

    Raises:
        KeyRefusedError: the key is expired or revoked.
    """
    key = _key(row)
    if key.state != "valid":
        raise KeyRefusedError(f"This key is {key.state}.")
    minute = row.now.replace(second=0, microsecond=0)
    if key.last_used_at is None or key.last_used_at < minute:
        conn.execute(update(api_keys).where(api_keys.c.key_id == key.key_id).values(last_used_at=minute))
    return key


def sha256(secret: str) -> str:
    """Return the hash by which a key or a token is stored, whatever a client sends as one."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
