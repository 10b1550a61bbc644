"""A message about a declaration begins with file and line of the fault, whichever door the declaration comes through."""

from __future__ import annotations

import importlib
import uuid
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mini_platform import Dataset, DeclarationError
from mini_platform.cli import app
from mini_platform.operations.checking import check
from mini_platform_tests.support.yaml_files import read_yaml

PYTHON = """\
import pandera.polars as pa
from sqlalchemy import BigInteger, func, select

from mini_platform import *


class Base(RowModel):
    k: str = Field("Key")


class Row(Base):
    n: int | None = Field("N", ge=0)
    half: float | None = Field("Half", derived=lambda col: col("n") / 2)

    @rule("is odd", column="n")
    def even(col):
        return col("n") % 2 == 0


class Polars(pa.DataFrameModel):
    k: str
    n: int = pa.Field(ge=0)


def by_key(t):
    \"\"\"By key.\"\"\"
    return select(t.c.k, func.sum(t.c.n, type_=BigInteger).label("sum")).group_by(t.c.k)


aggregate = Aggregate(by_key, key=("k",), columns={"k": ("Key",), "sum": ("Sum",)}, chart=("k", "sum"))
page = Page(measures={"total": "sum(n)"}, figures=("total",))
dataset = Dataset(
    name="things", table="things", rows=Row, key=("k",), description="Things.", aggregates=(aggregate,), page=page
)
"""
FIELD, RULE, POLARS = (
    '    n: int | None = Field("N", ge=0)',
    '    @rule("is odd", column="n")',
    "    n: int = pa.Field(ge=0)",
)
HALF = '    half: float | None = Field("Half", derived=lambda col: col("n") / 2)'
DATASET, AGGREGATE, PAGE = "dataset = Dataset(", "aggregate = Aggregate(", "page = Page("
CALL = 'name="things", table="things", rows=Row, key=("k",)'
AS_DECLARED = [
    (FIELD, '    n: int | None = Field("N", str_lenght=5)', None,
     "dataset things: Row.n: str_lenght is neither an option of Field nor a check; did you mean str_length?"),
    (FIELD, '    n: int | None = Field("N", in_range={"min_value": 0, "max_value": 5, "maximum": 6})', None,
     "dataset things: Row.n: in_range takes min_value, max_value, include_min, include_max, and not maximum"),
    (FIELD, '    n: int | None = Field("N", ge="a")', None, "dataset things: Row.n: ge is 'a'; the column takes a whole"),
    (FIELD, "    n: int", None, 'dataset things: Row: n has a type and no Field; write `n: … = Field("what it holds")`'),
    ('    k: str = Field("Key")', '    k: str = Field("Key")\n    bare: int', "    bare: int", "dataset things: Row: bare has"),
    (FIELD, f"{FIELD}\n    limit: str = Field('L')", "    limit", "dataset things: limit cannot be the name of a column"),
    (FIELD, f"{FIELD}\n    xmin: str = Field('L')", "    xmin", "dataset things: every table of Postgres has a column called"),
    (FIELD, f"{FIELD}\n    größe: str = Field('L')", "    größe", "dataset things: 'größe' cannot be the name of a column"),
    (FIELD, f"{FIELD}\n    N: str = Field('L')", "    N", "dataset things: the columns n and N cannot be told apart"),
    (FIELD, f"{FIELD}\n    n: str = Field('L')", "    n: str", "Row.n is declared twice"),
    (RULE, '    @rule("is odd", column="m")', None, "dataset things: Row: the rule m_even names the column 'm', which is not"),
    (RULE, '    @rule("is odd", severity="warning")', None, "the rule 'is odd': severity is 'warning'; it can be error"),
    (RULE, '    @rule("is odd")\n    def n_ge(col):\n        return col("n") > 0\n\n' + RULE, '    @rule("is odd")',
     "dataset things: two rules have the name n_ge"),
    (CALL, CALL.replace('("k",)', '"k"'), DATASET, "dataset things: key is 'k'; it takes a tuple of texts, as in (\"k\",)"),
    (CALL, CALL.replace('("k",)', '("kk",)'), DATASET, "dataset things: key names ['kk'], which Row lacks; did you mean k?"),
    (CALL, CALL.replace('table="things"', 'tabel="things"'), DATASET, "Dataset got an unexpected keyword argument 'tabel'"),
    (CALL, CALL.replace('table="things"', 'table="pg_class"'), DATASET, "dataset things: table cannot be 'pg_class'"),
    (CALL, CALL.replace('name="things"', 'name="files"'), DATASET, "dataset files: name cannot be files"),
    (CALL, CALL.replace("rows=Row", "rows=dict"), DATASET, "dataset things: rows: dict is neither a RowModel nor"),
    ('"sum(n)"', '"sum(m)"', PAGE, "dataset things: page: measure total names m, which is not a column of it"),
    ('figures=("total",)', 'figures=("totals",)', PAGE, "Page: figures names totals, which is not a measure of the page"),
    ('key=("k",), columns', 'key="k", columns', AGGREGATE, "Aggregate by_key: key is 'k'; it takes a tuple of texts"),
    ('"sum": ("Sum",)', '"limit": ("Sum",)', AGGREGATE, "dataset things: by_key: limit cannot be the name of a column"),
]  # fmt: skip
"""Old and new text, the line of the fault (by default the new text), and the beginning of the sentence."""
OF_PANDERA = [
    (POLARS, "    n: pl.Int8", None, "Polars.n has the type Int8, which cannot be translated"),
    (POLARS, "    n: int = pa.Field(ge=0, metadata={'unit': 5})", None, "Polars.n: unit is 5; it takes a text"),
    (POLARS, '    n: int = pa.Field(ge=0)\n\n    @pa.check("n")\n    def even(cls, data):\n        return data', POLARS,
     "Polars.n has the check even, which is not a built-in check; write it as a @rule of a RowModel"),
    (POLARS, f"{POLARS}\n    limit: str", "    limit", "dataset things: limit cannot be the name of a column"),
]  # fmt: skip
AS_TRIED = [
    (HALF, HALF.replace('"n"', '"kk"'), None, "dataset things: half names kk, which Row lacks; did you mean k?"),
    (HALF, HALF.replace("float", "bool").replace("/ 2", ".cast(str).str.to_date('%Y')"), None,
     "dataset things: half is derived as Date, and declared as bool: change one of them"),
    (HALF, HALF.replace('col("n") / 2', 'col("n").mean()'), None, "dataset things: half is derived from other rows, by "),
    (HALF, HALF.replace('col("n") / 2', "n / 2"), None, "dataset things: half: its function fails with NameError: name 'n'"),
    (HALF, HALF.replace('col("n") / 2', "5"), None, "dataset things: half: its function returns int; it returns an expression"),
    ('return col("n") % 2 == 0', 'return col("m") % 2 == 0', RULE, "dataset things: the rule n_even names m, which Row lacks"),
    ('return col("n") % 2 == 0', 'return col("n") % 2', RULE, "dataset things: the rule n_even gives a number for a row"),
    ('return col("n") % 2 == 0', 'return col("n").str.len_chars() > 0', RULE, "dataset things: the rule n_even is not an expr"),
    ('"sum": ("Sum",)', '"total": ("Sum",)', AGGREGATE, "things.by_key: columns does not describe sum, which it selects"),
    ('chart=("k", "sum")', 'chart=("sum", "k")', AGGREGATE, "things.by_key: chart draws k, which is not a number"),
    ("t.c.n,", "t.c.m,", AGGREGATE, "things.by_key: its function names m, which its table lacks"),
    ('"sum(n)"', '"sum(k)"', PAGE, "dataset things: page: measure total: sum(k) is not possible, as k is not a number"),
    (CALL, f"{CALL}, realistic=lambda rng, n, last: {{'k': 'x'}}", DATASET, "dataset things: realistic lacks the column n"),
    (CALL, f"{CALL}, realistic=lambda rng, n, last: {{'k': 'x', 'n': '-2'}}", DATASET,
     "dataset things: realistic gives rows that are not valid: n is below 0"),
]  # fmt: skip
YAML = """\
type: mini_platform.components.Dataset
attributes:
  name: things
  model: PACKAGE.things.Polars
  key: k
  csv: {delimiter: ";"}
"""
IN_YAML = [
    ("key: k", "key: kk", "dataset things: key names ['kk'], which Polars lacks; did you mean k?"),
    ("key: k", "key: k\n  tabel: t", "tabel: is not known here; did you mean table?"),
    ("key: k", "key: k\n  table: pg_x", "dataset things: table cannot be 'pg_x'"),
    ("name: things", "name: files", "dataset files: name cannot be files"),
    ("key: k", "key: k\n  indexes: m", "dataset things: indexes names ['m'], which Polars lacks"),
    ("delimiter", "delimeter", "csv.delimeter: is not known here; did you mean delimiter?"),
    ("things.Polars", "things.by_key", "dataset things: rows: by_key is neither a RowModel nor a Pandera model"),
    ("key: k", "key: k\n  page: PACKAGE.things.dataset", "PACKAGE.things.dataset is not an instance of Page"),
]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / f"places_{uuid.uuid4().hex}"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def declared(package: Path, source: str) -> Dataset:
    (package / "things.py").write_text(source)
    dataset: Dataset = importlib.import_module(f"{package.name}.things").dataset
    return dataset


