"""Words that models of Pandera and YAML lack are refused by file and line; patterns are those of the model's library.

The machine draws all else to see that every channel says the same: `doors.py`.
"""

from __future__ import annotations

import datetime as dt
import re
import sys
import types
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pandera.pandas as pap
import pandera.polars as pa
import polars as pl
import pytest
from pandera.engines import pandas_engine
from pandera.typing import Series

from mini_platform import Dataset
from mini_platform.declare.from_yaml import YamlError
from mini_platform.declare.pandera_models import translate_model
from mini_platform.rows.validation import validate
from mini_platform_tests.declarations.doors import refused_by_pandera
from mini_platform_tests.support.trial import Declared
from mini_platform_tests.support.yaml_files import read_yaml

MODULE = "drawn_doors"


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


def rejected(dataset: Dataset, rows: pl.DataFrame) -> set[int]:
    return set(rows["id"].filter(validate(dataset, rows).rows["_rules"].is_not_null()).cast(pl.Int64))


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
    model = model_of(library, id=int, c=(str, library.Field(**{word: pattern})))
    frame = rows.with_columns(pl.col("id").cast(pl.Int64))
    assert rejected(by_yaml(model), rows) == refused_by_pandera(model, frame)


def model_of(library: Any, base: Any = None, **columns: Any) -> Any:
    """A model of these columns, each a type, or a type and its field."""
    pairs = {
        name: definition if isinstance(definition, tuple) else (definition, library.Field())
        for name, definition in columns.items()
    }
    body = {name: definition for name, (_, definition) in pairs.items()}
    hints = {name: kind for name, (kind, _) in pairs.items()}
    return type("M", (base or library.DataFrameModel,), {"__annotations__": hints, "__module__": MODULE, **body})


def polars(**columns: Any) -> Any:
    return model_of(pa, **{"id": int, **columns})


def pandas(**columns: Any) -> Any:
    return model_of(pap, **{"id": int, **columns})


def configured(library: Any, **words: Any) -> Any:
    return type("M", (model_of(library, id=int, c=str),), {"Config": type("Config", (), words), "__module__": MODULE})


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


class Inherited(model_of(pa, id=int, c=(str, pa.Field(isin=["a"])))):  # type: ignore[misc]
    d: int = pa.Field(default=0)


NAIVE = dt.datetime(2024, 1, 1)  # noqa: DTZ001 - it is what is refused
UNSUPPORTED = [
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
    (polars(c=(int, pa.Field(gt="1"))), "M.c: greater_than is '1'; the column takes a whole number"),
    (polars(c=(int, pa.Field(str_length=1))), "M.c: str_length fits text, and the column is a whole number"),
    (polars(c=(str, pa.Field(isin=[1, 2]))), "M.c: isin is 1; the column takes text"),
    (polars(c=(pl.Datetime("us", "UTC"), pa.Field(gt=NAIVE))), "which is ambiguous without a time zone"),
    (pandas(c=(pandas_engine.Date, pap.Field(gt=NAIVE))), "pandas does not compare"),
    (polars(c=(pl.Decimal(18, 2), pa.Field(ge=0.1))), "write Decimal('0.1')"),
    (polars(c=(str, pa.Field(isin=[]))), "isin of nothing"),
    (polars(c=(float, pa.Field(isin=[0, 7]))), "which Pandera cannot apply"),
    (pandas(c=Annotated[pandas_engine.Decimal, 4, 4, None]), "give it one more"),
    (polars(c=(str, pa.Field(isin=[None]))), "isin of nothing"),
    (polars(c=(str, pa.Field(unique_values_eq=["a"]))), "not a built-in check"),
    (Checked, "the check greater_than, which is not a built-in check"),
    (Parsed, "has parsers"),
    (pandas(c=(str, pap.Field(on_missing="warn", nullable=True, required=False))), "has on_missing"),
    (pandas(c=(str, pap.Field(alias=7))), "the name of the column 7 is not text"),
    (polars(c=(str, pa.Field(alias="x y")), d=(str, pa.Field(alias="x-y"))), "two columns are called x_y"),
    (pandas(c=pap.typing.Index[int]), "an index"),
    (configured(pa, ordered=True), "ordered columns"),
    (configured(pap, add_missing_columns=True), "add_missing_columns"),
    (configured(pap, dtype=str), "a type of all columns"),
    (configured(pap, on_missing_columns="warn"), "on_missing_columns"),
    (configured(pap, unique=["c"]), "c unique; only the key can be"),
]


@pytest.mark.parametrize(("model", "words"), UNSUPPORTED, ids=[words for _, words in UNSUPPORTED])
def test_what_cannot_be_expressed_is_refused_by_file_and_line(
    model: Any, words: str, by_yaml: Any, tmp_path: Path
) -> None:
    with pytest.raises(YamlError) as refusal:
        by_yaml(model)
    # Models that are made by `type(…)` have no source.
    assert str(refusal.value).startswith((f"{tmp_path / 'defs.yaml'}, line ", f"{__file__}, line "))
    assert words in str(refusal.value)


def test_what_says_nothing_of_text_is_taken(by_yaml: Any) -> None:
    settings = {"coerce": True, "drop_invalid_rows": True, "title": "T", "name": "N", "unique_column_names": True}
    assert by_yaml(configured(pap, **settings)).unexpected_columns == "keep"
    named = pa.Field(isin={"b", "a"}, n_failure_cases=1, title="Letters", coerce=True)
    rows = translate_model(polars(c=(str, named), d=(int, pa.Field(ge=0)))).rows
    assert [c.checks for c in by_yaml(rows).columns] == [
        {}, {"isin": ["a", "b"]}, {"greater_than_or_equal_to": 0}
    ]  # fmt: skip


def test_what_is_unique_is_rejected_where_it_comes_twice(by_yaml: Any, declared: Declared) -> None:
    model = polars(id=(int, pa.Field(unique=True)), c=str)
    trial = declared(by_yaml(model, "  reject_limit: {share: 1}\n"))
    rows = pl.DataFrame({"id": ["1", "2", "1", "3"], "c": ["a", "b", "c", "d"]})
    trial.load("a.csv", rows.write_csv())
    stored = {row["id"] for row in rows.with_columns(pl.col("id").cast(pl.Int64)).to_dicts()} - {1}
    assert refused_by_pandera(model, rows.with_columns(pl.col("id").cast(pl.Int64))) == {0, 2}
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
def test_yaml_that_cannot_be_read_is_reported_with_its_line(more: str, words: str, by_yaml: Any) -> None:
    with pytest.raises(YamlError, match=r"defs.yaml, line [36]") as refusal:
        by_yaml(polars(), more)
    assert words in str(refusal.value)
