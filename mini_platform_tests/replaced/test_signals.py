"""The claims of the signals system, and its documented requests, rows and files, replayed."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import random
import statistics
from collections.abc import Iterator
from typing import Any

import pytest

from mini_platform_tests.support.claims import Claim, different, held, partly
from mini_platform_tests.support.old_paths import (
    BAD_BODIES,
    JSON,
    Body,
    Live,
    assert_refused,
    bad_body,
    live,
    post_half,
)
from mini_platform_tests.support.uploads import ledger, until

HERE = "replaced/test_signals.py"
CLAIMS: list[Claim] = [
    held("POST /ingest answers 202", f"{HERE}::test_the_documented_payload"),
    held(
        "a payload is in the raw store at once, byte for byte",
        f"{HERE}::test_the_documented_payload",
        "web/api/test_ingest.py::test_many_at_once",
    ),
    held("times are in UTC", "datasets/test_signals.py::test_times_are_in_utc", f"{HERE}::test_the_documented_payload"),
    held("mean", f"{HERE}::test_the_payloads_of_its_sensor", "datasets/test_signals.py::test_any_series"),
    held("population standard deviation", f"{HERE}::test_the_payloads_of_its_sensor"),
    held("the deviation of a single value is 0", "datasets/test_signals.py::test_a_single_value_does_not_deviate"),
    held("upsert by time", f"{HERE}::test_of_payloads_with_one_time_the_last_counts"),
    held("rule: a payload has a time", "datasets/test_signals.py::test_rejected_with_a_reason"),
    held("rule: the time has an offset", "datasets/test_signals.py::test_rejected_with_a_reason"),
    held("rule: the series is not empty", "datasets/test_signals.py::test_rejected_with_a_reason"),
    held("rule: the series has numbers only", "datasets/test_signals.py::test_rejected_with_a_reason"),
    held("POST /process counts", f"{HERE}::test_the_payloads_of_its_sensor", "web/api/test_ingest.py::test_process"),
    held("x-api-key", "web/api/test_replaced.py::test_keys_as_the_replaced_systems_took_them"),
    held(
        "open without a key on loopback",
        "web/api/test_guard.py::test_loopback_takes_no_key_unless_the_settings_require_one",
    ),
    held(
        "ingestion and processing are decoupled",
        "web/api/test_ingest.py::test_many_at_once",
        f"{HERE}::test_process_waits_for_the_oldest_up_to_its_limit",
    ),
    held("GET /health", "web/api/test_health.py::test_before_anything_happened"),
    held("OpenAPI document", f"{HERE}::test_its_clients_are_typed_by_the_document"),
    held(
        "structured logs with request ids",
        "config/test_logs.py::test_what_became_of_a_file",
        "web/api/test_health.py::test_what_goes_wrong_is_logged_as_one_line_with_its_request",
    ),
    held("audit trail", "warehouse/test_audit.py::test_what_becomes_of_a_file"),
    partly(
        "raw_id is a text, and the name of the raw file",
        "the text is the id in the ledger; a raw file has the name of its hash, so that it can be verified",
        f"{HERE}::test_the_documented_payload",
        f"{HERE}::test_its_clients_are_typed_by_the_document",
    ),
    held("GET /docs", f"{HERE}::test_its_reference_leads_to_that_of_the_api"),
    held("POST /process?limit=n", f"{HERE}::test_process_waits_for_the_oldest_up_to_its_limit"),
    different("settings DROPZONE_…", "all settings begin with MINI_PLATFORM_, and the reference lists them"),
    different(
        "OAuth2 or JWT, which it lists as a next step",
        "keys with scopes and an expiry need no server of tokens",
    ),
    partly(
        "compose",
        "no image is built where these tests run: the files are validated, and what they start is started by hand",
        "operations/test_deployment.py::test_the_compose_file_is_what_the_specification_says",
        "operations/test_deployment.py::test_every_process_starts_by_its_command_gets_healthy_and_loads_a_file_together",
    ),
    held("continuous integration", "operations/test_deployment.py::test_continuous_integration_runs_the_gate"),
    held(
        "removal of raw files",
        "operations/test_forget.py::test_raw_files_are_kept_for_a_while",
        "operations/test_forget.py::test_a_setting_says_otherwise",
    ),
]

DOCUMENTED = {"time_stamp": "2019-05-01T06:00:00-04:00", "data": [0.379, 1.589, 2.188]}
TABLE = "SELECT timestamp_utc, mean, std_dev FROM production.signal_stats"
START = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
FAULTS: list[dict[str, Any]] = [
    {"data": [1.0]},
    {"time_stamp": "2030-01-01T00:00:00Z"},
    {"time_stamp": "2030-01-01T00:00:00Z", "data": []},
    {"time_stamp": "yesterday", "data": [1.0]},
    {"time_stamp": "2030-01-01T00:00:00Z", "data": ["a", 1.0]},
]
"""Payloads that break the four quality rules: a time, with an offset; a series, not empty, of numbers only."""


def generated(count: int = 30, seed: int = 42) -> list[dict[str, Any]]:
    """Return payloads as the sensor of the signals system sends them, in three time zones; every sixth is faulty."""
    rng = random.Random(seed)  # noqa: S311 - sample data, not secrets
    payloads = []
    for n in range(count):
        zone = dt.timezone(dt.timedelta(hours=rng.choice((-4, 0, 2))))
        when = (START + dt.timedelta(seconds=n)).astimezone(zone)
        data = [round(rng.gauss(1, 0.5), 3) for _ in range(rng.choice((1, 10, 100)))]
        payloads.append(FAULTS[n // 6 % len(FAULTS)] if n % 6 == 5 else {"time_stamp": when.isoformat(), "data": data})
    return payloads


@pytest.fixture(scope="module")
def system(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(server, template, tmp_path_factory.mktemp("signals")) as opened:
        yield opened


def ingest(system: Live, payload: Any) -> str:
    answer = system.client.post("/ingest", json=payload)
    assert (answer.status_code, answer.json()["status"]) == (202, "accepted"), answer.text
    return str(answer.json()["raw_id"])


def process(system: Live, **params: Any) -> dict[str, int]:
    """Process what was ingested, as its operator does."""
    with system.loading("signals"):
        answer = system.client.post("/process", params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_the_documented_payload(system: Live) -> None:
    body = json.dumps(DOCUMENTED).encode()
    answer = system.client.post("/ingest", content=body, headers=JSON)
    raw_id = answer.json()["raw_id"]
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted", "raw_id": raw_id})
    assert isinstance(raw_id, str)
    row = ledger(system.platform)[-1]
    assert (str(row.file_id), row.sha256, row.channel) == (raw_id, hashlib.sha256(body).hexdigest(), "post")
    assert row.sha256 in system.received()[1]
    assert process(system) == {"processed": 1, "failed": 0, "checked": 1}
    ((when, mean, deviation),) = system.rows(f"{TABLE} WHERE timestamp_utc = '2019-05-01T10:00:00Z'")
    assert when == dt.datetime(2019, 5, 1, 10, tzinfo=dt.UTC)
    assert mean == pytest.approx(statistics.fmean(DOCUMENTED["data"]), rel=1e-14)
    assert deviation == pytest.approx(statistics.pstdev(DOCUMENTED["data"]), rel=1e-14)
    file = system.client.get(f"/api/datasets/signals/files/{raw_id}/").json()
    assert (file["status"], file["rows_inserted"]) == ("loaded", 1)


def test_the_payloads_of_its_sensor(system: Live) -> None:
    payloads = generated()
    raw_ids = [ingest(system, payload) for payload in payloads]
    assert len(set(raw_ids)) == len(payloads)
    assert process(system) == {"processed": 25, "failed": 5, "checked": 30}
    expected = {
        dt.datetime.fromisoformat(payload["time_stamp"]): payload["data"]
        for payload in payloads
        if payload not in FAULTS
    }
    rows = {
        when: (mean, deviation) for when, mean, deviation in system.rows(f"{TABLE} WHERE timestamp_utc >= '2030-01-01'")
    }
    assert rows.keys() == expected.keys()
    for when, data in expected.items():
        assert rows[when] == pytest.approx((statistics.fmean(data), statistics.pstdev(data)), rel=1e-12, abs=1e-15)
    refused = {row.file_id for row in ledger(system.platform) if row.rows_rejected}
    assert refused == {int(raw_id) for raw_id, payload in zip(raw_ids, payloads, strict=True) if payload in FAULTS}


def test_of_payloads_with_one_time_the_last_counts(system: Live) -> None:
    for data in ([1.0], [2.0, 4.0], [5.0]):
        ingest(system, {"time_stamp": "2020-01-01T00:00:00+00:00", "data": data})
    assert process(system) == {"processed": 3, "failed": 0, "checked": 3}
    ((_, mean, deviation),) = system.rows(f"{TABLE} WHERE timestamp_utc = '2020-01-01T00:00:00Z'")
    assert (mean, deviation) == (5.0, 0.0)


def test_process_waits_for_the_oldest_up_to_its_limit(system: Live) -> None:
    raw_ids = [ingest(system, {"time_stamp": f"2021-01-0{n}T00:00:00Z", "data": [n]}) for n in (1, 2, 3)]
    assert process(system, limit=2) == {"processed": 2, "failed": 0, "checked": 2}
    assert process(system)["checked"] <= 1, "the third one was loaded with the others, or is now"
    rows = {str(row.file_id): row.status for row in ledger(system.platform)}
    assert [rows[raw_id] for raw_id in raw_ids] == ["loaded"] * 3
    assert process(system, limit=1) == {"processed": 0, "failed": 0, "checked": 0}


@pytest.mark.parametrize("params", [{"limit": 0}, {"limit": -1}, {"limit": "all"}, {"limit": 10**30}, {"wait": -1}])
def test_parameters_that_process_does_not_take_are_422(system: Live, params: dict[str, Any]) -> None:
    (name,) = params
    assert name in assert_refused(system.client.post("/process", params=params), 422)


@pytest.mark.parametrize("kind", BAD_BODIES)
def test_process_reads_no_body(system: Live, kind: str) -> None:
    answer = bad_body(kind, Body(json.dumps(DOCUMENTED).encode(), JSON)).post(system.client, "/process")
    assert (answer.status_code, answer.json()["checked"]) == (200, 0)


GOOD = Body(json.dumps(DOCUMENTED | {"time_stamp": "2022-01-01T00:00:00Z"}).encode(), JSON)


@pytest.mark.parametrize("kind", BAD_BODIES)
def test_bodies_that_are_no_json_are_400_and_leave_nothing(system: Live, kind: str) -> None:
    before = system.received()
    assert assert_refused(bad_body(kind, GOOD).post(system.client, "/ingest"), 400).startswith("The body is not JSON")
    assert system.received() == before


def test_too_large_half_sent_and_repeated_bodies(system: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    before = system.received()
    with monkeypatch.context() as patch:
        patch.setattr(system.platform.settings, "max_record_bytes", 10)
        assert_refused(GOOD.post(system.client, "/ingest"), 413)
    assert not post_half(system, "/ingest", GOOD).startswith(b"HTTP/1.1 5")
    until(lambda: system.received() == before)  # the server tidies up after the client is gone
    raw_ids = [GOOD.post(system.client, "/ingest").json()["raw_id"] for _ in range(2)]
    assert len(set(raw_ids)) == 2
    assert process(system) == {"processed": 2, "failed": 0, "checked": 2}
    assert len(system.rows(f"{TABLE} WHERE timestamp_utc = '2022-01-01T00:00:00Z'")) == 1


@pytest.mark.parametrize(
    ("path", "target"),
    [("/docs", "/api/docs"), ("/redoc", "/api/docs"), ("/api/redoc/", "/api/docs"), ("/api/schema/", "/openapi.json")],
)
def test_its_reference_leads_to_that_of_the_api(system: Live, path: str, target: str) -> None:
    answer = system.client.get(path, follow_redirects=True)
    assert (answer.status_code, answer.url.path) == (200, target)


def test_its_clients_are_typed_by_the_document(system: Live) -> None:
    document = system.client.get("/openapi.json").json()
    assert document["components"]["schemas"]["Accepted"]["properties"]["raw_id"]["type"] == "string"
    parameters = {parameter["name"] for parameter in document["paths"]["/process"]["post"]["parameters"]}
    assert parameters == {"limit", "wait"}
