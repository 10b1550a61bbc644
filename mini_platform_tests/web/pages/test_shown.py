"""Pages show what is stored: figures, charts, filters and links of datasets with odd values, names and histories."""

from __future__ import annotations

import csv
import datetime as dt
import html
import io
import json
import random
import re
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import BigInteger, Double, Text, func, select, text

from mini_platform import Aggregate, Dataset, Field, RejectLimit, RowModel, View
from mini_platform.warehouse import ledger
from mini_platform.warehouse.load import load
from mini_platform.warehouse.staging import stage
from mini_platform_tests.support.examples import customers, sales, signals, weather
from mini_platform_tests.support.pages import ListQuery, Opened, Page, measure, words
from mini_platform_tests.support.trial import Declared


class Sold(RowModel):
    k: int = Field("Number")
    shop: str = Field("Shop")
    half: int = Field("Half of the year")
    day: dt.date = Field("Day")
    v: float | None = Field("Value")


def sold(o: Any) -> Any:
    """Pieces sold of a shop in a half year."""
    return select(o.c.shop, o.c.half, func.count().label("pieces")).group_by(o.c.shop, o.c.half)


def each(o: Any) -> Any:
    """Pieces sold by customer."""
    return select(o.c.k, func.sum(o.c.k, type_=BigInteger).label("total")).group_by(o.c.k)


def daily(o: Any) -> Any:
    """Most of a day."""
    return select(o.c.day, func.max(o.c.v, type_=Double).label("most")).group_by(o.c.day)


def rows(o: Any) -> Any:
    """Every row."""
    return select(o.c.shop, o.c.v.label("v"))


SHOPS = Dataset(
    name="shops", table="shops", description="Sales", rows=Sold, key=("k",), search=("shop",),
    aggregates=(
        Aggregate(sold, key=("shop", "half"), chart=("shop", "pieces"),
                  columns={"shop": ("Shop",), "half": ("Half",), "pieces": ("Pieces",)}),
        Aggregate(each, key=("k",), chart=("k", "total"), columns={"k": ("K",), "total": ("Total",)}),
        Aggregate(daily, key=("day",), chart=("day", "most"), columns={"day": ("Day",), "most": ("Most",)}),
    ),
    views=(View(rows, columns={"shop": ("Shop",), "v": ("Value",)}, chart=("shop", "v")),),
)  # fmt: skip


def shops(*lines: str) -> str:
    return "k,shop,half,day,v\n" + "".join(f"{line}\n" for line in lines)


def chart(page: Page, name: str) -> dict[str, Any]:
    """Return the figure of a chart, as it is drawn."""
    match = re.search(rf'id="chart-{name}-figure">(.*?)</script>', page.html, re.DOTALL)
    assert match
    return dict(json.loads(match[1]))


def test_a_chart_says_what_it_takes_together(declared: Declared, opened: Opened) -> None:
    first = dt.date(2020, 1, 1)
    lines = [f"{k},Oslo,{k % 2 + 1},{first + dt.timedelta(days=k)},{k}" for k in range(600)]
    declared(SHOPS).load("a.csv", shops(*lines))
    page = Page(opened(SHOPS)("/datasets/shops").text)
    assert "mean over half" in page.read("chart-sold")
    assert "pieces, mean over half Oslo 300" in page.read("chart-sold")
    assert "First 300 of 600 groups by k." in page.read("chart-each")
    assert " 299 299 " in f"{page.read('chart-each')} "
    assert "Each point is the mean of up to 2 neighbouring points and has the label of the first." in page.read(
        "chart-daily"
    )
    assert "most, mean 1 Jan 2020 0.50 3 Jan 2020 2.50" in page.read("chart-daily")
    assert "mean over the rows of each" in page.read("chart-rows")


