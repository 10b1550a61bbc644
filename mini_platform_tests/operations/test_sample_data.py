"""Sample data: a new platform is healthy at first sight, and its bad rows come only by choice."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from mini_platform import Dataset, RejectLimit
from mini_platform.datasets import all_datasets
from mini_platform.operations.processing import process
from mini_platform.operations.sample_data import drop_clean, land_dirty, without_files
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import dataset_tables, files
from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.definitions import settled
from mini_platform_tests.support.examples import sales, weather
from mini_platform_tests.support.sample_files import SAMPLE_FILES

TODAY = dt.datetime.now(dt.UTC).date()


@pytest.fixture
def data(data: Path) -> Path:
    """The data folder of a project that wants samples."""
    (data / "samples").mkdir()
    return data


def dropped(platform: Platform, data: Path) -> list[str]:
    with platform.engine.connect() as conn:
        new = without_files(conn, data, all_datasets().values())
    return [drop_clean(data, dataset).parent.name for dataset in new]


def loaded(platform: Platform, data: Path, dataset: Dataset) -> dict[str, object]:
    for path in (data / dataset.name).iterdir():
        settled(path)
    (file,) = process(platform, dataset)
    return file


@pytest.mark.slow
def test_every_dataset_is_healthy_until_its_bad_rows_are_loaded(
    platform: Platform, data: Path, client: httpx.Client
) -> None:
    names = list(all_datasets())
    assert dropped(platform, data) == names
    for name, dataset in all_datasets().items():
        file = loaded(platform, data, dataset)
        assert (file["status"], file["rows_read"], file["rows_inserted"]) == ("loaded", 1800, 1800), name
    with platform.engine.connect() as conn:
        assert not any(conn.scalars(select(files.c.rule_counts))), "no rule warns"
        for dataset, column, days in ((weather, "date", 600), (sales, "order_date", 550)):
            table = dataset_tables(dataset).production
            last, different = conn.execute(
                select(func.max(table.c[column]), func.count(table.c[column].distinct()))
            ).one()
            assert TODAY - last <= dt.timedelta(days=2)
            assert different >= days, "there are no gaps"
    page = client.get("/").text
    assert "No open incidents" in page
    assert page.count("Up to date") == len(names)
    assert re.findall(r'action="/datasets/(\w+)/bad-rows"', page) == names
    assert dropped(platform, data) == [], "the platform is no longer new"

    for name, dataset in all_datasets().items():
        assert f"/datasets/{name}/bad-rows" in client.get(f"/{name}").text
        answer = client.post(f"/datasets/{name}/bad-rows")
        assert (answer.status_code, answer.headers["Location"][:7]) == (303, "/files/")
        (file,) = process(platform, dataset)
        (beside,) = (data / "samples" / name).iterdir()
        assert (file["name"], file["status"], file["rows_read"]) == (beside.name, "loaded", 120)
        assert file["rows_rejected"] == 36, name
        assert file["rows_inserted"] == 84, "no row of the clean file is replaced"
        assert "Loaded with rejects" in client.get(answer.headers["Location"]).text
        assert client.post(f"/datasets/{name}/bad-rows").headers["Location"] == answer.headers["Location"], "twice"
        assert f"/datasets/{name}/bad-rows" not in client.get(f"/datasets/{name}").text
    assert "bad-rows" not in client.get("/").text


def test_samples_are_put_only_where_nothing_else_is(platform: Platform, data: Path, pipeline: Pipeline) -> None:
    (data / "weather" / "mine.csv").write_text("station_id\n")
    (data / "sales" / ".gitkeep").touch()
    names = set(all_datasets())
    assert set(dropped(platform, data)) == names - {"weather"}
    assert [path.name for path in (data / "weather").iterdir()] == ["mine.csv"]

    for path in data.glob("*/sample.*"):
        path.unlink()
    pipeline(weather, SAMPLE_FILES / "weather" / "dirty.csv")
    assert dropped(platform, data) == [], "a file has arrived"


def test_without_its_folder_a_project_gets_no_samples(platform: Platform, data: Path) -> None:
    (data / "samples").rmdir()
    assert dropped(platform, data) == []
    assert not list(data.glob("*/*"))


def test_the_bad_rows_are_those_of_the_project_else_drawn_within_the_limit(platform: Platform, data: Path) -> None:
    strict = replace(weather, reject_limit=RejectLimit(share=0.05))
    land_dirty(platform, strict)
    (file,) = process(platform, strict)
    assert (file["status"], file["rows_rejected"]) == ("loaded", 6)

    folder = data / "samples" / "signals"
    folder.mkdir()
    (folder / "dirty.json").write_text(json.dumps([{"data": []}]))
    row = land_dirty(platform, all_datasets()["signals"])
    assert (row.name, row.bytes) == ("dirty.json", len('[{"data": []}]'))
