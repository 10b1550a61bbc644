"""Every door of a declaration says the same: drawn row models in Python, in YAML and as models of Pandera, polars and pandas.

They are compared with each other, rule by rule, and with what Pandera's own `validate(lazy=True)` says of the same rows.
"""

from __future__ import annotations

import datetime as dt
import random
import re
import sys
import types
import warnings
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pandera.pandas as pap
import pandera.polars as pa
import polars as pl
import pytest
from pandera.engines import pandas_engine
from pandera.errors import SchemaErrors
from pandera.typing import Series

from mini_platform.dataset import Dataset, DeclarationError, Field, RowModel
from mini_platform.from_yaml import YamlError, read_yaml
from mini_platform.pandera_models import translated
from mini_platform.row_models import columns_of
from mini_platform.validation import clean_columns, judge, parse
from mini_platform_tests.declarations.conftest import Declared

MODULE = "drawn_doors"
SEEDS = range(40)
ROWS = 60


@dataclass
class Kind:
    """A type of columns: its names in the three libraries, texts of its values, and arguments of checks that fit it."""

    python: Any
    polars: Any
    pandas: Any
    texts: list[str]
    limits: list[Any] = field(default_factory=list)
    pandas_nullable: Any = None


STAMP = "2024-02-29T{}Z"
KINDS = [
    Kind(int, pl.Int64, int, ["-3", "0", "1", "2", "7", "10", "9007199254740993"], [0, 1, 2, 7], pd.Int64Dtype),
    Kind(float, pl.Float64, float, ["-0.5", "0", "0.1", "1", "2.5", "1e10", "-7"], [0.0, 0.1, 1.0, 2.5]),
    Kind(str, pl.String, str, ["a", "b", "ab", "Abc", "cat", "hotdog", "é", "日本", "a b", "007", "null"]),
    Kind(bool, pl.Boolean, bool, ["true", "false"], [], pd.BooleanDtype),
    Kind(dt.date, pl.Date, pandas_engine.Date, ["2023-12-31", "2024-01-01", "2024-02-29", "1900-01-01"],
         [dt.date(2024, 1, 1), dt.date(2024, 2, 29)]),
    Kind(dt.datetime, Annotated[pl.Datetime, "us", "UTC"], Annotated[pd.DatetimeTZDtype, "us", "UTC"],
         [STAMP.format(time) for time in ("00:00:00", "12:00:00.5", "12:00:00.000001", "23:59:59.999999")],
         [dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC), dt.datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=dt.UTC)]),
    Kind(Decimal, Annotated[pl.Decimal, 18, 2], Annotated[pandas_engine.Decimal, 18, 2, None],
         ["0.10", "0.11", "-1", "100.00", "1.5"], [Decimal("0.10"), Decimal(1), Decimal("-1.00")]),
]  # fmt: skip
WORDS = {
    "greater_than": "gt", "greater_than_or_equal_to": "ge", "less_than": "lt", "less_than_or_equal_to": "le",
    "equal_to": "eq", "not_equal_to": "ne",
}  # fmt: skip
"""Names of checks, as a row model has them -> keywords of Pandera's `Field`."""
PATTERNS = ["^[a-z]+$", "^(cat|a|b)", "^.b", "^[^0-9]*$"]


def drawn_checks(rng: random.Random, kind: Kind) -> dict[str, Any]:
    """Checks that fit a type, some of them never met: then every row is rejected, by every door."""
    some: dict[str, Any] = {}
    values = [v for v in (kind.limits or kind.texts) if kind.python is str or kind.limits]
    if kind.limits:
        some |= {name: rng.choice(kind.limits) for name in rng.sample(sorted(WORDS), 2)}
        low, high = sorted(rng.sample(kind.limits, 2))
        some["in_range"] = {"min_value": low, "max_value": high} | rng.choice([{}, {"include_max": False}])
    if kind.python is str:
        some["str_length"] = rng.choice([{"min_value": 2}, {"max_value": 2}, {"min_value": 1, "max_value": 3}])
        some["str_matches"], some["str_contains"] = rng.choice(PATTERNS), rng.choice(["a", "[bt]$", "b|é"])
        some["str_startswith"], some["str_endswith"] = rng.choice("ah"), rng.choice("bg")
    if values:
        some["isin"], some["notin"] = rng.sample(values, min(3, len(values))), [rng.choice(values)]
    return {name: some[name] for name in rng.sample(sorted(some), min(len(some), rng.choice([0, 1, 1, 2])))}


