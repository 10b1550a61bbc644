"""The audit trail `ops.audit`: who did what, written in the transaction that does it.

Rows are added and never changed or removed: a trigger sees to it, and the role that loads may only insert. Names of files,
values of rows and secrets do not belong in it: the ledger has the name of each file.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Connection, insert

from mini_platform.warehouse.tables import audit

actor: ContextVar[str | None] = ContextVar("actor", default=None)
"""On whose behalf this thread or task works: `run …` or `key …`; None: the user of the operating system."""


@contextmanager
def acting(who: str) -> Iterator[None]:
    """Let what the body does be put down to somebody."""
    token = actor.set(who)
    try:
        yield
    finally:
        actor.reset(token)


def record(
    conn: Connection, action: str, subject: object = None, *, dataset: str | None = None, **details: Any
) -> None:
    """Write down that something is done in the caller's transaction.

    Args:
        conn: the caller's transaction.
        action: what, in the past tense: `revoked`.
        subject: to what: an id, the prefix of a key.
        dataset: whose.
        **details: figures and the like.
    """
    record_all(conn, [{"action": action, "subject": subject, "dataset": dataset, "details": details}])


def record_all(conn: Connection, done: Sequence[Mapping[str, Any]], who: str | None = None) -> None:
    """The same of many things, each with `action`, `subject`, `dataset` and `details`; `who` where that is not the actor."""
    if not done:
        return
    by = who or actor.get() or f"user {_user()}"
    rows = [{**row, "actor": by, "subject": None if row["subject"] is None else str(row["subject"])} for row in done]
    conn.execute(insert(audit), rows)


def _user() -> str:
    """Name of the user of the operating system; its number where it has no name, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError: from Python 3.13 on
        import os

        return str(os.getuid())
