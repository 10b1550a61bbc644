"""The match of a header with the declared columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mini_platform.readers import RefusedFileError
from mini_platform.readers.header import match_header

if TYPE_CHECKING:
    from mini_platform_tests.readers.conftest import Reader


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
    header = match_header(fields, ["station_id", "café"])
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
        match_header(fields, ["a", "b"])
    assert words in str(refusal.value)
    assert len(str(refusal.value)) < 1000


def test_declared_columns_that_a_header_cannot_tell_apart() -> None:
    with pytest.raises(ValueError, match="told apart"):
        match_header(["a_b"], ["a_b", "A_b"])


def test_extra_columns_come_last_and_keep_their_values(read: Reader) -> None:
    found = read(b" Extra ,B,,a\n1,2,3,4\n")
    assert found.columns == ["a", "b", "Extra", "column_3"]
    assert found.rows == [(2, ("4", "2", "1", "3"))]