@dataclass
class Drawn:
    """A row model in every way to write it, and rows of texts."""

    python: type[RowModel]
    polars: Any
    pandas: Any
    rows: pl.DataFrame


def can_be_met(kind: Any, checks: dict[str, Any]) -> bool:
    """False where no value can meet all of the checks, which is refused."""
    try:
        columns_of(type("One", (RowModel,), {"__annotations__": {"x": kind}, "x": Field("X", **checks)}))
    except DeclarationError as error:
        if "no value can meet" not in str(error):
            raise
        return False
    return True


def drawn(seed: int) -> Drawn:
    rng = random.Random(seed)  # noqa: S311 - not a secret
    hints: dict[str, dict[str, Any]] = {door: {} for door in ("python", "polars", "pandas")}
    words: dict[str, dict[str, Any]] = {door: {} for door in hints}
    cells = {"id": [str(number) for number in range(ROWS)]}
    hints["python"]["id"] = hints["polars"]["id"] = hints["pandas"]["id"] = int
    words["python"]["id"] = Field("Id")
    words["polars"]["id"], words["pandas"]["id"] = pa.Field(description="Id"), pap.Field(description="Id")
    for number in range(rng.randint(1, 4)):
        kind, name, nullable = rng.choice(KINDS), f"c{number}", rng.random() < 0.5
        checks = drawn_checks(rng, kind)
        while not can_be_met(kind.python, checks):
            checks = drawn_checks(rng, kind)
        warn = rng.random() < 0.15
        description, unit = f"Column {number}", rng.choice([None, "m"])
        hints["python"][name] = kind.python | None if nullable else kind.python
        hints["polars"][name] = kind.polars
        hints["pandas"][name] = kind.pandas_nullable if nullable and kind.pandas_nullable else kind.pandas
        words["python"][name] = Field(description, unit=unit, warn=tuple(checks) if warn else (), **checks)
        said = {WORDS.get(check, check): argument for check, argument in checks.items()}
        for door, library in (("polars", pa), ("pandas", pap)):
            words[door][name] = library.Field(
                nullable=nullable, description=description, metadata={"unit": unit}, raise_warning=warn, **said
            )
        cells[name] = [rng.choice(kind.texts) if rng.random() < 0.85 else "" for _ in range(ROWS)]

    def model(door: str, base: type) -> Any:
        body = {"__annotations__": hints[door], "__doc__": "Drawn.", "__module__": MODULE, **words[door]}
        return type("Drawn", (base,), body)

    return Drawn(
        model("python", RowModel),
        model("polars", pa.DataFrameModel),
        model("pandas", pap.DataFrameModel),
        pl.DataFrame(cells, schema=dict.fromkeys(cells, pl.String)),
    )


