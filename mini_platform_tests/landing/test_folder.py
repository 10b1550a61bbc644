"""The drop folder: what counts, what is left alone and why, and files that change under our hands."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select, text

from mini_platform.landing import folder
from mini_platform.landing.folder import DroppedFile
from mini_platform.storage.names import display_name
from mini_platform.storage.store import RawStore
from mini_platform.warehouse.tables import files
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.processes import AS_A_USER
from mini_platform_tests.support.repository import PROJECT


class Drop:
    """A drop folder, and the raw store and the ledger behind it."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.engine = engine
        self.path = root / "drop"
        self.path.mkdir()
        self.store = RawStore(root / "raw")

    def write(self, name: str | bytes, data: bytes = b"x", age: float = 60) -> Path:
        """A file that was written so many seconds ago."""
        path = self.path / os.fsdecode(name)
        path.write_bytes(data)
        moment = time.time() - age
        os.utime(path, (moment, moment))
        return path

    def look(self) -> dict[str, str | None]:
        """Return the reason why each file is skipped, by its name; None if it is not."""
        return {file.name: file.skip_reason for file in folder.look(self.path, weather)}

    def new(self) -> list[DroppedFile]:
        """Return the files that are to be landed."""
        with self.engine.connect() as conn:
            return [file for file in folder.changed(conn, self.path, weather) if not file.skip_reason]

    def land(self, dropped_files: Sequence[DroppedFile] | None = None) -> list[tuple[str, str | None]]:
        """Land the new files; return the name and the status in the ledger (None: not landed) of each."""
        landed = folder.land(self.engine, weather, self.store, self.new() if dropped_files is None else dropped_files)
        return sorted((file.name, row and row.status) for file, row in landed)

    def raw_files(self) -> dict[str, bytes]:
        """Return the files of the raw store: name to bytes."""
        return {path.name: path.read_bytes() for path in self.store.folder.rglob("*") if path.is_file()}

    def ledger(self) -> list[tuple[Any, ...]]:
        """Name, version, status of every arrival."""
        with self.engine.connect() as conn:
            rows = conn.execute(select(files.c.name, files.c.version, files.c.status).order_by(files.c.file_id))
            return [tuple(row) for row in rows]


@pytest.fixture
def drop(engine: Engine, tmp_path: Path) -> Drop:
    return Drop(engine, tmp_path)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# What counts


def test_what_is_left_alone_and_why(drop: Drop) -> None:
    drop.write("good.csv")
    drop.write("GOOD.CSV.GZ")
    drop.write(".hidden.csv")
    drop.write("a.csv.tmp")
    drop.write("a.csv.PART")
    drop.write("a.csv.crdownload")
    drop.write("a.csv~")
    drop.write("a.xlsx")
    drop.write("young.csv", age=0.2)
    drop.write("from the future.csv", age=-3600)
    (drop.path / "link.csv").symlink_to(drop.path / "good.csv")
    (drop.path / "broken.csv").symlink_to("nowhere")
    (drop.path / "folder.csv").mkdir()
    os.mkfifo(drop.path / "pipe.csv")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(drop.path / "socket.csv"))
    assert drop.look() == {
        "good.csv": None,
        "GOOD.CSV.GZ": None,
        "from the future.csv": None,
        ".hidden.csv": "its name starts with a dot",
        "a.csv.tmp": "its name says that it is not finished",
        "a.csv.PART": "its name says that it is not finished",
        "a.csv.crdownload": "its name says that it is not finished",
        "a.csv~": "its name says that it is not finished",
        "a.xlsx": "its name ends in none of .csv .csv.gz .csv.zip .txt .tsv",
        "young.csv": "it may still be growing",
        "link.csv": "it is a link",
        "broken.csv": "it is a link",
        "folder.csv": "it is a folder",
        "pipe.csv": "it is not a regular file",
        "socket.csv": "it is not a regular file",
    }
    assert {name for name, _ in drop.land()} == {"good.csv", "GOOD.CSV.GZ", "from the future.csv"}
    assert sorted(path.name for path in drop.path.iterdir()) == sorted(drop.look()), "nothing is moved or removed"


def test_a_young_file_counts_once_it_has_settled(drop: Drop) -> None:
    path = drop.write("a.csv", age=0)
    written = path.stat().st_mtime
    reasons = [folder.look(drop.path, weather, now=written + s)[0].skip_reason for s in (0, 0.99, 1, 2)]
    assert reasons == ["it may still be growing", "it may still be growing", None, None]


