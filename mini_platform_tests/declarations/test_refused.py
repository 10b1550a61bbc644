"""Errors in a declaration are refused where it is declared, in a sentence that names them and says what to declare instead."""

from __future__ import annotations

import datetime as dt
import re
import typing
from collections.abc import Callable
from decimal import Decimal
from typing import Any, ClassVar, Optional

import dagster as dg
import pytest
from pandera.api.base.checks import MetaCheck
from pandera.polars import Check
from sqlalchemy import select

from mini_platform import (
    AdoptedTable,
    Aggregate,
    ApiSource,
    Csv,
    CursorPaginator,
    Dataset,
    DeclarationError,
    Field,
    HeaderLinkPaginator,
    Json,
    KeepHighest,
    PageNumberPaginator,
    RejectLimit,
    RowModel,
    View,
    rule,
)
from mini_platform.dagster import checks as asset_checks
from mini_platform.declare.collisions import refuse_collisions
from mini_platform.declare.columns import SystemColumn
from mini_platform.declare.dataset import OWNER
from mini_platform.declare.declared_checks import ARGUMENTS, WHOLE_COLUMN_CHECKS
from mini_platform.declare.reserved import CHECK_NAMES, PARAMETERS
from mini_platform.declare.row_models import SYSTEM_TYPES
from mini_platform.rows.validation import CHECKS, pandera_schema
from mini_platform.warehouse.tables import dataset_tables
from mini_platform_tests.support.models import DAILY, daily, model


def dataset(**overrides: Any) -> Dataset:
    fitting: dict[str, Any] = {"rows": model(k=(str, Field("Key")), n=(int | None, Field("N")))}
    return Dataset(**({"name": "d", "table": "t", "key": ("k",), "description": "x"} | fitting | overrides))


def of_column(kind: Any, /, *description: str, **options: Any) -> Dataset:
    """A dataset with a column `x` of this type and these words."""
    return dataset(rows=model(k=(str, Field("Key")), x=(kind, Field(*description or ("X",), **options))))


UTC = dt.UTC

# Arguments of checks

