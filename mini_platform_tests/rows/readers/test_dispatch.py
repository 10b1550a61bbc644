"""The format that a file's name stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mini_platform import Csv, Json
from mini_platform.rows.readers import ReadLimits
from mini_platform.rows.readers.dispatch import format_of, read_file
from mini_platform_tests.support.json_file import declared

if TYPE_CHECKING:
    from pathlib import Path

CSV, JSON = Csv(), Json()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("x.csv", CSV),
        ("x.json", JSON),
        ("X.JSON", JSON),
        ("x.jsonl", JSON),
        ("x.ndjson.GZ", JSON),
        ("x.Json.zip", JSON),
        ("x.tsv.gz", CSV),
        ("x.csv.json", JSON),
        ("x.json.csv", CSV),
        ("json", CSV),
        ("x.xml", CSV),
        ("", CSV),
    ],
)
def test_format_of(name: str, expected: Csv | Json) -> None:
    assert format_of(name, [CSV, JSON]) is expected


def test_the_first_format_takes_what_no_suffix_tells() -> None:
    assert format_of("page", [JSON, CSV]) is JSON
    assert format_of("x.csv", [JSON]) is JSON


def test_read_file(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    for name, text in (("x.csv", "a,b\n1,2\n"), ("x.JSONL", '{"a":1,"b":"2"}\n')):
        path.write_text(text)
        blocks = list(read_file(path, name, [CSV, JSON], declared(("a", "b")), limits=ReadLimits()))
        assert [block.rows.rows() for block in blocks] == [[("1", "2")]]