def test_a_chart_of_whole_keys_is_exact(declared: Declared, opened: Opened) -> None:
    lines = [
        "1,a,1,2020-01-01,0.1234567890123",
        "2,b,1,2020-01-02,1e-7",
        "3,b,2,2020-01-03,1.5e308",
        "4,b,2,2020-01-04,",
    ]
    declared(SHOPS).load("a.csv", shops(*lines, "5,b,2,2020-01-05,1.5e308", "6,b,2,2020-01-05,1.5e308"))
    page = Page(opened(SHOPS)("/datasets/shops").text)
    assert "mean" not in page.read("chart-each") + page.read("chart-daily")
    assert "day most 1 Jan 2020 0.1234567890123 2 Jan 2020 1e−7 3 Jan 2020 1.5e308 4 Jan 2020 – " in page.read(
        "chart-daily"
    )
    assert "b 1.125e308" in page.read("chart-rows"), "a mean of large floats"


HOSTILE = (
    "<a href='//ev.il'>in</a>",
    "<b>x</b>",
    "&lt;i&gt;",
    "constructor",
    "__proto__",
    "var(--ink)",
    "%{x}",
    "=1+1",
    "a,b",
)


def test_hostile_texts_are_texts(declared: Declared, opened: Opened) -> None:
    lines = [f'{k},"{text}",1,2020-01-01,1' for k, text in enumerate(HOSTILE * 4)]
    declared(SHOPS).load("<img src=x>.csv", shops(*lines))
    ask = opened(SHOPS)
    page = Page(ask("/datasets/shops").text)
    assert [text for text in HOSTILE if text not in page.text] == []
    assert not [attrs for tag, attrs in page.tags if tag == "img" or "ev.il" in str(attrs.get("href"))[:8]]
    drawn = [item[0] for item in chart(page, "sold")["data"][0]["customdata"]]
    assert sorted(map(html.unescape, drawn)) == sorted(HOSTILE)
    assert not [text for text in drawn if "<" in text]


def test_every_address_of_a_value_finds_it(declared: Declared, opened: Opened) -> None:
    """Facets, chips and alternates: the rows that they lead to are those that they name, whatever the value holds."""
    lines = [f'{k},"{text}",1,2020-01-01,1' for k, text in enumerate(HOSTILE * 4)]
    trial = declared(SHOPS)
    trial.load("a.csv", shops(*lines))
    measure(trial)
    ask = opened(SHOPS)
    page = Page(ask("/datasets/shops").text)
    links = [link for link in page.links if link.startswith("/datasets/shops?shop=")]
    assert len(links) == 8
    for link in links:
        there = Page(ask(link).text)
        (twin,) = {one for one in there.links if one.startswith("/api/datasets/shops/rows/?")}
        shop_names = {row["shop"] for row in ask(twin).json()["results"]}
        assert len(shop_names) == 1
        assert f"shop is {shop_names.pop()}" in there.read("rows")


def test_facets_follow_the_filters_beside_them(declared: Declared, opened: Opened) -> None:
    trial = declared(SHOPS)
    trial.load("a.csv", shops(*(f"{k},{'ab'[k % 2]},{k % 3},2020-01-01,1" for k in range(12))))
    measure(trial)
    ask = opened(SHOPS)
    assert "a 6 b 6" in words(ask("/datasets/shops"))
    for query, counts in (("half=0", "a 2 b 2"), ("k__gte=10&shop=a", "a 1 b 1"), ("search=a", "a 6"), ("k=3", "b 1")):
        assert f"shop {counts} " in words(ask(f"/datasets/shops?{query}")), query


class Odd(RowModel):
    k: int = Field("Number")
    self: str = Field("Link")
    items: str = Field("Text")
    json: str = Field("Text")
    column: str = Field("Text")
    n: int | None = Field("Number")
    a__b: int | None = Field("Number")


ODD = Dataset(name="odd", table="odd", description="Odd names", rows=Odd, key=("k",))


CHIPS = {
        "n__isnull=1": "n is empty", "n__isnull=TRUE": "n is empty", "n__isnull=0": "n is not empty",
        "n__isnull=false": "n is not empty", "a__b__gt=5": "a__b above 5", "a__b=5": "a__b is 5",
        "a__b__eq=5": "a__b is 5", "n__ne=5": "n is not 5", "n__lte=5": "n to 5",
        "self__contains=V": "self contains V", "n__in=1,3": "n is one of 1,3",
        "filter_column=n&filter_by=ne&filter_value=": "n is not empty",
        "filter_column=n&filter_by=eq&filter_value=": "n is empty",
        "filter_column=n&filter_by=isnull&filter_value=7": "n is empty",
        "filter_column=n&filter_by=gte&filter_value=": None,
        "json__eq=2": "json is 2",
}  # fmt: skip
"""Filter of a listing -> the chip that says so."""


