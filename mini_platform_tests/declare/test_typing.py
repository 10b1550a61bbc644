"""Type checkers know the words of a declaration: what is wrong is an error of mypy, on its line, and what is right is none."""

from __future__ import annotations

import re
import typing
from pathlib import Path

from mypy import api

from mini_platform.declare.columns import CheckName
from mini_platform.declare.declared_checks import ARGUMENTS

DECLARATION = """
import datetime as dt
from decimal import Decimal
from typing import Any

import pandera.polars as pa

from mini_platform import Dataset, Field, RowModel, rule


class Right(RowModel):
    k: str = Field("K", str_length={"max_value": 3}, ge="b", isin=("a", "b"), case="lower", aliases=["x"], null_tokens="NA")
    a: int | None = Field("A", ge=0, isin=[1, 2], warn="ge", derived=lambda col: col("f") + 1)
    b: Decimal = Field("B", ge=0, le=Decimal("5.5"), decimals=3)
    c: dt.date = Field("C", ge=dt.date(2020, 1, 1), warn=("ge",))
    d: float | None = Field("D", in_range={"min_value": 0, "max_value": 5, "include_min": False}, unit="m")
    e: bool = Field("E", eq=True)
    f: list[float] | None = Field("F")
    g: str | None = Field("G", email=True, str_matches="^a", str_length=5, personal="hash")
    h: str = Field("H", system="file")

    @rule("is below 0", column="a", severity="warn")
    def positive(col: Any) -> Any:
        return col("a") > 0


class Model(pa.DataFrameModel):
    k: str


Dataset(name="x", table="x", rows=Right, key=("k",), description="X", unexpected_columns="ignore")
Dataset(name="x", table="x", rows=Model, key=("k",), description="X")


class Wrong(RowModel):
    a: int = Field("A", ge="a")  # wrong
    b: dt.date = Field("B", ge="2020-01-01")  # wrong
    c: str = Field("C", str_lenght=5)  # wrong
    d: str = Field("D", case="title")  # wrong
    e: int = Field("E", in_range=(0, 5))  # wrong
    f: int = Field("F", in_range={"min_value": 0})  # wrong
    g: int = Field("G", in_range={"min_value": 0, "max_value": 1, "maximum": 5})  # wrong
    h: str = Field("H", str_length={"max": 5})  # wrong
    i: str = Field("I", warn="gee")  # wrong
    j: str = Field("J", email=False)  # wrong
    k: int = Field("K", isin=["a"])  # wrong
    l: str = Field("L", str_matches=5)  # wrong
    m: str = Field("M", personal="hashed")  # wrong
    n: str = Field("N", derived="k")  # wrong

    @rule("is below 0", severity="warning")  # wrong
    def positive(col: Any) -> Any:
        return col("a") > 0


Dataset(name="x", table="x", rows=Right, key=("k",), description="X", unexpected_colums="ignore")  # wrong
Dataset(name="x", table="x", rows=Right, key="k", description="X")  # wrong
Dataset(name="x", table="x", rows=Right, key=("k",), description="X", duplicates="newest")  # wrong
Dataset(name="x", table="x", rows=Right, description="X")  # wrong
"""
CONFIGURATION = """
[mypy]
strict = true
incremental = false
[mypy-pandera.*]
ignore_missing_imports = true
follow_imports = skip
disallow_subclassing_any = false
[mypy-polars.*,sqlalchemy.*,pydantic.*]
follow_imports = skip
"""
"""Without the types of large libraries, which take 20 s to read."""


def test_mypy_knows_the_words(tmp_path: Path) -> None:
    declaration, configuration = tmp_path / "declaration.py", tmp_path / "mypy.ini"
    declaration.write_text(DECLARATION)
    configuration.write_text(CONFIGURATION + "[mypy-declaration]\ndisallow_subclassing_any = false\n")
    report, problems, _ = api.run([str(declaration), f"--config-file={configuration}"])
    assert not problems
    wrong = {number for number, line in enumerate(DECLARATION.splitlines(), 1) if line.endswith("# wrong")}
    assert {int(number) for number in re.findall(r"declaration\.py:(\d+): error: ", report)} == wrong, report
    assert "declare" not in report.replace("declaration", "")


def test_the_names_of_checks_are_those_that_are_known() -> None:
    assert set(typing.get_args(CheckName)) == set(ARGUMENTS)
