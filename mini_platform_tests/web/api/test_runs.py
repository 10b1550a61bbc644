"""Nudges: a real Dagster launches a run for an upload while nobody else would, and where there is none nothing is lost."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mini_platform.warehouse import embedded
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.support.ports import free_port
from mini_platform_tests.support.supervised import Supervised
from mini_platform_tests.support.uploads import GOOD, URL, ledger, until
from mini_platform_tests.support.web import serving

SENSOR = {"repositoryName": "__repository__", "repositoryLocationName": "mini_platform", "sensorName": "weather_files"}
STATE = "query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor { sensorState { id } } } }"
STOP = "mutation($id: String!) { stopSensor(id: $id) { __typename } }"
RUNS = "{ runsOrError { ... on Runs { results { jobName status tags { key value } } } } }"
TICK_SECONDS = 6.0
"""A tick that has begun may still see a file, though its sensor was stopped."""


@pytest.fixture
def dagster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A whole platform in a home of its own, of which the environment tells, and a client of its GraphQL."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    supervised = Supervised(tmp_path / "home", tmp_path / "data", free_port(), free_port())
    supervised.data.mkdir()
    for name, value in supervised.environment.items():
        monkeypatch.setenv(name, value)
    up = supervised.up()
    assert up.returncode == 0, up.stdout + up.stderr
    with httpx.Client(base_url=f"http://127.0.0.1:{supervised.port}", timeout=30) as client:
        yield client
    supervised.down()
    for process in supervised.processes():
        process.kill()
    embedded.stop(supervised.home)


def graphql(dagster: httpx.Client, query: str, **variables: Any) -> dict[str, Any]:
    answer: dict[str, Any] = dagster.post("/graphql", json={"query": query, "variables": variables}).json()["data"]
    return answer


@pytest.mark.timeout(240)
@pytest.mark.xdist_group("supervisor")
def test_upload_is_loaded_by_a_run_of_its_own(dagster: httpx.Client) -> None:
    state = graphql(dagster, STATE, s=SENSOR)["sensorOrError"]["sensorState"]["id"]
    assert graphql(dagster, STOP, id=state)["stopSensor"]["__typename"] == "StopSensorMutationResult"
    time.sleep(TICK_SECONDS)
    site = Site()
    with serving(create_app(site)) as url:
        body = {"file": ("oslo.csv", GOOD)}
        answer = httpx.post(f"{url}{URL}", params={"wait": 60}, files=body, headers={"X-Request-ID": "r-1"}, timeout=90)
        assert (answer.status_code, answer.json()["status"]) == (200, "loaded"), answer.text
        (run,) = graphql(dagster, RUNS)["runsOrError"]["results"]
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        assert run["jobName"] == "load_weather"
        assert tags["mini_platform/dataset"] == "weather"
        assert tags["mini_platform/request_id"] == answer.headers["X-Request-ID"] == "r-1"
    site.close()


def test_no_dagster(client: httpx.Client, platform: Supervised, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "mini_platform.web.runs"):
        assert client.post(URL, params={"name": "a.csv"}, content=GOOD).status_code == 202
        until(lambda: bool(caplog.records))
    assert "Could not request a run of weather from Dagster, the sensor will" in caplog.text
    assert [row.status for row in ledger(platform)] == ["landed"]
