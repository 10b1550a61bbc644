"""A backup of older declarations, restored where they are newer: every row is there, and what does not fit is a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mini_platform import Dataset, Field, RejectLimit, RowModel
from mini_platform.operations import archive
from mini_platform.operations.backup import backup
from mini_platform.operations.restore import restore
from mini_platform.platform import Platform
from mini_platform_tests.support.trial import Declared, Trial


class Thing(RowModel):
    id: str = Field("Number of the thing")
    n: int = Field("How many there are")
    note: str | None = Field("A remark")


class Wider(Thing):
    size: float | None = Field("Added since", optional=True)


class Narrower(RowModel):
    id: str = Field("Number of the thing")
    n: int = Field("How many there are")


class Stricter(Thing):
    n: int = Field("How many there are", le=1)


class Retyped(Thing):
    n: bool = Field("True if there are any")


THINGS = Dataset("things", "things", Thing, ("id",), "Things.", reject_limit=RejectLimit(rows=9))
NEWER: dict[str, tuple[Dataset | None, list[str], str | None]] = {
    "a column added": (replace(THINGS, rows=Wider), ["a", "b", "c"], None),
    "a column removed": (replace(THINGS, rows=Narrower), ["a", "b", "c"], None),
    "a rule changed": (replace(THINGS, rows=Stricter), ["a", "c"], None),
    "a type changed": (
        replace(THINGS, rows=Retyped), ["a", "b"], ("things is restored, but cannot be loaded any more: production.things.n is "
        "BIGINT in the database and BOOLEAN in the declaration: change its type in the database first."),
    ),
    "the key changed": (
        replace(THINGS, key=("n",)), ["a", "b"], ("things is restored, but cannot be loaded any more: production.things has "
        "the key ['id'] in the database and another one in the declaration."),
    ),
    "the dataset gone": (None, ["a", "b"], "things is restored, but is not declared any more: its tables stay."),
}  # fmt: skip
"""Change of the declaration -> it, the rows in the end, and what `restore` tells."""


def test_a_backup_of_older_declarations(declared: Declared, tmp_path: Path, subtests: pytest.Subtests) -> None:
    before = declared(THINGS)
    before.load("1.csv", "id,n,note\na,1,x\nb,2,y\nx,two,z\n")
    saved = backup(before.platform, tmp_path / "backups", lambda *_: None)
    assert saved.manifest.rows["production.things"] == 2
    before.load("2.csv", "id,n,note\nc,1,x\n")
    for change, (dataset, rows, note) in NEWER.items():
        with subtests.test(change):
            before.platform.engine.dispose()
            platform = Platform({"things": dataset} if dataset else {})
            (name,) = archive.backups(tmp_path / "backups")
            restored = restore(platform, tmp_path / "backups", name, lambda *_: None, replace=True, replay=True)
            assert (restored.later, restored.replayed, restored.notes) == (1, 1, [note] if note else [])
            assert before.rows("id", "note") == [("a", "x"), ("b", "y")]
            assert len(before.table("quarantine.things", "id")) == 1
            if dataset and not note:
                after = Trial(platform, dataset)
                after.run()
                assert [row for (row,) in after.rows("id")] == ["a", "b", "c"]
                after.reprocess()
            assert [row for (row,) in before.rows("id")] == rows
            platform.engine.dispose()