COLUMNS: list[tuple[Any, dict[str, Any], str]] = [
    (int, {"le": 9007199254740992.0}, r"dataset d: R\.x: le is 9007199254740992\.0, which may be rounded"),
    (int, {"ge": 0.5}, r"ge is 0\.5, and the column has whole numbers"),
    (int, {"ge": Decimal("0.5")}, "whole numbers"),
    (int, {"isin": [1, 2.5]}, "isin is 2.5, and the column has whole numbers"),
    (int, {"le": 2**63}, "whole numbers have 64 bits"),
    (int, {"le": True}, "le is True; the column takes a whole number"),
    (int, {"le": "1"}, "le is '1'; the column takes a whole number"),
    (int, {"le": float("nan")}, "le is nan, and the values of the column are finite"),
    (float, {"le": float("inf")}, "le is inf, and the values of the column are finite"),
    (float, {"le": 2**53 + 1}, "which a float would round"),
    (float, {"le": 10**400}, "which a float would round"),
    (float, {"eq": Decimal("0.1") + Decimal("1e-20")}, "which a float would round"),
    (float, {"ge": dt.date(2024, 1, 1)}, "the column takes a number"),
    (Decimal, {"ge": Decimal("0.125")}, r"ge is 0\.125, and the column keeps 2 decimals; give it more"),
    (Decimal, {"ge": 0.125}, "the column keeps 2 decimals"),
    (Decimal, {"le": 9999999999999999.99}, "may be rounded"),
    (Decimal, {"le": 123456789012345.67}, "may be rounded"),
    (Decimal, {"le": Decimal("1e20")}, "the column holds numbers below 10000000000000000; leave it out"),
    (Decimal, {"le": Decimal("1e40")}, "the column holds numbers below 10000000000000000; leave it out"),
    (Decimal, {"isin": [0, 2**62], "decimals": 18}, "the column holds numbers below 1; leave it out"),
    (Decimal, {"le": Decimal("NaN")}, "finite"),
    (Decimal, {"isin": ["0.1"]}, "the column takes a Decimal"),
    (Decimal, {"decimals": -1}, "decimals is -1; a Decimal has 18 digits in all"),
    (Decimal, {"decimals": 19}, "decimals is 19"),
    (Decimal, {"decimals": 2.0}, r"decimals is 2\.0"),
    (dt.date, {"ge": "2024-01-01"}, r"ge is '2024-01-01'; the column takes a date, such as dt\.date"),
    (dt.date, {"ge": dt.datetime(2024, 1, 1, tzinfo=UTC)}, "the column takes a date"),
    (dt.datetime, {"ge": dt.date(2024, 1, 1)}, "the column takes a datetime with a time zone"),
    (dt.datetime, {"ge": dt.datetime(2024, 1, 1)}, "is ambiguous without a time zone; give it tzinfo"),  # noqa: DTZ001
    (str, {"ge": 1}, "the column takes text"),
    (str, {"isin": ["a", 1]}, "the column takes text"),
    (str, {"isin": "abc"}, "isin is 'abc'; it takes a list of values"),
    (str, {"isin": ()}, "isin is empty: no value can meet it"),
    (str, {"notin": []}, "notin is empty: it has no effect"),
    (str, {"case": "lower", "isin": ("Red",)}, "isin names 'Red', which no cleaned text can match"),
    (str, {"case": "upper", "eq": "Red"}, "eq names 'Red'"),
    (str, {"isin": (" a",)}, "isin names ' a'"),
    (str, {"isin": ("",)}, "isin names ''"),
    (str, {"isin": ("NA", "x"), "null_tokens": "NA"}, "isin names 'NA'"),
    (str, {"isin": ("e\u0301",)}, "Unicode NFC"),
    (str, {"case": "lower", "str_startswith": "A"}, "str_startswith is 'A', which no cleaned text can match"),
    (str, {"str_startswith": " a"}, "which no cleaned text can match"),
    (str, {"str_endswith": ""}, "is empty"),
    (str, {"str_length": {"min_value": 5, "max_value": 3}}, "cannot be met by any text: is shorter than 5 or longer"),
    (str, {"str_length": {"max_value": 0}}, "cannot be met by any text"),
    (str, {"str_length": {"min_value": -1}}, "min_value is -1; it can be a whole number from 0 on"),
    (str, {"str_length": {"max_value": 3.0}}, r"max_value is 3\.0"),
    (str, {"str_length": {}}, "takes min_value, max_value or both"),
    (str, {"str_length": {"max": 3}}, "takes min_value, max_value, exact_value, and not max"),
    (str, {"str_matches": "(?=a)b"}, "which cannot be used by polars and Pandera"),
    (str, {"str_matches": r"(a)\1"}, "which cannot be used by polars and Pandera"),
    (str, {"str_contains": "[a"}, "which cannot be used by polars and Pandera"),
    (str, {"str_matches": r"^\p{L}+$"}, "no classes such as"),
    (str, {"str_matches": "a)|(b"}, "which cannot be used by polars and Pandera"),
    (str, {"str_matches": re.compile(b"a")}, "it takes a pattern"),
    (str, {"str_matches": 5}, "it takes a pattern"),
    (int, {"str_length": {"max_value": 3}}, "str_length fits text, and the column is a whole number"),
    (float, {"email": True}, "email fits text"),
    (str, {"email": False}, "email is False; it can be True, or be left out"),
    (bool, {"ge": True}, "does not fit a column that is true or false"),
    (bool, {"isin": [1]}, "the column takes True or False"),
    (list[float], {"ge": 1}, "does not fit a list of numbers"),
    (int, {"in_range": (0, 5)}, r'takes {"min_value": …, "max_value": …}; a single limit is ge'),
    (int, {"in_range": {"min_value": 0}}, "a single limit is ge"),
    (int, {"in_range": {"min_value": 0, "max_value": 1, "include_min": "no"}}, "include_min is 'no'"),
    (int, {"in_range": {"min_value": 0, "max_value": 1, "ignore_na": False}}, "and not ignore_na"),
    (int, {"unique_values_eq": [1]}, "validates a whole column and not a value; write a @rule"),
    (int, {"greater": 1}, "greater is neither an option of Field nor a check; did you mean greater_than"),
    (str, {"nul_tokens": "NA"}, "did you mean null_tokens"),
    (str, {"descripton": "x"}, "is neither an option of Field nor a check"),
    # What each could meet, and all of them together cannot
    (int, {"in_range": {"min_value": 5, "max_value": 3}}, r"no value can meet in_range="),
    (int, {"ge": 5, "le": 3}, "dataset d: R.x: no value can meet ge=5, le=3"),
    (int, {"gt": 3, "lt": 4}, "no value can meet"),
    (Decimal, {"gt": Decimal("0.01"), "lt": Decimal("0.02")}, "no value can meet"),
    (float, {"gt": 1, "le": 1}, "no value can meet"),
    (dt.date, {"gt": dt.date(2024, 1, 1), "lt": dt.date(2024, 1, 2)}, "no value can meet"),
    (dt.datetime, {"ge": dt.datetime(2024, 1, 2, tzinfo=UTC), "lt": dt.datetime(2024, 1, 1, tzinfo=UTC)}, "no value"),
    (str, {"ge": "b", "le": "a"}, "no value can meet"),
    (int, {"isin": [1, 2], "gt": 2}, "no value can meet"),
    (int, {"eq": 1, "ne": 1}, "no value can meet"),
    (str, {"isin": ["ab"], "str_length": {"max_value": 1}}, "no value can meet"),
    (str, {"isin": ["ab"], "str_startswith": "b"}, "no value can meet"),
    (bool, {"ne": True, "not_equal_to": False}, "no value can meet"),
    # Words that do not fit
    (float, {"decimals": 2}, "decimals would do nothing, as the column is not a Decimal"),
    (int, {"case": "lower"}, "case would do nothing"),
    (str, {"timezone": "UTC"}, "timezone would do nothing, as the column is not a time"),
    (dt.datetime, {"timezone": "Vienna"}, "timezone is 'Vienna'; it takes the name of a time zone"),
    (int, {"personal": "mask"}, "only text can be marked as personal data"),
    (str, {"case": "title"}, "case is 'title'; it can be lower or upper"),
    (str, {"personal": "hashed"}, "personal is 'hashed'; it can be mask or hash or last4 or redact"),
    (str, {"system": "filename"}, "system is 'filename'; it can be file or line or"),
    (str, {"system": "line"}, "system='line' is int; annotate it so"),
    (str, {"system": "last_loaded"}, r"is dt\.datetime; annotate it so"),
    (str, {"system": "surrogate"}, "system='surrogate' is int; annotate it so"),
    (str, {"system": "file", "aliases": "f"}, "aliases would do nothing, as the platform fills in the column"),
    (dt.datetime, {"system": "first_loaded", "stored": False}, "and the column is not stored"),
    (str, {"derived": lambda col: col("k"), "aliases": "y"}, "aliases would do nothing, as the column is derived"),
    (str | None, {"derived": lambda col: col("k"), "optional": True}, "optional would do nothing"),
    (str, {"derived": "k"}, "it takes a function of col"),
    (str, {"optional": True}, "annotate it `| None`"),
    (str, {"optional": "yes"}, "optional is 'yes'; it takes True or False"),
    (str, {"trim": None}, "trim is None"),
    (str, {"aliases": ("a", "a")}, "aliases names a twice"),
    (str, {"aliases": ("",)}, "an alias is empty"),
    (str, {"aliases": 5}, "it takes texts"),
    (str, {"null_tokens": (0,)}, "it takes texts"),
    (str, {"null_tokens": ("\0",)}, "has a NUL"),
    (str, {"unit": 5}, "unit is 5; it takes a text"),
    (str, {"warn": "ge"}, "warn names ge, which are not among its checks"),
    (str, {"system": "file", "ge": "a"}, "a column that the platform fills in has no checks"),
    (int, {"ge": 1, "warn": ("ge", "ge")}, "warn names ge twice"),
    # Types
    (int | str, {}, "a column has one type"),
    (None, {}, "a column has one type"),
    (list[int], {}, "are not supported; it can be str, int"),
    (typing.Literal["a"], {}, "are not supported"),
    (complex, {}, "columns of type complex are not supported"),
]