def test_an_absent_folder_is_empty(tmp_path: Path) -> None:
    assert folder.look(tmp_path / "nowhere", weather) == []


# Names are data


def test_known_files_cost_no_more_than_their_signature(drop: Drop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of 100,000 known files is looked at every few seconds."""
    drop.write("a.csv")
    drop.land()
    (drop.path / "notes").mkdir()
    checked: list[Any] = []
    monkeypatch.setattr(os, "access", lambda path, mode: checked.append(path) or True)
    assert drop.new() == []
    assert checked == []
    drop.write("b.csv")
    assert [file.name for file in drop.new()] == ["b.csv"]
    assert [Path(path).name for path in checked] == ["b.csv"]


def test_a_file_that_is_landed_during_the_look_is_not_new(drop: Drop, monkeypatch: pytest.MonkeyPatch) -> None:
    drop.write("a.csv")
    look = folder.look

    def landed_meanwhile(*arguments: Any) -> list[DroppedFile]:
        monkeypatch.setattr(folder, "look", look)
        files = look(*arguments)
        assert drop.land() == [("a.csv", "landed")]
        return files

    monkeypatch.setattr(folder, "look", landed_meanwhile)
    assert drop.new() == []


NAMES = [
    b"line\nbreak.csv",
    b"'quotes\" and `ticks`.csv",
    b"not utf-8 \xff\xfe.csv",
    rb"not utf-8 \xff\xfe.csv",
    rb"not utf-8 \\xff\\xfe.csv",
    b"not utf-8 \\\xff\\\xfe.csv",
    "ünï😀.csv".encode(),
    b"a" * 251 + b".csv",
    b"-rf.csv",
    b"a;b $(c) %s.csv",
    b"back\\slash.csv",
    b"\xed\xa0\x80.csv",
    b" .csv",
    b"tab\t\x01\x7f.csv",
]


def test_every_name_lands_as_itself(drop: Drop) -> None:
    for name in NAMES:
        drop.write(name, name)
    landed = folder.land(drop.engine, weather, drop.store, drop.new())
    by_bytes = {drop.raw_files()[row.sha256]: file.name for file, row in landed if row}
    assert set(by_bytes) == set(NAMES)
    assert len(set(by_bytes.values())) == len(NAMES)
    assert by_bytes[b"line\nbreak.csv"] == "line\nbreak.csv"
    assert by_bytes[b"not utf-8 \xff\xfe.csv"] == r"not utf-8 \xff\xfe.csv"
    assert drop.new() == []
    assert drop.land() == []


@given(
    st.lists(
        st.lists(st.sampled_from([b"\\", b"\xff", b"xff", b"x", b"f", b"a", "é".encode()]), max_size=8),
        unique_by=b"".join,
    )
)
def test_different_names_are_shown_differently(parts: list[list[bytes]]) -> None:
    names = [os.fsdecode(b"".join(name)) for name in parts]
    shown = [display_name(name) for name in names]
    assert len(set(shown)) == len(names)
    assert "".join(shown).isprintable()
    for name, as_shown in zip(names, shown, strict=True):
        assert as_shown == name or re.search(r"\\x[0-9a-f]{2}", as_shown)


# Versions


def test_the_same_look_again_lands_nothing(drop: Drop) -> None:
    drop.write("a.csv", b"1")
    dropped_files = drop.new()
    assert drop.land() == [("a.csv", "landed")]
    assert drop.new() == []
    assert drop.land(dropped_files) == [("a.csv", "unchanged")], "landed again by mistake, it is no new version"


def test_other_bytes_with_the_same_size_and_time_are_noticed(drop: Drop) -> None:
    path = drop.write("a.csv", b"1")
    drop.land()
    before = path.stat()
    path.write_bytes(b"2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_ino) == (1, before.st_mtime_ns, before.st_ino)
    assert drop.land() == [("a.csv", "landed")]
    assert set(drop.raw_files().values()) == {b"1", b"2"}


def test_the_same_bytes_written_again_are_no_new_version(drop: Drop) -> None:
    drop.write("a.csv", b"1")
    drop.land()
    drop.write("a.csv", b"1", age=30)
    assert drop.land() == [("a.csv", "unchanged")]
    assert drop.new() == [], "and not hashed again at the next look"
    (drop.path / "b").write_bytes(b"1")
    os.utime(drop.path / "b", (1, 1))
    (drop.path / "b").rename(drop.path / "a.csv")
    assert drop.land() == [("a.csv", "unchanged")]
    assert drop.ledger() == [("a.csv", 1, "landed"), ("a.csv", 1, "unchanged"), ("a.csv", 1, "unchanged")]


def test_a_b_a_is_three_versions(drop: Drop) -> None:
    for data in (b"A", b"B", b"A"):
        drop.write("a.csv", data)
        drop.land()
    assert drop.ledger() == [("a.csv", 1, "landed"), ("a.csv", 2, "landed"), ("a.csv", 3, "landed")]
    assert drop.raw_files() == {sha(b"A"): b"A", sha(b"B"): b"B"}


def test_a_file_that_was_taken_away_and_brought_back(drop: Drop) -> None:
    path = drop.write("a.csv", b"A")
    drop.land()
    path.unlink()
    assert drop.land() == []
    drop.write("a.csv", b"A", age=10)
    assert drop.land() == [("a.csv", "unchanged")]


def test_more_files_than_one_transaction_takes(drop: Drop) -> None:
    for n in range(folder.LAND_FILES + 3):
        drop.write(f"{n}.csv", b"%d" % (n % 7))
    assert [status for _, status in drop.land()] == ["landed"] * (folder.LAND_FILES + 3)
    assert len(drop.raw_files()) == 7
    assert drop.new() == []


# Files that change under our hands


class Meddled(RawStore):
    """A raw store to which something happens before or after it reads a file."""

    def __init__(self, folder: Path, before: Callable[[], Any] = int, after: Callable[[], Any] = int) -> None:
        super().__init__(folder)
        object.__setattr__(self, "meddle", (before, after))

    def put(self, source: BinaryIO) -> tuple[str, int]:
        """Store the source, with one action before and one after it."""
        before, after = self.meddle  # type: ignore[attr-defined]
        before()
        put = super().put(source)
        after()
        return put


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b" and more")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"XX")


@pytest.mark.parametrize("change", [append, overwrite, lambda path: os.truncate(path, 3)])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_look(
    drop: Drop, when: str, change: Callable[[Path], None]
) -> None:
    path = drop.write("a.csv", b"0123456789")
    drop.store = Meddled(drop.store.folder, **{when: lambda: change(path)})
    assert drop.land() == [("a.csv", None)]
    assert drop.ledger() == []
    drop.store = RawStore(drop.store.folder)
    os.utime(path, (1, 1))
    assert drop.land() == [("a.csv", "landed")]
    assert drop.raw_files()[sha(path.read_bytes())] == path.read_bytes()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_that_is_replaced_while_it_is_read_lands_whole_and_then_the_other(drop: Drop, when: str) -> None:
    path = drop.write("a.csv", b"old old old")

    def replace() -> None:
        new = drop.write("b", b"new")
        new.rename(path)

    drop.store = Meddled(drop.store.folder, **{when: replace})
    assert drop.land() == [("a.csv", "landed")]
    drop.store = RawStore(drop.store.folder)
    assert drop.land() == [("a.csv", "landed")]
    assert drop.ledger() == [("a.csv", 1, "landed"), ("a.csv", 2, "landed")]
    assert set(drop.raw_files().values()) == {b"old old old", b"new"}


def test_a_file_that_is_deleted_while_it_is_read(drop: Drop) -> None:
    path = drop.write("a.csv", b"data")
    drop.store = Meddled(drop.store.folder, before=path.unlink)
    assert drop.land() == [("a.csv", "landed")], "it was open, and is whole"
    assert drop.raw_files() == {sha(b"data"): b"data"}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("instead", ["nothing", "link", "pipe", "folder"])
def test_what_takes_the_place_of_a_file_after_the_look_is_not_opened(drop: Drop, instead: str, tmp_path: Path) -> None:
    path = drop.write("a.csv", b"data")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    dropped_files = drop.new()
    path.unlink()
    if instead == "link":
        path.symlink_to(secret)
    elif instead == "pipe":
        os.mkfifo(path)
    elif instead == "folder":
        path.mkdir()
    assert drop.land(dropped_files) == [("a.csv", None)]
    assert drop.ledger() == []
    assert not drop.store.folder.exists()


def test_one_that_changes_does_not_keep_the_others(drop: Drop) -> None:
    drop.write("a.csv", b"a")
    drop.write("b.csv", b"b")
    dropped_files = drop.new()
    (drop.path / "a.csv").unlink()
    assert drop.land(dropped_files) == [("a.csv", None), ("b.csv", "landed")]


# The raw store


class Breaking:
    """A stream that breaks in the middle."""

    def __init__(self) -> None:
        self.pieces = [b"1" * 1000, b"2" * 1000]

    def read(self, size: int) -> bytes:
        assert size > 0
        if not self.pieces:
            raise OSError("the disk is gone")
        return self.pieces.pop()


def test_a_stream_that_breaks_leaves_nothing_behind(tmp_path: Path) -> None:
    store = RawStore(tmp_path / "raw")
    with pytest.raises(OSError, match="the disk is gone"):
        store.put(Breaking())  # type: ignore[arg-type]
    assert list(store.folder.rglob("*")) == []


def test_equal_bytes_are_kept_once_and_never_written_again(drop: Drop) -> None:
    drop.write("a.csv", b"same")
    drop.land()
    path = drop.store.path(sha(b"same"))
    assert path == drop.store.folder / sha(b"same")[:2] / sha(b"same")
    before = path.stat()
    drop.write("b.csv", b"same")
    assert drop.land() == [("b.csv", "landed")]
    assert (path.stat().st_ino, path.stat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert drop.raw_files() == {sha(b"same"): b"same"}


def test_a_raw_file_that_was_lost_comes_back_with_its_file(drop: Drop) -> None:
    drop.write("a.csv", b"data")
    drop.land()
    drop.store.path(sha(b"data")).unlink()
    drop.write("a.csv", b"data", age=30)
    assert drop.land() == [("a.csv", "unchanged")]
    assert drop.raw_files() == {sha(b"data"): b"data"}


def test_a_file_of_many_chunks(drop: Drop) -> None:
    data = os.urandom(3 * 2**20 + 7)
    drop.write("big.csv", data)
    drop.land()
    assert drop.raw_files() == {sha(data): data}


def test_what_the_inbox_remembers_is_of_the_version_in_the_ledger(drop: Drop) -> None:
    drop.write("a.csv", b"1")
    drop.land()
    drop.write("a.csv", b"1", age=30)
    drop.land()
    with drop.engine.connect() as conn:
        assert conn.execute(text("SELECT name, file_id FROM ops.inbox")).all() == [("a.csv", 1)]


ORDINARY_USER = """
import json, sys
from pathlib import Path
from mini_platform_tests.support.examples import weather as dataset
from mini_platform.landing import folder
from mini_platform.storage.store import RawStore
from mini_platform_tests.support.repository import PROJECT
from mini_platform.warehouse import connection

path, raw, url = sys.argv[1:]
looked = folder.look(Path(path), dataset)
named = [folder.DroppedFile(file.name, file.path, "") for file in looked]  # as if it was closed after the look
landed = folder.land(connection.engine(url), dataset, RawStore(Path(raw)), named)
skipped = [file for file, row in landed if not row]
print(json.dumps([[[f.name, f.skip_reason, f.blocked] for f in files] for files in (looked, skipped)]))
"""


def test_a_file_that_may_not_be_read(drop: Drop, database_url: str) -> None:
    drop.write("closed.csv").chmod(0)
    drop.write("open.csv")
    script = [sys.executable, "-c", ORDINARY_USER, str(drop.path), str(drop.store.folder), database_url]
    output = subprocess.run([*AS_A_USER, *script], cwd=PROJECT, stdout=subprocess.PIPE, check=True).stdout
    looked, left = json.loads(output)
    closed = ["closed.csv", "the platform may not read it", True]
    assert looked == [closed, ["open.csv", None, False]]
    assert left == [closed]
    assert drop.ledger() == [("open.csv", 1, "landed")]
    drop.path.chmod(0)  # Now nobody may list it.
    output = subprocess.run([*AS_A_USER, *script], cwd=PROJECT, stdout=subprocess.PIPE, check=True).stdout
    drop.path.chmod(0o700)
    assert json.loads(output)[0] == [["drop/", f"{drop.path} cannot be listed: Permission denied", True]]
