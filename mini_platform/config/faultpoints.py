"""Named points at which tests kill the process; without the environment variable they have no effect.

`MINI_PLATFORM_FAULT=<name>` kills the process (SIGKILL) when it first reaches that point, `<name>:<n>` when it reaches it
for the n-th time; `<name>:<n>:stop` freezes it there (SIGSTOP), so that a test can change files or the database meanwhile.
The fault matrix in `mini_platform_tests/faults/` runs through `POINTS`.
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
"""Points of `mini-platform forget`, which a plain load does not reach."""
RETAINING = ("retention.before_commit", "retention.noted", "retention.removed")
"""Points of the removal of raw files that are too old."""
REPROCESSING = ("reprocess.before_commit",)
"""Points of the reprocessing of loaded files."""
MIGRATING = ("schema.before_commit",)
"""Points of the change of tables that differ from their declaration."""
UPGRADING = ("migration.before_commit",)
"""Points of the migration of the platform's own tables from an earlier version."""
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
"""Points of a sync; `test_sync_kills.py` runs through them."""

INBOX_POINTS = (
    "inbox.raw_file_kept",
    "inbox.before_commit",
    "inbox.after_commit",
    "inbox.rejects_written",
    "inbox.copied",
    "inbox.tidied",
)
"""Points of a scan of a remote inbox; `test_inboxes_kills.py` runs through them."""

_reached: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Kill or freeze the process here if the environment variable names this point."""
    fault = os.environ.get(VARIABLE)
    if not fault:
        return
    point, count, action, *_ = [*fault.split(":"), "", ""]
    if point == name:
        _reached[name] += 1
        if _reached[name] == int(count or 1):
            os.kill(os.getpid(), signal.SIGSTOP if action == "stop" else signal.SIGKILL)
