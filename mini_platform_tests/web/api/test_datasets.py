"""The routes of datasets: a real server over a real database."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
import socket
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, Engine, delete, insert, select, text

from mini_platform import Dataset, Field, RowModel
from mini_platform.datasets import all_datasets
from mini_platform.operations.sampling import write_sample
from mini_platform.platform import Platform
from mini_platform.warehouse import quarantine
from mini_platform.warehouse.dirty_groups import mark
from mini_platform.warehouse.roles import grant
from mini_platform.warehouse.tables import dataset_tables, files
from mini_platform.web.app import create_app
from mini_platform.web.site import EXPORTS, Site
from mini_platform_tests.support.databases import Pipeline, load_files, open_platform
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.strings import NAUGHTY
from mini_platform_tests.support.web import serving, serving_platform

WEATHER = weather
HEADER = "station_id,date,temp_c,precip_mm"
NASTY = (*NAUGHTY, "\tx", "plain")
ROWS = 300_000
"""More than the buffers of a connection hold as CSV."""


def load_weather(platform: Platform, folder: Path) -> None:
    """Load two files of good and bad rows."""
    rows = [f"S{n % 5},2024-01-{n // 5 + 1:02},{'' if n % 7 == 0 else n / 10},{n % 3}" for n in range(100)]
    one, two = folder / "one.csv", folder / "two.csv"
    one.write_text("\n".join([HEADER, *rows, "S1,2024-13-01,200,-1", "S1,2024-01-01,1,1,9"]))
    two.write_text("\n".join([HEADER, "S9,2024-05-01,1,1", "S8,2024-05-01,=1+1,1"]))
    load_files(platform, WEATHER, one)
    load_files(platform, WEATHER, two)


@pytest.fixture
def own_weather(platform: Platform, tmp_path: Path) -> None:
    load_weather(platform, tmp_path)


@pytest.fixture(scope="module")
def weather(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with that, which tests share: they only read."""
    folder = tmp_path_factory.mktemp("weather")
    with open_platform(server, template, folder) as shared_platform:
        load_weather(shared_platform, folder)
        yield shared_platform


@pytest.fixture(scope="module")
def weather_web(weather: Platform) -> Iterator[str]:
    with serving_platform(weather) as url:
        yield url


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client of the test's own web process; of that over the shared platform, if it asks for `weather`."""
    url = request.getfixturevalue("weather_web" if "weather" in request.fixturenames else "web")
    with httpx.Client(base_url=url, timeout=30) as http_client:
        yield http_client