def place(file: Path, source: str, line: str) -> str:
    """Return how a message begins that is about the first line of a source that begins so."""
    return f"{file}, line {1 + next(i for i, text in enumerate(source.split(chr(10))) if text.startswith(line))}: "


@pytest.mark.parametrize(("old", "new", "line", "words"), AS_DECLARED)
def test_in_python(package: Path, old: str, new: str, line: str | None, words: str) -> None:
    source = PYTHON.replace(old, new, 1)
    with pytest.raises(DeclarationError) as refused:
        declared(package, source)
    assert str(refused.value).startswith(place(package / "things.py", source, line or new) + words)


@pytest.mark.parametrize(("old", "new", "line", "words"), OF_PANDERA)
def test_in_a_pandera_model(package: Path, old: str, new: str, line: str | None, words: str) -> None:
    source = f"import polars as pl\n{PYTHON.replace(old, new, 1)}"
    begin = place(package / "things.py", source, line or new)
    with pytest.raises(DeclarationError) as refused:
        declared(package, source.replace("rows=Row", "rows=Polars"))
    assert str(refused.value).startswith(f"{begin}{'' if 'dataset' in words else 'dataset things: rows: '}{words}")
    declared_in_yaml = package / "defs.yaml"
    declared_in_yaml.write_text(YAML.replace("PACKAGE", package.name))
    (package / "things.py").write_text(source)
    importlib.invalidate_caches()
    with pytest.raises(DeclarationError) as refused:
        read_yaml(declared_in_yaml)
    assert str(refused.value).startswith(begin)
    assert words in str(refused.value)