def test_chips_say_what_is_filtered_and_columns_have_any_name(declared: Declared, opened: Opened) -> None:
    lines = [
        f"{k},v{k % 2},{k % 2 + 1},{k % 2 + 1},{k % 2 + 1},{k if k % 2 else ''},{k if k % 2 else ''}" for k in range(9)
    ]
    declared(ODD).load("a.csv", "k,self,items,json,column,n,a__b\n" + "\n".join(lines) + "\n")
    ask = opened(ODD)
    chip = re.compile(
        r'<li><a [^>]*>([^<]*)<svg class="icon"[^>]*><path[^>]*></svg><span class="visually-hidden">: remove'
    )
    for query, label in CHIPS.items():
        page = Page(ask(f"/datasets/odd?{query}").text)
        assert chip.findall(page.html) == ([label] if label else []), query
    for column, value in {"self": "v1", "items": "2", "json": "2", "column": "2"}.items():
        for query in (f"filter_column={column}&filter_by=eq&filter_value={value}", f"{column}__eq={value}"):
            page = Page(ask(f"/datasets/odd?{query}").text)
            assert f"{column} is {value}" in page.read("rows")
            assert "v0" not in page.read("rows")
    for path, status in DOWNLOADS.items():
        for accept in ("text/html", "application/json"):
            assert ask(path, accept=accept).status_code == status, path


DOWNLOADS = {
    "/quality?dataset=odd&_twin=rules.csv": 200, "/quality?dataset=odd&_twin=rule.csv": 404, "/?_twin=x.csv": 404,
    "/quality?dataset=gone&_twin=rules.csv": 404, "/runs?dataset=gone&_twin=runs.json": 404,
    "/nowhere?_twin=a.csv": 404, "/datasets/odd?n=x&_twin=columns.csv": 400, "/files/99999?_twin=rules.json": 404,
}  # fmt: skip
"""Address of a table of a page as data -> status."""


def test_one_of_several_values_can_be_left_out(declared: Declared, opened: Opened) -> None:
    declared(SHOPS).load("a.csv", shops('1,"a,b",1,2020-01-01,1', "2,a,1,2020-01-01,1", "3,c,1,2020-01-01,1"))
    page = Page(opened(SHOPS)("/datasets/shops?shop__in=a%2Cb&shop__in=c").text)
    assert "/datasets/shops?shop=a%2Cb" in page.links
    assert "/datasets/shops?shop=c" in page.links


def test_downloads_below_a_table_carry_its_filters(declared: Declared, opened: Opened) -> None:
    trial = declared(SHOPS)
    for name, line in (
        ("good.csv", "1,a,1,2020-01-01,1"),
        ("other.csv", "2,b,1,2020-01-01,1"),
        ("bad.csv", "x,a,1,2020-01-01,1"),
    ):
        trial.load(name, shops(line))
    ask = opened(SHOPS)
    for path in ("/files?search=bad", "/files?dataset=shops&search=bad"):
        page = Page(ask(path).text)
        (link,) = {one for one in page.links if "/files.csv" in one}
        assert ask(link).text.count("\n") == 1 + 1
        assert re.search(r"(refused|loaded) 1 ", page.read("files")), "counts of what the search finds"
        assert not re.search(r"(refused|loaded) [2-9] ", page.read("files"))
    assert "No files match" in words(ask("/files?search=nothing"))


def test_the_last_load_is_of_a_file_whose_rows_are_there(declared: Declared, opened: Opened) -> None:
    class Narrow(RowModel):
        k: int = Field("Number", le=4)

    class Wide(RowModel):
        k: int = Field("Number", le=10)

    declarations = {
        model: Dataset(
            name="re",
            table="re",
            description="x",
            rows=model,
            key=("k",),
            freshness=dt.timedelta(hours=1),
            reject_limit=RejectLimit(rows=0),
        )
        for model in (Wide, Narrow)
    }
    declared(declarations[Wide]).load("a.csv", "k\n7\n8\n")
    assert opened(declarations[Wide])("/api/datasets/re/").json()["last_load"]["name"] == "a.csv"
    declared(declarations[Narrow]).reprocess()
    ask = opened(declarations[Narrow])
    assert ask("/api/datasets/re/").json()["last_load"] is None
    assert 'last_load_timestamp_seconds{dataset="re"}' not in ask("/metrics").text
    assert "Rows 0 Last load – " in words(ask("/"))


