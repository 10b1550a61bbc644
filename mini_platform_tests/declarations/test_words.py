"""Every word of a declaration has a sentence that says what it promises, and a test that carries the sentence."""

from __future__ import annotations

import ast
import datetime as dt
import inspect
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from decimal import Decimal
from inspect import signature
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import mini_platform
from mini_platform import (
    Aggregate,
    ApiSource,
    Column,
    Csv,
    CustomRule,
    Dataset,
    DeclarationError,
    Field,
    Frequency,
    Json,
    OverTime,
    Ranked,
    Recurring,
    RejectLimit,
    RowModel,
    Rule,
    View,
    rule,
)
from mini_platform.dagster.assets import dataset_assets
from mini_platform.dagster.automation import sync_schedule
from mini_platform.declare.columns import FIELD_OPTIONS, FieldSpec
from mini_platform.declare.declared_checks import ARGUMENTS
from mini_platform.operations.raw_files import raw_retention
from mini_platform.operations.sources import access_to, is_configured
from mini_platform.platform import Platform
from mini_platform.rows.readers import ReadLimits, RefusedFileError
from mini_platform.rows.readers.files import read_rows
from mini_platform.rows.validation import validate
from mini_platform.warehouse.tables import dataset_tables
from mini_platform_tests.support.models import DAILY, daily, model

TESTS = Path(__file__).parent.parent
PUBLIC = [getattr(mini_platform, name) for name in mini_platform.__all__]
DERIVED = (Rule, FieldSpec, Column, CustomRule)
"""Classes that `Field` and `rule` make of their words: nobody writes them down."""
CLASSES = [kind for kind in PUBLIC if is_dataclass(kind) and kind not in DERIVED]
FUNCTIONS = {"Field": (Field, ("description", *FIELD_OPTIONS, *ARGUMENTS)), "rule": (rule, signature(rule).parameters)}
ALL_WORDS = [
    *((kind.__name__, item.name) for kind in CLASSES for item in fields(kind)),
    *((name, word) for name, (_, words) in FUNCTIONS.items() for word in words),
]


def promises(declared: Any) -> dict[str, str]:
    """The sentences of a docstring, by word; several words can share one."""
    entries = re.findall(
        r"^ +((?:\w+, )*\w+): (.+(?:\n +(?![ *])(?!(?:\w+, )*\w+: ).+)*)", inspect.getdoc(declared) or "", re.M
    )
    return {word: " ".join(sentence.split()) for words, sentence in entries for word in words.split(", ")}


@pytest.mark.parametrize(("of", "word"), ALL_WORDS)
def test_a_word_has_a_sentence(of: str, word: str) -> None:
    declared = FUNCTIONS[of][0] if of in FUNCTIONS else next(kind for kind in CLASSES if kind.__name__ == of)
    sentence = promises(declared)[word]
    assert len(sentence.split()) >= 3
    assert sentence.endswith("."), sentence


# Those that another test carries

