"""JSON by chance and by bulk: what Python writes reads back equal, any bytes are answered, memory and time stay bounded."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from mini_platform.rows.readers import ReadLimits, RefusedFileError
from mini_platform_tests.support.json_file import JsonRead, read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
block_sizes = st.one_of(st.integers(1, 12), st.integers(13, 200), st.just(2**22))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6) | st.sampled_from(
    ["", '"', "\\", "\\u0000", "\\ud800", "{", "}]", "\n", "🎉", "\u2028", "1", "null", "a,b"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("pqr"), inner, max_size=3),
    max_leaves=6,
)
objects = st.lists(st.dictionaries(st.sampled_from(["a", "b", "c d", "é"]), values, max_size=4), max_size=6)


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., JsonRead]:
    path: Path = tmp_path_factory.mktemp("json") / "file"
    return lambda data, **more: read_bytes(path, data, ("b", "a_p"), **more)


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, str]:
    cells: dict[str, str] = {}
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            cells |= flat(inner, f"{prefix}{name}_")
        else:
            cells[prefix + name] = cell(inner)
    return cells


def expected(value: dict[str, Any]) -> tuple[tuple[str, ...], dict[str, str]]:
    cells = flat(value)
    row = tuple(cells.pop(name, "") for name in ("b", "a_p"))
    return row, {name: text for name, text in cells.items() if text}


@many
@given(objects, st.booleans(), st.sampled_from(["\n", "\r\n", "\r"]), block_sizes, st.sampled_from(["list", "lines"]))
def test_what_python_writes_compactly_reads_back_equal(
    read: Callable[..., JsonRead], table: list[dict[str, Any]], ascii_only: bool, end: str, size: int, form: str
) -> None:
    written = [json.dumps(value, ensure_ascii=ascii_only) for value in table]
    text = end.join(written) if form == "lines" else f"[{f',{end}'.join(written)}]"
    if not text:
        return
    result = read(text.encode(), block_bytes=size)
    assert result.malformed == []
    assert result.rows == [(line, *expected(value)) for line, value in enumerate(table, 1)]


@many
@given(objects.filter(len), st.booleans(), st.integers(0, 3), block_sizes, st.sampled_from(["list", "objects", "page"]))
def test_what_python_writes_over_lines_reads_back_equal(
    read: Callable[..., JsonRead], table: list[dict[str, Any]], ascii_only: bool, indent: int, size: int, form: str
) -> None:
    def pretty(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, indent=indent)

    whole = {"list": table, "page": {"next": {"d": []}, "d": {"rows": table}, "n": None}}
    assume(form != "objects" or table[0])  # alone on the first line, {} would make the file JSON lines
    text = pretty(whole[form]) if form in whole else "\n".join(map(pretty, table))
    result = read(text.encode(), block_bytes=size, rows="d.rows" if form == "page" else None)
    assert result.malformed == []
    assert [row for _, *row in result.rows] == [list(expected(value)) for value in table]
    lines = text.split("\n")
    assert all(lines[line - 1].lstrip().startswith("{") for line, *_ in result.rows)


PIECES = [
    *'{}[],:"\\\n\r\t 1-.eé\0x',
    *('{"a":1}', '{"b":"x"},', "[{", "}]", '"a":', '{"b":', "\r\n", "NaN", "null", "\\u0000", "\\ud800", "\\ude00"),
    *('{"a":{"p":[1,"x"]},"b":null}\n', '{"b":1,"b":2}\n', "{\n", "}\n", '{"x":', "// ", "'", "\ufeff"),
]


@settings(many, max_examples=700)
@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), block_sizes, st.sampled_from([None, 24]))
@example('[{"a":1}\r', 1, None)
@example("{" * 30, 3, 24)
def test_any_text_is_answered_the_same_in_any_blocks(
    read: Callable[..., JsonRead], text: str, size: int, most: int | None
) -> None:
    limits = ReadLimits(max_record_bytes=most, max_field_bytes=5) if most else ReadLimits()

    def outcome(block_bytes: int) -> tuple[Any, ...] | str:
        try:
            return read(text.encode(), block_bytes=block_bytes, limits=limits)[:2]
        except RefusedFileError as error:
            return str(error)

    result = outcome(size)
    assert result == outcome(2**22)
    if isinstance(result, str):
        assert result.endswith(".")
    else:
        assert all(one.raw and one.detail.startswith("line ") for one in result[1])


@many
@given(objects.filter(len), st.floats(0, 1, exclude_max=True), st.binary(max_size=2), block_sizes)
def test_spoiled_lines_cost_only_themselves(
    read: Callable[..., JsonRead], table: list[dict[str, Any]], where: float, bytes_: bytes, size: int
) -> None:
    """Each line is a row or malformed, whatever was done to one of them; the others are there, whole."""
    written = [json.dumps({"a": {"p": 0}, **value}).encode() for value in table]
    spoiled = int(where * len(table))
    at = int(where * len(table) % 1 * len(written[spoiled]))
    written[spoiled] = written[spoiled][:at] + bytes_ + written[spoiled][at + len(bytes_) :]
    data = b'{"a":1}\n' + b"\n".join(written)
    if not is_utf8(data):
        with pytest.raises(RefusedFileError, match="UTF-8"):
            read(data, block_bytes=size)
        return
    result = read(data, block_bytes=size)
    good = [(line, *expected({"a": {"p": 0}, **value})) for line, value in enumerate(table, 2)]
    if b"\n" not in bytes_ and b"\r" not in bytes_:
        others = [row for row in result.rows if row[0] not in (1, spoiled + 2)]
        assert others == [row for row in good if row[0] != spoiled + 2]
        assert len(result.rows) + len(result.malformed) in (len(table), len(table) + 1)
    for one in result.malformed:
        assert (one.line, one.detail.split(",")[0]) == (one.line, f"line {one.line}")


@many
@given(st.binary(max_size=60), st.sampled_from([b"", b'{"a":1}\n', b"[", b"\xff\xfe", b"\x1f\x8b\x08\0"]), block_sizes)
def test_any_bytes_are_read_or_refused(read: Callable[..., JsonRead], data: bytes, start: bytes, size: int) -> None:
    def outcome(block_bytes: int) -> object:
        try:
            return read(start + data, block_bytes=block_bytes)[:2]
        except RefusedFileError:
            return "refused"  # A file with two faults is refused for the one that is met first, which the size decides.

    assert outcome(size) == outcome(2**22)


LARGE = """
import resource, sys
from pathlib import Path
from mini_platform import Json
from mini_platform.rows.readers import ReadLimits
from mini_platform.rows.readers.json import read_json
from mini_platform_tests.support.json_file import declared