@pytest.fixture
def by_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Called with a model: the dataset that a file of YAML declares by it."""

    def read(model: Any, more: str = "") -> Dataset:
        module = types.ModuleType(MODULE)
        module.M = model  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, MODULE, module)
        path = tmp_path / "defs.yaml"
        path.write_text(
            f"type: mini_platform.components.Dataset\nattributes:\n  name: drawn\n  model: {MODULE}.M\n  key: id\n{more}"
        )
        (dataset,) = read_yaml(path)
        return dataset

    return read


def typed(dataset: Dataset, rows: pl.DataFrame) -> pl.DataFrame:
    text = clean_columns(dataset.columns, rows)
    frame = text.select(parse(column) for column in dataset.columns)
    assert frame.null_count().equals(text.null_count()), "every text is one of its type"
    return frame


def refused_by_pandera(model: Any, frame: pl.DataFrame) -> set[int]:
    """Ids of the rows of which Pandera's own validation complains."""
    of_pandas = issubclass(model, pap.DataFrameModel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.validate(as_pandas(model, frame) if of_pandas else frame, lazy=True)
        except SchemaErrors as errors:
            return {frame["id"][int(case)] for case in errors.failure_cases["index"].to_list()}
    return set()


def as_pandas(model: Any, frame: pl.DataFrame) -> pd.DataFrame:
    columns = {}
    for name, column in model.to_schema().columns.items():
        kind = str(column.dtype)
        as_objects = kind in ("str", "date") or kind.startswith("Decimal")
        columns[name] = pd.Series(frame[name].to_list(), dtype=object if as_objects else kind)
    return pd.DataFrame(columns)


def rejected(dataset: Dataset, rows: pl.DataFrame) -> set[int]:
    return set(rows["id"].filter(judge(dataset, rows).rows["_rules"].is_not_null()).cast(pl.Int64))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_door_says_what_pandera_says(seed: int, by_yaml: Any) -> None:
    found = drawn(seed)
    python = by_yaml(found.python)
    frame = typed(python, found.rows)
    ours = rejected(python, found.rows)
    shown = ("name", "type", "nullable", "description", "unit", "decimals", "may_lack", "aliases")
    for model in (found.polars, found.pandas):
        declared = by_yaml(model)
        assert set(declared.rules) == set(python.rules)
        assert [[getattr(c, word) for word in shown] for c in declared.columns] == [
            [getattr(c, word) for word in shown] for c in python.columns
        ]
        assert rejected(declared, found.rows) == ours
        judged = frame
        if model is found.pandas:  # With a missing value a column has another type in pandas, and all of it is refused.
            judged = frame.drop_nulls([column.name for column in python.columns if not column.nullable])
        assert refused_by_pandera(model, judged) == ours & set(judged["id"])


@pytest.mark.parametrize(
    ("library", "pattern"),
    [
        (pap, "cat|dog"),
        (pap, re.compile("^[a-z]+$", re.IGNORECASE)),
        (pap, re.compile("c a t", re.VERBOSE)),
        (pap, "^(?!hot)[a-z]+"),
        (pap, r"(\w)\w*\1\Z"),
        (pap, "[[a-c]"),
        (pap, "cat$"),
        (pa, "^(cat|dog)"),
        (pa, "^[|c]"),
        (pa, r"^(a \|)?(cat)"),
        (pa, "(?i)CAT$"),
        (pa, re.compile("^[a-z]+$")),
        (pa, "[[:upper:]]"),
    ],
)
@pytest.mark.parametrize("word", ["str_matches", "str_contains"])
def test_a_pattern_is_read_as_the_library_of_its_model_reads_it(
    library: Any, pattern: Any, word: str, by_yaml: Any
) -> None:
    texts = ["cat", "dog", "hotdog", "a cat", "CAT", "tat", "[", "xyz", "7", "Émile", "c a t"]
    rows = pl.DataFrame({"id": [str(number) for number in range(len(texts))], "c": texts})
    model = made(library, id=int, c=(str, library.Field(**{word: pattern})))
    frame = rows.with_columns(pl.col("id").cast(pl.Int64))
    assert rejected(by_yaml(model), rows) == refused_by_pandera(model, frame)


def made(library: Any, base: Any = None, **columns: Any) -> Any:
    """A model of these columns, each a type, or a type and its field."""
    pairs = {name: said if isinstance(said, tuple) else (said, library.Field()) for name, said in columns.items()}
    body = {name: said for name, (_, said) in pairs.items()}
    hints = {name: kind for name, (kind, _) in pairs.items()}
    return type("M", (base or library.DataFrameModel,), {"__annotations__": hints, "__module__": MODULE, **body})


def polars(**columns: Any) -> Any:
    return made(pa, **{"id": int, **columns})


def pandas(**columns: Any) -> Any:
    return made(pap, **{"id": int, **columns})


def configured(library: Any, **words: Any) -> Any:
    return type("M", (made(library, id=int, c=str),), {"Config": type("Config", (), words), "__module__": MODULE})


class Checked(pa.DataFrameModel):
    id: int

    @pa.check("id", name="greater_than")
    def above(cls, data: Any) -> Any:
        return data.lazyframe.select(pl.col(data.key) > 7)


class Parsed(pap.DataFrameModel):
    id: int
    c: str

    @pap.parser("c")
    def upper(cls, texts: Any) -> Any:
        return texts.str.upper()


class Inherited(made(pa, id=int, c=(str, pa.Field(isin=["a"])))):  # type: ignore[misc]
    d: int = pa.Field(default=0)


NAIVE = dt.datetime(2024, 1, 1)  # noqa: DTZ001 - it is what is refused
UNTOLD = [
    (polars(at=pl.Datetime("ns", "UTC")), "times in ns"),
    (polars(at=pl.Datetime("ms", "UTC")), "times in ms"),
    (pandas(at=Annotated[pd.DatetimeTZDtype, "ns", "UTC"]), "times in ns"),
    (pandas(at=dt.datetime), "without a time zone"),
    (polars(at=dt.datetime), "without a time zone"),
    (pandas(c=np.int32), "the type int32"),
    (pandas(c=pd.Float32Dtype), "the type Float32"),
    (polars(c=pl.Categorical), "the type Categorical"),
    (polars(c=pl.Enum(["a"])), "the type Enum"),
    (pandas(c=Any), "the type None"),
    (polars(c="int | str"), "has 2 types, of which Pandera takes the first"),
    (pandas(c="int | str"), "Pandera cannot make a schema of M"),
    (pandas(c=Series["int | str"]), "M"),
    (polars(c="Nothing"), "Pandera cannot make a schema of M: NameError"),
    (polars(c=(str, pa.Field(str_matches=re.compile("a", re.IGNORECASE)))), "flags"),
    (polars(c=(str, pa.Field(str_matches="cat|dog"))), "anchors the first only"),
    (polars(c=(str, pa.Field(str_matches=r"^[]|a](x|y)\(|\)"))), "anchors the first only"),
    (polars(c=(str, pa.Field(str_contains="(?<!a)b"))), "cannot be used by polars"),
    (pandas(c=(Annotated[pd.StringDtype, "pyarrow", pd.NA], pap.Field(str_matches="a"))), "a language of its own"),
    (polars(c=(str, pa.Field(isin=["a"], nullable=True, ignore_na=False))), "ignore_na=False"),
    (pandas(c=(int, pap.Field(default=0))), "has default"),
    (polars(c=(str, pa.Field(default=""))), "has default"),
    (pandas(c=(bool, pap.Field(default=False))), "has default"),
    (polars(c=(float, pa.Field(default=pl.lit(1)))), "has default"),
    (Inherited, "Inherited.d has default"),
    (polars(c="str | None"), "may be absent, but not empty"),
    (polars(c=(str, pa.Field(required=False))), "may be absent, but not empty"),
    (pandas(c=(int, pap.Field(nullable=True))), "make it pd.Int64Dtype"),
    (pandas(c=(bool, pap.Field(nullable=True))), "make it pd.BooleanDtype"),
    (polars(c=(int, pa.Field(gt="1"))), "M.c: greater_than is '1'; the column wants a whole number"),
    (polars(c=(int, pa.Field(str_length=1))), "M.c: str_length fits text, and the column is a whole number"),
    (polars(c=(str, pa.Field(isin=[1, 2]))), "M.c: isin is 1; the column wants text"),
    (polars(c=(pl.Datetime("us", "UTC"), pa.Field(gt=NAIVE))), "which says no moment without a time zone"),
    (pandas(c=(pandas_engine.Date, pap.Field(gt=NAIVE))), "pandas does not compare"),
    (polars(c=(pl.Decimal(18, 2), pa.Field(ge=0.1))), "write Decimal('0.1')"),
    (polars(c=(str, pa.Field(isin=[]))), "isin of nothing"),
    (polars(c=(str, pa.Field(isin=[None]))), "isin of nothing"),
    (polars(c=(str, pa.Field(unique_values_eq=["a"]))), "no built-in one"),
    (Checked, "the check greater_than, which is no built-in one"),
    (Parsed, "has parsers"),
    (pandas(c=(str, pap.Field(on_missing="warn", nullable=True, required=False))), "has on_missing"),
    (pandas(c=(str, pap.Field(alias=7))), "the column 7 is not called by a text"),
    (polars(c=(str, pa.Field(alias="x y")), d=(str, pa.Field(alias="x-y"))), "two columns are called x_y"),
    (pandas(c=pap.typing.Index[int]), "an index"),
    (configured(pa, ordered=True), "ordered columns"),
    (configured(pap, add_missing_columns=True), "add_missing_columns"),
    (configured(pap, dtype=str), "a type of all columns"),
    (configured(pap, on_missing_columns="warn"), "on_missing_columns"),
    (configured(pap, unique=["c"]), "c unique; only the key can be"),
]


@pytest.mark.parametrize(("model", "words"), UNTOLD, ids=[words for _, words in UNTOLD])
def test_what_cannot_be_said_is_refused_by_file_and_line(model: Any, words: str, by_yaml: Any, tmp_path: Path) -> None:
    with pytest.raises(YamlError) as refusal:
        by_yaml(model)
    assert f"{tmp_path / 'defs.yaml'}, line " in str(refusal.value)
    assert words in str(refusal.value)


def test_what_says_nothing_of_text_is_taken(by_yaml: Any) -> None:
    said = {"coerce": True, "drop_invalid_rows": True, "title": "T", "name": "N", "unique_column_names": True}
    assert by_yaml(configured(pap, **said)).drift == "rescue"
    named = pa.Field(isin={"b", "a"}, n_failure_cases=1, title="Letters", coerce=True)
    rows = translated(polars(c=(str, named), d=(int, pa.Field(ge=0)))).rows
    assert [c.checks for c in by_yaml(rows).columns] == [
        {}, {"isin": ["a", "b"]}, {"greater_than_or_equal_to": 0}
    ]  # fmt: skip


def test_what_is_unique_is_rejected_where_it_comes_twice(by_yaml: Any, declared: Declared) -> None:
    model = polars(id=(int, pa.Field(unique=True)), c=str)
    trial = declared(by_yaml(model, "  refuse_above: {share: 1}\n"))
    rows = pl.DataFrame({"id": ["1", "2", "1", "3"], "c": ["a", "b", "c", "d"]})
    trial.load("a.csv", rows.write_csv())
    stored = {row["id"] for row in rows.with_columns(pl.col("id").cast(pl.Int64)).to_dicts()} - {1}
    assert refused_by_pandera(model, rows.with_columns(pl.col("id").cast(pl.Int64))) == {1}
    assert {key for (key,) in trial.rows("id")} == stored
    assert by_yaml(model, "  duplicates: last\n").duplicates == "last", "where it is said so"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("  owners: &a [*a]\n", "contains itself"),
        ("  description: !!python/name:os.system x\n", "could not determine a constructor"),
        ("  freshness_hours: 2024-13-45\n", "line 6"),
        ("  <<: {name: b}\n", "line 6"),
    ],
)
def test_yaml_that_cannot_be_read_is_told_with_its_line(more: str, words: str, by_yaml: Any) -> None:
    with pytest.raises(YamlError, match=r"defs.yaml, line [36]") as refusal:
        by_yaml(polars(), more)
    assert words in str(refusal.value)