@pytest.mark.parametrize(("kind", "options", "words"), COLUMNS)
def test_a_column_that_cannot_be_right(kind: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DeclarationError, match=words) as refused:
        of_column(kind, **options)
    assert refused.value.sentence.startswith("dataset d: R.x: ")


def test_a_description_is_required() -> None:
    with pytest.raises(DeclarationError, match="a Field begins with what the column holds"):
        of_column(str, " ")
    with pytest.raises(DeclarationError, match="a Field begins with what the column holds"):
        dataset(rows=model(k=(str, Field())))


@pytest.mark.parametrize(
    ("kind", "options", "validated"),
    [
        (int, {"le": 5.0}, {"le": 5}),
        (int, {"isin": [1, Decimal(2)]}, {"isin": [1, 2]}),
        (float, {"isin": (1, 0.5)}, {"isin": (1.0, 0.5)}),
        (Decimal, {"ge": 0.1}, {"ge": Decimal("0.1")}),
        (Decimal, {"isin": [1, 0.1]}, {"isin": [Decimal(1), Decimal("0.1")]}),
        (int, {"ge": {"min_value": 3}}, {"ge": 3}),
        (str, {"str_length": 3}, {"str_length": {"min_value": 3, "max_value": 3}}),
        (str, {"str_matches": re.compile("a|b", re.IGNORECASE)}, {"str_matches": re.compile("a|b", re.IGNORECASE)}),
        (str, {"str_matches": "(?i)a|b"}, {"str_matches": "(?i)a|b"}),
        (str, {"case": "lower", "null_tokens": "NA", "isin": ("red",)}, {"isin": ("red",)}),
        (str, {"trim": False, "isin": (" a",)}, {"isin": (" a",)}),
        (int, {"ge": 5, "le": 3, "warn": "le"}, {"ge": 5, "le": 3}),
        (dt.date, {"ge": dt.date.max, "le": dt.date.max}, {"ge": dt.date.max, "le": dt.date.max}),
        (Optional[int], {"ge": 0}, {"ge": 0}),  # noqa: UP045 - it is what is tried
        (typing.List[float], {}, {}),  # noqa: UP006
    ],
)
def test_arguments_are_validated_as_intended(kind: Any, options: dict[str, Any], validated: dict[str, Any]) -> None:
    declaration = of_column(kind, **options)
    column = declaration.columns[1]
    assert (column.checks, repr(column.checks)) == (validated, repr(validated))
    pandera_schema(declaration)


