"""File names are data: whatever they say, the file is loaded under its name, and nothing is opened, written or run by it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mini_platform_tests.support.bench import Bench
from mini_platform_tests.support.cases import GOOD, GOOD_ROW, HEADER, ONE, data
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.strings import NAMES


@pytest.mark.parametrize(("name", "shown"), NAMES, ids=[ascii(shown)[1:41] for _, shown in NAMES])
def test_name(bench: Bench, name: bytes, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_PLATFORM_PROJECT", str(PROJECT))
    monkeypatch.chdir(tmp_path)
    bench.drop((name, data(GOOD)))
    (got,) = bench.run()
    assert (got.name, got.summary, got.rows) == (shown, ONE, (GOOD_ROW,))
    assert [os.fsencode(path.name) for path in bench.inbox.iterdir()] == [name]
    assert {path.name for path in tmp_path.iterdir()} == {"inbox", "raw"}
    assert bench.run() == [], "it was looked at, and is not new any more"
    assert bench.wrong() == []


def test_all_at_once(bench: Bench) -> None:
    bench.drop(*((name, f"{HEADER}\nS{number},2024-01-01,1,0\n".encode()) for number, (name, _) in enumerate(NAMES)))
    assert sorted((got.name, got.summary) for got in bench.run()) == sorted((shown, ONE) for _, shown in NAMES)
    assert bench.run() == []


def test_two_names_that_are_shown_alike(bench: Bench) -> None:
    """One has the byte E9, the other is spelled as that byte is shown: two files, and not one that changes for ever."""
    bench.drop((b"caf\xe9.csv", data(GOOD)), (b"caf\\xe9.csv", data("A,2024-01-01,1,0")))
    first = bench.run()
    assert [got.summary for got in first] == [ONE, ONE]
    assert len({got.name for got in first}) == 2
    assert bench.run() == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("..csv", "dot"),
        ("...csv", "dot"),
        (".hidden.csv", "dot"),
        ("growing.csv.tmp", "not finished"),
        ("GROWING.CSV.PART", "not finished"),
        ("backup.csv~", "not finished"),
        ("table.xlsx", "ends in none of"),
        ("csv", "ends in none of"),
        ("x.csv ", "ends in none of"),
        ("x.csv\n", "ends in none of"),
    ],
)
def test_left_alone(bench: Bench, name: str, why: str) -> None:
    bench.drop((name, data(GOOD)))
    assert bench.run() == []
    assert why in bench.skip_reason()[name]


def test_what_is_no_file(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.csv").write_bytes(data(GOOD))
    bench.drop()
    (bench.inbox / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
    (bench.inbox / "dangling.csv").symlink_to("nowhere")
    (bench.inbox / "folder.csv").mkdir()
    os.mkfifo(bench.inbox / "pipe.csv")
    assert bench.run() == []
    assert bench.skip_reason() == {
        "link.csv": "it is a link",
        "dangling.csv": "it is a link",
        "folder.csv": "it is a folder",
        "pipe.csv": "it is not a regular file",
    }
