"""Sample files: the same for a seed, exactly as dirty as requested, valid elsewhere. Validated by rules written again here."""

import csv
import datetime as dt
import io
import json
import random
import re
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from statistics import fmean
from typing import Any

import polars as pl
import pytest

from mini_platform import Csv, Dataset, Field, Json, RowModel, rule
from mini_platform.operations import sampling
from mini_platform.operations.sampling import FORMS, Form, SampleSummary, form_of, write_sample
from mini_platform_tests.support.examples import weather

ROWS = 2000
LAST_DAY = dt.date(2026, 7, 31)
HEADER = "station_id,date,temp_c,precip_mm"

NUMBER_DIRT = [
    *(f"is_number:{text}" for text in ("nan", "inf", "1e309", "1,5", "12°", "NA", "abc")),
    "in_range:below",
    "in_range:above",
]
WEATHER_DIRT = {
    *("row_has_header_fields:short", "row_has_header_fields:long", "row_quotes_closed:unclosed"),
    *("row_quotes_closed:text after", "row_without_nul", "row_not_header"),
    *("station_id_required", "station_id_str_length:long", "date_required", "date_is_date:2024-02-30"),
    *("date_is_date:31/12/2024", "date_is_date:20240101", "date_is_date:now", "date_is_date:infinity"),
    *("date_not_after_tomorrow", "has_a_measurement"),
    *(f"{column}_{kind}" for column in ("temp_c", "precip_mm") for kind in NUMBER_DIRT),
}


def sample(dataset: Dataset, rows: int, dirty: float = 0.0, seed: int = 0) -> tuple[str, SampleSummary]:
    out = io.BytesIO()
    summary = write_sample(dataset, out, rows, dirty, seed)
    return out.getvalue().decode(), summary


def number_rule(column: str, text: str, low: float, high: float) -> str | None:
    if not text:
        return None
    if not re.fullmatch(r"-?\d+(\.\d+)?", text):
        return f"{column}_is_number"
    return None if low <= float(text) <= high else f"{column}_in_range"


def date_rule(text: str) -> str | None:
    if not text:
        return "date_required"
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return "date_is_date"
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        return "date_is_date"
    return "date_not_after_tomorrow" if day > dt.datetime.now(dt.UTC).date() else None


def structure_rule(line: str) -> tuple[str | None, list[str]]:
    """Return the structure rule that a line breaks, or its fields."""
    if "\0" in line:
        return "row_without_nul", []
    if line == HEADER:
        return "row_not_header", []
    fields = re.findall(r'(?:^|,)("(?:[^"]|"")*"|[^,"]*)', line)
    if ",".join(fields) != line:
        return "row_quotes_closed", []
    if len(fields) != 4:
        return "row_has_header_fields", []
    return None, [field.strip('"') for field in fields]


def broken_rule(line: str) -> str | None:
    """Return the name of the rule that a line of weather breaks; the first where there are several."""
    broken, fields = structure_rule(line)
    if broken:
        return broken
    station, date, temp, precip = fields
    if not 1 <= len(station) <= 64:
        return "station_id_str_length" if station else "station_id_required"
    if not temp and not precip:
        return "has_a_measurement"
    return date_rule(date) or number_rule("temp_c", temp, -90, 60) or number_rule("precip_mm", precip, 0, 2000)


def test_same_arguments_give_the_same_bytes() -> None:
    assert sample(weather, ROWS, 0.1, 7) == sample(weather, ROWS, 0.1, 7)
    assert sample(weather, ROWS, 0.1, 7)[0] != sample(weather, ROWS, 0.1, 8)[0]


def test_dirt_leaves_the_other_rows_as_they_were() -> None:
    clean, dirty = sample(weather, ROWS)[0].split("\n"), sample(weather, ROWS, 0.1)[0].split("\n")
    assert sum(a != b for a, b in zip(clean, dirty, strict=True)) == ROWS * 0.1


