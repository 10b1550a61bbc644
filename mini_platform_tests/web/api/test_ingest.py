"""Payloads sent to `/ingest`, and `/process`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import text

from mini_platform.platform import Platform
from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.examples import signals
from mini_platform_tests.support.uploads import ledger, loading, problem, stored

SIGNALS = signals
PAYLOAD = {"time_stamp": "2024-01-01T12:00:00+01:00", "data": [1, 2.5, 3]}


def test_payload(client: httpx.Client, platform: Platform, pipeline: Pipeline) -> None:
    answer = client.post("/ingest", json=PAYLOAD)
    (row,) = ledger(platform)
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted", "raw_id": str(row.file_id)})
    assert (row.dataset, row.channel, stored(platform)) == ("signals", "post", [row.sha256])
    pipeline(SIGNALS)
    with platform.engine.connect() as conn:
        assert conn.execute(text("SELECT n, min, max FROM production.signal_stats")).all() == [(3, 1, 3)]


def test_the_last_payload_counts(client: httpx.Client, platform: Platform, pipeline: Pipeline) -> None:
    other = PAYLOAD | {"data": [5]}
    for payload in (PAYLOAD, other, PAYLOAD):
        assert client.post("/ingest", json=payload).status_code == 202
    pipeline(SIGNALS)
    with platform.engine.connect() as conn:
        assert conn.scalar(text("SELECT n FROM production.signal_stats")) == 3


@pytest.mark.parametrize("body", [b"", b"hello", b'{"a": 1', b"\xff\xfe{}", b'{"a": "\xe9"}', b"[" * 200_000, b"{} {}"])
def test_not_json(client: httpx.Client, platform: Platform, body: bytes) -> None:
    problem(client.post("/ingest", content=body), 400, "The body is not JSON")
    assert (ledger(platform), stored(platform)) == ([], [])


def test_too_large(client: httpx.Client, platform: Platform) -> None:
    platform.settings.max_record_bytes = 100
    problem(client.post("/ingest", json=["x" * 200]), 413, "the limit is 100 bytes")


def test_many_at_once(client: httpx.Client, platform: Platform) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(
            pool.map(lambda n: int(client.post("/ingest", json=PAYLOAD | {"n": n}).json()["raw_id"]), range(100))
        )
    assert sorted(ids) == [row.file_id for row in ledger(platform)]
    assert len(set(stored(platform))) == 100


def test_process(client: httpx.Client, platform: Platform, pipeline: Pipeline) -> None:
    assert client.post("/process").json() == {"processed": 0, "failed": 0, "checked": 0}
    payloads = [PAYLOAD, PAYLOAD | {"data": "none"}, 5, [PAYLOAD, {}], {"big": 10**400}]
    for payload in payloads:
        assert client.post("/ingest", json=payload).status_code == 202
    client.post("/api/datasets/signals/files/?name=file.json", json=PAYLOAD)
    early = client.post("/process", params={"wait": 0})
    assert early.json() == {"processed": 0, "failed": 0, "checked": 0}
    with loading(platform, pipeline, "signals"):
        answer = client.post("/process")
    assert (answer.status_code, answer.json()) == (200, {"processed": 2, "failed": 3, "checked": 5})
    assert client.post("/process").json() == {"processed": 0, "failed": 0, "checked": 0}