@pytest.mark.parametrize(("old", "new", "words"), IN_YAML)
def test_in_yaml(package: Path, old: str, new: str, words: str) -> None:
    declared(package, PYTHON)
    path, content = package / "defs.yaml", YAML.replace(old, new, 1).replace("PACKAGE", package.name)
    path.write_text(content)
    with pytest.raises(DeclarationError) as refused:
        read_yaml(path)
    line = f"  {new.rsplit(chr(10) + '  ', maxsplit=1)[-1]}".replace("PACKAGE", package.name)
    line = {"delimeter": "  csv", "things.by_key": "  model"}.get(new, line)
    assert str(refused.value).startswith(place(path, content, line) + words.replace("PACKAGE", package.name))


@pytest.mark.parametrize(("old", "new", "line", "words"), AS_TRIED)
def test_as_tried(package: Path, old: str, new: str, line: str | None, words: str) -> None:
    source = PYTHON.replace(old, new, 1)
    (fault,) = check(declared(package, source))
    assert fault.startswith(place(package / "things.py", source, line or new) + words)


def test_what_is_right_is_fine(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(declared(package, PYTHON)) == []
    (package / "wrong.py").write_text(
        PYTHON.replace("things", "wrong").replace("by_key", "by_k").replace("/ 2", ".sum()")
    )
    monkeypatch.setenv("MINI_PLATFORM_DATASETS", package.name)
    result = CliRunner().invoke(app, ["check"])
    assert result.exit_code == 1
    fine, fault = result.stdout.splitlines()
    assert fine == "things: 3 columns, 10 rules, 1 computed table are fine"
    assert fault.startswith(
        f"{place(package / 'wrong.py', PYTHON, HALF)}dataset wrong: half is derived from other rows"
    )
    assert (
        CliRunner().invoke(app, ["check", "things", "--json"]).stdout
        == '{"dataset": "things", "ok": true, "faults": []}\n'
    )
