"""Unknown columns: what nobody declared is stored as it came, and goes when a later file of the row has it no more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mini_platform import Csv, Dataset, Field, Json, RowModel, UnexpectedColumns
from mini_platform.warehouse.schema import create_all
from mini_platform_tests.support.trial import Declared, Trial


class Row(RowModel):
    k: int = Field("K")
    n: int = Field("N")


KNOWN = Dataset(name="ex", table="ex", description="x", rows=Row, key=("k",), sources=(Csv(), Json()))


def extra(trial: Trial) -> dict[int, Any]:
    return dict(trial.table("production.ex", "k", "_extra"))


@pytest.mark.parametrize(
    ("cell", "stored"),
    [
        ("2", 2),
        ('"2"', "2"),
        ("2.50", 2.5),
        ("true", True),
        ('"true"', "true"),
        ("null", None),
        ('""', ""),
        ('" a "', " a "),
        ("[1, [2]]", [1, [2]]),
        ('"[1,[2]]"', "[1,[2]]"),
        ("{}", {}),
        ("[]", []),
        ('[{"e2000": "1e9999"}]', [{"e2000": "1e9999"}]),
        ("1e99999", "1e99999"),
        ("[1e-99999]", "[1e-99999]"),
        (r'"a\"\\\u00e9\n"', 'a"\\é\n'),
    ],
)
def test_values_of_json(declared: Declared, cell: str, stored: Any) -> None:
    """Numbers, words and lists are what they were; a row that lacks the name has none, and its neighbours do not matter."""
    trial = declared(KNOWN)
    trial.load("a.json", f'[{{"k": 1, "n": 1, "x": {cell}}}, {{"k": 2, "n": 1}}, {{"k": 3, "n": 1, "y": {{"z": 1}}}}]')
    assert extra(trial) == {1: {"x": stored}, 2: None, 3: {"y_z": 1}}
    for row in (f'{{"k": 1, "n": 1, "x": {cell}}}', '{"k": 2, "n": 1}', '{"k": 3, "n": 1, "y": {"z": 1}}'):
        assert trial.load("b.json", row).rows_unchanged == 1


def test_cells_of_csv_are_texts(declared: Declared) -> None:
    trial = declared(KNOWN)
    trial.load("a.csv", "k,n,x,y\n1,1,2,\n2,1, a ,null\n")
    assert extra(trial) == {1: {"x": "2", "y": ""}, 2: {"x": " a ", "y": "null"}}
    assert trial.load("b.csv", "k,n,x,y\n1,1,2,\n").rows_unchanged == 1


@pytest.mark.parametrize("between", ["keep", "ignore", "refuse"])
def test_they_go_with_a_later_file_without_them(declared: Declared, between: UnexpectedColumns) -> None:
    """Its row may have other values or the same ones; rows that no later file has keep theirs."""
    trial = declared(KNOWN)
    trial.load("a.csv", "k,n,zz\n1,1,old\n2,1,old\n3,1,old\n")
    changed = replace(KNOWN, unexpected_columns=between)
    create_all(trial.platform.engine, [changed])
    later = Trial(trial.platform, changed)
    file = later.load("b.csv", "k,n\n1,2\n2,1\n")
    assert (file.rows_updated, file.rows_unchanged) == (2, 0)
    assert later.load("c.csv", "n,k\n2,1\n1,2\n").rows_unchanged == 2
    create_all(trial.platform.engine, [KNOWN])
    assert extra(trial) == {1: None, 2: None, 3: {"zz": "old"}}
