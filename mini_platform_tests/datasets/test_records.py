"""The dataset `records`: an API and files in one table, from the pages to production, on a real Postgres and a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from mini_platform import ApiSource, Dataset
from mini_platform.landing.sync import SyncResult, sync
from mini_platform.operations.processing import process
from mini_platform.platform import Platform
from mini_platform.storage.access import Access
from mini_platform.warehouse import aggregates, ledger
from mini_platform.warehouse.tables import COUNTERS, files
from mini_platform_tests.support.api_server import Api, numbered, serving, things
from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.examples import records
from mini_platform_tests.support.sample_files import SAMPLE_FILES

QUICK = ApiSource(name="api", rate=1000, tries=2, backoff=0.01)
ROW = "SELECT source, source_id, name, value, description FROM production.records ORDER BY source, source_id"


@pytest.fixture
def api() -> Iterator[Api]:
    with serving(numbered([])) as server:
        yield server


def load_all(platform: Platform, dataset: Dataset = records) -> None:
    process(platform, dataset, run_id="test")


def synced(platform: Platform, api: Api, *pages: list[Any]) -> SyncResult:
    """Sync these pages and load them."""
    api.answer = numbered(list(pages))
    access = Access(api.url, networks=(ip_network("127.0.0.0/8"),))
    result = sync(platform.engine, replace(records, api_sources=(QUICK,)), QUICK, platform.store, access)
    assert result.state == "succeeded"
    load_all(platform)
    return result


def rows(platform: Platform, query: str = ROW) -> list[tuple[Any, ...]]:
    with platform.engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(query))]


def last_file(platform: Platform) -> dict[str, int]:
    """Return the counters of the rows of the last file that are not 0."""
    with platform.engine.connect() as conn:
        row = conn.execute(select(files).order_by(files.c.file_id.desc()).limit(1)).mappings().one()
    assert row["status"] == "loaded", row["error"]
    return {name.removeprefix("rows_"): row[name] for name in COUNTERS if row[name]}


def test_two_sources_in_one_table(platform: Platform, pipeline: Pipeline, api: Api, tmp_path: Path) -> None:
    synced(platform, api, things(1, 2), [{"id": 3, "title": "three", "value": 0, "more": {"x": 1}}])
    (tmp_path / "a.csv").write_text("id,name,value,description\n1,one,0,\n2,two,,x\n3,three,1.5,y\n")
    pipeline(records, tmp_path / "a.csv")
    assert rows(platform) == [
        ("api", "1", "thing 1", None, "about 1"),
        ("api", "2", "thing 2", None, "about 2"),
        ("api", "3", "three", 0.0, None),
        ("csv", "1", "one", 0.0, None),
        ("csv", "2", "two", None, "x"),
        ("csv", "3", "three", 1.5, "y"),
    ]
    summary = "SELECT source, records, with_value, with_description, mean_value FROM analytics.records_by_source"
    assert rows(platform, f"{summary} ORDER BY 1") == [("api", 3, 1, 2, 0.0), ("csv", 3, 2, 2, 0.75)]
    with platform.engine.connect() as conn:
        assert aggregates.differences(conn, records, records.aggregates[0]) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id,name\n7,seven\n"),
        ("b.csv", "Title,ID,Body,userId\nseven,7,,9\n"),
        ("c.csv", "source_id,name,value,description\n7,seven,,\n"),
        ("d.json", '[{"id": 7, "title": "seven", "body": null, "value": null}]'),
        ("e.jsonl", '{"id": "7", "name": "seven", "description": ""}\n'),
        ("f.json", '{"source_id": 7, "name": "seven", "userId": 9}'),
    ],
)
def test_names_and_columns_that_may_lack(
    platform: Platform, pipeline: Pipeline, tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    pipeline(records, tmp_path / name)
    assert rows(platform) == [(name.split(".")[1][:4].removesuffix("l"), "7", "seven", None, None)]


def test_a_column_by_two_names(platform: Platform, pipeline: Pipeline, tmp_path: Path) -> None:
    """A CSV file is refused; of JSON, where every object has its own names, the object is rejected."""
    (tmp_path / "a.csv").write_text("id,source_id,name\n1,2,x\n")
    pipeline(records, tmp_path / "a.csv")
    (tmp_path / "b.json").write_text(
        '[{"id": 1, "source_id": 2, "name": "x"}, {"id": 3, "source_id": null, "name": "y"}]'
    )
    pipeline(records, tmp_path / "b.json")
    assert [row[:3] for row in rows(platform)] == [("json", "3", "y")]
    assert rows(platform, "SELECT name, status FROM ops.files ORDER BY 1") == [
        ("a.csv", "refused"),
        ("b.json", "loaded"),
    ]
    assert "id and source_id" in rows(platform, "SELECT error FROM ops.files WHERE name = 'a.csv'")[0][0]


def test_a_missing_id_is_a_reject_and_not_a_collapse(platform: Platform, api: Api) -> None:
    page = [{"title": "a"}, {"id": None, "title": "b"}, {"id": "", "title": "c"}, {"id": " ", "title": "d"}]
    synced(platform, api, [*page, *things(1, 2, 3, 4, 5)])
    assert len(rows(platform)) == 5
    rejected = rows(platform, "SELECT name, _rules FROM quarantine.records ORDER BY 1")
    assert rejected == [(name, ["source_id_required"]) for name in "abcd"]


def test_created_at_never_moves_and_updated_at_only_with_a_change(platform: Platform, api: Api) -> None:
    moments = "SELECT created_at, updated_at FROM production.records WHERE source_id = '1'"
    synced(platform, api, things(1, 2))
    ((created, updated),) = rows(platform, moments)
    assert created == updated
    synced(platform, api, things(1, 2, likes=7))
    assert last_file(platform) == {"unchanged": 2}, "what is not declared is no change"
    assert rows(platform, moments) == [(created, updated)]
    synced(platform, api, things(1, value=0) + things(2))
    assert last_file(platform) == {"unchanged": 1, "updated": 1}
    ((still, moved),) = rows(platform, moments)
    assert (still, moved > updated) == (created, True)
    synced(platform, api, things(1, value=0))
    assert rows(platform, moments) == [(still, moved)]
    with platform.engine.begin() as conn:
        ledger.return_to_landed(conn, "records", files.c.status == "loaded")
    load_all(platform)
    assert rows(platform, "SELECT min(created_at) FROM production.records") == [(created,)], "reprocessed, too"


def test_rows_that_move_between_pages_stand_once(platform: Platform, api: Api) -> None:
    synced(platform, api, things(1, 2), things(2, 3))
    assert [row[1] for row in rows(platform)] == ["1", "2", "3"]


def test_what_pages_hold_is_validated_as_of_any_file(platform: Platform, api: Api) -> None:
    good = json.dumps(things(1, 2, 3, 4))[1:-1]
    bad = '{"id": 5, "title": NaN}, {"id": 6, "id": 7, "title": "x"}, {"id": 8, "title": "y", "value": true}'
    synced(platform, api, f"[{good}, {bad}]".encode())  # type: ignore[arg-type]
    assert [row[1] for row in rows(platform)] == ["1", "2", "3", "4"]
    rules = [
        set(row[0]) for row in rows(platform, "SELECT _rules FROM quarantine.records ORDER BY _line, _raw NULLS LAST")
    ]
    assert sorted(map(sorted, rules)) == [["row_is_json"], ["row_names_once"], ["value_is_number"]]


def test_the_samples(platform: Platform, pipeline: Pipeline) -> None:
    for path in sorted((SAMPLE_FILES / "records").iterdir()):
        pipeline(records, path)
    read = "SELECT name, status, rows_read, rows_inserted, rows_superseded, rows_rejected FROM ops.files ORDER BY 1"
    assert rows(platform, read) == [
        ("dirty.csv", "loaded", 69, 47, 1, 21),
        ("page.json", "loaded", 7, 7, 0, 0),
        ("records.csv", "loaded", 120, 120, 0, 0),
    ]
    assert ("csv", "901", "value nought", 0.0, "0 is a value") in rows(platform)
    assert ("json", "1", "spare filter", None, "Fits the small pump.\nTwo in stock.") in rows(platform)


def test_of_several_records_on_one_line_the_last_counts(platform: Platform, pipeline: Pipeline, tmp_path: Path) -> None:
    """An API writes a page on one line: many records, good and bad, have the same line, and their order counts still."""
    page = [{"id": n % 100, "title": f"round {n // 100}"} for n in range(30_000)] + [
        {"title": str(n)} for n in range(50)
    ]
    (tmp_path / "page.json").write_text(json.dumps(page))
    pipeline(records, tmp_path / "page.json")
    assert last_file(platform) == {"inserted": 100, "superseded": 29_900, "rejected": 50}
    assert {row[2] for row in rows(platform)} == {"round 299"}
    assert rows(platform, "SELECT count(DISTINCT name), min(_line), max(_line) FROM quarantine.records") == [(50, 1, 1)]


def test_first_and_reject_on_one_line(platform: Platform, pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([*things(1, 2), {"id": 1, "title": "again"}, *things(3, 4)]))
    pipeline(replace(records, duplicates="first"), tmp_path / "a.json")
    assert rows(platform)[0][:3] == ("json", "1", "thing 1")
    (tmp_path / "b.json").write_text(json.dumps([*things(5, 6), {"id": 5, "title": "again"}, *things(7, 8)]))
    pipeline(replace(records, duplicates="reject"), tmp_path / "b.json")
    assert [row[1] for row in rows(platform)] == ["1", "2", "3", "4", "6", "7", "8"]
    assert last_file(platform) == {"inserted": 3, "rejected": 2}
