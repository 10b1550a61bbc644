"""A process that forgets a person in `sales`, for tests to kill."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mini_platform.operations.forget import forget
from mini_platform.platform import Platform
from mini_platform_tests.support.examples import sales


def main(environment: Mapping[str, str], person: str) -> None:
    """Forget a person, with exactly these settings."""
    os.environ.clear()
    os.environ.update(environment)
    platform = Platform()
    folder = platform.settings.data / sales.name
    forget(platform.engine, sales, person, platform.raw_files(sales), platform.store, folder)
