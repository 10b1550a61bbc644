"""Each kind of incident is shown by every view: overview, doctor, `/health`, `/metrics`, the list, alerts and their page."""

from __future__ import annotations

import datetime as dt
import html
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Connection, insert, text

from mini_platform.config.settings import load_settings
from mini_platform.operations.alerts import LEADS, deliver, services
from mini_platform.operations.detection import current, update_incidents
from mini_platform.operations.doctor import examine
from mini_platform.operations.incidents import (
    ALERTED_KINDS,
    DAGSTER_KINDS,
    KINDS,
    WARNINGS,
    WATCHDOG_KINDS,
    Incident,
    list_incidents,
    reconcile,
)
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import files
from mini_platform.web.pages.incidents import lines
from mini_platform_tests.support.receivers import Hook, webhook
from mini_platform_tests.support.repository import PROJECT

NOW = dt.datetime.now(dt.UTC)
LONG_AGO = NOW - dt.timedelta(days=20)
STORED = [*DAGSTER_KINDS, *WATCHDOG_KINDS]
"""Kinds that only Dagster or the watchdog knows; the others are detected anew by who shows them."""
SOURCE = """
INSERT INTO ops.checkpoints (dataset, source, step, sync, target, whole, begun_at, pages, pages_landed, rows, last_started,
    last_failed, last_error) VALUES ('records', 'api', 1, 1, '', true, now(), 0, 0, 0, now(), now(), 'It answered 500.')
"""


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


@pytest.fixture
def platform(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Platform]:
    """A platform with three of the datasets and, if the test wants that, a declaration that is invalid."""
    assert home.parent == tmp_path
    folder = tmp_path / "some_of_the_datasets"
    folder.mkdir()
    for name in ("weather", "sales", "records"):
        (folder / f"{name}.py").write_text(f"from mini_platform.datasets.{name} import dataset\n")
        (tmp_path / "data" / name).mkdir(parents=True)
    monkeypatch.setenv("MINI_PLATFORM_DATASETS", str(folder))
    monkeypatch.setenv("MINI_PLATFORM_API_SOURCE__RECORDS_API__URL", "https://api.example.com/posts")
    if request.node.callspec.id == "ledger":
        (folder / "broken.py").write_text("x = 1\n")
    instance = Platform()
    yield instance
    instance.engine.dispose()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    with webhook() as receiver:
        monkeypatch.setenv("MINI_PLATFORM_ALERTS", f"json://{receiver.url}/")
        yield receiver


def of_the_ledger(conn: Connection) -> None:
    """Write a ledger in which everything is wrong that it can show."""
    row = {"version": 1, "sha256": "", "bytes": 0, "channel": "test", "arrived_at": LONG_AGO}
    counters = dict.fromkeys(("rows_updated", "rows_unchanged", "rows_superseded"), 0)
    for number in range(10):
        rejected, inserted = (0, 100) if number < 9 else (5000, 5000)
        moment = NOW - dt.timedelta(days=1, hours=-number)
        loaded = {
            "status": "loaded",
            "staged_at": moment,
            "loaded_at": moment,
            "arrived_at": moment,
            "run_id": f"{number}",
        }
        rows = {"rows_read": rejected + inserted, "rows_rejected": rejected, "rows_inserted": inserted}
        named = {"dataset": "weather", "name": f"{number}.csv"}
        conn.execute(insert(files).values(row | counters | loaded | rows | named))
    rows = {"rows_read": 1, "rows_rejected": 0, "rows_inserted": 1}
    loaded = {"status": "loaded", "staged_at": LONG_AGO, "loaded_at": LONG_AGO}
    conn.execute(insert(files).values(row | counters | loaded | rows | {"dataset": "sales", "name": "a.csv"}))
    conn.execute(
        insert(files).values(row | {"dataset": "sales", "name": "b.csv", "status": "refused", "error": "Bad."})
    )
    conn.execute(insert(files).values(row | {"dataset": "weather", "name": "c.csv", "status": "landed"}))
    conn.execute(text(SOURCE))


@pytest.mark.parametrize("kinds", [STORED, [kind for kind in KINDS if kind not in STORED]], ids=["stored", "ledger"])
def test_every_view_shows_each_kind(kinds: list[str], platform: Platform, client: httpx.Client, hook: Hook) -> None:
    with platform.engine.begin() as conn:
        if kinds is STORED:
            wrong = [Incident(kind, "api", None, "", f"api: it is {kind}.", "Mend it.", "/", NOW) for kind in STORED]
            reconcile(conn, wrong, kinds=STORED)
        else:
            of_the_ledger(conn)
            update_incidents(conn, platform, platform.datasets)
            conn.execute(text("UPDATE ops.incidents SET opened_at = now() - interval '1 day'"))
        shown = current(conn, platform, platform.datasets)
        listed = {row.kind for row in list_incidents(conn)}
    assert {incident.kind for incident in shown} == listed == set(kinds)

    overview = html.unescape(client.get("/").text.partition("datasets-title")[0])
    sentences = [line.sentence for line in lines(shown, platform.settings.links_url)]
    assert [sentence for sentence in sentences if sentence not in overview] == []
    doctor = "\n".join(result.message for result in examine())
    messages = [one.message.removeprefix("broken: ").removesuffix(".") for one in shown]
    assert [message for message in messages if message not in doctor] == []
    health = client.get("/health").json()
    assert (health["status"], health["incidents"].keys()) == ("degraded", set(kinds))
    families = text_string_to_metric_families(client.get("/metrics").text)
    (gauge,) = (family for family in families if family.name == "mini_platform_open_incidents")
    values = {sample.labels["kind"]: sample.value for sample in gauge.samples}
    assert (values.keys(), {kind for kind in values if values[kind]}) == (set(KINDS), set(kinds))

    assert deliver(platform.engine, services(load_settings())) == []
    (alert,) = hook.bodies
    assert {kind for kind in kinds if LEADS.get(kind, "none").upper() in alert["message"]} == {*kinds} & {
        *ALERTED_KINDS
    }


def test_every_kind_is_documented() -> None:
    page = (PROJECT / "docs" / "operations" / "incidents.md").read_text()
    rows = {kind: line for kind in KINDS for line in page.splitlines() if line.startswith(f"| `{kind}` |")}
    assert list(rows) == list(KINDS)
    assert {kind for kind in KINDS if "shown |" in rows[kind]} == {*KINDS} - {*ALERTED_KINDS}
    assert {kind for kind in KINDS if "warning" in rows[kind]} == set(WARNINGS)
