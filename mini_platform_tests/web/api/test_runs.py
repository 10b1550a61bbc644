"""Nudges: where there is no Dagster nothing is lost. A real one is nudged in `operations/test_deployment.py`."""

from __future__ import annotations

import logging

import httpx
import pytest

from mini_platform.platform import Platform
from mini_platform_tests.support.uploads import GOOD, URL, ledger, until


def test_no_dagster(client: httpx.Client, platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mini_platform.web.runs"):
        assert client.post(URL, params={"name": "a.csv"}, content=GOOD).status_code == 202
        until(lambda: bool(caplog.records))
    assert "Could not request a run of weather from Dagster, the sensor will" in caplog.text
    assert [row.status for row in ledger(platform)] == ["landed"]
