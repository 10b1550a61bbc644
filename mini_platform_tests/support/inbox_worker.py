"""A process that visits the remote inboxes of weather, for tests to kill."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from mini_platform.operations.sources import remote_inboxes, visit_inbox
from mini_platform.platform import Platform
from mini_platform_tests.support import worker
from mini_platform_tests.support.examples import weather


def main(environment: Mapping[str, str], log: Path) -> None:
    """Visit each inbox once, with exactly these settings; exit with 0 if all visits succeeded."""
    worker.prepare(environment, log)
    platform = Platform()
    visits = [visit_inbox(platform, weather, inbox, at_once=True) for inbox in remote_inboxes(platform, weather)]
    print(visits, flush=True)  # noqa: T201 - into the log
    sys.exit(0 if all(visit and visit.error is None for visit in visits) else 1)