def test_signals_of_any_size(declared: Declared, opened: Opened) -> None:
    lines = [f'{{"time_stamp":"2026-01-0{day}T00:00:00Z","data":{data}}}\n'
             for day, data in enumerate(("[1e200,1e200]", "[5e-324,0]", "[-1.7e308,1.7e308]", "[1,2]"), 1)]  # fmt: skip
    declared(signals).load("a.jsonl", "".join(lines[:2] + lines[3:]))
    ask = opened(signals)
    assert "3 " in words(ask("/signals"))
    assert "Highest 1e200 " in words(ask("/signals"))
    declared(signals).load("b.jsonl", lines[2])
    for path in (
        "/signals",
        "/quality?dataset=signals",
        "/quality?dataset=signals&column=mean",
        "/datasets/signals",
        "/",
    ):
        page = words(ask(path))
        assert "<time" not in page, path
        assert "<" not in re.sub(r"<0\.1%|<dataset>", "", page), path
    alone = ask("/signals?from=2026-01-04T00:00&to=2026-01-05")
    assert "Series 1 Numbers 2 Mean 1.500 Standard deviation 0.500 Lowest 1.000 Highest 2.000" in words(alone)
    (link,) = {one for one in Page(alone.text).links if one.startswith("/api/datasets/signals/rows/")}
    assert len(ask(link).json()["results"]) == 1


def test_rain_is_the_mean_of_those_who_measured_it(declared: Declared, opened: Opened) -> None:
    lines = ("A,2026-01-01,1,1.6", "B,2026-01-01,1,", '"A,B",2026-01-02,1,', "A,2026-01-03,1,0.4", "B,2026-01-03,1,0")
    declared(weather).load("a.csv", "station_id,date,temp_c,precip_mm\n" + "\n".join(lines) + "\n")
    ask = opened(weather)
    whole = words(ask("/weather"))
    assert "Precipitation 2 mm" in whole
    assert "Wet days 1 " in whole
    assert "Day °C mm 1 Jan 2026 1.0 1.6 2 Jan 2026 1.0 – 3 Jan 2026 1.0 0.2" in whole
    for stations, count in ((["A,B"], 1), (["A,B", "A"], 3)):
        page = Page(ask("/weather?" + "&".join(f"station={one}" for one in stations)).text)
        (link,) = {one for one in page.links if one.startswith("/api/datasets/weather/rows/")}
        rows = ask(link).json()["results"]
        assert ({row["station_id"] for row in rows}, len(rows)) == (set(stations), count)
    assert "There is no station NUL" in words(ask("/weather?station=N%00UL"))


def aggregate_of_texts(o: Any) -> Any:
    """Texts."""
    return select(o.c.k, func.max(o.c.shop, type_=Text).label("last")).group_by(o.c.k)


def test_an_aggregate_without_a_chart_draws_none(declared: Declared, opened: Opened) -> None:
    declaration = Dataset(name="texts", table="texts", description="x", rows=Sold, key=("k",), aggregates=(
        Aggregate(aggregate_of_texts, key=("k",), columns={"k": ("K",), "last": ("Last",)}),
    ))  # fmt: skip
    declared(declaration).load("a.csv", shops("1,a,1,2020-01-01,1"))
    assert "Drawing" not in words(opened(declaration)("/datasets/texts"))


