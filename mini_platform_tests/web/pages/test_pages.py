"""Every page, with data and without: it is well-formed, keeps to itself, and says what the database says."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from sqlalchemy import Engine, text

from mini_platform import Aggregate, Dataset, Field, RowModel
from mini_platform.datasets import all_datasets
from mini_platform.platform import Platform
from mini_platform.rows.wording import number
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.examples import customers, weather
from mini_platform_tests.support.pages import Get, Page, keeps_to_itself
from mini_platform_tests.support.strings import NAUGHTY
from mini_platform_tests.support.web import serving

PAGES = (
    *("/", "/weather", "/sales", "/signals", "/customers", "/records", "/files", "/quality", "/runs", "/login"),
    *(f"/datasets/{name}" for name in all_datasets()),
    *(f"/quality?dataset={name}" for name in all_datasets()),
    "/quality?dataset=weather&column=temp_c",
    "/files?dataset=sales",
)


def one(engine: Engine, statement: str) -> object:
    with engine.connect() as conn:
        return conn.scalar(text(statement))


def test_pages_without_data(get: Get, subtests: pytest.Subtests) -> None:
    for path in PAGES:
        with subtests.test(path):
            page = get(path)
            keeps_to_itself(page)
            if path not in ("/login", "/runs") and not path.startswith("/files"):
                assert "No files yet" in page.text


def test_pages_with_data(get: Get, samples_engine: Engine, subtests: pytest.Subtests) -> None:
    for path in (*PAGES, "/files/1", "/weather?station=SEA&station=PDX", "/customers?search=a&ordering=-city"):
        with subtests.test(path):
            page = get(path)
            keeps_to_itself(page)
            assert "No files yet" not in page.text
            for tag, attrs in page.tags:
                if tag == "script" and attrs.get("type") == "application/json":
                    match = re.search(rf'id="{attrs["id"]}">(.*?)</script>', page.html, re.DOTALL)
                    assert match
                    assert json.loads(match[1])["data"]


def test_policy_and_freshness(browser: httpx.Client, samples_engine: Engine) -> None:
    answer = browser.get("/")
    assert "script-src" not in answer.headers["content-security-policy"]
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert answer.headers["cache-control"] == "no-cache"


def test_overview_says_what_the_ledger_says(get: Get, samples_engine: Engine) -> None:
    page = get("/")
    for name, dataset in all_datasets().items():
        card = page.part(f"dataset-{name}")
        rows = one(samples_engine, f"SELECT count(*) FROM production.{dataset.table}")  # noqa: S608
        assert f"Rows{rows:,} " in card
    files = one(samples_engine, "SELECT count(*) FROM ops.files WHERE same_as IS NULL")
    assert f"{files} files" in page.part("overview-line")


def test_concerns(get: Get, engine: Engine, pipeline: Pipeline, tmp_path: Path) -> None:
    bad, good, late = tmp_path / "bad.csv", tmp_path / "good.csv", tmp_path / "late.csv"
    bad.write_text("a,b\n1,2\n")
    good.write_text("station_id,date,temp_c,precip_mm\nOSL,2026-01-01,1.5,0\nOSL,2026-01-02,warm,0\n")
    late.write_text(good.read_text())
    pipeline(weather, bad, good)
    attention = get("/").part("attention")
    assert "bad.csv was refused: The header lacks" in attention
    assert "good.csv: 1 of 2 rows (50%) rejected." in attention
    assert attention.index("bad.csv") < attention.index("good.csv"), "what is refused stands before what is rejected"
    with engine.begin() as conn:
        conn.execute(
            text("UPDATE ops.files SET arrived_at = now() - interval '1 hour', status = 'landed' WHERE file_id = 2")
        )
        conn.execute(text("UPDATE ops.files SET staged_at = arrived_at, loaded_at = NULL, leased_until = NULL"))
    assert "1 file waits since 1 h. Start Dagster" in get("/").part("attention")
    bad.write_text(good.read_text())
    pipeline(weather, bad)
    assert "bad.csv was refused" not in get("/").part("attention")


def test_rejects_concern_until_they_are_corrected(get: Get, pipeline: Pipeline, tmp_path: Path) -> None:
    """Not only those of the last file; and the worst file is the one that is named."""
    dirty, worse, good = tmp_path / "dirty.csv", tmp_path / "worse.csv", tmp_path / "good.csv"
    header, row = "station_id,date,temp_c,precip_mm\n", "OSL,2026-01-0{},1.5,0\n"
    dirty.write_text(header + row.format(1) + row.format(2) + row.format("x"))
    worse.write_text(header + row.format(3) + row.format("x"))
    good.write_text(header + row.format(4))
    pipeline(weather, dirty, worse)
    pipeline(weather, good)
    page = get("/")
    assert "worse.csv: 1 of 2 rows (50%) rejected. And 1 file more." in page.part("attention")
    assert "/files?dataset=weather&rows_rejected__gt=0&ordering=-rows_rejected" in page.links
    assert "Needs attention" in page.part("dataset-weather")
    assert "1 of 15 rules failing" in page.part("dataset-weather")
    for file in (dirty, worse):
        file.write_text(file.read_text().replace("2026-01-0x", "2026-01-05"))
        pipeline(weather, file)
    page = get("/")
    assert "No open incidents." in page.part("attention")
    assert "0 of 15 rules failing" in page.part("dataset-weather")
    assert "Up to date" in page.part("dataset-weather")


def test_a_rule_leads_to_the_rows_that_break_it(get: Get, samples_engine: Engine) -> None:
    page = get("/quality", dataset="weather")
    assert "of the rows in the last 2 files, highest in dirty.csv: 44%" in page.part("rejected-share")
    assert "/quality?dataset=weather&rule=row_quotes_closed#rejects" in page.links
    rejects = get("/quality", dataset="weather", rule="row_quotes_closed").part("rejects")
    assert "text follows a closing quote" in rejects
    assert "is not a number" not in rejects


def test_a_filter_becomes_the_address(browser: httpx.Client, samples_engine: Engine) -> None:
    for column, by, value, leads in (
        ("city", "eq", "Oslo", "city=Oslo"),
        ("index", "gte", "7", "index__gte=7"),
        ("company", "isnull", "", "company__isnull=true"),
    ):
        chosen = {"search": "a", "filter_column": column, "filter_by": by, "filter_value": value}
        answer = browser.get("/customers", params=chosen)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/customers?search=a&{leads}")
        assert browser.get(answer.headers["location"]).status_code == 200


TABLES = {
    "runs": ("/runs?dataset=sales", "run_id,dataset,files,"),
    "stations": ("/weather?station=SEA&station=PDX&from=2014-01-01&to=2014-03-31", "station_id,mean_temp_c,"),
    "rules": ("/quality?dataset=sales&column=quantity", "rule,column,broken_if,severity,rows"),
    "columns": ("/datasets/sales", "column,type,unit,key,description,personal,rules,null_rate,distinct_values"),
    "computed": ("/datasets/sales", "name,description"),
}
"""Table that no API has -> a page with it, and how it begins as CSV."""


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_pages_are_there_as_csv_and_json(browser: httpx.Client, samples_engine: Engine, name: str) -> None:
    path, begins = TABLES[name]
    page = Page(browser.get(path).text)
    (as_csv,) = (link for link in page.links if f"_twin={name}.csv" in link)
    (as_json,) = (link for link in page.links if f"_twin={name}.json" in link)
    answer = browser.get(as_csv)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert answer.text.startswith(begins)
    rows = browser.get(as_json).json()["results"]
    as_text = list(csv.DictReader(io.StringIO(answer.text)))
    assert [list(row) for row in as_text] == [list(row) for row in rows] != []


def test_a_twin_says_what_its_table_says(browser: httpx.Client, samples_engine: Engine) -> None:
    def twin(path: str, name: str) -> list[dict[str, Any]]:
        answer = browser.get(f"{path}{'&' if '?' in path else '?'}_twin={name}.json")
        return list(answer.json()["results"])

    (run,) = twin("/runs?dataset=sales", "runs")
    assert run["dataset"] == "sales"
    assert run["took"] > 0
    where = "FROM production.measurements WHERE station_id = :s AND date BETWEEN '2014-01-01' AND '2014-03-31'"
    with samples_engine.connect() as conn:
        for station in twin(TABLES["stations"][0], "stations"):
            mean, days = conn.execute(text(f"SELECT avg(temp_c), count(*) {where}"), {"s": station["station_id"]}).one()
            assert (pytest.approx(mean), days) == (station["mean_temp_c"], station["days"])
        assert run["files"] == conn.scalar(text("SELECT count(*) FROM ops.files WHERE dataset = 'sales'"))
        summed = "SELECT key, sum(value::int) FROM ops.files, jsonb_each(rule_counts) WHERE dataset = 'sales' {} GROUP BY key"
        counts = dict(conn.execute(text(summed.format(""))).tuples().all())
        file_id = conn.scalar(text("SELECT file_id FROM ops.files WHERE dataset = 'sales' ORDER BY rows_rejected DESC"))
        of_file = dict(conn.execute(text(summed.format(f"AND file_id = {file_id}"))).tuples().all())
    reported = {row["rule"]: row["rows"] for row in twin("/quality?dataset=sales", "rules") if row["rows"]}
    assert reported == counts != {}
    assert {row["rule"]: row["rows"] for row in twin(f"/files/{file_id}", "rules")} == of_file
    assert [row["column"] for row in twin("/datasets/sales", "columns")] == [
        c.name for c in all_datasets()["sales"].columns
    ]


def test_a_table_that_a_page_has_not(browser: httpx.Client, samples_engine: Engine) -> None:
    answer = browser.get("/runs?_twin=secrets.csv", headers={"accept": "application/json"})
    assert answer.status_code == 404
    assert answer.json()["detail"] == "This page has no table 'secrets.csv'. Its tables: runs.csv, runs.json."


def test_weather_says_what_the_table_says(get: Get, samples_engine: Engine) -> None:
    where = "FROM production.measurements WHERE station_id = 'SEA' AND date BETWEEN '2013-01-01' AND '2013-12-31'"
    page = get("/weather", station="SEA", **{"from": "2013-01-01", "to": "2013-12-31"})
    assert page.figure("Measurements") == f"{one(samples_engine, f'SELECT count(*) {where}'):,}"
    mean = one(samples_engine, f"SELECT avg(temp_c) {where}")
    assert isinstance(mean, float)
    assert page.figure("Mean temperature") == f"{number(mean, 1)} °C"
    assert page.figure("Wet days") == str(one(samples_engine, f"SELECT count(*) {where} AND precip_mm >= 1"))
    assert "by day" in page.part("weather-chart")
    assert "by month" in get("/weather", station="SEA", by="month").part("weather-chart")
    whole = get("/weather")
    every = one(samples_engine, "SELECT count(*) FROM production.measurements")
    assert whole.figure("Measurements") == f"{every:,}"


def test_weather_compares_stations_and_knows_those_near(get: Get, samples_engine: Engine) -> None:
    page = get("/weather", station=["SEA", "PDX", "YKM"])
    assert all(name in page.part("figures") for name in ("SEA", "PDX", "YKM"))
    near = get("/weather", station=["SEA", "PD"])
    assert "PDX" in near.part("figures")
    unknown = get("/weather", station="NOWHERE")
    assert "There is no station NOWHERE" in unknown.text


def test_sales_say_what_the_star_says(get: Get, samples_engine: Engine) -> None:
    page = get("/sales")
    total = one(samples_engine, "SELECT sum(revenue) FROM analytics.fact_sales")
    assert page.figure("Revenue") == f"${total:,.0f}"
    buyers = one(samples_engine, "SELECT count(DISTINCT customer_id) FROM analytics.fact_sales")
    assert page.figure("Customers") == f"{buyers:,}"
    top = one(samples_engine, "SELECT title FROM analytics.top_products ORDER BY rank, title LIMIT 1")
    assert page.part("products").index(str(top)) < 120
    chosen = get("/sales", product_category="Books", **{"from": "2022-01-01", "to": "2023-06-30"})
    where = (
        "FROM analytics.fact_sales JOIN analytics.dim_product USING (product_id) "
        "WHERE product_category = 'Books' AND order_date BETWEEN '2022-01-01' AND '2023-06-30'"
    )
    assert chosen.figure("Orders") == f"{one(samples_engine, f'SELECT count(*) {where}'):,}"
    assert "There are no orders on these days." in get("/sales", **{"from": "1999-01-01", "to": "1999-01-02"}).text


def test_signals_pool_what_the_table_says(get: Get, samples_engine: Engine) -> None:
    page = get("/signals")
    mean = one(samples_engine, "SELECT sum(mean * n) / sum(n) FROM production.signal_stats")
    assert isinstance(mean, float)
    assert page.figure("Mean") == number(mean, 3)
    assert page.figure("Series") == str(one(samples_engine, "SELECT count(*) FROM production.signal_stats"))


def test_file_says_what_became_of_its_rows(get: Get, samples_engine: Engine) -> None:
    file_id = one(samples_engine, "SELECT file_id FROM ops.files WHERE dataset = 'weather' AND name = 'dirty.csv'")
    page = get(f"/files/{file_id}")
    for name in ("read", "inserted", "updated", "unchanged", "superseded", "rejected"):
        figure = one(samples_engine, f"SELECT rows_{name} FROM ops.files WHERE file_id = {file_id}")  # noqa: S608
        assert page.figure("Rows read" if name == "read" else name.capitalize()) == f"{figure:,}"
    assert "temp_c is not a number" in page.part("rejects")
    only = get(f"/files/{file_id}", rule="temp_c_in_range").part("rejects")
    assert "temp_c is outside -90 to 60" in only
    assert "is not a number" not in only


def test_redrive_queues_a_file(get: Get, browser: httpx.Client, engine: Engine, samples: None) -> None:
    answer = browser.post("/files/1/reprocess")
    assert (answer.status_code, answer.headers["location"]) == (303, "/files/1")
    assert one(engine, "SELECT status FROM ops.files WHERE file_id = 1") == "landed"
    assert "Waiting for the next run" in get("/files/1").part("outcome")
    assert browser.post("/files/999/reprocess").status_code == 404
    assert browser.post("/files/1/reprocess", headers={"Origin": "https://elsewhere.example"}).status_code == 403
    with engine.begin() as conn:
        conn.execute(text("UPDATE ops.files SET raw_dropped_at = now() WHERE file_id = 1"))
    assert browser.post("/files/1/reprocess").status_code == 409


def test_a_form_without_script_takes_a_file(get: Get, browser: httpx.Client) -> None:
    sent = {"file": ("oslo.csv", b"station_id,date,temp_c,precip_mm\nOSL,2026-01-01,1.5,0\n", "text/csv")}
    answer = browser.post("/datasets/weather/files", data={"dataset": "weather"}, files=sent)
    assert (answer.status_code, answer.headers["location"]) == (303, "/files/1")
    page = get("/files/1")
    assert "oslo.csv" in page.text
    assert "Waiting for the next run" in page.part("outcome")
    wrong = browser.post("/datasets/weather/files", files={"file": ("oslo.exe", b"x", "text/csv")})
    assert wrong.status_code == 415
    assert wrong.headers["content-type"].startswith("text/html")


def test_strings_of_all_kinds_are_shown_as_they_are(get: Get, pipeline: Pipeline, tmp_path: Path) -> None:
    rows = [
        {"customer_id": f"C{i}", "first_name": s, "last_name": s, "company": s, "city": s, "country": s,
         "email": "a@example.org", "subscription_date": "2024-01-01"}
        for i, s in enumerate(NAUGHTY)
    ]  # fmt: skip
    rows.append({**rows[0], "customer_id": "bad", "email": NAUGHTY[0], "subscription_date": NAUGHTY[4]})
    path = tmp_path / "<img src=x onerror=alert(1)>.json"
    path.write_text(json.dumps(rows))
    pipeline(customers, path)
    for url in (
        "/customers",
        "/datasets/customers",
        "/files",
        "/files/1",
        "/quality?dataset=customers&column=city",
        "/",
    ):
        page = get(url)
        keeps_to_itself(page)
        assert not [attrs for tag, attrs in page.tags if tag == "img"]
    page = get("/customers", limit="200")
    composed = [unicodedata.normalize("NFC", s) for s in NAUGHTY]  # as every text is that is loaded
    assert [s for s in composed if s not in page.text] == []
    assert [href for href in page.links if href.startswith("javascript")] == []
    searched = get("/customers", search=NAUGHTY[0])
    keeps_to_itself(searched)
    assert "C0" in searched.part("rows")
    assert "C5" not in searched.part("rows")


def test_strings_of_all_kinds_in_addresses_are_shown_as_they_are(browser: httpx.Client) -> None:
    """Markup in every place, and of the others a third in each."""
    for n, words in enumerate(NAUGHTY):
        places = (
            ("/records", "search"), ("/records", "cursor"), ("/datasets/weather", "ordering"), ("/customers", words),
            ("/weather", "station"), ("/sales", "product_category"), ("/files", "dataset"), ("/login", "then"),
        )  # fmt: skip
        for path, name in places if "<" in words or '"' in words else places[n % 3 :: 3]:
            answer = browser.get(path, params={name: words})
            assert answer.status_code in (200, 400, 404), (answer.url, answer.text)
            page = Page(answer.text)
            keeps_to_itself(page)
            assert not [attrs for tag, attrs in page.tags if tag in ("img", "svg") and "src" in attrs]
        missing = browser.get(f"/datasets/{quote(words, safe='')}")
        assert missing.status_code == 404
        keeps_to_itself(Page(missing.text))


def test_personal_data_is_masked_on_every_page(get: Get, pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    row = {"customer_id": "C1", "first_name": "Canary", "last_name": "Person", "company": "Inc", "city": "Oslo",
           "country": "Norway", "email": "canary@example.org", "subscription_date": "2024-01-01"}  # fmt: skip
    path.write_text(json.dumps([row, {**row, "customer_id": "C2", "subscription_date": "soon"}]))
    pipeline(customers, path)
    assert "Canary" in get("/customers?personal=true").text
    for url in (
        "/customers",
        "/datasets/customers",
        "/files/1",
        "/quality?dataset=customers&column=first_name",
        "/files",
        "/",
    ):
        assert "Canary" not in get(url).html, url


def test_links_to_the_api_answer(get: Get, browser: httpx.Client, samples_engine: Engine) -> None:
    links = set()
    for path in (
        *PAGES,
        "/files/1",
        "/weather?station=SEA",
        "/sales?product_category=Books",
        "/records?search=a&source=csv",
    ):
        links |= {link for link in get(path).links if link.startswith("/api/")}
    assert len(links) > 40
    for link in sorted(links):
        answer = browser.get(link)
        assert answer.status_code == 200, (link, answer.text[:300])
        if ".csv" in link:
            assert answer.headers["content-type"].startswith("text/csv"), link


def kind_of(link: str) -> tuple[str, ...]:
    """Return what a link has in common with those that differ from it in a value alone: path, dataset, parameters."""
    address = urlsplit(link)
    params = parse_qs(address.query, keep_blank_values=True)
    return (re.sub(r"\d+", "1", address.path), *params.get("dataset", ()), *sorted(params))


def test_links_lead_somewhere(get: Get, browser: httpx.Client, samples_engine: Engine) -> None:
    """Open the first and the last link of each kind."""
    kinds: dict[tuple[str, ...], set[str]] = {}
    for path in PAGES:
        for link in get(path).links:
            if link.startswith("/") and not link.startswith(("/api/", "/help/")):
                kinds.setdefault(kind_of(link), set()).add(link.split("#")[0])
    assert len(kinds) > 80
    for links in kinds.values():
        for link in {min(links), max(links)}:
            assert browser.get(link).status_code == 200, link


def test_pages_of_a_listing(get: Get, samples_engine: Engine) -> None:
    names: list[str] = []
    path = "/records?ordering=-name"
    for _ in range(20):
        page = get(path)
        names += re.findall(r"<tr><td>[^<]*</td><td>([^<]*)</td>", page.html)
        after = re.search(r'rel="next" href="([^"]+)"', page.html)
        if not after:
            break
        path = after[1].replace("&amp;", "&")
    assert len(names) == one(samples_engine, "SELECT count(*) FROM production.records")


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/nowhere", 404, "Not Found"),
        ("/datasets/nothing", 404, "There is no dataset 'nothing'"),
        ("/files/99", 404, "There is no file 99"),
        ("/files/one", 422, "valid integer"),
        ("/weather?from=yesterday", 400, "it should be a date"),
        ("/weather?from=2026-02-01&to=2026-01-01", 400, "swap them"),
        ("/sales?by=decade", 400, "it should be one of day, week"),
        ("/signals?from=noon", 400, "it should be a time"),
        ("/records?colour=red", 400, "There is no parameter 'colour'"),
        ("/records?cursor=nonsense", 400, "omit it to start from the first page"),
        ("/quality?dataset=weather&column=nothing", 404, "has no column"),
    ],
)
def test_mistakes_are_pages_that_say_so(get: Get, samples_engine: Engine, path: str, status: int, message: str) -> None:
    page = get(path, status)
    keeps_to_itself(page)
    assert message in page.text


def test_programs_get_problems(samples_web: str) -> None:
    answer = httpx.get(f"{samples_web}/nowhere")
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_dataset_that_nobody_knew_has_its_page(platform: Platform, pipeline: Pipeline, tmp_path: Path) -> None:
    datasets = {**all_datasets(), "stations": STATIONS}
    (platform.settings.data / "stations").mkdir(parents=True)
    known = Platform(datasets)
    path = tmp_path / "stations.csv"
    path.write_text("station_id,height_m,country\nOSL,94,NO\nBGO,12,NO\nYKM,324,US\nXXX,high,US\n")
    known.engine.connect().close()
    pipeline(STATIONS, path)
    site = Site(known, datasets)
    with serving(create_app(site)) as url, httpx.Client(base_url=url, headers={"Accept": "text/html"}) as client:
        page = Page(client.get("/datasets/stations").text)
        keeps_to_itself(page)
        assert "Weather stations." in page.text
        assert "3 rows in" in page.text
        assert all(word in page.part("rows") for word in ("OSL", "BGO", "YKM"))
        assert "height_m is" not in page.part("rows")
        assert "rejected if it is not a number" in page.part("columns")
        assert "NO" in page.part("chart-by_country")
        assert "stations.csv" in page.part("last-files")
        assert "/datasets/stations" in Page(client.get("/").text).links
        chosen = Page(client.get("/datasets/stations?country=NO&ordering=-height_m").text).part("rows")
        assert "YKM" not in chosen
        assert chosen.index("OSL") < chosen.index("BGO")
    site.close()
    known.engine.dispose()


class Station(RowModel):
    station_id: str = Field("Identifier of the station", str_length={"min_value": 1, "max_value": 64})
    height_m: float | None = Field("Height above the sea", unit="m", in_range={"min_value": -430, "max_value": 8850})
    country: str = Field("ISO 3166-1 code", str_length={"min_value": 2, "max_value": 2})


def by_country(s):  # type: ignore[no-untyped-def]
    """Stations of each country."""
    from sqlalchemy import func, select

    return select(s.c.country, func.count().label("stations")).group_by(s.c.country)


STATIONS = Dataset(
    name="stations", table="stations", description="Weather stations.", rows=Station, key=("station_id",),
    aggregates=(
        Aggregate(by_country, key=("country",), chart=("country", "stations"),
                  columns={"country": ("Country",), "stations": ("Stations",)}),
    ),
)  # fmt: skip
