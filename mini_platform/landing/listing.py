"""The content of a remote inbox, page by page, against what is stored of it: set-based, so that 100,000 files cost seconds.

Here: the statements over `ops.inbox_files`. A file that did not change since the last listing costs no write.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select, text, update

from mini_platform.declare.dataset import Dataset
from mini_platform.storage.names import SETTLE_SECONDS, display_name, skip_reason
from mini_platform.storage.remote import Inbox, RemoteObject
from mini_platform.warehouse.tables import files, inbox_files

FINAL = ("loaded", "refused")
"""Final statuses in the ledger: files with these may be tidied."""
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 3600.0
"""Seconds until a file that could not be read or moved is tried again: doubled each time, up to the second."""

# One statement, of which all parts see the table as it was before: delete the rows of this span of names that the listing does
# not have any more, then insert what is new and update what changed. A file is landed only if it is `still`: it appears as a
# whole, or two listings, at least SETTLE_SECONDS apart, saw the same signature. The WHERE skips rows without a change, so that
# they cost no write; `seen_at` moves only with the signature. A write resets the pause and the count of tries.
COMPARE = text(
    """
    WITH page AS (
        SELECT * FROM unnest(cast(:keys AS bytea[]), cast(:seen AS text[]), cast(:bytes AS bigint[]),
                             cast(:skip_reason AS text[])) AS listed (key, seen, bytes, skip_reason)
    ), gone AS (
        DELETE FROM ops.inbox_files AS known
        WHERE dataset = :dataset AND inbox = :inbox AND key > :after AND (:ends OR key <= :up_to)
          AND NOT EXISTS (SELECT FROM page WHERE page.key = known.key)
    )
    INSERT INTO ops.inbox_files AS known (dataset, inbox, key, seen, bytes, seen_at, still, skip_reason)
    SELECT :dataset, :inbox, page.key, page.seen, page.bytes, clock_timestamp(), :whole, page.skip_reason
    FROM page LEFT JOIN ops.inbox_files AS before
      ON before.dataset = :dataset AND before.inbox = :inbox AND before.key = page.key
    WHERE before.key IS NULL OR before.seen <> page.seen
       OR NOT before.still AND before.seen_at < clock_timestamp() - make_interval(secs => :settle)
       -- The reason to skip it changed or is gone. A file that could not be read or tidied keeps its reason until retry_at.
       OR before.retry_at IS NULL AND before.skip_reason IS DISTINCT FROM page.skip_reason
          AND before.signature IS DISTINCT FROM before.seen
    ON CONFLICT (dataset, inbox, key) DO UPDATE SET
        seen = excluded.seen, bytes = excluded.bytes, skip_reason = excluded.skip_reason, retry_at = NULL, tries = 0,
        still = excluded.still OR known.seen = excluded.seen
            AND (known.still OR known.seen_at < clock_timestamp() - make_interval(secs => :settle)),
        seen_at = CASE WHEN known.seen = excluded.seen THEN known.seen_at ELSE excluded.seen_at END
    """
)


def compare(
    conn: Connection,
    dataset: Dataset,
    inbox: Inbox,
    page: Sequence[RemoteObject],
    span: tuple[bytes, bytes],
    *,
    whole: bool,
    max_bytes: int,
) -> None:
    """Update the stored rows of a part of an inbox to its current content.

    Args:
        conn: connection in the caller's transaction.
        dataset: dataset of the inbox.
        inbox: inbox that was listed.
        page: the files in that part.
        span: names of the part: after the first, up to the second, or to the end if that is empty.
        whole: True if files appear only when they are complete, so that one listing is enough.
        max_bytes: a larger file is skipped.
    """
    after, up_to = span
    values: dict[str, Any] = {"dataset": inbox.dataset, "inbox": inbox.name, "after": after, "up_to": up_to}
    values |= {"ends": not up_to, "whole": whole, "settle": SETTLE_SECONDS}
    values |= {"keys": [file.key for file in page], "seen": [file.signature for file in page]}
    values |= {"bytes": [file.size for file in page]}
    values |= {"skip_reason": [_skip_reason(file, dataset, max_bytes) for file in page]}
    conn.execute(COMPARE, values)


def _skip_reason(file: RemoteObject, dataset: Dataset, max_bytes: int) -> str | None:
    too_large = f"it is larger than the {max_bytes:,} bytes of MINI_PLATFORM_MAX_FILE_BYTES"
    reason = file.skip_reason or (too_large if file.size > max_bytes else None)
    return skip_reason(os.fsdecode(file.key), reason, dataset.suffixes)


def name_in_ledger(inbox: Inbox, key: bytes) -> str:
    """Return the name of a file in the ledger; no file of another inbox, nor of the drop folder, has the is_row_of."""
    return f"{inbox.name}/{display_name(os.fsdecode(key))}".replace("\0", r"\x00")


def _active_files(inbox: Inbox) -> Any:
    is_due = or_(inbox_files.c.retry_at <= func.clock_timestamp(), inbox_files.c.skip_reason.is_(None))
    return and_(inbox_files.c.dataset == inbox.dataset, inbox_files.c.inbox == inbox.name, is_due)


def waiting(conn: Connection, inbox: Inbox, limit: int) -> Sequence[Row[Any]]:
    """Return files to be landed, in the order of their names."""
    is_new = and_(inbox_files.c.still, inbox_files.c.signature.is_distinct_from(inbox_files.c.seen))
    return conn.execute(
        select(inbox_files).where(_active_files(inbox), is_new).order_by(inbox_files.c.key).limit(limit)
    ).all()


def growing(conn: Connection, inbox: Inbox) -> bool:
    """Return True if a file needs a second listing before it can be landed."""
    is_growing = (inbox_files.c.still.is_(False), inbox_files.c.skip_reason.is_(None))
    return conn.execute(select(inbox_files.c.key).where(_active_files(inbox), *is_growing).limit(1)).first() is not None


def to_tidy(conn: Connection, inbox: Inbox, limit: int) -> Sequence[Row[Any]]:
    """Return landed files with a final status that did not change since; with their `status` and `error` from the ledger."""
    statement = select(inbox_files, files.c.status, files.c.error).join(files, files.c.file_id == inbox_files.c.file_id)
    unchanged = inbox_files.c.signature == inbox_files.c.seen
    return conn.execute(statement.where(_active_files(inbox), unchanged, files.c.status.in_(FINAL)).limit(limit)).all()


def defer(conn: Connection, row: Row[Any], reason: str) -> None:
    """Skip a file until a later time: it cannot be read or tidied."""
    pause = min(FIRST_PAUSE * 2**row.tries, LONGEST_PAUSE)
    retry_at = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, pause)
    conn.execute(
        update(inbox_files).where(is_row_of(row)).values(skip_reason=reason, retry_at=retry_at, tries=row.tries + 1)
    )


def is_row_of(row: Row[Any]) -> Any:
    """Return the condition that selects the row of a file."""
    key = (inbox_files.c.dataset == row.dataset, inbox_files.c.inbox == row.inbox, inbox_files.c.key == row.key)
    return and_(*key)
