"""Remote inboxes, on either kind of server: what counts, what is landed, what becomes of it afterwards."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, update

from mini_platform import Csv, Json
from mini_platform.config.sections import InboxSettings
from mini_platform.landing import inbox_state, inbox_work
from mini_platform.operations.sources import visit_inbox
from mini_platform.storage import remote
from mini_platform.warehouse.tables import inbox_files
from mini_platform.warehouse.tables import inboxes as table
from mini_platform_tests.support.inbox_yard import BAD, CHANGED, GOOD, Yard

# What counts


def test_files_are_landed_once_and_loaded(yard: Yard) -> None:
    yard.put("a.csv")
    yard.put("b.csv", CHANGED)
    assert len(yard.visits().file_ids) == 2
    assert yard.ledger("name", "version", "status", "door") == [
        ("partner/a.csv", 1, "landed", "inbox:partner"),
        ("partner/b.csv", 1, "landed", "inbox:partner"),
    ]
    assert yard.raw() == sorted([GOOD, CHANGED])
    assert yard.visits().file_ids == []
    yard.load()
    assert [status for *_, status in yard.ledger()] == ["loaded", "loaded"]
    assert yard.stands() == ["a.csv", "b.csv"], "by default nothing is moved"
    row = yard.row()
    assert (row.last_error, row.failing_since, row.failures, row.held_by) == (None, None, 0, None)
    assert row.looked_at is not None


def test_what_is_left_alone_and_why(yard: Yard) -> None:
    for name in ("good.csv", ".hidden.csv", "a.csv.part", "a.xlsx", "folder/in.csv", "processed/1/old.csv"):
        yard.put(name)
    yard.visits()
    assert [name for name, *_ in yard.ledger()] == ["partner/good.csv"]
    known = yard.known()
    assert known.pop(b"folder", "it is a folder") == "it is a folder", "SFTP lists folders, S3 does not"
    assert known == {
        b"good.csv": None,
        b".hidden.csv": "its name starts with a dot",
        b"a.csv.part": "its name says that it is not finished",
        b"a.xlsx": "its name ends in none of .csv .csv.gz .csv.zip .txt .tsv",
    }


NAMES = ["..csv", "%2e%2e%2f.csv", "a b+c&d=é.csv", "\\..\\x.csv", "n" * 251 + ".csv", "=1+1.csv", "日本.csv"]


def test_names_are_data(yard: Yard, tmp_path: Path) -> None:
    for name in NAMES:
        yard.put(name)
    before = {path.name for path in tmp_path.iterdir()} | {"home"}
    yard.using(after="archive").visits()
    assert sorted(name for name, *_ in yard.ledger()) == sorted(f"partner/{name}" for name in NAMES if name != "..csv")
    yard.load()
    yard.using(after="archive").visit()
    ids = {name.removeprefix("partner/"): i for i, name in yard.ledger("file_id", "name")}
    assert yard.stands() == sorted(["..csv", *(f"processed/{i}/{name}" for name, i in ids.items())])
    assert {path.name for path in tmp_path.iterdir()} == before, "nothing was written elsewhere"


@pytest.mark.parametrize("name", [b"caf\xe9.csv", b"new\nline.csv"])
def test_names_that_are_no_text(sftp_yard: Yard, name: bytes) -> None:
    sftp_yard.put(name)
    sftp_yard.visits()
    shown = name.decode("utf-8", "backslashreplace")
    assert [known for known, *_ in sftp_yard.ledger()] == [f"partner/{shown}"]
    sftp_yard.load()
    sftp_yard.using(after="archive").visit()
    assert [os.fsencode(path) for path in sftp_yard.stands()] == [b"processed/1/" + name]


def test_a_file_of_the_drop_folder_may_have_the_same_name(yard: Yard, pipeline: Any, tmp_path: Path) -> None:
    yard.put("a.csv")
    yard.visits()
    dropped = tmp_path / "a.csv"
    dropped.write_bytes(CHANGED)
    pipeline(yard.dataset, dropped)
    yard.visits()
    assert yard.ledger("name", "version") == [("partner/a.csv", 1), ("a.csv", 1)]


def test_a_file_that_is_too_large_is_left_alone(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.put("a.csv")
    monkeypatch.setenv("MINI_PLATFORM_MAX_FILE_BYTES", "10")
    del yard.platform.settings
    yard.visits()
    assert yard.known() == {b"a.csv": "it is larger than the 10 bytes of MINI_PLATFORM_MAX_FILE_BYTES"}
    assert yard.ledger() == []


def test_what_was_left_alone_is_taken_when_the_reason_goes(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.put("a.csv")
    yard.put("b.json", b"[]")
    yard.put("c.csv", GOOD + b"\n" * 1000)

    def limit(size: int) -> None:
        monkeypatch.setenv("MINI_PLATFORM_MAX_FILE_BYTES", str(size))
        del yard.platform.settings

    limit(10)
    yard.visits()
    limit(500)
    assert len(yard.visit().file_ids) == 1, "its two looks were had"
    assert yard.known()[b"c.csv"] == "it is larger than the 500 bytes of MINI_PLATFORM_MAX_FILE_BYTES", "of today"
    limit(5000)
    yard.dataset = replace(yard.dataset, sources=(Csv(), Json()))
    yard.visit()
    assert [name for name, *_ in yard.ledger()] == ["partner/a.csv", "partner/b.json", "partner/c.csv"]
    assert set(yard.known().values()) == {None}


@pytest.mark.parametrize("name", ["in#2", "in?2", "in%3F", "in 2"])
def test_the_address_of_an_inbox_is_read_to_its_end(yard: Yard, name: str) -> None:
    """Nothing of another folder is read, let alone removed, because the tail of an address was cut off."""
    yard.put("wrong.csv", CHANGED)
    right = yard.folder.with_name(name)
    right.mkdir()
    (right / "right.csv").write_bytes(GOOD)
    written = name if yard.settings["url"].startswith("s3:") else name.replace("%", "%25")
    elsewhere = yard.using(url=yard.settings["url"].removesuffix("in") + written, after="delete")
    elsewhere.visits()
    elsewhere.load()
    elsewhere.visit()
    assert [name for name, *_ in yard.ledger()] == ["partner/right.csv"]
    assert yard.stands() == ["wrong.csv"]
    assert not (right / "right.csv").exists()


def test_an_address_that_cannot_be_seen_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be seen"):
        InboxSettings(url="file:///in\tbox")


# Files that change


def test_a_changed_file_is_a_new_version(yard: Yard) -> None:
    yard.put("a.csv")
    yard.visits()
    yard.put("a.csv", CHANGED)
    os.utime(yard.folder / "a.csv", (1, 1))  # Of the same size, and older: another file all the same.
    yard.visits()
    assert yard.ledger() == [("partner/a.csv", 1, "landed"), ("partner/a.csv", 2, "landed")]


def test_a_file_that_grows_waits_for_two_looks_that_agree(sftp_yard: Yard) -> None:
    path = sftp_yard.put("a.csv", GOOD[:20])
    assert sftp_yard.visit().goes_on, "it is looked at again in a moment"
    path.write_bytes(GOOD[:40])
    sftp_yard.age()
    assert sftp_yard.visit().file_ids == []
    path.write_bytes(GOOD)
    sftp_yard.age()
    assert sftp_yard.visit().file_ids == []
    assert sftp_yard.visit().file_ids == [], "two looks at once are one"
    sftp_yard.age()
    assert len(sftp_yard.visit().file_ids) == 1
    assert sftp_yard.raw() == [GOOD]


def test_an_object_appears_whole_and_needs_one_look(s3_yard: Yard) -> None:
    s3_yard.put("a.csv")
    assert len(s3_yard.visit().file_ids) == 1


@pytest.mark.parametrize("size", [1, 3])
def test_a_file_that_changes_while_it_is_read(yard: Yard, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 1000)
    yard.put("a.csv", b"x" * 5000)
    reads: list[int] = []

    def alive(_: Any) -> None:  # Called before each block.
        reads.append(1)
        if len(reads) == 3:
            os.utime(yard.put("a.csv", b"y" * 5000 * size), (1, 1))

    with monkeypatch.context() as patch:
        patch.setattr(inbox_state.Hold, "alive", alive)
        yard.visits()
    assert len(reads) >= 3
    assert yard.raw() in ([], [b"y" * 5000 * size]), "no file is half of one and half of another"
    yard.visits()
    assert yard.raw() == [b"y" * 5000 * size]


def test_a_file_that_vanishes_is_forgotten(yard: Yard) -> None:
    path = yard.put("a.csv")
    yard.put("b.csv")
    yard.visits()
    path.unlink()
    yard.visit()
    assert set(yard.known()) == {b"b.csv"}
    yard.put("a.csv")
    yard.visits()
    assert yard.ledger()[-1] == ("partner/a.csv", 1, "unchanged")


# Afterwards


def test_loaded_files_are_archived_and_refused_ones_lie_beside_their_rejects(yard: Yard) -> None:
    yard = yard.using(after="archive")
    yard.put("good.csv")
    yard.put("bad.csv", BAD)
    yard.put("nothing.csv", b"\x00\x01\x02")
    yard.visits()
    ids = {name: i for i, name in yard.ledger("file_id", "name")}
    good, bad, nothing = (ids[f"partner/{name}.csv"] for name in ("good", "bad", "nothing"))
    yard.visit()
    assert yard.stands() == ["bad.csv", "good.csv", "nothing.csv"], "the ledger has not said its last word"
    yard.load()
    yard.visit()
    assert yard.stands() == sorted(
        [
            f"processed/{good}/good.csv",
            f"quarantine/{bad}/bad.csv",
            f"quarantine/{bad}/rejects.csv",
            f"quarantine/{nothing}/nothing.csv",
            f"quarantine/{nothing}/rejects.csv",
        ]
    )
    with (yard.folder / f"quarantine/{bad}/rejects.csv").open(newline="") as source:
        head, why, *rows = list(csv.reader(source))
    assert head == ["line", "column", "value", "rule", "reason"]
    assert why[-1] == dict(yard.ledger("name", "error"))["partner/bad.csv"]
    assert ["2", "temp_c", "'=warm"] in [row[:3] for row in rows], "harmless to spreadsheet programs"
    assert yard.known() == {}
    yard.visits()
    assert len(yard.ledger()) == 3, "what was put away is not landed again"


def test_loaded_files_are_deleted(yard: Yard) -> None:
    yard = yard.using(after="delete")
    yard.put("good.csv")
    yard.put("bad.csv", BAD)
    yard.visits()
    yard.load()
    yard.visit()
    assert yard.stands() == []


@pytest.mark.parametrize("after", ["archive", "delete"])
def test_a_file_that_changed_since_is_not_put_away(yard: Yard, after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    yard = yard.using(after=after)
    yard.put("a.csv")
    yard.visits()
    yard.load()
    monkeypatch.setattr(inbox_work.Work, "look", lambda *_: None)  # It changes after the look.
    path = yard.put("a.csv", CHANGED)
    os.utime(path, (1, 1))
    yard.visit()
    assert yard.stands() == ["a.csv"]
    assert path.read_bytes() == CHANGED
    monkeypatch.undo()
    yard.visits()
    yard.load()
    yard.visit()
    assert yard.ledger()[-1] == ("partner/a.csv", 2, "loaded")
    assert yard.stands() == (["processed/2/a.csv"] if after == "archive" else [])


def test_a_file_that_cannot_be_put_away_says_so(yard: Yard) -> None:
    yard = yard.using(after="archive")
    yard.put("a.csv")
    yard.visits()
    yard.load()
    (yard.folder / "processed").write_text("in the way")
    done = yard.visit()
    if done.put_off:  # rclone answers with an error that is about the bucket.
        assert "could not be put away" in str(yard.known()[b"a.csv"])
    else:
        assert done.error
    assert yard.stands() == ["a.csv", "processed"]


def test_a_file_that_is_sent_again_is_put_away_again(yard: Yard) -> None:
    yard = yard.using(after="archive")
    for _ in range(3):
        yard.put("a.csv")
        yard.put("bad.csv", BAD)
        yard.visits()
        yard.load()
        yard.visit()
        assert yard.stands() == ["processed/1/a.csv", "quarantine/2/bad.csv", "quarantine/2/rejects.csv"]
        assert yard.known() == {}
    assert [status for *_, status in yard.ledger()] == ["loaded", "refused"] + ["unchanged"] * 4


# Bounds, and one visit at a time


def test_a_listing_goes_on_where_the_last_visit_stopped(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mini_platform.storage.remote_s3", "mini_platform.storage.remote"):
        monkeypatch.setattr(f"{module}.PAGE", 4)
    monkeypatch.setattr(inbox_work, "VISIT_PAGES", 1)
    for number in range(10):
        yard.put(f"{number}.csv", GOOD + b"\n" * number)
        yard.put(f"{number}/folder.csv")
    seen = []
    for _ in range(20):
        done = yard.visit()
        seen.append(len(yard.known()))
        if not yard.row().position:
            break
        assert done.goes_on
    assert len([name for name in yard.known() if name.endswith(b".csv")]) == 10
    assert len(set(seen)) > 2, "it took several visits"
    yard.put("0.csv").unlink()
    yard.put("9.csv").unlink()
    for _ in range(20):
        yard.visit()
        if not yard.row().position:
            break
    assert {name for name in yard.known() if name.endswith(b".csv")} == {f"{n}.csv".encode() for n in range(1, 9)}


def test_an_untouched_file_costs_no_write(yard: Yard) -> None:
    yard.put("a.csv")
    yard.visits()

    def version() -> Any:
        with yard.platform.engine.connect() as conn:
            return conn.exec_driver_sql("SELECT xmin, ctid FROM ops.inbox_files").one()

    before = version()
    yard.visit()
    assert version() == before


def test_one_visit_at_a_time(yard: Yard) -> None:
    yard.put("a.csv")
    yard.visit()
    assert visit_inbox(yard.platform, yard.dataset, yard.inbox) is None, "it is too early"
    with yard.platform.engine.begin() as conn:
        until = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, 60)
        conn.execute(update(table).values(held_by="another", held_until=until))
    assert visit_inbox(yard.platform, yard.dataset, yard.inbox, at_once=True) is None
    with yard.platform.engine.begin() as conn:
        conn.execute(update(table).values(held_until=func.now()))
    assert yard.visit().error is None, "it said nothing for too long"


def test_an_inbox_that_was_moved_is_a_new_one(yard: Yard) -> None:
    yard.put("a.csv")
    yard.visits()
    elsewhere = yard.folder.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "b.csv").write_bytes(GOOD)
    url = yard.settings["url"].removesuffix("in") + "elsewhere"
    yard.using(url=url).visits()
    assert set(yard.known()) == {b"b.csv"}
    with yard.platform.engine.begin() as conn:
        assert conn.execute(inbox_files.select()).rowcount == 1
