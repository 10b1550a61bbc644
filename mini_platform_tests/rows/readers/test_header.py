"""The match of a header with the declared columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mini_platform import Column, Csv
from mini_platform.rows.readers import ReadLimits, RefusedFileError
from mini_platform.rows.readers.csv import read_csv
from mini_platform.rows.readers.header import ExpectedColumns, match_header

if TYPE_CHECKING:
    from pathlib import Path

    from mini_platform_tests.support.reader import Reader


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (["station_id", "café"], ("station_id", "café")),
        (["Café", "Station ID"], ("café", "station_id")),
        (["  STATION-ID ", "CAFE\u0301"], ("station_id", "café")),
        (["station  - id", "café"], ("station_id", "café")),
        (["note ", "café", "station_id"], ("note", "café", "station_id")),
        (["station_id", "", "café", " "], ("station_id", "column_2", "café", "column_4")),
        (["station_id", "column_3", "", "café"], ("station_id", "column_3", "column_3_", "café")),
    ],
)
def test_names(fields: list[str], names: tuple[str, ...]) -> None:
    header = match_header(fields, ExpectedColumns(("station_id", "café")))
    assert header.names == names
    assert header.ordered == ("station_id", "café", *(name for name in names if name not in ("station_id", "café")))
    assert header.texts == tuple(fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (["a"], "lacks b"),
        ([""], "found (empty)"),
        (["a", "b", "A"], "twice: a and A"),
        (["a", "b", "x y", "X_Y"], "twice: x y and X_Y"),
        ([f"c{number}" for number in range(10_000)], "and 9,980 more"),
        (["a\tb"], "another delimiter"),
    ],
)
def test_refused(fields: list[str], words: str) -> None:
    with pytest.raises(RefusedFileError) as refusal:
        match_header(fields, ExpectedColumns(("a", "b")))
    assert words in str(refusal.value)
    assert len(str(refusal.value)) < 1000


def test_declared_columns_that_a_header_cannot_tell_apart() -> None:
    with pytest.raises(ValueError, match="told apart"):
        match_header(["a_b"], ExpectedColumns(("a_b", "A_b")))


def test_extra_columns_come_last_and_keep_their_values(read: Reader) -> None:
    result = read(b" Extra ,B,,a\n1,2,3,4\n")
    assert result.columns == ["a", "b", "Extra", "column_3"]
    assert result.rows == [(2, ("4", "2", "1", "3"))]


# Aliases, and columns that a file may lack

MAIL = Column(description="E-mail", name="email", type=str, nullable=False, aliases=("E-Mail Address", "user_email"))
NOTE = Column(description="Note", name="note", type=str, nullable=True, optional=True)
ID = Column(description="Identifier", name="id", type=str, nullable=False)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("id,E-mail  address\n1,a\n", {"email": "a", "note": "", "id": "1"}),
        ("x,USER EMAIL,Note,id\n2,b,n,1\n", {"email": "b", "note": "n", "id": "1", "x": "2"}),
        ("email,id,x\n", {"email": None, "note": None, "id": None, "x": None}),
    ],
)
@pytest.mark.parametrize("header", [True, "find"])
def test_aliases_and_columns_that_may_lack(text: str, rows: dict[str, str], header: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    (block,) = read_csv(path, Csv(header=header), [MAIL, NOTE, ID], limits=ReadLimits())
    assert block.rows.columns == list(rows)
    assert block.rows.rows(named=True) == ([rows] if rows["id"] else [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,mail\n", "lacks email. Expected email, note, id; found id, mail."),
        ("id,email,user-email\n", "twice: email and user-email"),
    ],
)
def test_aliases_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(RefusedFileError) as refusal:
        list(read_csv(path, Csv(), [MAIL, NOTE, ID], limits=ReadLimits()))
    assert words in str(refusal.value)


def test_an_alias_that_is_another_columns_name() -> None:
    with pytest.raises(ValueError, match="told apart"):
        match_header(["a"], ExpectedColumns(("a", "b"), (("A", "b"),)))
