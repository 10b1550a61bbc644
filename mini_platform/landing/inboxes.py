"""Visits to remote inboxes, each in one process at a time and bounded in requests and time.

The next visit goes on where the last one stopped: its state is in `ops.inboxes` and `ops.inbox_files`. Each is made in a
thread of its own, so that an inbox that is slow or dead delays neither the drop folder nor another inbox. What goes wrong
with it is in `ops.inboxes`, as a sentence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context

from sqlalchemy import Engine

from mini_platform.declare.dataset import Dataset
from mini_platform.landing.inbox_state import SECOND_LOOK, Hold, VisitOvertakenError
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
    """Visit an inbox, unless another process does, or it is too early.

    What goes wrong with the inbox is in the answer and in `ops.inboxes`; what goes wrong with the database propagates.

    Args:
        engine: on the platform's database.
        dataset: whose inbox.
        inbox: to be visited.
        store: of raw files.
        max_bytes: a larger file is left alone.
        at_once: whether it is too early or not.

    Returns:
        What came of it; None: there was none.
    """
    hold = Hold(engine, inbox)
    row = hold.take(at_once=at_once)
    if row is None:
        return None
    done = Visit(inbox.name)
    try:
        with closing(connect(inbox)) as remote:
            work = Work(engine, dataset, inbox, store, remote, hold, done, max_bytes)
            work.look(row.position)
            work.land()
            work.tidy()
    except VisitOvertakenError:
        return None
    except (InboxError, ObjectError, NoRoomError, RawStoreAwayError) as error:
        hold.failed(row, said := _sentence(inbox, error))
        done.error = said
    except ledger.AWAY:
        raise  # The lease runs out by itself.
    except Exception as error:
        hold.failed(row, f"The visit broke off: {type(error).__name__}; the log of the sensor has more.")
        raise
    else:
        hold.done(soon=done.goes_on)
    return done


def _sentence(inbox: Inbox, error: Exception) -> str:
    if isinstance(error, NoRoomError):
        return f"{str(error.strerror).capitalize()}."
    # A listing has no file that could be at fault: what a server says of one is about the folder.
    return f"{inbox.url} cannot be listed: {error}." if isinstance(error, ObjectError) else str(error)


def visit_all(visits: Sequence[Callable[[], Visit | None]], seconds: float = 60.0) -> list[Visit]:
    """Visit inboxes side by side until each has nothing new, at most for so long: what somebody asks for who waits for it."""
    end = time.monotonic() + seconds

    def repeatedly(once: Callable[[], Visit | None]) -> Visit | None:
        done = whole = once()
        while done is not None and whole is not None and done.goes_on and time.monotonic() < end:
            time.sleep(SECOND_LOOK)
            done = once()
            if done is not None:
                whole.file_ids += done.file_ids
                whole.put_off += done.put_off
                whole.error, whole.goes_on = done.error, done.goes_on
        return whole

    if not visits:
        return []
    with ThreadPoolExecutor(len(visits)) as pool:
        # In the context of the caller: the audit trail asks it who lands what is found.
        asked = [pool.submit(copy_context().run, repeatedly, once) for once in visits]
        return [done for visit in asked if (done := visit.result()) is not None]
