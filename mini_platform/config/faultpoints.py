"""Named instants at which tests kill the process; nothing happens at them unless a test asks for it.

`MINI_PLATFORM_FAULT=<name>` kills the process (SIGKILL) when it first reaches that point, `<name>:<n>` when it reaches it
for the n-th time; `<name>:<n>:stop` freezes it there (SIGSTOP), so that a test can do something to the world around it.
The fault matrix in `mini_platform_tests/faults/` walks through `POINTS`.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "MINI_PLATFORM_FAULT"

FORGETTING = (
    "forget.files_written",
    "forget.before_commit",
    "forget.after_commit",
    "forget.folder_cleaned",
    "retention.removed",
)
"""Reached by `mini-platform forget`, and not by a plain load."""
RETAINING = ("retention.before_commit", "retention.noted", "retention.removed")
"""Reached where raw files are too old."""
REPROCESSING = ("reprocess.before_commit",)
"""Reached where loaded files are queued again."""
MIGRATING = ("schema.before_commit",)
"""Reached where tables are not what is declared."""
UPGRADING = ("migration.before_commit",)
"""Reached where the platform's own tables are those of an earlier version."""
POINTS = (
    "land.copying",
    "land.raw_file_kept",
    "land.before_commit",
    "land.after_commit",
    "claim.before_commit",
    "claim.after_commit",
    "stage.block_sent",
    "stage.before_commit",
    "stage.after_commit",
    "load.started",
    "load.rows_written",
    "load.indexes_built",
    "load.quarantined",
    "load.before_commit",
    "load.after_commit",
    "aggregate.before_commit",
    "aggregate.after_commit",
)

SYNC_POINTS = (
    "sync.before_begin",
    "sync.after_begin",
    "sync.page_received",
    "sync.page_kept",
    "sync.before_commit",
    "sync.after_commit",
    "sync.before_end",
    "sync.after_end",
)
"""Those of a sync; `test_sync_kills.py` walks through them."""

INBOX_POINTS = (
    "inbox.raw_file_kept",
    "inbox.before_commit",
    "inbox.after_commit",
    "inbox.rejects_written",
    "inbox.copied",
    "inbox.tidied",
)
"""Those of a visit to a remote inbox; `test_inboxes_kills.py` walks through them."""

_reached: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Die or freeze here if the environment says so."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    point, count, action, *_ = [*wanted.split(":"), "", ""]
    if point == name:
        _reached[name] += 1
        if _reached[name] == int(count or 1):
            os.kill(os.getpid(), signal.SIGSTOP if action == "stop" else signal.SIGKILL)
