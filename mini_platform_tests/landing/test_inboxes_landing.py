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
from mini_platform_tests.support.inbox_harness import BAD, CHANGED, GOOD, InboxHarness


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


ANY = pytest.mark.parametrize("harness", ["file"], indirect=True)
"""Run a test on one kind of inbox, because the ledger decides what it proves, and not the server."""


# What counts


def test_files_are_landed_once_and_loaded(harness: InboxHarness) -> None:
    harness.put("a.csv")
    harness.put("b.csv", CHANGED)
    assert len(harness.visits().file_ids) == 2
    assert harness.ledger("name", "version", "status", "channel") == [
        ("partner/a.csv", 1, "landed", "inbox:partner"),
        ("partner/b.csv", 1, "landed", "inbox:partner"),
    ]
    assert harness.raw() == sorted([GOOD, CHANGED])
    assert harness.visits().file_ids == []
    harness.load()
    assert [status for *_, status in harness.ledger()] == ["loaded", "loaded"]
    assert harness.stands() == ["a.csv", "b.csv"], "by default nothing is moved"
    row = harness.row()
    assert (row.last_error, row.failing_since, row.failures, row.held_by) == (None, None, 0, None)
    assert row.looked_at is not None


def test_what_is_left_alone_and_why(harness: InboxHarness) -> None:
    for name in ("good.csv", ".hidden.csv", "a.csv.part", "a.xlsx", "folder/in.csv", "processed/1/old.csv"):
        harness.put(name)
    harness.visits()
    assert [name for name, *_ in harness.ledger()] == ["partner/good.csv"]
    known = harness.known()
    assert known.pop(b"folder", "it is a folder") == "it is a folder", "SFTP lists folders, S3 does not"
    assert known == {
        b"good.csv": None,
        b".hidden.csv": "its name starts with a dot",
        b"a.csv.part": "its name says that it is not finished",
        b"a.xlsx": "its name ends in none of .csv .csv.gz .csv.zip .txt .tsv",
    }


NAMES = ["..csv", "%2e%2e%2f.csv", "a b+c&d=é.csv", "\\..\\x.csv", "n" * 251 + ".csv", "=1+1.csv", "日本.csv"]


def test_names_are_data(harness: InboxHarness, tmp_path: Path) -> None:
    for name in NAMES:
        harness.put(name)
    before = {path.name for path in tmp_path.iterdir()} | {"home"}
    harness.using(after="archive").visits()
    assert sorted(name for name, *_ in harness.ledger()) == sorted(
        f"partner/{name}" for name in NAMES if name != "..csv"
    )
    harness.load()
    harness.using(after="archive").visit()
    ids = {name.removeprefix("partner/"): i for i, name in harness.ledger("file_id", "name")}
    assert harness.stands() == sorted(["..csv", *(f"processed/{i}/{name}" for name, i in ids.items())])
    assert {path.name for path in tmp_path.iterdir()} == before, "nothing was written elsewhere"


@pytest.mark.parametrize("name", [b"caf\xe9.csv", b"new\nline.csv"])
def test_names_that_are_no_text(sftp_harness: InboxHarness, name: bytes) -> None:
    sftp_harness.put(name)
    sftp_harness.visits()
    shown = name.decode("utf-8", "backslashreplace")
    assert [known for known, *_ in sftp_harness.ledger()] == [f"partner/{shown}"]
    sftp_harness.load()
    sftp_harness.using(after="archive").visit()
    assert [os.fsencode(path) for path in sftp_harness.stands()] == [b"processed/1/" + name]


@ANY
def test_a_file_of_the_drop_folder_may_have_the_same_name(harness: InboxHarness, pipeline: Any, tmp_path: Path) -> None:
    harness.put("a.csv")
    harness.visits()
    dropped = tmp_path / "a.csv"
    dropped.write_bytes(CHANGED)
    pipeline(harness.dataset, dropped)
    harness.visits()
    assert harness.ledger("name", "version") == [("partner/a.csv", 1), ("a.csv", 1)]