CHARTS = (OverTime, Ranked, Recurring, Frequency)

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "Field.system": (
        "declare/test_columns.py::test_created_never_moves_and_changed_moves_only_with_the_row",
        "declarations/test_given_columns.py::test_a_column_of_a_file_has_the_name_of_a_column_of_the_platform",
        "declarations/test_keys.py::test_a_place_is_a_key",
        "operations/test_adopt.py::test_a_deleted_row_comes_back_with_its_number",
    ),
    "Field.personal": (
        "datasets/test_sales.py::test_nothing_of_a_person_is_anywhere_in_clear",
        "operations/test_personal_data.py::test_shown_nowhere",
        "operations/test_personal_data.py::test_the_tables_keep_it",
    ),
    "Field.timezone": ("declarations/test_values.py::test_a_time_zone_is_that_of_times_without_an_offset",),
    "Field.derived": (
        "declarations/test_values.py::test_a_derived_value_is_exact_or_empty",
        "declarations/test_values.py::test_what_looks_at_other_rows_is_refused",
    ),
    "ApiSource.paging": ("landing/test_sync.py::test_by_number", "landing/test_sync.py::test_by_links",
                    "landing/test_sync.py::test_by_cursors", "landing/test_sync.py::test_one_response_without_paging"),
    "ApiSource.page_size": ("landing/test_sync.py::test_by_links",),
    "ApiSource.since": ("landing/test_sync.py::test_since",),
    "ApiSource.overlap": ("landing/test_sync.py::test_since",),
    "ApiSource.whole_every": ("landing/test_sync.py::test_since",
                         "landing/test_sync.py::test_everything_is_requested_now_and_then"),
    "ApiSource.rate": ("landing/test_sync.py::test_the_pace_is_kept",),
    "ApiSource.tries": ("landing/test_sync.py::test_given_up_for_now_and_gone_on_with",),
    "ApiSource.backoff": ("landing/test_sync.py::test_pauses_grow_and_are_drawn",),
    "ApiSource.longest_wait": ("landing/test_sync.py::test_pauses_grow_and_are_drawn",
                          "landing/test_sync.py::test_a_longer_wait_is_left_to_the_next_runs"),
    "ApiSource.connect_seconds": ("landing/test_sync.py::test_a_connection_that_is_not_made_is_given_up",),
    "ApiSource.read_seconds": ("landing/test_sync.py::test_given_up_for_now_and_gone_on_with",),
    "ApiSource.answer_seconds": ("landing/test_sync.py::test_a_slow_source_is_cut_off_whatever_it_sends",),
    "ApiSource.sync_seconds": ("landing/test_sync.py::test_a_sync_that_takes_long_pauses",),
    "ApiSource.max_pages": ("landing/test_sync.py::test_no_end",),
    "PageNumberPaginator.page": ("landing/test_sync.py::test_other_names_and_another_first_page",),
    "PageNumberPaginator.first": ("landing/test_sync.py::test_other_names_and_another_first_page",),
    "PageNumberPaginator.limit": ("landing/test_sync.py::test_by_number",
                       "landing/test_sync.py::test_other_names_and_another_first_page"),
    "HeaderLinkPaginator.limit": ("landing/test_sync.py::test_by_links",),
    "CursorPaginator.path": ("landing/test_sync.py::test_by_cursors",),
    "CursorPaginator.parameter": ("landing/test_sync.py::test_by_cursors",),
    "CursorPaginator.limit": ("landing/test_sync.py::test_by_cursors",),
    "KeepHighest.column": ("declare/test_columns.py::test_which_of_several_rows_of_a_key_counts",),
    "Dataset.duplicates": ("declare/test_columns.py::test_which_of_several_rows_of_a_key_counts",),
    "Dataset.unexpected_columns": ("declare/test_columns.py::test_columns_that_nobody_declared",),
    "Dataset.key": ("declarations/test_keys.py::test_a_key_of_any_type",),
    "Dataset.name": ("dagster/test_definitions.py::test_a_dataset_is_its_declaration",),
    "Dataset.table": ("dagster/test_definitions.py::test_a_dataset_is_its_declaration",
                      "declarations/test_refused.py::test_datasets_with_one_name_between_them"),
    "Dataset.rows": ("declarations/test_names.py::test_what_a_model_inherits_is_loaded_and_validated",),
    "Dataset.search": ("web/api/test_datasets.py::test_a_masked_key_is_in_no_cursor",),
    "Dataset.api_sources": ("dagster/test_sync_runs.py::test_what_is_synced_is_loaded_by_the_same_run",),
    "Dataset.freshness": ("operations/test_alerts.py::test_a_dataset_that_is_late",),
    "Dataset.reject_limit": ("dagster/test_definitions.py::test_a_refused_file_fails_its_check_and_not_the_run",),
    "Dataset.warn_limit": ("dagster/test_definitions.py::test_what_warns_and_what_is_drawn_are_what_is_declared",),
    "Dataset.views": ("declarations/test_names.py::test_names_that_are_odd_and_allowed",),
    "Dataset.aggregates": ("declarations/test_names.py::test_names_that_are_odd_and_allowed",
                           "datasets/test_sales.py::test_what_a_select_reads_must_be_declared_before_it"),
    "Dataset.raw_retention": ("operations/test_forget.py::test_raw_files_are_kept_for_a_while",
                              "operations/test_forget.py::test_a_setting_says_otherwise"),
    "Dataset.realistic": ("operations/test_sampling.py::test_a_pattern_is_broken_where_rows_are_declared",),
    **dict.fromkeys(
        ("Dataset.adopts", "AdoptedTable.name", "AdoptedTable.columns"),
        ("operations/test_adopt.py::test_ids_and_times_stay_and_nothing_is_doubled",),
    ),
    "Aggregate.select": ("declarations/test_names.py::test_names_that_are_odd_and_allowed",),
    "Aggregate.key": (
        "declarations/test_aggregates.py::test_keys_of_every_type_are_kept_to_the_last_digit",
        "declarations/test_aggregates.py::test_a_key_that_cannot_be_one_is_refused_when_it_is_declared",
        "declarations/test_aggregates.py::test_which_are_computed_by_touched_group",
    ),
    "Aggregate.surrogate": ("datasets/test_sales.py::test_reloads_updates_and_redrives",),
    "Aggregate.chart": ("dagster/test_definitions.py::test_what_warns_and_what_is_drawn_are_what_is_declared",),
    "View.select": ("declarations/test_names.py::test_names_that_are_odd_and_allowed",),
    "Dataset.page": ("web/pages/test_declared_page.py::test_a_few_lines_are_a_page",),
    "Page.of": ("web/pages/test_pages.py::test_sales_say_what_the_star_says",
                "web/pages/test_declared_page.py::test_a_page_that_cannot_be_is_refused"),
    "Page.compare": ("web/pages/test_declared_page.py::test_rows_are_chosen_and_compared",
                     "web/pages/test_pages.py::test_weather_compares_stations_and_knows_those_near"),
    "Page.filters": ("web/pages/test_declared_page.py::test_rows_are_chosen_and_compared",),
    "Page.empty": ("web/pages/test_declared_page.py::test_rows_are_chosen_and_compared",),
    **dict.fromkeys(
        ("Page.time", "Page.measures", "Page.figures", "Measure.value", "Measure.label", "Measure.unit", "Measure.digits",
         "Measure.note", "Measure.each"),
        ("web/pages/test_declared_page.py::test_figures_say_what_their_measures_are",),
    ),
    **dict.fromkeys(
        ("Page.charts", *(f"{kind.__name__}.{item.name}" for kind in CHARTS for item in fields(kind))),
        ("web/pages/test_declared_page.py::test_charts_show_what_they_name",),
    ),
    "OverTime.lines": ("web/pages/test_declared_page.py::test_charts_show_what_they_name",
                       "web/pages/test_declared_page.py::test_a_part_of_a_step_is_no_slump"),
    "View.chart": ("dagster/test_definitions.py::test_what_warns_and_what_is_drawn_are_what_is_declared",),
}  # fmt: skip
"""By word, the tests that together carry all of its sentence."""

