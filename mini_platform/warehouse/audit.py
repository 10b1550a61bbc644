"""The audit trail `ops.audit`: who did what, written in the transaction that does it.

Rows are added and never changed or removed: a trigger sees to it, and the role that loads may only insert. Names of files,
values of rows and secrets do not belong in it: the ledger has the name of each file.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Connection, insert

from mini_platform.warehouse.tables import audit

working_for: ContextVar[str | None] = ContextVar("working_for", default=None)
"""On whose behalf this thread or task works, such as `run …` or `key …`; None: the user of the operating system."""


@contextmanager
def on_behalf_of(actor: str) -> Iterator[None]:
    """Have what is done inside, by this thread or task, done on somebody's behalf."""
    before = working_for.set(actor)
    try:
        yield
    finally:
        working_for.reset(before)


def record(
    conn: Connection, action: str, subject: object = None, *, dataset: str | None = None, **details: Any
) -> None:
    """Write down that something is done in the caller's transaction.

    Args:
        conn: the caller's transaction.
        action: what, in the past tense: `revoked a key`.
        subject: to what: an id, the prefix of a key.
        dataset: whose.
        **details: figures and the like.
    """
    record_all(conn, action, [subject], dataset=dataset, **details)


def record_all(
    conn: Connection,
    action: str,
    subjects: Sequence[object],
    *,
    dataset: str | None = None,
    actor: str | None = None,
    **details: Any,
) -> None:
    """The same of several subjects; with `actor`, where somebody else does it than the thread works for."""
    row = {"actor": actor or working_for.get() or f"user {_user()}", "action": action, "dataset": dataset}
    rows = [{**row, "subject": None if s is None else str(s), "details": details} for s in subjects]
    if rows:
        conn.execute(insert(audit), rows)


def _user() -> str:
    """Name of the user of the operating system; its number where it has no name, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError: from Python 3.13 on
        return str(os.getuid())