def results(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    """Return the rows of all pages."""
    rows, url, query = [], path, params or None
    while url:
        answer = client.get(url, params=query)
        assert answer.status_code == 200, answer.text
        rows += answer.json()["results"]
        url, query = answer.json()["next"], None
    return rows


def cells(client: httpx.Client, path: str, **params: Any) -> list[dict[str, str]]:
    answer = client.get(path, params=params)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def test_rows_are_paged_filtered_sorted(client: httpx.Client, weather: Platform) -> None:
    url = "/api/datasets/weather/rows/"
    everything = results(client, url, limit=7)
    assert [(row["station_id"], row["date"]) for row in everything] == sorted(
        (row["station_id"], row["date"]) for row in everything
    )
    assert len(everything) == 101
    assert list(everything[0]) == [c.name for c in WEATHER.columns] + ["_file_id", "_loaded_at", "_extra"]
    assert everything[0]["_loaded_at"].endswith("Z")
    warm = results(client, url, temp_c__gte=5, station_id__in="S1,S2", ordering="-temp_c", fields="temp_c", limit=3)
    right = [r["temp_c"] for r in everything if r["station_id"] in ("S1", "S2") and (r["temp_c"] or 0) >= 5]
    assert [row["temp_c"] for row in warm] == sorted(right, reverse=True)
    assert list(warm[0]) == ["temp_c"]
    first = client.get(url, params={"station_id": "S1", "limit": 3}).json()
    assert "station_id=S1" in first["next"]
    second = client.get(first["next"]).json()
    assert client.get(second["previous"]).json()["results"] == first["results"]


def test_files_rejects_and_quality(client: httpx.Client, weather: Platform) -> None:
    listed = results(client, "/api/datasets/weather/files/")
    assert [row["name"] for row in listed] == ["two.csv", "one.csv"]
    for row in listed:
        counted = ("inserted", "updated", "unchanged", "superseded", "rejected")
        assert row["rows_read"] == sum(row[f"rows_{name}"] for name in counted)
        assert client.get(f"/api/datasets/weather/files/{row['file_id']}/").json() == row
    assert client.get("/api/datasets/weather/files/999/").status_code == 404
    assert client.get("/api/datasets/records/files/1/").status_code == 404
    rejects = results(client, "/api/datasets/weather/rejects/", limit=1)
    with weather.engine.connect() as conn:
        right = list(quarantine.rejects(conn, WEATHER))
    assert len(rejects) == 5
    assert sorted(map(repr, [reject_values(row) for row in rejects])) == sorted(
        map(repr, [reject_values(row) for row in right])
    )
    assert [r["rule"] for r in results(client, "/api/datasets/weather/rejects/", column="temp_c", value="=1+1")] == [
        "temp_c_is_number"
    ]
    measured = {row["table_name"] for row in results(client, "/api/datasets/weather/quality/")}
    assert measured == {"staging.measurements", "production.measurements"}


def reject_values(row: dict[str, Any]) -> tuple[Any, ...]:
    names = ("file_id", "file", "line", "column", "value", "rule")
    return (*(row[name] for name in names), row.get("sentence") or row.get("reason"))


def test_every_listing_of_every_dataset_is_the_same_in_csv(
    client: httpx.Client, pipeline: Pipeline, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for name in all_datasets():
        with subtests.test(name):
            every_listing_is_the_same_in_csv(client, pipeline, tmp_path, name)


def every_listing_is_the_same_in_csv(client: httpx.Client, pipeline: Pipeline, tmp_path: Path, name: str) -> None:
    dataset = all_datasets()[name]
    path = tmp_path / f"{name}{dataset.sources[0].suffixes[0]}"
    write_sample(dataset, path, 150, dirty=0.1, seed=7)
    pipeline(dataset, path)
    detail = client.get(f"/api/datasets/{name}/").json()
    listings = [*detail["listings"].values(), *(item["url"] for item in detail["analytics"])]
    assert len(listings) == 4 + len(dataset.computed)
    for url in listings:
        in_json = results(client, url, limit=40)
        in_csv = cells(client, url.removesuffix("/") + ".csv")
        withheld = in_csv[0].get("_withheld", "").split() if in_csv else []
        assert {row[column] for row in in_json for column in withheld} <= {"***", None}
        expected = [{column: cell(value) for column, value in row.items() if column not in withheld} for row in in_json]
        assert in_csv == [row | ({"_withheld": " ".join(withheld)} if withheld else {}) for row in expected], url
        accepted = client.get(url, headers={"accept": "text/csv"})
        assert list(csv.DictReader(io.StringIO(accepted.text, newline=""))) == in_csv
    assert len(results(client, f"/api/datasets/{name}/rows/")) > 100
    assert len(results(client, f"/api/datasets/{name}/rejects/")) >= 10


def cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        value = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    words = str(value)
    risky = isinstance(value, str) and words[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{words}" if risky and not words.replace(".", "", 1).lstrip("+-").isdecimal() else words


def test_nasty_texts_come_through_pages_cursors_and_filters(client: httpx.Client, engine: Engine, home: Path) -> None:
    records = dataset_tables(all_datasets()["records"]).production
    now = dt.datetime.now(dt.UTC)
    with engine.begin() as conn:
        for n, words in enumerate(NASTY):
            conn.execute(
                insert(records).values(
                    source="s", source_id=words, name=words, description=words, value=math.nan if n % 2 else -math.inf,
                    created_at=now, updated_at=now, _file_id=1, _loaded_at=now,
                )
            )  # fmt: skip
    url = "/api/datasets/records/rows/"
    for ordering in ("name", "-description,source_id", "value"):
        listed = results(client, url, ordering=ordering, limit=7)
        assert sorted(row["name"] for row in listed) == sorted(NASTY)
        assert {row["value"] for row in listed} == {None}
    for words in NASTY:
        assert [row["name"] for row in results(client, url, name=words)] == [words]
        assert words in [row["name"] for row in results(client, url, name__contains=words)]
        assert client.get(url, params={"search": words, words: words}).status_code == 400
    in_csv = cells(client, "/api/datasets/records/rows.csv", ordering="source_id")
    shown = {row["name"] for row in in_csv}
    assert {"'=1+1", "'+x", "'-2+3", "'@SUM(A1)", "'\tx", "-95.5", "plain"} <= shown


def test_mistakes_are_problems(client: httpx.Client, weather: Platform) -> None:
    url = "/api/datasets/weather/rows"
    for path, status, words in (
        (f"{url}/?date__gte=2024-13-01", 400, "date__gte: '2024-13-01' is not a date"),
        (f"{url}/?station_id=%00", 400, "NUL"),
        (f"{url}/?station_id=%FF%FE", 200, ""),
        (f"{url}/?cursor=AAAA", 400, "cursor"),
        (f"{url}.csv?cursor=AAAA", 400, "an export has no pages"),
        (f"{url}.csv?limit=0", 400, "limit"),
        ("/api/datasets/nothing/rows/", 404, "The datasets are: "),
        ("/api/datasets/weather/analytics/nothing/", 404, "Its analytics: daily_metrics, summary."),
        ("/api/datasets/weather/files/x/", 422, "file_id"),
        (f"/api/datasets/weather/files/{2**63}/", 422, "file_id"),
    ):
        answer = client.get(path)
        assert answer.status_code == status, path
        if status != 200:
            assert answer.headers["content-type"] == "application/problem+json"
            assert words in answer.json()["detail"]


def test_what_has_not_changed_is_not_sent_again(
    client: httpx.Client, engine: Engine, pipeline: Pipeline, own_weather: None, tmp_path: Path
) -> None:
    paths = ["rows/", "rows.csv", "files/", "rejects/", "quality/", "analytics/summary/", "analytics/summary.csv", ""]
    urls = [f"/api/datasets/weather/{path}" for path in paths]

    def tags() -> dict[str, str]:
        return {url: client.get(url).headers.get("etag", "") for url in urls}

    first = tags()
    assert len(set(first.values())) == len(urls)
    for url, tag in first.items():
        assert tag.startswith('W/"')
        again = client.get(url, headers={"if-none-match": f'"other", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    more = tmp_path / "more.csv"
    more.write_text(f"{HEADER}\nS7,2024-06-01,1,1\n")
    pipeline(WEATHER, more)
    second = tags()
    assert [url for url in urls if first[url] == second[url]] == [urls[3]]
    with engine.begin() as conn:
        mark(conn, WEATHER, None)
    assert tags()[urls[5]] != second[urls[5]]
    with engine.begin() as conn:
        conn.execute(text("UPDATE ops.files SET erased_at = now() WHERE file_id = 1"))
    assert tags()[urls[0]] not in (first[urls[0]], second[urls[0]])


def test_head_is_get_without_the_body(client: httpx.Client, weather: Platform) -> None:
    for path in ("rows/", "rows.csv", "files/", ""):
        url = f"/api/datasets/weather/{path}"
        head, get = client.head(url), client.get(url)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        assert head.headers["etag"] == get.headers["etag"]
    assert client.head("/api/datasets/nothing/").status_code == 404


def test_a_missing_slash_loses_no_parameter(client: httpx.Client, weather: Platform) -> None:
    answer = client.get("/api/datasets/weather/rows?station_id=S9&limit=1", follow_redirects=True)
    assert [row["station_id"] for row in answer.json()["results"]] == ["S9"]


def test_datasets_tell_what_they_are(client: httpx.Client, weather: Platform) -> None:
    listed = {item["name"]: item for item in client.get("/api/datasets/").json()["results"]}
    assert list(listed) == list(all_datasets())
    assert listed["weather"]["rows_estimate"] == 101
    assert listed["weather"]["last_load"]["name"] == "two.csv"
    assert listed["sales"]["is_late"] is True
    detail = client.get(listed["weather"]["url"]).json()
    columns = {column["name"]: column for column in detail["columns"]}
    assert columns["temp_c"] | {"source": None} == {
        "name": "temp_c", "type": "number", "unit": "°C", "description": "Mean air temperature", "source": None,
        "in_key": False, "nullable": True, "personal": None, "stored": True, "system": None, "derived": False,
        "aliases": [],
    }  # fmt: skip
    assert {"name": "date_is_date", "column": "date", "severity": "error",
            "sentence": "date is not a date of the form YYYY-MM-DD"} in detail["rules"]  # fmt: skip
    assert [item["name"] for item in detail["analytics"]] == ["daily_metrics", "summary"]
    assert detail["key"] == ["station_id", "date"]


def test_personal_data_is_masked(client: httpx.Client, pipeline: Pipeline, tmp_path: Path) -> None:
    dataset = all_datasets()["customers"]
    path = tmp_path / "a.csv"
    write_sample(dataset, path, 20, dirty=0.2, seed=1)
    pipeline(dataset, path)
    rows = results(client, "/api/datasets/customers/rows/")
    assert {row["email"] for row in rows} == {"***"}
    assert {row["phone_2"] for row in rows} == {"***", None}
    assert "@" not in client.get("/api/datasets/customers/rejects/").text
    for params in ({"email": "a"}, {"email__contains": "a"}, {"ordering": "email"}, {"email__isnull": "true"}):
        assert client.get("/api/datasets/customers/rows/", params=params).status_code == 403
    assert results(client, "/api/datasets/customers/rows/", search="example.com") == []


def many(conn: Connection, rows: int) -> None:
    conn.execute(
        text(
            "INSERT INTO production.measurements SELECT 'S' || n % 50, date '2000-01-01' + n / 50, n % 40, 1, 1, now()"
            " FROM generate_series(1, :rows) n"
        ),
        {"rows": rows},
    )


def readers(conn: Connection) -> int:
    """Connections of the API that are in the middle of something."""
    busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mini_platform_api' AND state <> 'idle'"
    return int(conn.scalar(text(busy)) or 0)


def test_exports_end_with_their_clients_and_leave_connections_to_others(
    client: httpx.Client, engine: Engine, web: str
) -> None:
    with engine.begin() as conn:
        many(conn, ROWS)
    url = "/api/datasets/weather/rows.csv"
    assert client.get(url).content.count(b"\n") == 1 + ROWS
    assert len(cells(client, url, limit=5000)) == 5000
    for _ in range(2 * EXPORTS):
        with client.stream("GET", url) as answer:
            next(answer.iter_bytes())
    assert client.head(url).status_code == 200
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        for _ in range(100):
            if not (left := readers(conn)):
                break
            time.sleep(0.1)
    assert left == 0
    assert len(cells(client, url, limit=10)) == 10
    exports_leave_connections_to_others(client, web)


def exports_leave_connections_to_others(client: httpx.Client, web: str) -> None:
    """Clients that ask and do not read hold as many connections as exports may, and no more."""
    host, port = web.removeprefix("http://").split(":")
    waiting = []
    for _ in range(EXPORTS):
        waiting.append(sock := socket.create_connection((host, int(port))))
        sock.sendall(b"GET /api/datasets/weather/rows.csv HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    refused = client.get("/api/datasets/weather/rows.csv")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
    assert client.get("/api/datasets/weather/rows/").status_code == 200
    for sock in waiting:
        sock.close()


class Contact(RowModel):
    email: str = Field("Address", personal="mask", str_length={"min_value": 1, "max_value": 100})
    rank: int | None = Field("Rank")
    price: Decimal | None = Field("Price")
    note: str | None = Field("Note")


CONTACTS = Dataset("contacts", "contacts", Contact, ("email",), "People", search=("note",))


@pytest.fixture
def contacts(platform: Platform) -> Iterator[FastAPI]:
    tables = dataset_tables(CONTACTS)
    tables.production.create(platform.engine)
    with platform.engine.begin() as conn:
        grant(conn, [tables.production])
    site = Site(platform, {"contacts": CONTACTS})
    yield create_app(site)
    site.close()


def test_a_masked_key_is_in_no_cursor(contacts: FastAPI, platform: Platform) -> None:
    import base64

    table = dataset_tables(CONTACTS).production
    now = dt.datetime.now(dt.UTC)
    with platform.engine.begin() as conn:
        conn.execute(delete(table))
        rows = [
            {"email": f"canary{n}@example.org", "rank": n % 2, "note": "same", "_file_id": 1, "_loaded_at": now}
            for n in range(10)
        ]
        conn.execute(insert(table), rows)
        assert conn.scalar(select(files.c.file_id)) is None
    with serving(contacts) as url, httpx.Client(base_url=url) as client:
        listed = results(client, "/api/datasets/contacts/rows/", limit=3)
        assert [row["email"] for row in listed] == ["***"] * 10
        assert [row["rank"] for row in listed] == [0] * 5 + [1] * 5
        next_url = client.get("/api/datasets/contacts/rows/", params={"limit": 3}).json()["next"]
        cursor = httpx.URL(next_url).params["cursor"]
        assert b"canary" not in base64.urlsafe_b64decode(cursor + "===")
        assert len(results(client, "/api/datasets/contacts/rows/", rank__eq=1)) == 5
        assert results(client, "/api/datasets/contacts/rows/", search="canary") == []
        assert len(results(client, "/api/datasets/contacts/rows/", search="SAM")) == 10


@pytest.mark.parametrize("search", [("nothing",), ("rank",), ("price", "note")])
def test_a_search_over_what_is_no_text_is_refused(search: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="dataset contacts: search names"):
        Dataset("contacts", "contacts", Contact, ("email",), "People", search=search)


def test_times_at_the_ends_of_the_calendar_are_shown(client: httpx.Client, pipeline: Pipeline, tmp_path: Path) -> None:
    """Every time that is accepted into production can be shown, whatever its year is in UTC."""
    times = ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-05:00"]
    path = tmp_path / "ends.json"
    signals = [
        {"time_stamp": words, "data": [1]} for words in [*times, *(f"2024-01-0{n}T00:00:00Z" for n in range(1, 8))]
    ]
    path.write_text(json.dumps(signals))
    pipeline(all_datasets()["signals"], path)
    shown = results(client, "/api/datasets/signals/rows/", limit=2, ordering="-timestamp_utc")
    rejects = results(client, "/api/datasets/signals/rejects/")
    assert len(shown) + len({row["line"] * 100 + row["record"] for row in rejects}) == len(signals)
    assert len(shown) >= 9
