import httpx
import pytest
from sqlalchemy import Table, func, select, table, text
from sqlalchemy.exc import DBAPIError

from mini_platform.api.site import Site
from mini_platform.dataset import Dataset
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import dataset_tables, files


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("INSERT INTO ops.touched (dataset, aggregate) VALUES ('weather', 'summary')", "read-only transaction"),
        ("SELECT * FROM ops.api_keys", "permission denied"),
        ("SELECT * FROM staging.measurements", "permission denied"),
        ("SET TRANSACTION READ WRITE; DELETE FROM production.measurements", "permission denied"),
        ("SELECT pg_sleep(60)", "statement timeout"),
    ],
)
def test_reads_can_do_nothing_else(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, statement: str, said: str
) -> None:
    monkeypatch.setattr(platform.settings, "read_seconds", 1.0)
    site = Site(platform)
    with site.read() as conn, pytest.raises(DBAPIError, match=said):
        conn.execute(text(statement))
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