@pytest.mark.parametrize(("rows", "dirty"), [(0, 0.5), (1, 1.0), (33, 0.1), (ROWS, 0.0), (ROWS, 0.1), (ROWS, 1.0)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_exactly_so_many_rows_break_exactly_the_rules_that_the_summary_names(
    rows: int, dirty: float, seed: int
) -> None:
    text, summary = sample(weather, rows, dirty, seed)
    assert text.endswith("\n")
    header, *lines = text[:-1].split("\n")
    assert header == HEADER
    assert len(lines) == rows == summary.rows
    counts = Counter(filter(None, map(broken_rule, lines)))
    assert counts.total() == round(rows * dirty)
    expected: Counter[str] = Counter()
    for kind, count in summary.dirty.items():
        expected[kind.partition(":")[0]] += count
    assert counts == expected


def test_each_kind_of_dirt_takes_its_turn() -> None:
    _, summary = sample(weather, ROWS, 0.1)
    assert set(summary.dirty) == WEATHER_DIRT
    assert max(summary.dirty.values()) - min(summary.dirty.values()) <= 1
    assert {kind.partition(":")[0] for kind in summary.dirty} == {
        rule.name for rule in weather.rules if rule.name not in {"row_fields_bounded"}
    }


def test_dirt_is_spread_over_the_whole_file() -> None:
    lines = sample(weather, ROWS, 0.1)[0].split("\n")[1:-1]
    quarters = [sum(bool(broken_rule(line)) for line in lines[i : i + ROWS // 4]) for i in range(0, ROWS, ROWS // 4)]
    assert min(quarters) > 25


def test_unclosed_quotes_never_close_each_other() -> None:
    """The next quote after an open one, on whatever line, is followed by text, so that the open one cannot end there."""
    text, summary = sample(weather, ROWS, 1.0)
    assert summary.dirty["row_quotes_closed:unclosed"] > 50
    for line in text.split("\n"):
        if line.count('"') == 1:
            assert re.search(r'(^|,)"[^,"]', line)
        for opening in re.findall(r'(?:^|,)"(.?)', line):
            assert opening not in {"", ",", '"'}


def test_weather_has_seasons_latitudes_and_rain() -> None:
    temperatures = defaultdict(list)
    wet, days = 0, 3 * 730
    rng = random.Random(1)  # noqa: S311 - sample data, not secrets
    for row in [*range(days), *range(120_000, 120_000 + days), *range(180_000, 180_000 + days)]:
        cells = weather.realistic(rng, row, LAST_DAY)
        if cells["temp_c"]:
            temperatures[cells["station_id"], cells["date"][5:7]].append(float(cells["temp_c"]))
        wet += cells["precip_mm"] not in {"", "0.0"}
    mean = {key: fmean(values) for key, values in temperatures.items()}
    assert len({station for station, _ in mean}) == 9
    assert mean["ST000", "07"] > mean["ST000", "01"] + 15  # 60° N
    assert mean["ST009", "01"] > mean["ST009", "07"] + 12  # 48° S
    assert mean["ST001", "07"] < mean["ST002", "07"], "it is warmer in the south"
    assert 0.35 < wet / days / 3 < 0.45


def test_weather_keys_are_unique_and_past_for_ten_million_rows() -> None:
    rng = random.Random(1)  # noqa: S311 - sample data, not secrets
    spans = [range(start, start + 200) for start in (0, 59_900, 999_900, 4_999_900, 9_999_800)]
    keys = [
        (cells["station_id"], cells["date"])
        for span in spans
        for cells in (weather.realistic(rng, row, LAST_DAY) for row in span)
    ]
    assert len(set(keys)) == len(keys)
    assert max(date for _, date in keys) == LAST_DAY.isoformat()
    assert min(date for _, date in keys) > "1970"


def test_memory_stays_flat() -> None:
    class Sink(io.BytesIO):
        total = 0

        def write(self, data: Any) -> int:
            self.total += len(data)
            return len(data)

    sink, progress = Sink(), list[int]()
    tracemalloc.start()
    try:
        write_sample(weather, sink, 100_000, 0.1, progress=progress.append)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sink.total > 2_500_000
    assert progress == list(range(10_000, 100_001, 10_000))
    # A chunk of rows takes about 4 MB as Python texts; all rows together would take 40.
    assert peak < 15_000_000


class Order(RowModel):
    """A column of every type and a rule over two of them, and nothing that says how real rows look."""

    label: str = Field("Label, with a delimiter and quotes now and then", isin=['a "b"', "c;d", "e"])
    number: int = Field("Order number", gt=0)
    line: int = Field("Line of the order", in_range={"min_value": 1, "max_value": 3})
    ordered: dt.date = Field("Day of the order", ge=dt.date(2020, 1, 1), lt=dt.date(2021, 1, 1))
    delivered: dt.date | None = Field("Day of the delivery", le=dt.date(2021, 1, 31))
    share: float | None = Field("Discount", in_range={"min_value": 0, "max_value": 0.001, "include_max": False})
    code: str = Field("Code", str_length={"min_value": 3, "max_value": 5})
    paid: bool = Field("Whether it is paid")

    @rule("is before the order", column="delivered")
    def not_before_order(col: Callable[[str], pl.Expr]) -> pl.Expr:
        """Nothing is delivered before it is ordered."""
        return col("delivered") >= col("ordered")

    @rule("label e is not for paid orders", severity="warn")
    def unpaid_e(col: Callable[[str], pl.Expr]) -> pl.Expr:
        """Only a warning: such a row is valid."""
        return (col("label") != "e") | ~col("paid")


orders = Dataset(
    name="orders",
    table="orders",
    description="Orders.",
    rows=Order,
    key=("number", "line"),
    sources=(Csv(delimiter=";", encoding="utf-16"),),
)


def order_is_valid(line: str) -> bool:
    fields = re.findall(r'(?:^|;)("(?:[^"]|"")*"|[^;"]*)', line)
    if ";".join(fields) != line or len(fields) != 8 or "\0" in line:
        return False
    label, number, position, ordered, delivered, share, code, paid = fields
    day = r"\d{4}-\d\d-\d\d"
    return (
        label in {'"a ""b"""', '"c;d"', "e"}
        and re.fullmatch(r"[1-9]\d*", number) is not None
        and position in {"1", "2", "3"}
        and re.fullmatch(day, ordered) is not None
        and "2020-01-01" <= ordered < "2021-01-01"
        and (not delivered or (re.fullmatch(day, delivered) is not None and ordered <= delivered <= "2021-01-31"))
        and (not share or (re.fullmatch(r"[\d.e-]+", share) is not None and 0 <= float(share) < 0.001))
        and 3 <= len(code) <= 5
        and paid in {"true", "false"}
    )


def test_a_dataset_that_declares_only_types_and_checks_is_sampled_too() -> None:
    out = io.BytesIO()
    summary = write_sample(orders, out, 3000, 0.2)
    header, *lines = out.getvalue().decode("utf-16")[:-1].split("\n")
    assert header == "label;number;line;ordered;delivered;share;code;paid"
    assert len(lines) == 3000
    assert sum(not order_is_valid(line) for line in lines) == sum(summary.dirty.values()) == 600
    assert {
        *("label_isin:other", "number_gt:below", "number_is_integer:1.5", "line_in_range:below", "line_in_range:above"),
        *("ordered_ge:below", "ordered_lt:above", "delivered_le:above", "delivered_not_before_order"),
        *("share_in_range:above", "code_str_length:short", "code_str_length:long", "paid_is_boolean:maybe"),
    } < set(summary.dirty)
    assert not {"unpaid_e", "delivered_required", "share_required"} & set(summary.dirty)


def test_drawn_rows_have_unique_keys_values_that_vary_and_some_empty() -> None:
    out = io.BytesIO()
    write_sample(orders, out, 3000)
    lines = [line.rsplit(";", 7) for line in out.getvalue().decode("utf-16").split("\n")[1:-1]]
    assert len({(fields[1], fields[2]) for fields in lines}) == 3000
    assert {fields[0] for fields in lines} == {'"a ""b"""', '"c;d"', "e"}
    assert 50 < sum(not fields[4] for fields in lines) < 1500
    assert len({fields[6] for fields in lines}) > 1000


def dataset_of(model: type[RowModel], key: str) -> Dataset:
    return Dataset(name="tiny", table="tiny", description="Tiny.", rows=model, key=(key,))


class Plain(RowModel):
    """One column."""

    id: str = Field("Identifier")


class Patterned(RowModel):
    """A text of which no example can be derived."""

    id: str = Field("Identifier", str_matches="^[A-Z]{3}$")


class Impossible(RowModel):
    """A rule that nothing satisfies."""

    id: int = Field("Identifier")

    @rule("is wrong", column="id")
    def never(col: Callable[[str], pl.Expr]) -> pl.Expr:
        """Nobody can please this one."""
        return col("id") < col("id")


class Coin(RowModel):
    """Two rows at most."""

    side: bool = Field("Side")


def test_one_column_has_no_empty_line_in_its_file() -> None:
    """An empty line is no record, so it would not count as a dirty row."""
    text, summary = sample(dataset_of(Plain, "id"), 100, 1.0)
    assert "\n\n" not in text
    assert len(text[:-1].split("\n")) == 101
    assert "row_has_header_fields:short" not in summary.dirty


@pytest.mark.parametrize(
    ("model", "key", "message"),
    [
        (Patterned, "id", r"no value of id can be drawn under \['str_matches'\]; declare `realistic`"),
        (Impossible, "id", r"do not satisfy \['id_never'\]; declare `realistic`"),
        (Coin, "side", "its key has only 2 different values"),
    ],
)
def test_what_cannot_be_drawn_is_reported(model: type[RowModel], key: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(dataset_of(model, key), 3)


def test_a_pattern_is_broken_where_rows_are_declared() -> None:
    declared = Dataset(
        name="tiny",
        table="tiny",
        description="Tiny.",
        rows=Patterned,
        key=("id",),
        realistic=lambda _, row, __: {"id": f"{row:03d}".translate(str.maketrans("0123456789", "ABCDEFGHIJ"))},
    )
    text, summary = sample(declared, 100, 0.5)
    assert summary.dirty["id_str_matches:other"] == text.count("\n?!\n")
    assert len(re.findall(r"(?m)^[A-J]{3}$", text)) == 50


@pytest.mark.parametrize(("rows", "dirty"), [(-1, 0.0), (1, -0.1), (1, 1.1), (1, float("nan"))])
def test_impossible_numbers_are_refused(rows: int, dirty: float) -> None:
    with pytest.raises(ValueError, match="rows must be 0 or more"):
        sample(weather, rows, dirty)


def test_a_file_appears_under_its_name_only_when_complete(tmp_path: Path) -> None:
    out = tmp_path / "more.csv"
    listings = list[list[str]]()

    def progress(_: int) -> None:
        listings.append([path.name for path in tmp_path.iterdir()])

    write_sample(weather, out, 10, progress=progress)
    assert listings == [[".more.csv.part"]]
    assert [path.name for path in tmp_path.iterdir()] == ["more.csv"]
    assert out.read_text().count("\n") == 11


def test_an_interrupted_sample_leaves_nothing_and_replaces_nothing(tmp_path: Path) -> None:
    out = tmp_path / "more.csv"
    out.write_text("before")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(weather, out, 10, progress=interrupt)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("more.csv", "before")]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    write_sample(weather, link, 10)
    assert link.is_symlink()
    assert target.read_text().startswith(HEADER)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sample(weather, 300, 0.1)
    monkeypatch.setattr(sampling, "CHUNK_ROWS", 7)
    assert sample(weather, 300, 0.1) == whole


@pytest.mark.parametrize("source", [Csv(delimiter="||"), Csv(quote="'"), Csv(header=False), Csv(skip_lines=1)])
def test_another_dialect_is_refused(source: Csv) -> None:
    with pytest.raises(ValueError, match="samples are written as plain CSV"):
        write_sample(replace(orders, sources=(source,)), io.BytesIO(), 1, 0, 1)


class Kinds(RowModel):
    """A column of every type that JSON makes a difference for; two of them are called otherwise in files."""

    id: int = Field("Key", aliases=("thing_id",), ge=0)
    name: str = Field("Name", aliases=("thing_name",))
    price: Decimal = Field("Price", decimals=3, gt=0)
    seen_at: dt.datetime = Field("When", ge=dt.datetime(2024, 1, 1, tzinfo=dt.UTC))
    paid: bool = Field("Paid")
    series: list[float] = Field("Numbers", stored=False)
    mail: str | None = Field("Address", email=True)
    total: float = Field("Sum", derived=lambda col: col("series").list.sum())
    origin: str = Field("File", system="file")

    @rule("is of the future", column="seen_at")
    def in_the_past(col: Callable[[str], pl.Expr]) -> pl.Expr:
        """Nobody has seen tomorrow."""
        return col("seen_at") < dt.datetime(2200, 1, 1, tzinfo=dt.UTC)


kinds = Dataset("kinds", "kinds", Kinds, ("id",), "Kinds.", sources=(Json(), Csv()))


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_has_the_kinds_of_the_columns_and_neither_what_is_derived_nor_what_is_given() -> None:
    text, summary = sample(kinds, 200)
    rows = objects(text)
    assert (len(rows), summary.dirty) == (200, {})
    for number, row in enumerate(rows):
        assert row["thing"].keys() == {"id", "name"}
        assert row["thing"]["id"] == number
        assert re.fullmatch(r"\d+\.\d{3}", str(Decimal(repr(row["price"])).quantize(Decimal("0.001"))))
        assert dt.datetime.fromisoformat(row["seen_at"]) >= dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
        assert row["paid"] in (True, False)
        assert row["series"]
        assert all(isinstance(one, float) for one in row["series"])
        assert row["mail"] is None or row["mail"].endswith("@example.org")
        assert row.keys() == {"thing", "price", "seen_at", "paid", "series", "mail"}


def test_every_form_says_the_same() -> None:
    forms: dict[str, str] = {}
    for form in FORMS:
        out = io.BytesIO()
        write_sample(kinds, out, 50, form=form)
        forms[form] = out.getvalue().decode()
    rows = objects(forms["jsonl"])
    assert json.loads(forms["json"]) == rows
    assert [line.rstrip(",") for line in forms["json"].splitlines()[1:-1]] == forms["jsonl"].splitlines()
    table = list(csv.DictReader(forms["csv"].splitlines()))
    assert list(table[0]) == ["id", "name", "price", "seen_at", "paid", "series", "mail"]
    for row, cells in zip(rows, table, strict=True):
        assert (str(row["thing"]["id"]), row["thing"]["name"], row["mail"] or "") == (
            cells["id"], cells["name"], cells["mail"]
        )  # fmt: skip
        assert (float(cells["price"]), json.loads(cells["series"])) == (row["price"], row["series"])


def test_json_dirt_is_strict_jsons_and_of_every_type() -> None:
    text, summary = sample(kinds, 1000, 0.5)
    assert {
        *("row_is_json:NaN", "row_is_json:no colon", "row_is_json:text after", "row_is_json:half a surrogate pair"),
        *("row_is_object:list", "row_is_object:null", "row_is_object:text", "row_names_once", "row_without_nul"),
        *("id_required", "id_ge:below", "price_is_decimal:decimals", "price_is_decimal:1e18", "price_gt:below"),
        *(
            "seen_at_is_timestamp:2024-01-01T12:00:00",
            "seen_at_ge:below",
            "seen_at_in_the_past",
            "paid_is_boolean:maybe",
        ),
        *("series_required", "series_required:empty list", "series_is_numbers:[true]", "mail_email:two"),
    } < set(summary.dirty)
    lines = text.splitlines()
    assert len(lines) == 1000
    strict = Counter(_strictly(line) for line in lines)
    expected: Counter[str] = Counter()
    for kind, count in summary.dirty.items():
        expected[kind if kind in STRUCTURE else "an object"] += count
    assert strict == expected + Counter({"an object": 500})


STRUCTURE = {
    *("row_is_json:NaN", "row_is_json:no colon", "row_is_json:text after", "row_is_json:half a surrogate pair"),
    *("row_is_object:list", "row_is_object:null", "row_is_object:text", "row_names_once", "row_names_bounded"),
    "row_without_nul",
}


def _strictly(line: str) -> str:
    """Return the kind of a line by a strict reader."""
    findings = list[str]()

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in items}) < len(items):
            findings.append("row_names_once")
        if any(len(name) > 1000 for name, _ in items):
            findings.append("row_names_bounded")
        return dict(items)

    try:
        value = json.loads(line, object_pairs_hook=pairs, parse_constant=lambda _: findings.append("row_is_json:NaN"))
    except json.JSONDecodeError as error:
        return "row_is_json:text after" if error.msg == "Extra data" else "row_is_json:no colon"
    if not isinstance(value, dict):
        return {list: "row_is_object:list", str: "row_is_object:text"}.get(type(value), "row_is_object:null")
    for text, kind in (("\\ud800", "row_is_json:half a surrogate pair"), ("\\u0000", "row_without_nul")):
        if text in line:
            return kind
    return findings[0] if findings else "an object"


@pytest.mark.parametrize(
    ("dataset", "form", "message"),
    [(weather, "json", "has no files of the form json; it has csv"),
     (replace(kinds, sources=(Json(),)), "csv", "has no files of the form csv; it has json"),
     (replace(kinds, sources=(Json(rows="data.items"),)), "jsonl", "no JSON lines")],
)  # fmt: skip
def test_a_form_that_the_dataset_has_not(dataset: Dataset, form: Form, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_sample(dataset, io.BytesIO(), 1, form=form)


@pytest.mark.parametrize(
    ("dataset", "name", "form"),
    [(kinds, "x.csv", "csv"), (kinds, "x.JSONL", "jsonl"), (kinds, "x.ndjson", "jsonl"), (kinds, "x.json", "json"),
     (kinds, "-", None), (kinds, "json", None), (weather, "x.json", None), (weather, "x.txt", "csv")],
)  # fmt: skip
def test_the_name_of_a_file_says_its_form(dataset: Dataset, name: str, form: Form | None) -> None:
    assert form_of(dataset, name) == form