@pytest.mark.parametrize("system", typing.get_args(SystemColumn))
def test_a_system_column_has_one_type(system: Any) -> None:
    assert of_column(SYSTEM_TYPES[system], system=system).columns[1].system == system
    with pytest.raises(DeclarationError, match="; annotate it so"):
        of_column(float, system=system)


def test_the_names_of_checks_are_those_of_pandera() -> None:
    named = set(MetaCheck.CHECK_FUNCTION_REGISTRY) | {"between", "eq", "ge", "gt", "le", "lt", "ne"}
    assert set(ARGUMENTS) | WHOLE_COLUMN_CHECKS == named | set(CHECKS)
    assert all(hasattr(Check, name) for name in named)
    assert {asset_checks.FILES_ACCEPTED, asset_checks.FILES_NOT_EMPTY, asset_checks.COLUMNS_AS_DECLARED} == CHECK_NAMES


# Row models


def test_what_a_row_model_inherits_counts() -> None:
    class Mixin:
        shown: int | None = Field("Of no RowModel", ge=0)

    class Base(RowModel):
        id: str = Field("Id")
        n: int = Field("N", ge=0)
        kind: ClassVar[str] = "x"

        @rule("is odd", column="n")
        def even(col: Any) -> Any:
            return col("n") % 2 == 0

        @rule("is nothing")
        def something(col: Any) -> Any:
            return col("n") != 0

    class Child(Mixin, Base):
        n: int = Field("N, wider", ge=-10)
        more: float = Field("More")

        @rule("is odd in any way", column="n")
        def even(col: Any) -> Any:
            return col("n") % 2 == 0

    declaration = dataset(rows=Child, key=("id",))
    assert [(c.name, c.description, dict(c.checks)) for c in declaration.columns] == [
        ("id", "Id", {}),
        ("n", "N, wider", {"ge": -10}),
        ("shown", "Of no RowModel", {"ge": 0}),
        ("more", "More", {}),
    ]
    assert [custom.rule.sentence for custom in declaration.custom_rules] == ["is odd in any way", "is nothing"]
    assert {"n_even", "something", "shown_ge"} < {one.name for one in declaration.rules}


class Plain(RowModel):
    k: str = Field("Key")

    @rule("is never")
    def fits(col: Any) -> Any:
        return col("k") == col("k")


def _gone() -> None:
    class Gone(Plain):
        fits = None

    dataset(rows=Gone)


def _bare() -> None:
    class Bare(Plain):
        n: int

    dataset(rows=Bare)


def _default() -> None:
    class Default(Plain):
        n: int = 5

    dataset(rows=Default)


def _untyped() -> None:
    class Untyped(Plain):
        n = Field("N")

    dataset(rows=Untyped)


def _unknown_type() -> None:
    class Unknown(Plain):
        n: Nowhere = Field("N")  # type: ignore[name-defined] # noqa: F821

    dataset(rows=Unknown)


def _column_and_rule() -> None:
    class Both(Plain):
        fits: int = Field("N")

    dataset(rows=Both)


def _twice() -> None:
    class Twice(RowModel):
        k: str = Field("Key")

        @rule("is this", column="k")
        def odd(col: Any) -> Any:
            return col("k") != "this"

        @rule("is that", column="k")
        def odd(col: Any) -> Any:  # noqa: F811 - it is what is tried
            return col("k") != "that"


def _static() -> None:
    class Static(Plain):
        @staticmethod
        @rule("is static")
        def static(col: Any) -> Any:
            return col("k") != ""

    dataset(rows=Static)


def _unsaid() -> None:
    class Unsaid(Plain):
        @rule  # type: ignore[arg-type]
        def unsaid(col: Any) -> Any:
            return col("k") != ""


def _loud() -> None:
    rule("is loud", severity="warning")  # type: ignore[arg-type]