def test_a_run_stays_in_the_list_after_its_files_were_validated_again(declared: Declared, opened: Opened) -> None:
    trial = declared(SHOPS)
    trial.load("a.csv", shops("1,a,1,2020-01-01,1", "2,b,1,2020-01-01,x"))
    ask = opened(SHOPS)
    with trial.platform.engine.begin() as conn:
        conn.execute(text("UPDATE ops.files SET arrived_at = now() - interval '3 days'"))
    with trial.platform.engine.begin() as conn:
        ledger.reprocess(conn, "shops", None)
    worker = trial.platform.worker("later")
    with ledger.lease(worker):
        stage(worker, SHOPS, trial.platform.raw_files(SHOPS), limit=10)
        (under_way,) = [run for run in runs(ask) if run["run_id"] == "later"]
        assert (under_way["pending"], under_way["rows_read"], under_way["ended_at"]) == (1, None, None)
        load(worker, SHOPS, limit=10)
    again, first = runs(ask)
    assert (again["run_id"], first["run_id"]) == ("later", "test")
    assert [again[name] for name in ("files", "loaded", "rows_read", "rows_unchanged", "rows_rejected")] == [
        1,
        1,
        2,
        1,
        1,
    ]
    assert [first[name] for name in ("files", "loaded", "rows_read", "rows_inserted", "rows_rejected")] == [
        1,
        1,
        2,
        1,
        1,
    ]
    assert again["took"] < 3600, "its own time, and not since the file arrived"
    page = Page(ask("/runs").text)
    assert [link for link in page.links if link.startswith("/files?run_id=")] == ["/files?run_id=later&dataset=shops"]


def runs(ask: ListQuery) -> list[dict[str, Any]]:
    return list(ask("/runs?_twin=runs.json").json()["results"])


def test_rows_that_personal_data_chooses_have_the_same_downloads(declared: Declared, opened: Opened) -> None:
    """A page that shows personal data links to the API's rows with it, which are those of the page; they load again."""
    person = {"customer_id": "C1", "first_name": "Ada", "last_name": "Berg", "company": "Inc", "city": "Oslo", "country": "NO",
              "email": "a@example.org", "subscription_date": "2024-01-01"}  # fmt: skip
    declared(customers).load("a.json", json.dumps([person, {**person, "customer_id": "C2", "first_name": "Bo"}]))
    ask = opened(customers)
    for query, names in {
        "city=Oslo": ["Ada", "Bo"], "search=Ada": ["Ada"], "first_name=Ada": ["Ada"], "last_name__isnull=true": [],
        "ordering=city,-first_name": ["Bo", "Ada"],
    }.items():  # fmt: skip
        assert ask(f"/customers?{query}").status_code == (200 if query in ("city=Oslo", "search=Ada") else 403)
        as_csv, as_json = (
            link for link in Page(ask(f"/customers?{query}&personal=true").text).links if "/rows" in link
        )
        exported = list(csv.DictReader(io.StringIO(ask(as_csv).text)))
        assert [row["first_name"] for row in exported] == names, query
        assert [row["first_name"] for row in ask(as_json).json()["results"]] == names, query


ROWS = {
    (): ("no files", None, "Quality 14 rules declared", None),
    ("1,a,1,2020-01-01,1",): (
        "1 row in", "0% of the rows in the last file.", "Quality 0 of 14 rules failing", "Rejected 0% in 1 file",
    ),
    ("1,a,1,2020-01-01,1", "x,a,1,2020-01-01,1"): (
        "1 row in", "50% of the rows in the last file.", "Quality 1 of 14 rules failing", "Rejected 50% in 1 file",
    ),
    ("x,a,1,2020-01-01,1",): (
        "0 rows in", "100% of the rows in the last file.", "Quality 1 of 14 rules failing", "Rejected 100% in 1 file",
    ),
}  # fmt: skip
"""Rows of a file, of which none, a part or all are rejected -> what the pages say of them."""


@pytest.mark.parametrize("lines", ROWS)
def test_words_of_none_one_a_part_and_all(declared: Declared, opened: Opened, lines: tuple[str, ...]) -> None:
    head, rejected, rules, share = ROWS[lines]
    trial = declared(SHOPS)
    if lines:
        trial.load("a.csv", shops(*lines))
        trial.land("waits.csv", shops())
    measure(trial)
    ask = opened(SHOPS)
    assert head.lower() in words(ask("/datasets/shops")).lower()
    overview, quality = words(ask("/")), words(ask("/quality?dataset=shops"))
    assert rules in overview
    assert (share or "Rejected No files yet") in overview.replace("  ", " ")
    if rejected:
        assert rejected in quality
    of_column = words(ask("/quality?dataset=shops&column=k&search=nowhere"))
    assert "No rejects match." in of_column
    assert "No rejected rows" not in of_column


