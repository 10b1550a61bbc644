"""A further place where rows may stand is one entry in a registry: from there everyone reaches it who must.

Two are invented here, a table and a folder. Nothing but their entries tells of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import BigInteger, Column, DateTime, MetaData, Table, Text, func, insert, select, text

from mini_platform import Dataset, Field, RowModel
from mini_platform.operations import archive
from mini_platform.operations.backup import backup
from mini_platform.operations.forget import Forgotten, forget
from mini_platform.operations.place import Erased, Erasure, FilePlace, Purged
from mini_platform.operations.places import FILES
from mini_platform.operations.purge import purge
from mini_platform.operations.restore import restore
from mini_platform.platform import Platform
from mini_platform.warehouse.places import TABLES, Retention, TablePlace, tables_of
from mini_platform.warehouse.schema import all_tables, create_all
from mini_platform_tests.support.look import everything

ANN, BOB = "ann@example.org", "bob@example.org"


class Member(RowModel):
    nr: str = Field("Number", str_length={"min_value": 1, "max_value": 20})
    mail: str = Field("Address", personal="hash")


MEMBERS = Dataset(
    name="members", table="members", description="Members", rows=Member, key=("nr",), unexpected_columns="refuse"
)
SHADOW = Table(
    "shadow_members",
    MetaData(),
    Column("nr", Text, primary_key=True),
    Column("mail", Text, info={"personal": True}),
    Column("_file_id", BigInteger, nullable=False),
    Column("written_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    schema="production",
    comment="Where rows of members may stand, too",
)


def nothing(_more: int, _words: str | None = None) -> None:
    """Progress that nobody looks at."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose files are named by persons."""
    (tmp_path / "shadow").mkdir()
    for name in (ANN, BOB):
        (tmp_path / "shadow" / name).write_text(f"something of {name}")
    return tmp_path / "shadow"


@pytest.fixture
def invented(folder: Path) -> Iterator[None]:
    def erase(erasure: Erasure) -> Erased:
        (folder / erasure.person.text).unlink(missing_ok=True)
        return Erased([{"name": erasure.person.text, "records": 1, "outcome": "removed"}])

    def remove(_: Platform, dataset: Dataset, dry_run: bool) -> Purged:
        paths = list(folder.iterdir())
        for path in () if dry_run else paths:
            path.unlink()
        return Purged("shadow files", dataset.name, len(paths))

    def back_up(_: Platform, making: Path) -> Iterator[Path]:
        yield from shutil.copytree(folder, making / "shadow").iterdir()

    def bring_back(_: Platform, backed_up: Path) -> None:
        shutil.copytree(backed_up / "shadow", folder, dirs_exist_ok=True)

    table = TablePlace(
        "shadow rows",
        lambda tables: [SHADOW] if tables.production.name == "members" else [],
        "rows",
        "at once",
        retention=Retention(lambda _: 30, "written_at"),
    )
    files = FilePlace(
        "shadow files",
        contents=lambda *_: ((str(path), path.read_bytes()) for path in folder.iterdir()),
        erase=erase,
        purge=remove,
        back_up=back_up,
        restore=bring_back,
    )
    TABLES.append(table)
    FILES.append(files)
    yield
    TABLES.remove(table)
    FILES.remove(files)


@pytest.fixture
def filled(invented: None, platform: Platform) -> Platform:
    """Two persons stand in both places; what the table has of Bob is a year old."""
    create_all(platform.engine, [MEMBERS])
    rows = [
        {"nr": "1", "mail": platform.keyring.digests(ANN)[0], "_file_id": 1, "written_at": func.now()},
        {
            "nr": "2",
            "mail": platform.keyring.digests(BOB)[0],
            "_file_id": 1,
            "written_at": text("now() - interval '1 year'"),
        },
    ]
    with platform.engine.begin() as conn:
        for row in rows:
            conn.execute(insert(SHADOW).values(row))
    return platform


def places_of(platform: Platform, person: str) -> set[str]:
    """Return the places that have something of a person."""
    marks = [person.encode(), platform.keyring.digests(person)[0].encode()]
    return {
        Path(where).name for where, content in everything(platform, MEMBERS) if any(mark in content for mark in marks)
    }


def numbers(platform: Platform) -> list[str]:
    with platform.engine.connect() as conn:
        return list(conn.execute(select(SHADOW.c.nr).order_by(SHADOW.c.nr)).scalars())


def test_what_looks_for_persons_looks_there(filled: Platform) -> None:
    assert places_of(filled, ANN) == {"production.shadow_members", ANN}


def test_it_is_made_and_read_by_who_may(filled: Platform) -> None:
    assert SHADOW in tables_of(MEMBERS)
    assert SHADOW in all_tables([MEMBERS])
    statement = text("SELECT has_column_privilege(:role, 'production.shadow_members', :name, 'SELECT')")
    with filled.engine.connect() as conn:
        may = {
            (role, name): conn.scalar(statement, {"role": f"mini_platform_{role}", "name": name})
            for role in ("reader", "personal")
            for name in ("nr", "mail")
        }
    assert may == {
        ("reader", "nr"): True,
        ("reader", "mail"): False,
        ("personal", "nr"): True,
        ("personal", "mail"): True,
    }


def test_a_person_is_forgotten_there(filled: Platform, tmp_path: Path) -> None:
    (dropped := tmp_path / "dropped").mkdir()
    forgotten: Forgotten = forget(filled.engine, MEMBERS, ANN, filled.raw_files(MEMBERS), filled.store, dropped)
    assert forgotten.rows["production.shadow_members"] == 1
    assert [item["name"] for item in forgotten.dropped_files] == [ANN]
    assert places_of(filled, ANN) == set()
    assert places_of(filled, BOB) == {"production.shadow_members", BOB}


def test_a_backup_has_it_and_brings_it_back(filled: Platform, folder: Path, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    saved = backup(filled, backups, nothing)
    assert saved.manifest.rows["production.shadow_members"] == 2
    assert {path for _, path in archive.read_sums(backups, saved.name)} >= {f"{saved.name}/shadow/{ANN}"}
    with filled.engine.begin() as conn:
        conn.execute(text("DROP TABLE production.shadow_members"))
    shutil.rmtree(folder)
    filled.engine.dispose()
    restore(filled, backups, saved.name, nothing, replace=True)
    assert numbers(filled) == ["1", "2"]
    assert sorted(path.name for path in folder.iterdir()) == [ANN, BOB]


def test_what_is_too_old_goes(filled: Platform, folder: Path) -> None:
    for dry_run in (True, False):
        purged = {item.what: item.items for item in purge(filled, [MEMBERS], dry_run=dry_run)}
        assert (purged["shadow rows"], purged["shadow files"]) == (1, 2)
        assert (numbers(filled), len(list(folder.iterdir()))) == ((["1", "2"], 2) if dry_run else (["1"], 0))
