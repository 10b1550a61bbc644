"""Visits to remote inboxes, each in one process at a time and bounded in requests and time.

The next visit continues where the last one stopped: its state is in `ops.inboxes` and `ops.inbox_files`. Each runs in a
thread of its own, so that an inbox that is slow or does not answer delays neither the drop folder nor another inbox. Errors
of an inbox are in `ops.inboxes`, as sentences.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context

from sqlalchemy import Engine

from mini_platform.declare.dataset import Dataset
from mini_platform.landing.inbox_state import SECOND_LOOK, Lease, VisitOvertakenError
from mini_platform.landing.inbox_work import Visit, Work
from mini_platform.storage.connect import connect
from mini_platform.storage.errors import InboxError, NoRoomError, ObjectError, RawStoreAwayError
from mini_platform.storage.remote import Inbox
from mini_platform.storage.store import RawStore
from mini_platform.warehouse import ledger


def visit(
    engine: Engine,
    dataset: Dataset,
    inbox: Inbox,
    store: RawStore,
    *,
    max_bytes: int,
    at_once: bool = False,
) -> Visit | None:
    """Visit an inbox, unless another process does, or it is not due.

    Errors of the inbox are in the result and in `ops.inboxes`; errors of the database propagate.

    Args:
        engine: engine of the platform's database.
        dataset: dataset of the inbox.
        inbox: inbox to visit.
        store: store of raw files.
        max_bytes: a larger file is skipped.
        at_once: True to visit it even if it is not due.

    Returns:
        The result; None if there was no visit.
    """
    lease = Lease(engine, inbox)
    row = lease.acquire(at_once=at_once)
    if row is None:
        return None
    result = Visit(inbox.name)
    try:
        with closing(connect(inbox)) as remote:
            work = Work(engine, dataset, inbox, store, remote, lease, result, max_bytes)
            work.list_files(row.position)
            work.land()
            work.tidy()
    except VisitOvertakenError:
        return None
    except (InboxError, ObjectError, NoRoomError, RawStoreAwayError) as error:
        lease.release_failed(row, sentence := _sentence(inbox, error))
        result.error = sentence
    except ledger.AWAY:
        raise  # The lease expires by itself.
    except Exception as error:
        lease.release_failed(row, f"The visit was aborted: {type(error).__name__}; see the log of the sensor.")
        raise
    else:
        lease.release(soon=result.has_more)
    return result


def _sentence(inbox: Inbox, error: Exception) -> str:
    if isinstance(error, NoRoomError):
        return f"{str(error.strerror).capitalize()}."
    # A listing involves no single file: an error of an object is about the folder.
    return f"{inbox.url} cannot be listed: {error}." if isinstance(error, ObjectError) else str(error)


def visit_all(visits: Sequence[Callable[[], Visit | None]], seconds: float = 60.0) -> list[Visit]:
    """Visit inboxes in parallel until none has new files, at most for this long: for a caller who waits for the result."""
    end = time.monotonic() + seconds

    def repeatedly(visit_once: Callable[[], Visit | None]) -> Visit | None:
        latest = total = visit_once()
        while latest is not None and total is not None and latest.has_more and time.monotonic() < end:
            time.sleep(SECOND_LOOK)
            latest = visit_once()
            if latest is not None:
                total.file_ids += latest.file_ids
                total.deferred += latest.deferred
                total.error, total.has_more = latest.error, latest.has_more
        return total

    if not visits:
        return []
    with ThreadPoolExecutor(len(visits)) as pool:
        # In the context of the caller: the audit trail takes the actor from it.
        futures = [pool.submit(copy_context().run, repeatedly, visit_once) for visit_once in visits]
        return [visited for future in futures if (visited := future.result()) is not None]
