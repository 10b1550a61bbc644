"""A process that syncs, for tests to kill: the dataset `records` with a quick source, by the platform's own settings."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mini_platform import ApiSource
from mini_platform.landing.sync import sync
from mini_platform.operations.sources import access_to
from mini_platform.platform import Platform
from mini_platform_tests.support import worker
from mini_platform_tests.support.examples import records

SOURCE = ApiSource(name="api", rate=1000, tries=2, backoff=0.01, read_seconds=20)
DATASET = replace(records, api_sources=(SOURCE,))


def main(environment: Mapping[str, str], log: Path) -> None:
    """Sync once, with exactly these settings; exit with 0 if the sync succeeded."""
    worker.prepare(environment, log)
    platform = Platform()
    result = sync(platform.engine, DATASET, SOURCE, platform.store, access_to(platform, DATASET, SOURCE))
    print(result, flush=True)  # noqa: T201 - into the log
    sys.exit(0 if result.ok else 1)