def _blamed() -> None:
    class Blamed(Plain):
        @rule("is blamed", column="kk")
        def blamed(col: Any) -> Any:
            return col("k") != ""

    dataset(rows=Blamed)


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (_gone, r"dataset d: Gone\.fits is declared by a base and cannot be taken away"),
        (_bare, r"dataset d: Bare: n has a type and no Field"),
        (_default, r"dataset d: Default: n has a type and no Field"),
        (_untyped, r"dataset d: Untyped\.n has a Field and no type; write `n: str = Field"),
        (_unknown_type, r"a type annotation of it cannot be read: name 'Nowhere' is not defined"),
        (_column_and_rule, r"Both\.fits is a column here and a rule there"),
        (_twice, r"Twice\.odd is declared twice"),
        (_static, r"Static\.static: @rule must be used alone, without @staticmethod"),
        (_unsaid, "@rule takes a sentence"),
        (_loud, "severity is 'warning'; it can be error or warn"),
        (_blamed, r"the rule kk_blamed names the column 'kk', which is not declared; did you mean k"),
    ],
)
def test_a_row_model_that_cannot_be_right(declare: Callable[[], None], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        declare()


# Rules of one name


def _ruled(name: str, /, column: str | None = None, **columns: Any) -> Dataset:
    def function(col: Any) -> Any:
        return col("k") != ""

    function.__name__ = name
    rows = model(k=(str, Field("Key")), **columns)
    return dataset(rows=type("Ruled", (rows,), {"validated": rule("is what the rule says", column=column)(function)}))


@pytest.mark.parametrize(
    ("declare", "name"),
    [
        (lambda: _ruled("email", "mail", mail=(str, Field("Mail", email=True))), "mail_email"),
        (lambda: _ruled("is_number", "n", n=(float, Field("N"))), "n_is_number"),
        (lambda: _ruled("required", "k"), "k_required"),
        (lambda: _ruled("indexable", "k"), "k_indexable"),
        (lambda: _ruled("k_required"), "k_required"),
        (lambda: _ruled("row_not_header"), "row_not_header"),
        (lambda: _ruled("x", "a", a_b=(int, Field("A")), a=(int, Field("B"))), None),
        (lambda: _ruled("b_ge", "a", a_b=(int, Field("A", ge=0)), a=(int, Field("B"))), "a_b_ge"),
        (lambda: _ruled("b_required", "a", a_b=(int, Field("A")), a=(int | None, Field("B"))), "a_b_required"),
    ],
)
def test_two_rules_of_one_name(declare: Callable[[], Dataset], name: str | None) -> None:
    if name is None:
        assert declare()
        return
    with pytest.raises(
        DeclarationError, match=rf"dataset d: two rules have the name {name}: “.*” of .* and “.*is what"
    ):
        declare()


def test_a_rule_named_as_another_check() -> None:
    with pytest.raises(
        DeclarationError, match=r"'files_accepted' \(is what the rule says\) cannot be the name of a rule"
    ):
        _ruled("files_accepted")
    with pytest.raises(DeclarationError, match=r"'größe' .* cannot be the name of a rule"):
        _ruled("größe")
    key_once = _ruled("key_once")
    with pytest.raises(DeclarationError, match="two rules have the name key_once"):
        Dataset("d", "t", key_once.rows, ("k",), "x", duplicates="reject")


# Datasets


def _named(name: str) -> dict[str, Any]:
    return {"rows": model(**{name: (str, Field("Key"))}), "key": (name,)}


def _selecting(name: str) -> Any:
    def function(t: Any) -> Any:
        return daily(t)

    function.__name__ = name
    return function


def _tables(**overrides: Any) -> Callable[[], Any]:
    return lambda: dataset_tables(dataset(aggregates=(Aggregate(**{"select": daily} | DAILY | overrides),)))


def unreadable(t: Any) -> Any:
    return select(t.c.nn)


DATASETS: list[tuple[dict[str, Any], str]] = [
    *(
        ({"name": name}, "name cannot be .*, as folders and other names are derived from it")
        for name in ("", ".", "..", "a/b", ".a", "A", "a b", "a__b", "a_", "größe", "a\0", "1a", None)
    ),
    ({"name": "files"}, "dataset files: name cannot be files, which is a name of the platform.* files_data"),
    ({"name": "ops"}, "which is a name of the platform"),
    ({"table": "a b"}, "table cannot be 'a b', as Dagster's names contain it"),
    ({"table": ""}, "table cannot be ''"),
    ({"table": "pg_class"}, "table cannot be 'pg_class', .* Postgres's own tables have it"),
    *(
        (_named(name), f"lists of the API have a parameter {name}; use another, such as {name}_")
        for name in sorted(PARAMETERS)
    ),
    (_named("xmin"), "every table of Postgres has a column called xmin of its own"),
    (
        {"aggregates": (Aggregate(daily, **DAILY, surrogate="cursor"),)},
        "dataset d: daily: cursor cannot be the name of a column",
    ),
    ({"table": None}, "it takes the name of its table"),
    (
        _named("größe"),
        "'größe' cannot be the name of a column, .*; a file can use this name if it is declared as an alias",
    ),
    (_named('a"b'), "cannot be the name of a column"),
    (_named("a%b"), "cannot be the name of a column"),
    (_named("a\0"), "cannot be the name of a column"),
    (_named(""), "'' cannot be the name of a column"),
    (_named("_a"), "leading underscore"),
    (
        {"rows": model(k=(str, Field("K")), k__gt=(int, Field("More"))), "key": ("k",)},
        "the API filters k by k__gt, which is a column, too",
    ),
    (
        {
            "table": "t" * 40,
            "rows": model(k=(str, Field("K")), **{"c" * 30: (int, Field("C"))}),
            "indexes": ("c" * 30,),
        },
        "63",
    ),
    (
        {"rows": model(k=(str, Field("K")), K=(str, Field("K")))},
        "columns k and K cannot be told apart in a file by 'K'",
    ),
    (
        {"rows": model(k=(str, Field("K")), a_b=(str, Field("K")), b=(str, Field("K", aliases="A B")))},
        "a_b and b cannot",
    ),
    ({"rows": model(k=(str, Field("K")), b=(str, Field("K", aliases="k")))}, "k and b cannot be told apart"),
    ({"rows": model(k=(str, Field("K", aliases="x")), b=(str, Field("K", aliases="X")))}, "k and b cannot be told"),
    ({"rows": model(k=(str, Field("K", system="file")))}, "no column of R is read from files"),
    ({"rows": Dataset}, "Dataset is neither a RowModel nor a Pandera model"),
    ({"key": "k"}, r"dataset d: key is 'k'; it takes a tuple of texts, as in \(\"k\",\)"),
    ({"key": ("k", "k")}, "key names k twice"),
    ({"key": ("kk",)}, r"key names \['kk'\], which R lacks; did you mean k"),
    ({"indexes": "n"}, "indexes is 'n'"),
    ({"indexes": ("n", "n")}, "indexes names n twice"),
    ({"owners": "team:x"}, "owners is 'team:x'; it takes a tuple of texts"),
    ({"owners": ("somebody",)}, "owners names 'somebody'; it takes e-mail addresses and team:name"),
    ({"search": "k"}, "search is 'k'"),
    ({"description": " "}, "say what a row is about"),
    ({"unexpected_columns": "rescued"}, "unexpected_columns is 'rescued'; it can be keep or refuse or ignore"),
    ({"duplicates": "newest"}, "duplicates is 'newest'; it can be last, first, reject or KeepHighest"),
    ({"freshness": dt.timedelta(0)}, "freshness is .*; it takes a dt.timedelta above 0"),
    ({"freshness": 24}, "freshness is 24"),
    ({"raw_retention": dt.timedelta(days=-1)}, "raw_retention is"),
    ({"reject_limit": 0.5}, r"reject_limit is 0\.5; it takes RejectLimit"),
    ({"sources": ()}, "sources is empty"),
    ({"sources": Csv()}, "it takes a tuple"),
    ({"sources": (Csv(), Csv(delimiter=";", name="semi"))}, r"files that end in \.csv could be csv or semi"),
    (
        {"sources": (Csv(suffixes=(".csv",)), Csv(suffixes=(".eu.csv.gz",), name="eu"))},
        r"\.eu\.csv\.gz could be eu or csv",
    ),
    ({"sources": (Csv(), Json(name="csv"))}, "two formats or API sources have the name csv"),
    ({"api_sources": (ApiSource(name="p"),)}, "the pages of p end in .json, and no format"),
    (
        {"api_sources": (ApiSource(name="p", suffix=".csv"),)},
        "the pages of p are csv, which is read without paging: declare paging=None",
    ),
    ({"realistic": lambda _, row: {"k": str(row)}}, "a row number and the last day of the sample"),
    ({"name": "samples"}, "name cannot be samples, which is a name of the platform"),
    ({"adopts": "old"}, "adopts is 'old'; it takes AdoptedTable"),
    ({"adopts": AdoptedTable("old")}, 'adopts needs a column with system="surrogate"'),
    (
        {
            "rows": model(
                k=(int, Field("K")), n=(int, Field("N", system="surrogate")), m=(int, Field("M", system="surrogate"))
            )
        },
        "n and m would be the same number: declare one",
    ),
    (
        {
            "rows": model(k=(int, Field("K")), n=(int, Field("N", system="surrogate"))),
            "adopts": AdoptedTable("old", {"numer": "id"}),
        },
        r"adopts names \['numer'\], which .* lacks",
    ),
    ({"table": "quality_report"}, "the table quality_report and the quality report both have the asset quality_report"),
    ({"table": "raw_csv"}, "the raw files and the table raw_csv both have the asset raw_csv"),
    ({"aggregates": (Aggregate(_selecting("t"), **DAILY),)}, "the table t and the aggregate t both have the asset t"),
    ({"aggregates": (Aggregate(_selecting("staging_t"), **DAILY),)}, "both have the asset staging_t"),
    (
        {"aggregates": (Aggregate(daily, **DAILY), Aggregate(daily, **DAILY))},
        "two aggregates or views have the name daily",
    ),
    (
        {"aggregates": (Aggregate(_selecting("t_every_row_accounted_for"), **DAILY),)},
        "and the check of the table t both",
    ),
    ({"aggregates": (Aggregate(_selecting("a" * 53), **DAILY, surrogate="s_id"),)}, "surrogates_a+ is longer"),
    (
        {"table": "p_pages", "sources": (Json(),), "api_sources": (ApiSource(name="p"),)},
        "source p and the table p_pages both",
    ),
    (
        {"rows": model(k=(str, Field("K")), x=(list[float], Field("X"))), "indexes": ("x",)},
        "x is a list, which cannot be in indexes",
    ),
    (
        {"rows": model(k=(str, Field("K")), x=(list[float], Field("X"))), "duplicates": KeepHighest("x")},
        "x is a list, which cannot be in duplicates",
    ),
    (
        {"rows": model(k=(str, Field("K")), x=(dt.datetime, Field("X", system="last_loaded"))), "key": ("k", "x")},
        "x is only known once its row is written, so it cannot be in key",
    ),
]


@pytest.mark.parametrize(("overrides", "words"), DATASETS)
def test_a_dataset_that_cannot_be_right(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        dataset(**overrides)


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (
            lambda: dataset(unexpected_colums="ignore"),
            "Dataset got an unexpected keyword argument 'unexpected_colums'; did you mean unexpected_columns",
        ),
        (lambda: Dataset(name="d"), "Dataset missing a required argument: 'table'"),
        (lambda: Csv(delimeter=";"), "Csv got an unexpected .* did you mean delimiter"),
        (lambda: RejectLimit(share=2), r"RejectLimit: share is 2; it takes a share from 0 to 1"),
        (lambda: RejectLimit(share=-0.1), "RejectLimit: share"),
        (lambda: RejectLimit(share=float("nan")), "RejectLimit: share"),
        (lambda: RejectLimit(rows=-1), "RejectLimit: rows is -1"),
        (lambda: RejectLimit(rows=0.5), "RejectLimit: rows"),
        (lambda: RejectLimit(min_rows=-1), "RejectLimit: min_rows is -1; it takes a whole number from 0 on"),
        (lambda: RejectLimit(min_rows=None), "RejectLimit: min_rows is None"),
        (lambda: RejectLimit(min_rows=True), "RejectLimit: min_rows is True"),
        (lambda: Csv(suffixes=("csv",)), "'csv' is not an ending of a file's name: use a dot and lower case letters"),
        (lambda: Csv(suffixes=(".CSV",)), "'.CSV' is not an ending"),
        (lambda: Csv(suffixes=".csv"), "suffixes is '.csv'; it takes endings"),
        (lambda: Csv(suffixes=()), "suffixes"),
        (lambda: Csv(name="My CSV"), "'My CSV' is not a name"),
        (lambda: Csv(skip_lines=1.5), "skip_lines is 1.5"),
        (lambda: Csv(trailing_delimiter="yes"), "trailing_delimiter is 'yes'"),
        (lambda: Csv(encoding="utf-88"), "the encoding 'utf-88' is not known"),
        (lambda: Json(rows="data..items"), "Json: rows is 'data..items'; it takes names joined by dots"),
        (lambda: Json(suffixes=("json",)), "is not an ending"),
        (lambda: ApiSource(name="a__b"), "is not a name"),
        (lambda: ApiSource(name="p", tries=1.5), "tries is 1.5"),
        (lambda: ApiSource(name="p", max_pages=0), "max_pages is 0"),
        (lambda: ApiSource(name="p", read_seconds=0), "read_seconds is 0"),
        (lambda: ApiSource(name="p", schedule="hourly"), "schedule is 'hourly', which is not a cron expression"),
        (lambda: ApiSource(name="p", url="ftp://x"), "it begins with https:// or http://"),
        (lambda: ApiSource(name="p", overlap=dt.timedelta(-1)), "overlap is not below 0"),
        (lambda: ApiSource(name="p", since="limit"), "parameters 'limit', 'limit' are not different names"),
        (
            lambda: ApiSource(name="p", paging="numbered"),
            "it takes PageNumberPaginator, HeaderLinkPaginator, CursorPaginator or None",
        ),
        (lambda: ApiSource(name="p", suffix="json"), "is not an ending"),
        (lambda: PageNumberPaginator(page="limit"), "are not different names"),
        (lambda: PageNumberPaginator(first="1"), "first is '1'"),
        (lambda: HeaderLinkPaginator(limit=""), "are not different names"),
        (lambda: CursorPaginator(path=""), "CursorPaginator: path is ''"),
        (lambda: Aggregate(daily, key=(), columns=DAILY["columns"], chart=("k", "s")), "daily: it needs a key"),
        (lambda: Aggregate(daily, **DAILY | {"key": "k"}), "Aggregate daily: key is 'k'"),
        (_tables(chart=("k", "sum")), "d.daily: chart names sum, which it does not select"),
        (_tables(chart=("s", "k")), "d.daily: chart draws k, which is not a number"),
        (_tables(columns={"k": ("K",), "sum": ("S",)}, chart=None), "columns does not describe s, which it selects"),
        (
            _tables(columns=DAILY["columns"] | {"ss": ("S",)}),
            "columns describes ss, which it does not select; did you mean s",
        ),
        (_tables(select=unreadable), "d.unreadable: its function names nn, which its table lacks"),
        (lambda: Aggregate(daily, **DAILY | {"columns": {"k": "Key"}}), "columns describes k by 'Key'; it takes"),
        (lambda: Aggregate(lambda t: t, **DAILY), "select is '<lambda>'; it takes a function"),
        (lambda: Aggregate(_selecting("größe"), **DAILY), "select is 'größe'; it takes a function"),
        (lambda: Aggregate(daily, **DAILY, surrogate="s"), "it takes a name that no selected column has"),
        (
            lambda: View(daily, columns={}, chart=("k", "s")),
            "View daily: .*columns describes no column|View daily: columns",
        ),
        (lambda: View(daily, columns=DAILY["columns"], chart="ks"), "View daily: chart is 'ks'"),
    ],
)
def test_a_word_that_cannot_be_right(declare: Callable[[], Any], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        declare()


@pytest.mark.parametrize(
    "owner", ["team:x", "team:a b", "team:", "a@b.co", "a@b", "a@b.somewhere", "x", "", "a b@c.org"]
)
def test_owners_are_those_that_dagster_takes(owner: str) -> None:
    try:
        accepted = bool(dg.AssetSpec("owned", owners=[owner]))
    except dg.DagsterInvalidDefinitionError:
        accepted = False
    assert bool(re.fullmatch(OWNER, owner)) == accepted


# Several datasets


def other(name: str, table: str = "", **overrides: Any) -> Dataset:
    rows = model(k=(str, Field("K")), b_c=(int, Field("B")), c=(int, Field("C")), pkey=(int, Field("P")))
    return dataset(**({"name": name, "table": table or name, "rows": rows} | overrides))


@pytest.mark.parametrize(
    ("datasets", "words"),
    [
        ((other("a"), other("a", "t2")), "dataset a and dataset a would have one name, a, as a dataset"),
        (
            (other("a", "t"), other("b", "t")),
            "the table of dataset a and the table of dataset b would have one name, t, as a",
        ),
        (
            (other("a", indexes=("b_c",)), other("a_b", indexes=("c",))),
            "the index on b_c of dataset a and the index on c of dataset a_b would have one name, a_b_c",
        ),
        ((other("a", indexes=("c",)), other("b", "a_c")), "the index on c of dataset a and the table of dataset b"),
        ((other("a", indexes=("pkey",)),), "the primary key of dataset a and the index on pkey of dataset a"),
        ((other("a"), other("b", "a_pkey")), "the primary key of dataset a and the table of dataset b"),
        (
            tuple(other(n, aggregates=(Aggregate(daily, **DAILY),)) for n in "ab"),
            "the aggregate daily of dataset a and the aggregate daily of dataset b would have one name, daily",
        ),
        (
            (
                other("a", sources=(Json(),), api_sources=(ApiSource(name="b_c"),)),
                other("a_b", sources=(Json(),), api_sources=(ApiSource(name="c"),)),
            ),
            "the API source b_c of dataset a and the API source c of dataset a_b would have one name, sync_a_b_c, as a job",
        ),
        (
            (other("a", sources=(Json(),), api_sources=(ApiSource(name="files"),)), other("a_sync", "t2")),
            "the API source files of dataset a and the sensor of dataset a_sync would have one name, a_sync_files, as a sensor",
        ),
    ],
)
def test_datasets_with_one_name_between_them(datasets: tuple[Dataset, ...], words: str) -> None:
    with pytest.raises(DeclarationError, match=words):
        refuse_collisions(datasets)


def test_names_that_only_look_alike() -> None:
    number = Field("N", derived=lambda col: col("n_text").cast(int))
    assert dataset(rows=model(k=(str, Field("K")), n_text=(str, Field("N", aliases="n")), n=(int, number)))
    refuse_collisions([other("a", indexes=("c",)), other("a_b", indexes=("c",)), other("b", "A")])
