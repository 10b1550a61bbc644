"""The limits of the readers can be set."""

from __future__ import annotations

import pytest

from mini_platform.platform import Platform
from mini_platform.rows.readers import ReadLimits


def test_every_limit_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, name in enumerate(ReadLimits.__dataclass_fields__, start=1000):
        monkeypatch.setenv(f"MINI_PLATFORM_{name.upper()}", str(value))
    assert Platform().read_limits == ReadLimits(1000, 1001, 1002, 1003)


def test_without_settings_the_limits_are_the_readers_own() -> None:
    assert Platform().read_limits == ReadLimits()
