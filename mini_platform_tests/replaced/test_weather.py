"""The claims of the weather system, and its documented requests, rows and files, replayed."""

from __future__ import annotations

import csv
import datetime as dt
import io
import random
import statistics
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from mini_platform_tests.support.claims import Claim, different, held, partly
from mini_platform_tests.support.old_paths import (
    BAD_BODIES,
    Live,
    assert_refused,
    bad_body,
    live,
    post_half,
    uploaded,
)
from mini_platform_tests.support.uploads import ledger, until

HERE = "replaced/test_weather.py"
CLAIMS: list[Claim] = [
    held(
        "ingestion of CSV with validation",
        f"{HERE}::test_its_own_test_file_is_loaded_and_counted",
        "datasets/test_weather.py::test_each_rule_rejects_what_fails_it",
    ),
    held(
        "staging and production tables",
        f"{HERE}::test_its_own_test_file_is_loaded_and_counted",
        f"{HERE}::test_quality",
    ),
    held("idempotent upsert", f"{HERE}::test_imported_again_it_has_the_same_counts_and_the_table_the_same_rows"),
    held("daily metrics and summary", f"{HERE}::test_days_over_all_stations", f"{HERE}::test_summary"),
    held("PostgreSQL", "warehouse/test_schema.py::test_keys_types_and_indexes"),
    held("REST API", "web/api/test_openapi.py::test_examples_are_answered_as_documented"),
    held(
        "indexes: (station_id, date) and date; one on station_id is left out, as the first one begins with it",
        "warehouse/test_schema.py::test_keys_types_and_indexes",
    ),
    held("GET /api/health/", f"{HERE}::test_health_and_stations"),
    held("GET /api/stations/", f"{HERE}::test_health_and_stations"),
    held(
        "GET /api/metrics/daily/",
        f"{HERE}::test_days_of_a_station_page_by_page",
        f"{HERE}::test_a_limit_over_the_maximum_is_the_maximum",
    ),
    held("GET /api/metrics/summary/", f"{HERE}::test_summary"),
    held("validation of dates", "datasets/test_weather.py::test_each_rule_rejects_what_fails_it"),
    held("validation of stations", "datasets/test_weather.py::test_each_rule_rejects_what_fails_it"),
    held(
        "validation of the range of temp_c, here -90 to 60",
        "datasets/test_weather.py::test_each_rule_rejects_what_fails_it",
    ),
    held(
        "validation of the range of precip_mm, here 0 to 2000",
        "datasets/test_weather.py::test_each_rule_rejects_what_fails_it",
    ),
    held(
        "(station_id, date) is unique",
        f"{HERE}::test_quality_of_keys_that_repeat",
        "warehouse/test_schema.py::test_keys_types_and_indexes",
    ),
    held("the files of its sample generator are loaded", f"{HERE}::test_the_file_of_its_generator"),
    held(
        "asynchronous ingestion, which it lists as missing",
        "web/api/test_uploads.py::test_form",
        "web/api/test_uploads.py::test_wait_comes_to_its_end",
    ),
    held(
        "paging, which it lists as missing",
        f"{HERE}::test_days_of_a_station_page_by_page",
        f"{HERE}::test_the_next_page_is_named_only_if_there_is_one",
    ),
    held(
        "API keys, which it lists as missing", "web/api/test_replaced.py::test_keys_as_the_replaced_systems_took_them"
    ),
    held(
        "POST /api/import/: a file with bad rows is loaded, and counted when the figures are true",
        f"{HERE}::test_its_own_test_file_is_loaded_and_counted",
        f"{HERE}::test_a_file_of_bad_rows_only_is_answered_with_its_counts",
        f"{HERE}::test_fifty_imports_eight_at_a_time_are_all_answered_once_they_are_true",
    ),
    held("GET /api/quality/, computed live", f"{HERE}::test_quality", f"{HERE}::test_quality_of_keys_that_repeat"),
    held(
        "errors are 400 with `error`, and `found` where columns are missing",
        f"{HERE}::test_missing_columns_are_400_with_the_columns_of_the_file",
        f"{HERE}::test_requests_that_cannot_be_answered",
        f"{HERE}::test_bad_bodies_are_400_and_leave_nothing",
    ),
    held("GET /api/metrics/download/", f"{HERE}::test_download_has_the_columns_in_their_order"),
    partly(
        "interactive charts",
        "stations, span and steps are chosen beside the chart, as links; it is not zoomed or dragged with the mouse",
        "browser/test_pages.py::test_every_view_is_a_link",
        "web/pages/test_declared_page.py::test_charts_show_what_they_name",
    ),
    different(
        "Django admin", "the dashboard shows rows and rejects; a row is changed by a file, so that it has an origin"
    ),
    partly(
        "Docker",
        "no image is built where these tests run: the files are validated, and what they start is started by hand",
        "operations/test_deployment.py::test_the_compose_file_is_what_the_specification_says",
        "operations/test_deployment.py::test_the_dockerfile_is_lint_free",
        "operations/test_deployment.py::test_every_process_starts_by_its_command_gets_healthy_and_loads_a_file_together",
    ),
    held("continuous integration", "operations/test_deployment.py::test_continuous_integration_runs_the_gate"),
]

