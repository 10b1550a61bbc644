"""The audit trail `ops.audit`: every action and its actor, written in the transaction of the action.

Rows are added and never changed or removed: a trigger enforces it, and the role that loads may only insert. Names of files,
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

current_actor: ContextVar[str | None] = ContextVar("current_actor", default=None)
"""Actor for whom this thread or task works, such as `run …` or `key …`; None: the user of the operating system."""


@contextmanager
def on_behalf_of(actor: str) -> Iterator[None]:
    """Record the actions of this thread or task in the body as those of an actor."""
    token = current_actor.set(actor)
    try:
        yield
    finally:
        current_actor.reset(token)


def record(
    conn: Connection, action: str, subject: object = None, *, dataset: str | None = None, **details: Any
) -> None:
    """Record an action in the caller's transaction.

    Args:
        conn: the caller's transaction.
        action: the action in the past tense: `revoked a key`.
        subject: object of the action: an id, the prefix of a key.
        dataset: name of the dataset concerned.
        **details: figures and other details.
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
    """Record an action for each of several subjects; by `actor`, if that is not the one for whom the thread works."""
    row = {"actor": actor or current_actor.get() or f"user {_user()}", "action": action, "dataset": dataset}
    rows = [{**row, "subject": None if s is None else str(s), "details": details} for s in subjects]
    if rows:
        conn.execute(insert(audit), rows)


def _user() -> str:
    """Return the name of the user of the operating system; its number if it has no name, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError: from Python 3.13 on
        return str(os.getuid())