PROOFS: dict[str, Callable[[Path], None]] = {}


def proves(*names: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def decorate(proof: Callable[[Path], None]) -> Callable[[Path], None]:
        PROOFS.update(dict.fromkeys(names, proof))
        return proof

    return decorate


def _dataset(x: Any, field: Any, /, **options: Any) -> Dataset:
    rows = options.pop("rows", None) or model(k=(str, Field("Key")), x=(x, field))
    return Dataset(**({"name": "d", "table": "t", "rows": rows, "key": ("k",), "description": "Things"} | options))


def _read(path: Path, dataset: Dataset, text: str, name: str = "a.csv", channel: str = "drop") -> list[tuple[str, ...]]:
    path = path / "file"
    path.write_bytes(text.encode(dataset.sources[0].encoding or "utf-8") if name == "a.csv" else text.encode())
    return [row for block in read_rows(dataset, path, name, channel, ReadLimits()) for row in block.rows.rows()]


def _validated(dataset: Dataset, x: str) -> tuple[str | None, list[str], bool]:
    """Text that is stored for a cell, rules that it breaks, and whether its row is rejected."""
    results = validate(dataset, pl.DataFrame({"k": ["a"], "x": [x]}))
    row = results.rows.row(0, named=True)
    return row["x"], [one.name for one, _ in results.broken], row["_rules"] is not None


@proves("Field.description", "Field.unit", "Field.source", "Dataset.description")
def _(_path: Path) -> None:
    dataset = _dataset(float, Field("Height", unit="m", source="a book", ge=1))
    production = dataset_tables(dataset).production
    assert (production.comment, production.c.x.comment) == ("Things", "Height [m] (a book)")
    assert next(one.message for one in dataset.rules if one.name == "x_ge") == "x is below 1 m"


@proves("Field.aliases", "Field.optional", "Json.rows", "Json.suffixes", "Json.name")
def _(path: Path) -> None:
    rows = model(k=(str, Field("Key")), x=(str | None, Field("X", aliases=("In-File", "user_x"), optional=True)))
    dataset = _dataset(None, None, rows=rows, sources=(Csv(), Json(rows="data.items", suffixes=(".j",), name="jay")))
    assert _read(path, dataset, "K,IN FILE\na,1\n") == [("a", "1")]
    assert _read(path, dataset, '{"data": {"items": [{"k": "a", "user": {"x": 1}}]}}', "a.J") == [("a", "1")]
    assert _read(path, dataset, "k\na\n") == [("a", "")]
    assert dataset.raw_asset == "raw_files"
    assert _dataset(None, None, rows=rows, sources=(Json(name="jay"),)).raw_asset == "raw_jay"
    with pytest.raises(RefusedFileError, match="lacks k"):
        _read(path, dataset, "x\n1\n")


@proves("Field.trim", "Field.null_tokens", "Field.case")
def _(_path: Path) -> None:
    assert _validated(_dataset(str, Field("X")), " e\u0301 ") == ("é", [], False)
    assert _validated(_dataset(str, Field("X", trim=False)), " a ") == (" a ", [], False)
    assert _validated(_dataset(str | None, Field("X", null_tokens=("NA",), case="lower")), "NA") == (None, [], False)
    assert _validated(_dataset(str, Field("X", case="upper")), "é") == ("É", [], False)


@proves("Field.decimals")
def _(_path: Path) -> None:
    assert _validated(_dataset(Decimal, Field("X")), "1.255") == ("1.255", ["x_is_decimal"], True)
    assert _validated(_dataset(Decimal, Field("X", decimals=3)), "1.255") == ("1.255", [], False)


@proves("Field.stored", "Field.derived")
def _(_path: Path) -> None:
    double = Field("Twice", derived=lambda col: col("x") * 2, le=10)
    dataset = _dataset(None, None, rows=model(k=(str, Field("K")), x=(int, Field("X", stored=False)), y=(int, double)))
    assert [c.name for c in dataset_tables(dataset).production.c if not c.name.startswith("_")] == ["k", "y"]
    rows = validate(dataset, pl.DataFrame({"k": ["a", "b"], "x": ["5", "6"]})).rows
    assert rows.select("y", "_rules").rows() == [("10", None), ("12", '{"y_le"}')]


@proves("Field.warn")
def _(_path: Path) -> None:
    assert _validated(_dataset(int, Field("X", ge=1, le=2, warn="le")), "3") == ("3", ["x_le"], False)


DAY, TIME = dt.date(2024, 1, 2), dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
CHECKED: list[tuple[str, Any, Any, tuple[str, ...], tuple[str, ...]]] = [
    *((name, int, 2, ("2", "9007199254740993"), ("1",)) for name in ("ge", "greater_than_or_equal_to")),
    *((name, Decimal, 0.1, ("0.11",), ("0.10", "-1")) for name in ("gt", "greater_than")),
    *(
        (name, int, 9007199254740992, ("9007199254740992",), ("9007199254740993",))
        for name in ("le", "less_than_or_equal_to")
    ),
    *((name, dt.date, DAY, ("2024-01-01",), ("2024-01-02",)) for name in ("lt", "less_than")),
    *(
        (name, float, {"min_value": 1, "max_value": 2}, ("1", "2"), ("0.999", "2.001"))
        for name in ("in_range", "between")
    ),
    ("in_range", int, {"min_value": 1, "max_value": 3, "include_min": False, "include_max": False}, ("2",), ("1", "3")),
    *(
        (name, dt.datetime, TIME, ("2024-01-02T01:00:00+01:00",), ("2024-01-02T01:00:00Z",))
        for name in ("eq", "equal_to")
    ),
    *((name, bool, True, ("no",), ("yes",)) for name in ("ne", "not_equal_to")),
    ("isin", str, ("a", "é"), ("a", " e\u0301"), ("b", "A")),
    ("isin", float, [1, 0.5], ("1.0", "5e-1"), ("2",)),
    ("isin", Decimal, [1, 0.1], ("1.00", "0.10"), ("0.2",)),
    ("notin", int, [7.0], ("8",), ("7",)),
    ("str_length", str, {"min_value": 2, "max_value": 3}, ("ab", "äöü"), ("a", "abcd")),
    ("str_length", str, 2, ("ab",), ("a", "abc")),
    ("str_length", str, {"max_value": 2}, ("ab",), ("abc",)),
    ("str_matches", str, "cat|dog", ("cat", "dogs"), ("hotdog",)),
    ("str_matches", str, re.compile("^[a-z]+$", re.IGNORECASE), ("ABC",), ("1",)),
    ("str_contains", str, "og", ("hotdog",), ("cat",)),
    ("str_startswith", str, "a", ("ab",), ("ba",)),
    ("str_endswith", str, "a", ("ba",), ("ab",)),
    ("email", str, True, ("a@b.org",), ("a@b",)),
]


@pytest.mark.parametrize(("check", "kind", "argument", "passing", "failing"), CHECKED)
def test_a_check_judges_as_its_sentence_says(
    check: str, kind: Any, argument: Any, passing: tuple[str, ...], failing: tuple[str, ...]
) -> None:
    dataset = _dataset(kind | None, Field("X", **{check: argument}))
    assert [_validated(dataset, text)[1:] for text in passing] == [([], False)] * len(passing)
    assert [_validated(dataset, text)[1:] for text in failing] == [([f"x_{check}"], True)] * len(failing)
    assert _validated(dataset, "")[1:] == ([], False)


@proves("rule.sentence", "rule.column", "rule.severity")
def _(_path: Path) -> None:
    class R(RowModel):
        k: str = Field("Key")
        x: int | None = Field("X")

        @rule("is odd", column="x", severity="warn")
        def even(col: Any) -> Any:
            return col("x") % 2 == 0

        @rule("it is too much")
        def bearable(col: Any) -> Any:
            return col("x") < 10

    dataset = _dataset(None, None, rows=R)
    assert [_validated(dataset, text)[1:] for text in ("1", "11", "x", "")] == [
        (["x_even"], False),
        (["x_even", "bearable"], True),
        (["x_is_integer"], True),
        ([], False),
    ]
    assert {one.name: (one.message, one.severity) for one in dataset.rules if one.name in ("x_even", "bearable")} == {
        "x_even": ("x is odd", "warn"),
        "bearable": ("it is too much", "error"),
    }


READ_AS: list[tuple[dict[str, Any], str, list[tuple[str, ...]]]] = [
    ({"delimiter": "||"}, "k||x\na||1\n", [("a", "1")]),
    ({"encoding": "latin-1"}, "k,x\né,1\n", [("é", "1")]),
    ({"quote": "'"}, "k,x\n'a,''b','\"'\n", [("a,'b", '"')]),
    ({"quote": None}, 'k,x\na,"1\n', [("a", '"1')]),
    ({"escape": "\\"}, "k,x\na\\,b,1\n", [("a,b", "1")]),
    ({"header": False}, "a,1\n", [("a", "1")]),
    ({"header": "find"}, "A report\n\nk,x\na,1\n", [("a", "1")]),
    ({"skip_lines": 2}, "one\ntwo\nk,x\na,1\n", [("a", "1")]),
    ({"skip_initial_space": True}, 'k,x\na, "1,2"\n', [("a", "1,2")]),
    ({"trailing_delimiter": True}, "k,x\na,1,\n", [("a", "1")]),
    ({"comment": "#"}, "#no\nk,x\n#no\na,1\n", [("a", "1")]),
]


@pytest.mark.parametrize(("options", "text", "rows"), READ_AS)
def test_a_word_of_csv_reads_as_its_sentence_says(
    options: dict[str, Any], text: str, rows: list[tuple[str, ...]], tmp_path: Path
) -> None:
    assert _read(tmp_path, _dataset(str, Field("X"), sources=(Csv(**options),)), text) == rows


@proves("Csv.suffixes", "Csv.name", "Dataset.sources", "ApiSource.suffix", "ApiSource.name")
def _(path: Path) -> None:
    rows = model(k=(str, Field("Key")), source=(str, Field("Whence", system="source")))
    sources = (
        Csv(),
        Csv(delimiter=";", suffixes=(".scsv",), name="semi"),
        Json(),
        Json(rows="d", suffixes=(".d",), name="d"),
    )
    dataset = _dataset(None, None, rows=rows, sources=sources, api_sources=(ApiSource(name="p", suffix=".d"),))
    assert _read(path, dataset, "k,l\na,b\n", "a.CSV")[0][:2] == ("a", "csv")
    assert _read(path, dataset, "k;l\na;b\n", "a.scsv.gz")[0][:2] == ("a", "semi")
    assert _read(path, dataset, '{"d": [{"k": "a", "l": 1}]}', "a.d", "api:p")[0][:2] == ("a", "p")
    assert dataset.page_format(dataset.api_sources[0]) is sources[3]


@proves("ApiSource.url", "ApiSource.schedule")
def _(_path: Path) -> None:
    source = ApiSource(name="p", url="https://declared.example/", schedule="0 4 * * *")
    dataset = _dataset(str, Field("X"), sources=(Json(),), api_sources=(source,))
    assert access_to(Platform(), dataset, source).url == "https://declared.example/"
    with pytest.MonkeyPatch.context() as settings:
        settings.setenv("MINI_PLATFORM_API_SOURCE__D_P__URL", "https://set.example/")
        assert access_to(Platform(), dataset, source).url == "https://set.example/"
    assert not is_configured(Platform(), dataset, ApiSource(name="p"))
    schedules = [sync_schedule(dataset, one, "@daily", running=True) for one in (source, ApiSource(name="p"))]
    assert [schedule.cron_schedule for schedule in schedules] == ["0 4 * * *", "@daily"]


@proves("RejectLimit.share", "RejectLimit.rows", "RejectLimit.min_rows")
def _(_path: Path) -> None:
    assert [RejectLimit(share=0.29).exceeded(rejected, 100) for rejected in (29, 30)] == [False, True]
    assert [RejectLimit(rows=3).exceeded(rejected, 10**6) for rejected in (3, 4)] == [False, True]
    assert RejectLimit(share=0.5, rows=3).exceeded(4, 100)
    assert [RejectLimit(share=0.5).exceeded(read, read) for read in (99, 100)] == [False, True]
    assert [RejectLimit(share=0, min_rows=5).exceeded(1, read) for read in (4, 5)] == [False, True]
    assert RejectLimit(share=0.5, min_rows=0).exceeded(1, 1)
    assert RejectLimit(share=0.5, rows=3).exceeded(4, 4), "a number counts in small files, too"
    assert not RejectLimit().exceeded(100, 100)


@proves("Aggregate.columns", "View.columns", "Dataset.owners", "Dataset.indexes")
def _(_path: Path) -> None:
    described = DAILY | {"columns": {"k": ("Key",), "s": ("Sum of n", "m")}}
    dataset = Dataset(
        "words", "words", model(k=(str, Field("K")), n=(int, Field("N"))), ("k",), "x", owners=["team:x"], indexes=("n",),
        aggregates=(Aggregate(daily, **described),),
    )  # fmt: skip
    tables = dataset_tables(dataset)
    assert [c.comment for c in tables.aggregates["daily"].c] == ["Key", "Sum of n [m]"]
    assert [(index.name, [c.name for c in index.columns]) for index in tables.production.indexes] == [
        ("words_n", ["n"])
    ]
    specs = [spec for asset in dataset_assets(dataset) for spec in asset.specs]
    assert {(*spec.owners, spec.group_name) for spec in specs} == {("team:x", "words")}
    with pytest.raises(DeclarationError, match="columns describes"):
        View(daily, columns={"k": ()}, chart=("k", "k"))


@proves("Dataset.search", "Dataset.raw_retention")
def _(_path: Path) -> None:
    retention = dt.timedelta(days=3)
    dataset = _dataset(str, Field("X"), search=("x",), raw_retention=retention)
    assert (dataset.searched, raw_retention(Platform(), dataset)) == (("x",), retention)
    assert _dataset(str, Field("X")).searched == ("k", "x")
    assert _dataset(str, Field("X"), search=()).searched == ()


def test_every_word_has_a_test() -> None:
    carried = {*PROOFS, *ELSEWHERE, *(f"Field.{check}" for check, *_ in CHECKED)}
    carried |= {f"Csv.{word}" for options, *_ in READ_AS for word in options}
    assert carried == {f"{of}.{word}" for of, word in ALL_WORDS}
    for path, name in (test.split("::") for tests in ELSEWHERE.values() for test in tests):
        tree = ast.parse((TESTS / path).read_text())
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, path


@pytest.mark.parametrize("proof", dict.fromkeys(PROOFS.values()), ids=[*dict.fromkeys(PROOFS.values())].index)
def test_what_a_word_promises(proof: Callable[[Path], None], tmp_path: Path) -> None:
    proof(tmp_path)