IMPORT = "/api/import/"
HEADER = "station_id,date,temp_c,precip_mm\n"
TEST_FILE = f"""{HEADER}STN001,2025-01-01,10.5,0.0
,2025-01-02,11.0,1.0
STN001,not-a-date,12.0,0.0
STN001,2025-01-04,999,0.0
STN001,2025-01-05,10.0,-5.0
"""
"""The file of the weather system's own test: a good row, and four bad ones."""
READ_FILE = """station_id,date,temp_c,precip_mm
A,2024-01-01,1.5,0
A,2024-01-02,,2.5
A,2024-01-03,-3,1
B,2024-01-01,4.5,10
B,2024-01-03,5,
B,2024-01-04,999,0
"""
ROWS = list(csv.DictReader(io.StringIO(READ_FILE)))[:-1]
"""The rows of READ_FILE that are loaded: all but the last one."""
FIGURES = ("rows_in_file", "rows_valid", "rows_invalid", "rows_upserted")


def generated(rows: int = 30, bad: int = 20, seed: int = 42) -> tuple[str, list[list[str]]]:
    """Return a file as the generator of the weather system writes it, and its good rows."""
    rng = random.Random(seed)  # noqa: S311 - sample data, not secrets
    stations = [f"STN{n:03}" for n in range(1, 6)]
    first = dt.date(2025, 3, 1)
    good = [
        [
            stations[n % 5],
            str(first + dt.timedelta(days=n // 5)),
            f"{rng.uniform(-10, 35):.1f}",
            f"{rng.uniform(0, 50):.1f}",
        ]
        for n in range(rows)
    ]
    remaining = list(good)
    for n in sorted(rng.sample(range(rows), bad)):
        station, date, temp, rain = good[n]
        wrong = rng.choice([
            ["", date, temp, rain],
            [station, "2025-13-45", temp, rain],
            [station, "", temp, rain],
            [station, date, "hot", rain],
            [station, date, f"{rng.choice((-120, 150)):.1f}", rain],
            [station, date, temp, f"{-rng.uniform(1, 20):.1f}"],
        ])  # fmt: skip
        remaining.remove(good[n])
        good[n] = wrong
    return HEADER + "".join(",".join(row) + "\n" for row in good), remaining


@pytest.fixture(scope="module")
def system(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The weather system, to which files can be sent; each test has stations of its own."""
    with live(server, template, tmp_path_factory.mktemp("weather")) as opened, opened.loading("weather"):
        yield opened


@pytest.fixture(scope="module")
def reader(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a system in which only READ_FILE is loaded; its tests change nothing."""
    with live(server, template, tmp_path_factory.mktemp("reader")) as opened:
        with opened.loading("weather"):
            assert figures(send(opened, "weather.csv", READ_FILE)) == [6, 5, 1, 5]
        yield opened.client


def send(system: Live, name: str, content: str) -> httpx.Response:
    return system.client.post(IMPORT, files={"file": (name, content)})


def figures(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [answer.json()[name] for name in FIGURES]


def number(text: str) -> float | None:
    return float(text) if text else None


# Import


def test_its_own_test_file_is_loaded_and_counted(system: Live) -> None:
    before = system.client.get("/api/quality/").json()["total_rows"]
    answer = send(system, "test.csv", TEST_FILE)
    assert figures(answer) == [5, 1, 4, 1]
    rows = system.rows(
        "SELECT station_id, date, temp_c, precip_mm FROM production.measurements WHERE station_id = 'STN001'"
    )
    assert rows == [("STN001", dt.date(2025, 1, 1), 10.5, 0.0)]
    assert system.client.get("/api/quality/").json()["total_rows"] == before + 1
    staged = system.client.get("/api/quality/", params={"table": "staging"}).json()
    assert staged["total_rows"] == 5
    assert staged["out_of_range_counts"] == {
        "temp_c_lt_-90": 0, "temp_c_gt_60": 1, "precip_mm_lt_0": 1, "precip_mm_gt_2000": 0
    }  # fmt: skip
    file_id = answer.json()["file_id"]
    rejects = system.client.get("/api/datasets/weather/rejects/", params={"file_id": file_id}).json()["results"]
    assert sorted(row["line"] for row in rejects) == [3, 4, 5, 6]
    day = system.client.get("/api/metrics/daily/", params={"from": "2025-01-01", "to": "2025-01-01"}).json()
    assert day["data"] == [{"date": "2025-01-01", "temp_c": 10.5, "precip_mm": 0.0}]


def test_the_file_of_its_generator(system: Live) -> None:
    content, good = generated()
    assert figures(send(system, "sample.csv", content)) == [30, 10, 20, 10]
    expected = sorted((station, date, float(temp), float(rain)) for station, date, temp, rain in good)
    assert (
        system.rows(
            "SELECT station_id, date::text, temp_c, precip_mm FROM production.measurements"
            " WHERE date >= '2025-03-01' AND date < '2025-04-01' ORDER BY 1, 2"
        )
        == expected
    )
    summary = system.client.get("/api/metrics/summary/", params={"from": "2025-03-01", "to": "2025-03-31"}).json()
    assert summary["total_rows"] == 10
    assert summary["avg_temp_c"] == pytest.approx(statistics.fmean(row[2] for row in expected))


def test_a_file_of_bad_rows_only_is_answered_with_its_counts(system: Live) -> None:
    assert figures(send(system, "bad.csv", HEADER + "X,never,1,1\n,2025-01-01,1,1\n")) == [2, 0, 2, 0]


def test_imported_again_it_has_the_same_counts_and_the_table_the_same_rows(system: Live) -> None:
    content = HEADER + "AGAIN,2025-05-01,1,1\nAGAIN,2025-05-02,2,0\n"
    first = figures(send(system, "again.csv", content))
    assert first == figures(send(system, "again.csv", content)) == [2, 2, 0, 2]
    assert figures(send(system, "again.csv", content.replace(",2,0", ",3,0"))) == [2, 2, 0, 2]
    rows = system.rows("SELECT temp_c FROM production.measurements WHERE station_id = 'AGAIN' ORDER BY date")
    assert rows == [(1.0,), (3.0,)]


def test_missing_columns_are_400_with_the_columns_of_the_file(system: Live) -> None:
    answer = send(system, "columns.csv", "station,date,temp\nOSL,2025-01-01,1\n")
    assert assert_refused(answer, 400).startswith(
        "columns.csv is refused: The header lacks station_id, temp_c, precip_mm."
    )
    assert answer.json()["found"] == ["station", "date", "temp"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("picture.csv", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "picture.csv is refused"),
        ("empty.csv", b"", "The file is empty"),
        ("table.xlsx", b"PK", "Files of weather have names that end in .csv"),
        ("list.csv", b'[{"station_id": "OSL"}]', "list.csv is refused: The header lacks"),
        ("open.csv", b'station_id,"date', "open.csv is refused"),
    ],
)
def test_files_that_are_no_table_are_400(system: Live, name: str, content: bytes, message: str) -> None:
    assert message in assert_refused(uploaded(name, content).post(system.client, IMPORT), 400)


GOOD = uploaded("good.csv", (HEADER + "GOOD,2025-06-01,1,1\n").encode())


@pytest.mark.parametrize("kind", BAD_BODIES)
def test_bad_bodies_are_400_and_leave_nothing(system: Live, kind: str) -> None:
    before = system.received()
    assert_refused(bad_body(kind, GOOD).post(system.client, IMPORT), 400)
    assert system.received() == before


def test_too_large_and_half_sent_bodies_leave_nothing_and_the_next_is_taken(
    system: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = system.received()
    with monkeypatch.context() as patch:
        patch.setattr(system.platform.settings, "max_upload_bytes", 10)
        assert_refused(GOOD.post(system.client, IMPORT), 413)
    assert not post_half(system, IMPORT, GOOD).startswith(b"HTTP/1.1 5")
    until(lambda: system.received() == before)  # the server tidies up after the client is gone
    assert figures(GOOD.post(system.client, IMPORT)) == figures(GOOD.post(system.client, IMPORT)) == [1, 1, 0, 1]
    assert len(system.received()[0]) == len(before[0]) + 2


@pytest.mark.slow
def test_fifty_imports_eight_at_a_time_are_all_answered_once_they_are_true(system: Live) -> None:
    """Each has a day of its own: its figures are those of this file alone, as soon as the file is answered."""
    loaded, lock = [0], threading.Lock()
    rows_before = system.client.get("/api/quality/").json()["total_rows"]

    def replay(n: int) -> None:
        day = str(dt.date(2001, 1, 1) + dt.timedelta(days=n))
        answer = send(
            system, f"many-{n}.csv", f"{HEADER}MANY{n},{day},{n},1\nMANY{n},{day},hot,1\nMANY{n}b,{day},{n + 1},1\n"
        )
        assert figures(answer) == [3, 2, 1, 2]
        with lock:
            loaded[0] += 2
            at_least = loaded[0]
        assert system.client.get("/api/quality/").json()["total_rows"] >= rows_before + at_least
        of_day = system.client.get("/api/metrics/daily/", params={"from": day, "to": day}).json()["data"]
        assert of_day == [{"date": day, "temp_c": n + 0.5, "precip_mm": 2.0}]
        summary = system.client.get("/api/metrics/summary/", params={"station_id": f"MANY{n}"}).json()
        assert (summary["total_rows"], summary["avg_temp_c"]) == (1, float(n))
        assert f"MANY{n}b" in system.client.get("/api/stations/").json()["stations"]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(replay, range(50)))
    assert system.client.get("/api/quality/").json()["total_rows"] == rows_before + 100
    statuses = {row.name: row.status for row in ledger(system.platform) if row.name.startswith("many-")}
    assert statuses == {f"many-{n}.csv": "loaded" for n in range(50)}


# Reading


def test_health_and_stations(reader: httpx.Client) -> None:
    assert reader.get("/api/health/").json() == {"status": "ok"}
    assert reader.get("/api/stations/").json() == {"stations": ["A", "B"]}


def test_days_of_a_station_page_by_page(reader: httpx.Client) -> None:
    expected = [
        {"date": row["date"], "temp_c": number(row["temp_c"]), "precip_mm": number(row["precip_mm"])}
        for row in ROWS
        if row["station_id"] == "A"
    ]
    first = reader.get("/api/metrics/daily/", params={"station_id": "A", "limit": 2}).json()
    assert first == {
        "station_id": "A", "count": 3, "limit": 2, "offset": 0, "next_offset": 2, "data": expected[:2]
    }  # fmt: skip
    second = reader.get("/api/metrics/daily/", params={"station_id": "A", "limit": 2, "offset": 2}).json()
    assert (second["data"], second["next_offset"]) == (expected[2:], None)


@pytest.mark.parametrize(("limit", "offset", "following"), [(3, 0, None), (1, 1, 2), (1, 2, None), (1000, 3, None)])
def test_the_next_page_is_named_only_if_there_is_one(
    reader: httpx.Client, limit: int, offset: int, following: int | None
) -> None:
    page = reader.get("/api/metrics/daily/", params={"station_id": "A", "limit": limit, "offset": offset}).json()
    assert (page["count"], page["next_offset"], len(page["data"])) == (3, following, min(limit, 3 - offset))


@pytest.mark.parametrize("limit", ["1001", "10001", str(10**40)])
def test_a_limit_over_the_maximum_is_the_maximum(reader: httpx.Client, limit: str) -> None:
    page = reader.get("/api/metrics/daily/", params={"limit": limit}).json()
    assert (page["limit"], page["count"], page["next_offset"]) == (1000, 3, None)


def test_days_over_all_stations(reader: httpx.Client) -> None:
    temps, rain = defaultdict(list), defaultdict(list)
    for row in ROWS:
        if row["temp_c"]:
            temps[row["date"]].append(float(row["temp_c"]))
        if row["precip_mm"]:
            rain[row["date"]].append(float(row["precip_mm"]))
    answer = reader.get("/api/metrics/daily/").json()
    assert answer["station_id"] is None
    assert answer["data"] == [
        {
            "date": day,
            "temp_c": statistics.fmean(temps[day]) if temps[day] else None,
            "precip_mm": sum(rain[day]) if rain[day] else None,
        }
        for day in sorted({row["date"] for row in ROWS})
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


def test_download_has_the_columns_in_their_order(reader: httpx.Client) -> None:
    answer = reader.get("/api/metrics/download/", params={"station_id": "B", "to": "2024-01-03"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    header, *lines = csv.reader(io.StringIO(answer.text))
    assert header == ["date", "station_id", "temp_c", "precip_mm"]
    assert [[date, station, number(temp), number(rain)] for date, station, temp, rain in lines] == [
        [row["date"], "B", number(row["temp_c"]), number(row["precip_mm"])] for row in ROWS if row["station_id"] == "B"
    ]


def test_quality(reader: httpx.Client) -> None:
    nulls = {name: sum(not row[name] for row in ROWS) for name in ROWS[0]}
    days = {"min": "2024-01-01", "max": "2024-01-03"}
    counts = {"temp_c_lt_-90": 0, "temp_c_gt_60": 0, "precip_mm_lt_0": 0, "precip_mm_gt_2000": 0}
    expected = {
        "table": "measurements",
        "total_rows": 5,
        "null_counts": nulls,
        "null_rates": {name: count / 5 for name, count in nulls.items()},
        "duplicates": {"key": ["station_id", "date"], "extra_duplicate_rows": 0},
        "min_max": {
            "date": days,
            "precip_mm": {"min": 0, "max": 10},
            "station_id": {"min": "A", "max": "B"},
            "temp_c": {"min": -3, "max": 5},
        },
        "out_of_range_counts": counts,
    }
    assert reader.get("/api/quality/").json() == expected
    assert reader.get("/api/quality/?table=measurements").json() == expected
    staged = reader.get("/api/quality/?table=staging").json()
    assert (staged["table"], staged["total_rows"], staged["null_counts"]) == ("staging", 6, nulls)
    assert staged["min_max"]["temp_c"] == {"min": -3, "max": 999}
    assert staged["out_of_range_counts"] == counts | {"temp_c_gt_60": 1}


def test_quality_of_keys_that_repeat(system: Live) -> None:
    assert figures(send(system, "repeats.csv", HEADER + "TWICE,2025-07-01,1,1\n" * 3)) == [3, 3, 0, 1]
    staged = system.client.get("/api/quality/?table=staging").json()
    assert staged["duplicates"] == {"key": ["station_id", "date"], "extra_duplicate_rows": 2}


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/api/metrics/daily/?station_id=nowhere", 404, "no station 'nowhere'"),
        ("/api/metrics/summary/?station_id=nowhere", 404, "no station 'nowhere'"),
        ("/api/metrics/summary/?from=2024-02-01&to=2024-01-01", 400, "is after"),
        ("/api/metrics/download/?from=2024-02-01&to=2024-01-01", 400, "is after"),
        ("/api/metrics/summary/?from=2024-02-30", 400, "from"),
        ("/api/metrics/daily/?limit=0", 400, "limit"),
        ("/api/metrics/daily/?limit=-1", 400, "limit"),
        ("/api/metrics/daily/?limit=many", 400, "limit"),
        ("/api/metrics/daily/?offset=-1", 400, "offset"),
        ("/api/metrics/daily/?station_id=%00", 400, "station_id"),
        ("/api/quality/?table=foo", 400, "table"),
    ],
)
def test_requests_that_cannot_be_answered(reader: httpx.Client, path: str, status: int, message: str) -> None:
    answer = reader.get(path)
    assert message in assert_refused(answer, status)
    assert answer.headers["content-type"] == "application/problem+json"