def test_files_without_rows_are_none_that_rows_were_rejected_in(declared: Declared, opened: Opened) -> None:
    trial = declared(SHOPS)
    trial.load("a.csv", shops("1,a,1,2020-01-01,1", "x,a,1,2020-01-01,1"))
    trial.load("empty.csv", "")
    page = words(opened(SHOPS)("/"))
    assert "Rejected 50% in 1 file" in page
    assert "empty.csv Refused" in page


def test_stopped_files_are_reported_in_whole_sentences(declared: Declared, opened: Opened) -> None:
    trial = declared(replace(SHOPS, reject_limit=RejectLimit(share=0.5, min_rows=0)))
    trial.load("bad.csv", shops("x,a,1,2020-01-01,1"))
    ask = opened(SHOPS)
    why = "1 of 1 rows are rejected, more than the dataset allows (50%); most often: k_is_integer (1 row)."
    assert f"bad.csv was refused: {why} Correct it" in words(ask("/"))
    failed = trial.load("worse.csv", shops("x,a,1,2020-01-01,1"))
    assert f"worse.csv was refused: {why} And 1 file more. Correct it" in words(ask("/"))
    with trial.platform.engine.begin() as conn:
        conn.execute(
            text("UPDATE ops.files SET status = 'failed', error = 'No.' WHERE file_id = :f"), {"f": failed.file_id}
        )
    assert "worse.csv failed: No. Read the log" in words(ask("/"))


@pytest.mark.parametrize(("orders", "sentence"), [
    (1, "0% of 1 customer ordered more than once."), (2, "100% of 1 customer ordered more than once."),
])  # fmt: skip
def test_one_customer(declared: Declared, opened: Opened, orders: int, sentence: str) -> None:
    assert sales.realistic
    order = dict(sales.realistic(random.Random(1), 1, dt.date(2024, 12, 31)))  # noqa: S311
    lines = [",".join(f'"{v}"' for v in {**order, "order_id": f"S00000000{n}"}.values()) for n in range(orders)]
    declared(sales).load("a.csv", "\n".join([",".join(order), *lines, ""]))
    page = words(opened(sales)("/sales"))
    assert sentence in page
    assert "brings 100% of the revenue" in page


def test_a_column_without_rules_says_so(declared: Declared, opened: Opened) -> None:
    free = Dataset(name="free", table="free", description="x", rows=Free, key=("k",))
    trial = declared(free)
    trial.load("a.csv", "k,note\n1,a\n")
    measure(trial)
    ask = opened(free)
    assert "Over 1 measurement, no rules are declared for note." in words(ask("/quality?dataset=free&column=note"))
    assert "Over 1 measurement, rules of k failed 0 times." in words(ask("/quality?dataset=free&column=k"))


class Free(RowModel):
    k: int = Field("Number")
    note: str | None = Field("Any text")


def test_days_without_measurements_are_none(declared: Declared, opened: Opened) -> None:
    declared(weather).load("a.csv", "station_id,date,temp_c,precip_mm\nA,2026-01-01,1,1\nA,2026-01-05,1,0\n")
    ask = opened(weather)
    none = words(ask("/weather?from=2026-01-02&to=2026-01-03"))
    assert "Mean temperature – °C" in none
    assert "Measurements 0 0 days with data, 2 missing" in none
    assert "Measurements 1 1 day with data" in words(ask("/weather?from=2026-01-05"))
    assert "Measurements 2 2 days with data, 3 missing" in words(ask("/weather"))


def test_a_text_that_begins_as_a_moment_is_shown_whole(declared: Declared, opened: Opened) -> None:
    trial = declared(SHOPS)
    trial.load("a.csv", shops("1,2026-01-01 10:00:00 rain,1,2020-01-01,1"))
    measure(trial)
    assert words(opened(SHOPS)("/quality?dataset=shops")).count("2026-01-01 10:00:00 rain") == 2