def test_a_file_that_is_too_large_is_left_alone(harness: InboxHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.put("a.csv")
    monkeypatch.setenv("MINI_PLATFORM_MAX_FILE_BYTES", "10")
    del harness.platform.settings
    harness.visits()
    assert harness.known() == {b"a.csv": "it is larger than the 10 bytes of MINI_PLATFORM_MAX_FILE_BYTES"}
    assert harness.ledger() == []


@ANY
def test_what_was_left_alone_is_taken_when_the_reason_goes(
    harness: InboxHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.put("a.csv")
    harness.put("b.json", b"[]")
    harness.put("c.csv", GOOD + b"\n" * 1000)

    def limit(size: int) -> None:
        monkeypatch.setenv("MINI_PLATFORM_MAX_FILE_BYTES", str(size))
        del harness.platform.settings

    limit(10)
    harness.visits()
    limit(500)
    assert len(harness.visit().file_ids) == 1, "its two looks were had"
    assert harness.known()[b"c.csv"] == "it is larger than the 500 bytes of MINI_PLATFORM_MAX_FILE_BYTES", "of today"
    limit(5000)
    harness.dataset = replace(harness.dataset, sources=(Csv(), Json()))
    harness.visit()
    assert [name for name, *_ in harness.ledger()] == ["partner/a.csv", "partner/b.json", "partner/c.csv"]
    assert set(harness.known().values()) == {None}


def test_the_address_of_an_inbox_is_read_to_its_end(harness: InboxHarness, subtests: pytest.Subtests) -> None:
    """Nothing of another folder is read, let alone removed, because the tail of an address was cut off."""
    harness.put("wrong.csv", CHANGED)
    inboxes: dict[str, tuple[InboxHarness, Path]] = {}
    for number, name in enumerate(("in#2", "in?2", "in%3F", "in 2")):
        right = harness.folder.with_name(name) / f"{number}.csv"
        right.parent.mkdir()
        right.write_bytes(GOOD)
        written = name if harness.settings["url"].startswith("s3:") else name.replace("%", "%25")
        elsewhere = harness.using(url=harness.settings["url"].removesuffix("in") + written, after="delete")
        inboxes[name] = replace(elsewhere, name=f"partner{number}"), right
    for elsewhere, _ in inboxes.values():
        elsewhere.visits()
    harness.load()
    assert sorted(name for name, *_ in harness.ledger()) == [f"partner{number}/{number}.csv" for number in range(4)]
    for name, (elsewhere, right) in inboxes.items():
        with subtests.test(name):
            elsewhere.visit()
            assert harness.stands() == ["wrong.csv"]
            assert not right.exists()


def test_an_address_that_cannot_be_seen_is_refused() -> None:
    with pytest.raises(ValueError, match="not printable"):
        InboxSettings(url="file:///in\tbox")


# Files that change


def test_a_changed_file_is_a_new_version(harness: InboxHarness) -> None:
    harness.put("a.csv")
    harness.visits()
    harness.put("a.csv", CHANGED)
    os.utime(harness.folder / "a.csv", (1, 1))  # Of the same size, and older: another file all the same.
    harness.visits()
    assert harness.ledger() == [("partner/a.csv", 1, "landed"), ("partner/a.csv", 2, "landed")]


def test_a_file_that_grows_waits_for_two_looks_that_agree(sftp_harness: InboxHarness) -> None:
    path = sftp_harness.put("a.csv", GOOD[:20])
    assert sftp_harness.visit().has_more, "it is looked at again in a moment"
    path.write_bytes(GOOD[:40])
    sftp_harness.age()
    assert sftp_harness.visit().file_ids == []
    path.write_bytes(GOOD)
    sftp_harness.age()
    assert sftp_harness.visit().file_ids == []
    assert sftp_harness.visit().file_ids == [], "two looks at once are one"
    sftp_harness.age()
    assert len(sftp_harness.visit().file_ids) == 1
    assert sftp_harness.raw() == [GOOD]


def test_an_object_appears_whole_and_needs_one_look(s3_harness: InboxHarness) -> None:
    s3_harness.put("a.csv")
    assert len(s3_harness.visit().file_ids) == 1


@pytest.mark.parametrize("size", [1, 3])
def test_a_file_that_changes_while_it_is_read(
    harness: InboxHarness, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 1000)
    harness.put("a.csv", b"x" * 5000)
    reads: list[int] = []

    def heartbeat(_: Any) -> None:  # Called before each block.
        reads.append(1)
        if len(reads) == 3:
            os.utime(harness.put("a.csv", b"y" * 5000 * size), (1, 1))

    with monkeypatch.context() as patch:
        patch.setattr(inbox_state.Lease, "heartbeat", heartbeat)
        harness.visits()
    assert len(reads) >= 3
    assert harness.raw() in ([], [b"y" * 5000 * size]), "no file is half of one and half of another"
    harness.visits()
    assert harness.raw() == [b"y" * 5000 * size]


def test_a_file_that_vanishes_is_forgotten(harness: InboxHarness) -> None:
    path = harness.put("a.csv")
    harness.put("b.csv")
    harness.visits()
    path.unlink()
    harness.visit()
    assert set(harness.known()) == {b"b.csv"}
    harness.put("a.csv")
    harness.visits()
    assert harness.ledger()[-1] == ("partner/a.csv", 1, "unchanged")


# Afterwards


def test_loaded_files_are_archived_and_refused_ones_lie_beside_their_rejects(harness: InboxHarness) -> None:
    harness = harness.using(after="archive")
    harness.put("good.csv")
    harness.put("bad.csv", BAD)
    harness.put("nothing.csv", b"\x00\x01\x02")
    harness.visits()
    ids = {name: i for i, name in harness.ledger("file_id", "name")}
    good, bad, nothing = (ids[f"partner/{name}.csv"] for name in ("good", "bad", "nothing"))
    harness.visit()
    assert harness.stands() == ["bad.csv", "good.csv", "nothing.csv"], "the ledger has not said its last word"
    harness.load()
    harness.visit()
    assert harness.stands() == sorted(
        [
            f"processed/{good}/good.csv",
            f"quarantine/{bad}/bad.csv",
            f"quarantine/{bad}/rejects.csv",
            f"quarantine/{nothing}/nothing.csv",
            f"quarantine/{nothing}/rejects.csv",
        ]
    )
    with (harness.folder / f"quarantine/{bad}/rejects.csv").open(newline="") as source:
        head, why, *rows = list(csv.reader(source))
    assert head == ["line", "column", "value", "rule", "reason"]
    assert why[-1] == dict(harness.ledger("name", "error"))["partner/bad.csv"]
    assert ["2", "temp_c", "'=warm"] in [row[:3] for row in rows], "harmless to spreadsheet programs"
    assert harness.known() == {}
    harness.visits()
    assert len(harness.ledger()) == 3, "what was put away is not landed again"


def test_loaded_files_are_deleted(harness: InboxHarness) -> None:
    harness = harness.using(after="delete")
    harness.put("good.csv")
    harness.put("bad.csv", BAD)
    harness.visits()
    harness.load()
    harness.visit()
    assert harness.stands() == []


@pytest.mark.parametrize("after", ["archive", "delete"])
def test_a_file_that_changed_since_is_not_put_away(
    harness: InboxHarness, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = harness.using(after=after)
    harness.put("a.csv")
    harness.visits()
    harness.load()
    monkeypatch.setattr(inbox_work.Work, "list_files", lambda *_: None)  # It changes after the look.
    path = harness.put("a.csv", CHANGED)
    os.utime(path, (1, 1))
    harness.visit()
    assert harness.stands() == ["a.csv"]
    assert path.read_bytes() == CHANGED
    monkeypatch.undo()
    harness.visits()
    harness.load()
    harness.visit()
    assert harness.ledger()[-1] == ("partner/a.csv", 2, "loaded")
    assert harness.stands() == (["processed/2/a.csv"] if after == "archive" else [])


def test_a_file_that_cannot_be_put_away_says_so(harness: InboxHarness) -> None:
    harness = harness.using(after="archive")
    harness.put("a.csv")
    harness.visits()
    harness.load()
    (harness.folder / "processed").write_text("in the way")
    result = harness.visit()
    if result.deferred:  # rclone answers with an error that is about the bucket.
        assert "could not be moved or deleted" in str(harness.known()[b"a.csv"])
    else:
        assert result.error
    assert harness.stands() == ["a.csv", "processed"]


def test_a_file_that_is_sent_again_is_put_away_again(harness: InboxHarness) -> None:
    harness = harness.using(after="archive")
    for _ in range(2):
        harness.put("a.csv")
        harness.put("bad.csv", BAD)
        harness.visits()
        harness.load()
        harness.visit()
        assert harness.stands() == ["processed/1/a.csv", "quarantine/2/bad.csv", "quarantine/2/rejects.csv"]
        assert harness.known() == {}
    assert [status for *_, status in harness.ledger()] == ["loaded", "refused"] + ["unchanged"] * 2


# Bounds, and one visit at a time


def test_a_listing_goes_on_where_the_last_visit_stopped(harness: InboxHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mini_platform.storage.remote_s3", "mini_platform.storage.remote"):
        monkeypatch.setattr(f"{module}.PAGE", 4)
    monkeypatch.setattr(inbox_work, "VISIT_PAGES", 1)
    for number in range(10):
        harness.put(f"{number}.csv", GOOD + b"\n" * number)
        harness.put(f"{number}/folder.csv")
    known_counts = []
    for _ in range(20):
        result = harness.visit()
        known_counts.append(len(harness.known()))
        if not harness.row().position:
            break
        assert result.has_more
    assert len([name for name in harness.known() if name.endswith(b".csv")]) == 10
    assert len(set(known_counts)) > 2, "it took several visits"
    harness.put("0.csv").unlink()
    harness.put("9.csv").unlink()
    for _ in range(20):
        harness.visit()
        if not harness.row().position:
            break
    assert {name for name in harness.known() if name.endswith(b".csv")} == {f"{n}.csv".encode() for n in range(1, 9)}


def test_an_untouched_file_costs_no_write(harness: InboxHarness) -> None:
    harness.put("a.csv")
    harness.visits()

    def version() -> Any:
        with harness.platform.engine.connect() as conn:
            return conn.exec_driver_sql("SELECT xmin, ctid FROM ops.inbox_files").one()

    before = version()
    harness.visit()
    assert version() == before


@ANY
def test_one_visit_at_a_time(harness: InboxHarness) -> None:
    harness.put("a.csv")
    harness.visit()
    assert visit_inbox(harness.platform, harness.dataset, harness.inbox) is None, "it is too early"
    with harness.platform.engine.begin() as conn:
        until = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, 60)
        conn.execute(update(table).values(held_by="another", held_until=until))
    assert visit_inbox(harness.platform, harness.dataset, harness.inbox, at_once=True) is None
    with harness.platform.engine.begin() as conn:
        conn.execute(update(table).values(held_until=func.now()))
    assert harness.visit().error is None, "it said nothing for too long"


def test_an_inbox_that_was_moved_is_a_new_one(harness: InboxHarness) -> None:
    harness.put("a.csv")
    harness.visits()
    elsewhere = harness.folder.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "b.csv").write_bytes(GOOD)
    url = harness.settings["url"].removesuffix("in") + "elsewhere"
    harness.using(url=url).visits()
    assert set(harness.known()) == {b"b.csv"}
    with harness.platform.engine.begin() as conn:
        assert conn.execute(inbox_files.select()).rowcount == 1
