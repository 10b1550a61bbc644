"""The paths of the replaced systems, held to figures that are computed from the files themselves."""

from __future__ import annotations

import csv
import datetime as dt
import io
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, make_url

from mini_platform.config.settings import PROJECT
from mini_platform.datasets import all_datasets
from mini_platform.platform import Platform
from mini_platform.warehouse import quality
from mini_platform.warehouse.tables import quality_report
from mini_platform.warehouse.upsert import upsert_frame
from mini_platform.web.app import create_app
from mini_platform.web.auth import keys
from mini_platform.web.site import Site
from mini_platform_tests.support.databases import Pipeline, load_files, open_platform
from mini_platform_tests.support.processes import away
from mini_platform_tests.support.web import serving

WEATHER = """station_id,date,temp_c,precip_mm
A,2024-01-01,1.5,0
A,2024-01-02,,2.5
A,2024-01-03,-3,1
B,2024-01-01,4.5,10
B,2024-01-03,5,
B,2024-01-04,999,0
"""


ROWS = list(csv.DictReader(io.StringIO(WEATHER)))[:-1]
"""The rows of WEATHER that are loaded: all but the last one, which is rejected."""


@pytest.fixture(scope="module")
def reader(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a platform in which the measurements are loaded; its tests change nothing."""
    folder = tmp_path_factory.mktemp("weather")
    with open_platform(server, template, folder) as platform:
        (folder / "weather.csv").write_text(WEATHER)
        load_files(platform, all_datasets()["weather"], folder / "weather.csv")
        site = Site(platform)
        with serving(create_app(site)) as url, httpx.Client(base_url=url, timeout=30) as client:
            yield client
        site.close()


@pytest.fixture
def weather(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "weather.csv"
    path.write_text(WEATHER)
    pipeline(all_datasets()["weather"], path)


def _number(text: str) -> float | None:
    return float(text) if text else None


def test_stations(reader: httpx.Client) -> None:
    assert reader.get("/api/stations/").json() == {"stations": ["A", "B"]}


def test_days_of_a_station_page_by_page(reader: httpx.Client) -> None:
    expected = [
        {"date": row["date"], "temp_c": _number(row["temp_c"]), "precip_mm": _number(row["precip_mm"])}
        for row in ROWS
        if row["station_id"] == "A"
    ]
    first = reader.get("/api/metrics/daily/", params={"station_id": "A", "limit": 2}).json()
    assert first == {
        "station_id": "A", "count": 3, "limit": 2, "offset": 0, "next_offset": 2, "data": expected[:2]
    }  # fmt: skip
    second = reader.get("/api/metrics/daily/", params={"station_id": "A", "limit": 2, "offset": 2}).json()
    assert (second["data"], second["next_offset"]) == (expected[2:], None)


@pytest.mark.parametrize(("limit", "offset", "following"), [(3, 0, None), (1, 1, 2), (1, 2, None), (10_000, 3, None)])
def test_the_next_page_is_named_only_if_there_is_one(
    reader: httpx.Client, limit: int, offset: int, following: int | None
) -> None:
    page = reader.get("/api/metrics/daily/", params={"station_id": "A", "limit": limit, "offset": offset}).json()
    assert (page["count"], page["next_offset"], len(page["data"])) == (3, following, min(limit, 3 - offset))


def test_days_over_all_stations(reader: httpx.Client) -> None:
    temps, rain = defaultdict(list), defaultdict(list)
    for row in ROWS:
        if row["temp_c"]:
            temps[row["date"]].append(float(row["temp_c"]))
        if row["precip_mm"]:
            rain[row["date"]].append(float(row["precip_mm"]))
    days = sorted({row["date"] for row in ROWS})
    body = reader.get("/api/metrics/daily/").json()
    assert body["station_id"] is None
    assert body["data"] == [
        {
            "date": day,
            "temp_c": statistics.fmean(temps[day]) if temps[day] else None,
            "precip_mm": sum(rain[day]) if rain[day] else None,
        }
        for day in days
    ]


@pytest.mark.parametrize("station", [None, "A", "B"])
@pytest.mark.parametrize(
    ("first", "last"), [(None, None), ("2024-01-02", None), (None, "2024-01-01"), ("2030-01-01",) * 2]
)
def test_summary(reader: httpx.Client, station: str | None, first: str | None, last: str | None) -> None:
    rows = [
        row for row in ROWS if station in (None, row["station_id"]) and (first or "") <= row["date"] <= (last or "9999")
    ]
    temps = [float(row["temp_c"]) for row in rows if row["temp_c"]]
    rain = [float(row["precip_mm"]) for row in rows if row["precip_mm"]]
    params = {name: value for name, value in (("station_id", station), ("from", first), ("to", last)) if value}
    assert reader.get("/api/metrics/summary/", params=params).json() == {
        "station_id": station,
        "from": first,
        "to": last,
        "total_rows": len(rows),
        "avg_temp_c": pytest.approx(statistics.fmean(temps)) if temps else None,
        "total_precip_mm": sum(rain) if rain else None,
    }


def test_download(reader: httpx.Client) -> None:
    answer = reader.get("/api/metrics/download/", params={"station_id": "B", "to": "2024-01-03"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    expected = [row for row in ROWS if row["station_id"] == "B"]
    numbers = ("temp_c", "precip_mm")
    assert [{n: _number(row[n]) if n in numbers else row[n] for n in row} for row in rows] == [
        {n: _number(row[n]) if n in numbers else row[n] for n in row} for row in expected
    ]


def test_quality(client: httpx.Client, engine: Engine, weather: None) -> None:
    with engine.begin() as conn:
        upsert_frame(conn, quality_report, quality.measure(conn, all_datasets()["weather"], "run"))
    columns = ["date", "precip_mm", "station_id", "temp_c"]
    nulls = {name: sum(not row[name] for row in ROWS) for name in columns}
    days = {"min": "2024-01-01", "max": "2024-01-03"}
    measured = {
        "table": "measurements",
        "total_rows": 5,
        "null_counts": nulls,
        "null_rates": {name: count / 5 for name, count in nulls.items()},
        "duplicates": 0,
        "min_max": {
            "date": days,
            "precip_mm": {"min": 0, "max": 10},
            "station_id": {"min": "A", "max": "B"},
            "temp_c": {"min": -3, "max": 5},
        },
        "out_of_range_counts": dict.fromkeys(columns, 0),
    }
    assert client.get("/api/quality/").json() == measured
    assert client.get("/api/quality/?table=measurements").json() == measured
    staged = client.get("/api/quality/?table=staging").json()
    assert (staged["table"], staged["total_rows"], staged["null_counts"]) == ("staging", 6, nulls)
    assert staged["min_max"]["temp_c"] == {"min": -3, "max": 999}
    assert staged["out_of_range_counts"] == dict.fromkeys(columns, 0) | {"temp_c": 1}


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/api/metrics/daily/?station_id=nowhere", 404, "no station 'nowhere'"),
        ("/api/metrics/summary/?station_id=nowhere", 404, "no station 'nowhere'"),
        ("/api/metrics/summary/?from=2024-02-01&to=2024-01-01", 400, "is after"),
        ("/api/metrics/download/?from=2024-02-01&to=2024-01-01", 400, "is after"),
        ("/api/metrics/summary/?from=2024-02-30", 422, "from"),
        ("/api/metrics/daily/?limit=0", 422, "limit"),
        ("/api/metrics/daily/?limit=10001", 422, "limit"),
        ("/api/metrics/daily/?offset=-1", 422, "offset"),
        ("/api/metrics/daily/?station_id=%00", 422, "station_id"),
        ("/api/quality/?table=orders", 422, "table"),
        ("/data?page_size=101", 422, "page_size"),
        ("/data?page_size=0", 422, "page_size"),
        ("/data?page=0", 422, "page"),
        ("/api/customers/?ordering=shoe_size", 400, "shoe_size"),
    ],
)
def test_what_cannot_be_answered_says_why(reader: httpx.Client, path: str, status: int, message: str) -> None:
    answer = reader.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert message in answer.json()["detail"]


def test_before_anything_was_loaded_there_is_no_report(client: httpx.Client) -> None:
    answer = client.get("/api/quality/")
    assert answer.status_code == 404
    assert "no quality report yet" in answer.text


def test_customers(client: httpx.Client, pipeline: Pipeline) -> None:
    pipeline(all_datasets()["customers"], PROJECT / "data" / "customers" / "customers.csv")
    with (PROJECT / "data" / "customers" / "customers.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    country = expected[0]["country"]
    of_country = sorted(row["customer_id"] for row in expected if row["country"] == country)
    customers, url = [], f"/api/customers/?country={country}&ordering=customer_id&limit=7"
    while url:
        page = client.get(url).json()
        assert set(page) == {"next", "previous", "results"}
        customers += page["results"]
        url = page["next"]
    assert [row["customer_id"] for row in customers] == of_country
    emails = {row["customer_id"]: row["email"] for row in expected}
    assert all(row["email"].lower() == emails[row["customer_id"]].lower() for row in customers)
    one = customers[0]
    searched = client.get("/api/customers/", params={"search": one["email"]}).json()["results"]
    assert [row["customer_id"] for row in searched] == [one["customer_id"]]


def test_records_by_page(client: httpx.Client, pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "things.csv"
    path.write_text("id,name,value,description\n" + "".join(f"{n},thing {n:02},{n},100%_{n}\n" for n in range(25)))
    began = dt.datetime.now(dt.UTC)
    pipeline(all_datasets()["records"], path)
    pages = [client.get("/data", params={"page": n, "page_size": 10}).json() for n in (1, 2, 3, 4)]
    assert [(p["total"], p["page"], p["page_size"], p["has_more"], len(p["data"])) for p in pages] == [
        (25, 1, 10, True, 10),
        (25, 2, 10, True, 10),
        (25, 3, 10, False, 5),
        (25, 4, 10, False, 0),
    ]
    assert client.get("/data").json() | {"data": []} == {
        "data": [], "total": 25, "page": 1, "page_size": 20, "has_more": True
    }  # fmt: skip
    assert len(client.get("/data", params={"page_size": 1}).json()["data"]) == 1
    rows = [row for page in pages for row in page["data"]]
    names = {"source", "source_id", "name", "value", "description", "created_at", "updated_at"}
    assert all(set(row) == names for row in rows)
    assert {row["source_id"]: row["value"] for row in rows} == {str(n): float(n) for n in range(25)}
    assert all(dt.datetime.fromisoformat(row["created_at"]) >= began for row in rows)
    # % and _ are characters as any other.
    assert client.get("/data", params={"search": "%_7"}).json()["total"] == 1
    assert client.get("/data", params={"search": "THING 07"}).json()["total"] == 1
    assert client.get("/data", params={"source": "csv"}).json()["total"] == 25
    assert client.get("/data", params={"source": "api"}).json()["total"] == 0


READS = (
    *("/api/stations/", "/api/metrics/daily/", "/api/metrics/summary/", "/api/metrics/download/", "/api/customers/"),
    *("/data", "/stats", "/api/quality/?table=staging", "/metrics"),
)


def _responses(client: httpx.Client, headers: dict[str, str]) -> dict[str, httpx.Response]:
    """Return the response of every path to one request."""
    answers = {path: client.get(path, headers=headers) for path in READS}
    answers["/ingest"] = client.post("/ingest", json={"data": [1]}, headers=headers)
    answers["/process"] = client.post("/process", params={"wait": 0}, headers=headers)
    file = {"file": ("a.csv", WEATHER)}
    return answers | {"/api/import/": client.post("/api/import/", params={"wait": 0}, files=file, headers=headers)}


@pytest.mark.parametrize("header", ["Authorization: Token {}", "x-api-key: {}"])
def test_keys_as_the_replaced_systems_took_them(platform: Platform, samples: None, header: str) -> None:
    platform.settings.api_auth = "always"
    with platform.engine.begin() as conn:
        key = keys.create(conn, "test", ["read", "write", "read:customers"])
    site = Site(platform)
    with serving(create_app(site)) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert {answer.status_code for answer in _responses(client, {}).values()} == {401}
        assert all(client.get(path).status_code == 200 for path in ("/health", "/api/health/")), "for load balancers"
        name, _, value = header.format(key).partition(": ")
        answers = _responses(client, {name: value})
        assert {path: answer.status_code for path, answer in answers.items() if answer.status_code != 200} == {
            "/ingest": 202, "/api/import/": 202
        }  # fmt: skip
    site.close()


def test_without_the_database_every_path_says_so(client: httpx.Client, database_url: str, platform: Platform) -> None:
    name = str(make_url(database_url).database)
    server = make_url(database_url).set(database="postgres").render_as_string(hide_password=False)
    with away(server, name):
        answers = _responses(client, {})
    assert answers.pop("/metrics").status_code == 200, "which says that it is away"
    for path, answer in answers.items():
        assert answer.status_code == 503, (path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert "database cannot be reached" in answer.json()["detail"]
        assert int(answer.headers["retry-after"]) > 0
    assert [path for path in platform.store.folder.rglob("*") if path.is_file()] == [], "what is not in the ledger"
    assert client.get("/api/stations/").status_code == 200
