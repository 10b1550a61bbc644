"""What stands in a remote inbox, page by page, against what is remembered of it: set-based, so that 100,000 files cost seconds.

Here: the statements over `ops.inbox_files`. A file that did not change since the last look costs no write.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, func, or_, select, text, update

from mini_platform.declare.dataset import Dataset
from mini_platform.storage.names import SETTLE_SECONDS, display_name, unwanted
from mini_platform.storage.remote import Inbox, RemoteObject
from mini_platform.warehouse.tables import files, inbox_files

DONE = ("loaded", "refused")
"""Of these the ledger has said its last word: they may be tidied."""
FIRST_PAUSE, LONGEST_PAUSE = 30.0, 3600.0
"""Seconds that a file that cannot be taken is left alone: doubled each time, up to the second."""

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
       -- Why it is left alone is another reason today, or none; what could not be had or tidied has its own time for that.
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
    """Bring what is remembered of a part of an inbox to what stands there now.

    Args:
        conn: the caller's transaction.
        dataset: whose inbox.
        inbox: which.
        page: the files in that part.
        span: of names: after the first, up to the second, or to the end if that is empty.
        whole: files are seen as a whole, so that one look is enough.
        max_bytes: a larger file is left alone.
    """
    after, up_to = span
    values: dict[str, Any] = {"dataset": inbox.dataset, "inbox": inbox.name, "after": after, "up_to": up_to}
    values |= {"ends": not up_to, "whole": whole, "settle": SETTLE_SECONDS}
    values |= {"keys": [file.key for file in page], "seen": [file.signature for file in page]}
    values |= {"bytes": [file.size for file in page]}
    values |= {"skip_reason": [_why_left_alone(file, dataset, max_bytes) for file in page]}
    conn.execute(COMPARE, values)


def _why_left_alone(file: RemoteObject, dataset: Dataset, max_bytes: int) -> str | None:
    too_large = f"it is larger than the {max_bytes:,} bytes of MINI_PLATFORM_MAX_FILE_BYTES"
    kind = file.skip_reason or (too_large if file.size > max_bytes else None)
    return unwanted(os.fsdecode(file.key), kind, dataset.suffixes)


def name_in_ledger(inbox: Inbox, key: bytes) -> str:
    """The name under which a file is known: no file of another inbox, nor of the drop folder, has it."""
    return f"{inbox.name}/{display_name(os.fsdecode(key))}".replace("\0", r"\x00")


def _mine(inbox: Inbox) -> Any:
    tried_later = or_(inbox_files.c.retry_at <= func.clock_timestamp(), inbox_files.c.skip_reason.is_(None))
    return and_(inbox_files.c.dataset == inbox.dataset, inbox_files.c.inbox == inbox.name, tried_later)


def waiting(conn: Connection, inbox: Inbox, limit: int) -> Sequence[Row[Any]]:
    """Files to be landed, in the order of their names."""
    new = and_(inbox_files.c.still, inbox_files.c.signature.is_distinct_from(inbox_files.c.seen))
    return conn.execute(select(inbox_files).where(_mine(inbox), new).order_by(inbox_files.c.key).limit(limit)).all()


def growing(conn: Connection, inbox: Inbox) -> bool:
    """Whether a file waits for a second look."""
    young = (inbox_files.c.still.is_(False), inbox_files.c.skip_reason.is_(None))
    return conn.execute(select(inbox_files.c.key).where(_mine(inbox), *young).limit(1)).first() is not None


def to_tidy(conn: Connection, inbox: Inbox, limit: int) -> Sequence[Row[Any]]:
    """Landed files that did not change since and of which the ledger has said its last word; with its `status` and `error`."""
    done = select(inbox_files, files.c.status, files.c.error).join(files, files.c.file_id == inbox_files.c.file_id)
    unchanged = inbox_files.c.signature == inbox_files.c.seen
    return conn.execute(done.where(_mine(inbox), unchanged, files.c.status.in_(DONE)).limit(limit)).all()


def put_off(conn: Connection, row: Row[Any], why: str) -> None:
    """Leave a file alone for a while: it cannot be taken or tidied."""
    pause = min(FIRST_PAUSE * 2**row.tries, LONGEST_PAUSE)
    later = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, pause)
    conn.execute(update(inbox_files).where(same(row)).values(skip_reason=why, retry_at=later, tries=row.tries + 1))


def same(row: Row[Any]) -> Any:
    """The row of a file."""
    key = (inbox_files.c.dataset == row.dataset, inbox_files.c.inbox == row.inbox, inbox_files.c.key == row.key)
    return and_(*key)