base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
blocks = read_json(Path(sys.argv[1]), Json(), declared(("id", "text")), limits=ReadLimits())
rows = sum(len(block.rows) for block in blocks)
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) // 1024)
"""


@pytest.mark.parametrize("frame", [(b"[", b",", b"]"), (b"", b"\n", b"")], ids=["a list on one line", "lines"])
def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path, frame: tuple[bytes, bytes, bytes]) -> None:
    """200 MB; `id` has digits enough to be no number of any machine."""
    path = tmp_path / "large.json"
    begin, between, end = frame
    row = b'{"id":12345678901234567890,"text":"%b","unknown":{"deep":[1,2,3]}}' % (b"x" * 950)
    piece = between.join([row] * 1000)
    with path.open("wb") as file:
        file.write(begin + piece)
        for _ in range(199):
            file.write(between + piece)
        file.write(end)
    assert path.stat().st_size > 190 * 2**20
    completed = subprocess.run([sys.executable, "-c", LARGE, str(path)], capture_output=True, text=True, check=True)
    rows, megabytes = map(int, completed.stdout.split())
    assert rows == 200_000
    assert megabytes < 100


def test_many_tiny_objects_come_in_several_blocks(read: Callable[..., JsonRead]) -> None:
    result = read(b"[" + b",".join([b"{}"] * 300_000) + b"]")
    assert len(result.rows) == 300_000
    assert result.blocks > 1


def test_rows_with_names_of_their_own_come_in_several_blocks(read: Callable[..., JsonRead]) -> None:
    """A thousand columns times ten thousand rows would be far more than their text."""
    result = read(b"\n".join(b'{"b":%d,"x%d":1}' % (n, n % 1000) for n in range(10_000)))
    assert result.blocks > 4
    assert [(line, row[0]) for line, row, _ in result.rows] == [(n + 1, str(n)) for n in range(10_000)]
    assert result.rows[4321][2] == {"x321": "1"}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[" + b",".join([b'{"a":"\\x"}'] * 15_000) + b"]", id="faults on one line"),
        pytest.param(b"[" + b",".join([b'{"a":NaN}'] * 15_000) + b"]", id="NaN"),
        pytest.param(b"\n".join([b'{"a":'] * 15_000), id="broken lines"),
        pytest.param(b"[" + b",".join([b"[" * 2000 + b"]" * 2000] * 60) + b"]", id="depth bombs"),
        pytest.param(b"\n".join([b'{"a":"\\ud83c\\udf89"}'] * 15_000), id="escaped pairs"),
    ],
)
def test_hostile_records_take_linear_time(read: Callable[..., JsonRead], data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    result = read(data)
    assert len(result.rows) + len(result.malformed) in (15_000, 60)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 5
