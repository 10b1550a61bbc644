from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import Table, func, select, table, text
from sqlalchemy.exc import DBAPIError

from mini_platform import Dataset
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import dataset_tables, files
from mini_platform.web.app import create_app
from mini_platform.web.site import EXPORTS, READERS, Site
from mini_platform_tests.support.web import serving


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "INSERT INTO ops.dirty_groups (dataset, consumer) VALUES ('weather', 'aggregate:summary')",
            "read-only transaction",
        ),
        ("SELECT * FROM ops.api_keys", "permission denied"),
        ("SELECT * FROM ops.sessions", "permission denied"),
        ("SELECT * FROM staging.measurements", "permission denied"),
        ("SET TRANSACTION READ WRITE; DELETE FROM production.measurements", "permission denied"),
        ("SELECT pg_sleep(60)", "statement timeout"),
    ],
)
def test_reads_can_do_nothing_else(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, statement: str, message: str
) -> None:
    monkeypatch.setattr(platform.settings, "read_seconds", 1.0)
    site = Site(platform)
    with site.read() as conn, pytest.raises(DBAPIError, match=message):
        conn.execute(text(statement))
    site.close()


@pytest.mark.parametrize(
    ("locked", "paths"),
    [
        ("production.measurements", ["/api/datasets/weather/rows/", "/api/datasets/"] * (READERS // 2)),
        ("production.measurements", ["/api/datasets/weather/rows.csv", "/api/metrics/download/"] * (EXPORTS // 2)),
        ("ops.files", ["/stats", "/api/datasets/weather/files/"] * (READERS // 2)),
        ("dagster.runs", ["/stats"] * READERS),
    ],
)
def test_what_takes_too_long_is_refused_and_its_connection_serves_on(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, locked: str, paths: list[str]
) -> None:
    """One request for each connection waits at the same time for a table that somebody has locked."""
    monkeypatch.setattr(platform.settings, "read_seconds", 0.5)
    site = Site(platform)
    with serving(create_app(site)) as url, httpx.Client(base_url=url, timeout=60) as client:
        with ThreadPoolExecutor(len(paths)) as pool:
            with platform.engine.begin() as conn:
                conn.execute(text(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE"))
                for answer in pool.map(client.get, paths):
                    assert answer.status_code == 503, answer.url
                    assert answer.headers["content-type"] == "application/problem+json"
                    assert "takes too long" in answer.json()["detail"]
                if locked != "production.measurements":
                    health = client.get("/health")
                    assert (health.status_code, health.json()["db_connected"]) == (503, True)
            assert {answer.status_code for answer in pool.map(client.get, paths)} == {200}
        assert client.get("/health").status_code == 200
    site.close()


def test_reads_what_is_served(platform: Platform) -> None:
    site = Site(platform)
    served = [(t.schema, t.name) for t in (files, *(t for d in site.datasets.values() for t in _served(d)))]
    with site.read() as conn:
        for schema, name in served:
            conn.execute(select(func.count()).select_from(table(name, schema=schema)))
    site.close()


def test_unknown_path_is_a_problem(client: httpx.Client) -> None:
    answer = client.get("/nowhere")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] == "Not Found"


def _served(dataset: Dataset) -> list[Table]:
    tables = dataset_tables(dataset)
    return [tables.production, tables.quarantine, *tables.aggregates.values(), *tables.views.values()]
