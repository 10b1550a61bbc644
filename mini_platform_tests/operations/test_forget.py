"""Forgetting a person, and raw files that are kept for a while only: on the real pipeline, in every form that files have."""

from __future__ import annotations

import dataclasses
import datetime as dt
import gzip
import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select, text, update

from mini_platform import Csv, Dataset, Json, RejectLimit
from mini_platform.config.faultpoints import FORGETTING, VARIABLE
from mini_platform.landing import folder, retention
from mini_platform.operations.forget import Forgotten, forget
from mini_platform.operations.raw_files import raw_retention
from mini_platform.platform import Platform
from mini_platform.warehouse import aggregates, ledger
from mini_platform.warehouse.tables import COUNTERS, files, pending_deletes
from mini_platform_tests.support import forget_worker
from mini_platform_tests.support.command import here
from mini_platform_tests.support.disks import mount
from mini_platform_tests.support.examples import sales
from mini_platform_tests.support.look import everything
from mini_platform_tests.support.orders import HEADER, csv_of, order

MARIA = "Maria.Marker@Example.org"


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


def gz(data: bytes) -> bytes:
    return gzip.compress(data)


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("orders.csv", data)
    return buffer.getvalue()


OTHERS = [order(1, "ada@example.org"), order(2, "ben@example.org", title="Kettlebell, 16 kg")]
HERS = [
    order(3, MARIA, name="Maria Marker"),
    order(4, " maria.marker@example.org ", customer_address="a\nline, and\nanother"),
    order(5, "MARIA.MARKER@EXAMPLE.ORG", quantity="0"),
    f"T000000006,one field too few,{MARIA}",
    order(7, "ben@example.org", customer_address=f"c/o {MARIA}"),
]
NOT_HERS = [
    order(8, "notmaria.marker@example.org"),
    order(9, "maria.marker@example.org.uk"),
    "T000000010,too few,xmaria.marker@example.org",
]


@pytest.fixture
def forgetting(platform: Platform, data: Path) -> Callable[..., Forgotten]:
    def run(value: str = MARIA, dataset: Dataset = sales) -> Forgotten:
        raw = platform.raw_files(dataset)
        return forget(platform.engine, dataset, value, raw, platform.store, data / dataset.name)

    return run


@pytest.fixture
def drop(platform: Platform, data: Path, pipeline: Any) -> Callable[..., list[int]]:
    """Files are dropped, landed and loaded, as the sensor has it."""

    def run(dataset: Dataset = sales, **contents: bytes) -> list[int]:
        for name, content in contents.items():
            path = data / dataset.name / name.replace("_", ".")
            path.write_bytes(content)
            os.utime(path, (path.stat().st_mtime - 60,) * 2)
        with platform.engine.connect() as conn:
            new = folder.changed(conn, data / dataset.name, dataset)
        landed = [row.file_id for _, row in folder.land(platform.engine, dataset, platform.store, new) if row]
        pipeline(dataset)
        return landed

    return run


def left_of_her(platform: Platform, data: Path) -> list[str]:
    """Return where something of her is left: the address in clear, or a hash of it."""
    marks = [MARIA.lower(), *platform.keyring.digests(MARIA)]
    clear = re.compile(rf"(?<![\w.]){re.escape(marks[0])}(?!\.uk)|" + "|".join(map(re.escape, marks[1:])))
    return [
        place
        for place, content in everything(platform, sales)
        if clear.search(content.decode("utf-8", "replace").lower())
    ]


def production(engine: Engine) -> list[str]:
    with engine.connect() as conn:
        return list(conn.execute(text("SELECT order_id FROM production.orders ORDER BY 1")).scalars())


def consistent(platform: Platform) -> None:
    """Every computed table is what its select says, and the ledger adds up, names its raw files, and their sizes."""
    with platform.engine.connect() as conn:
        for aggregate in sales.aggregates:
            assert aggregates.differences(conn, sales, aggregate) == []
        for row in conn.execute(select(files).where(files.c.same_as.is_(None))):
            path = platform.store.path(row.sha256)
            assert path.exists() == (row.raw_dropped_at is None)
            assert row.raw_dropped_at or path.stat().st_size == row.bytes
            if row.status == "loaded":
                assert row.rows_read == sum(getattr(row, name) for name in COUNTERS)
        assert conn.scalar(select(func.count()).select_from(pending_deletes)) == 0
        needed = select(files.c.sha256).where(files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None))
        named = set(conn.execute(needed).scalars())
    stored_names = {path.name for path in platform.store.folder.rglob("*") if path.is_file()}
    assert stored_names == named, "no raw file is left that the ledger does not name"


# Everywhere


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "csv": lambda data: data,
    "csv_gz": gz,
    "csv_zip": zipped,
    "txt": lambda data: data.replace(b"\n", b"\r\n"),
    "tsv": lambda data: b"\xef\xbb\xbf" + data.replace(b"\n", b"\r"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_person_is_gone_and_the_others_stay(
    platform: Platform, data: Path, drop: Any, forgetting: Any, pipeline: Any, form: str
) -> None:
    rows = [OTHERS[0], *HERS[:3], NOT_HERS[0], *HERS[3:], OTHERS[1], *NOT_HERS[1:]]
    (file_id,) = drop(**{f"a_{form}": FORMS[form](csv_of(*rows))})
    assert len(left_of_her(platform, data)) >= 5
    with platform.engine.connect() as conn:
        customers = dict(conn.execute(text("SELECT email_hash, customer_id FROM analytics.dim_customer")).all())
    forgotten = forgetting()
    assert forgotten.unread == []
    assert [(item["records"], item["action"]) for item in (*forgotten.files, *forgotten.dropped_files)] == [
        (5, "rewritten without them")
    ] * 2
    # The row of ben that was sent care of her went out of the file; in production it has none of her address.
    assert production(platform.engine) == [f"T{n:09d}" for n in (1, 2, 7, 8, 9)]
    assert left_of_her(platform, data) == []
    consistent(platform)
    with platform.engine.connect() as conn:
        row = conn.execute(select(files)).one()
        assert (row.rows_erased, row.rows_read, row.erased_at is not None) == (5, 10, True)
        after = dict(conn.execute(text("SELECT email_hash, customer_id FROM analytics.dim_customer")).all())
        lines = dict(conn.execute(text("SELECT _line, _rules FROM quarantine.orders")).all())
        assert conn.scalar(text("SELECT count(*) FROM ops.surrogates_dim_customer")) == len(after)
    assert after == {key: number for key, number in customers.items() if key in after}, "numbers stay"
    assert lines == {13: ["row_has_header_fields"]}, "what is left stands on the line on which it stood"

    with platform.engine.connect() as conn:
        assert folder.changed(conn, data / "sales", sales) == [], "the sensor sees no new file"
    again = forgetting()
    assert (again.is_empty, again.unread) == (True, [])

    with platform.engine.begin() as conn:
        ledger.return_to_landed(conn, "sales", files.c.file_id == file_id)
    pipeline(sales)
    assert production(platform.engine) == [f"T{n:09d}" for n in (1, 2, 8, 9)], "a reprocess reads what is left"
    assert left_of_her(platform, data) == []
    consistent(platform)


def test_a_name_is_a_value_of_a_hashed_column_too(platform: Platform, data: Path, drop: Any, forgetting: Any) -> None:
    drop(
        a_csv=csv_of(order(1, "a@example.org", name="Maria  Marker"), order(2, "b@example.org", name="Maria Marker Jr"))
    )
    forgotten = forgetting("maria marker")
    assert forgotten.rows["production.orders"] == 1
    assert production(platform.engine) == ["T000000002"]
    assert b"Marker Jr" in (data / "sales" / "a.csv").read_bytes(), "another one"


def test_every_known_key_finds(
    platform: Platform, data: Path, drop: Any, forgetting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINI_PLATFORM_PII_KEYS", "old:0123456789abcdef")
    del platform.__dict__["settings"]
    platform.__dict__.pop("keyring", None)
    drop(a_csv=csv_of(HERS[0], *OTHERS))
    monkeypatch.setenv("MINI_PLATFORM_PII_KEYS", "new:fedcba9876543210,old:0123456789abcdef")
    del platform.__dict__["settings"], platform.__dict__["keyring"]
    drop(b_csv=csv_of(HERS[1], *OTHERS))
    with platform.engine.connect() as conn:
        ids = (
            conn.execute(text("SELECT DISTINCT split_part(customer_email, ':', 1) FROM production.orders"))
            .scalars()
            .all()
        )
    assert sorted(ids) == ["new", "old"]
    forgetting()
    assert left_of_her(platform, data) == []
    assert production(platform.engine) == ["T000000001", "T000000002"]


def test_what_a_row_was_before_comes_back(
    platform: Platform, data: Path, drop: Any, forgetting: Any, pipeline: Any
) -> None:
    """Her row had replaced somebody else's row of the same key, which an earlier file still has."""
    (first,) = drop(a_csv=csv_of(order(3, "ada@example.org"), OTHERS[1]))
    drop(b_csv=csv_of(HERS[0]))
    forgotten = forgetting()
    assert forgotten.queued == [first]
    pipeline(sales)
    assert production(platform.engine) == ["T000000002", "T000000003"]
    assert left_of_her(platform, data) == []
    consistent(platform)


def test_files_that_wait_and_versions_of_one_name(
    platform: Platform, data: Path, drop: Any, forgetting: Any, pipeline: Any
) -> None:
    drop(a_csv=csv_of(HERS[0], *OTHERS))
    drop(a_csv=csv_of(HERS[0], HERS[1], *OTHERS))
    path = data / "sales" / "waits.csv"
    path.write_bytes(csv_of(HERS[2], HERS[3], order(11, "eve@example.org"), order(12, "eve@example.org")))
    for _ in folder.land(platform.engine, sales, platform.store, [folder.DroppedFile("waits.csv", path, "")], "folder"):
        pass
    forgetting()
    assert left_of_her(platform, data) == []
    pipeline(sales)
    assert production(platform.engine) == [f"T{n:09d}" for n in (1, 2, 11, 12)]
    consistent(platform)


def test_a_file_that_cannot_be_rewritten_is_dropped(platform: Platform, data: Path, drop: Any, forgetting: Any) -> None:
    """UTF-16, and a file that is no table at all."""
    drop(a_csv=csv_of(HERS[0], *OTHERS).decode().encode("utf-16"), b_csv=f"some,text\nof {MARIA},1\n".encode())
    forgotten = forgetting()
    assert [item["action"].split(":")[0] for item in (*forgotten.files, *forgotten.dropped_files)] == ["dropped"] * 4
    assert left_of_her(platform, data) == []
    assert production(platform.engine) == ["T000000001", "T000000002"], "what was loaded of it stays"
    assert list((data / "sales").iterdir()) == []
    consistent(platform)
    assert forgetting().is_empty


def test_a_drop_folder_that_is_read_only(platform: Platform, data: Path, drop: Any, forgetting: Any) -> None:
    """New files are loaded all the same; a person to be forgotten stays there, and that is a sentence."""
    mount(data / "sales", "size=1m")
    try:
        (data / "sales" / "a.csv").write_bytes(csv_of(HERS[0], *OTHERS))
        os.utime(data / "sales" / "a.csv", (0, 0))
        subprocess.run(["mount", "-o", "remount,ro", data / "sales"], check=True)
        assert len(drop()) == 1
        sentence = f"{data / 'sales' / 'a.csv'} could not be rewritten: Read-only file system"
        assert forgetting().unread == [sentence]
        subprocess.run(["mount", "-o", "remount,rw", data / "sales"], check=True)
        assert len(forgetting().dropped_files) == 1
        assert left_of_her(platform, data) == []
    finally:
        subprocess.run(["umount", "--lazy", data / "sales"], check=True)


def test_what_was_rejected_of_others_on_her_line_stays(
    platform: Platform, drop: Any, forgetting: Any, engine: Engine
) -> None:
    """Another one's record, and one that is no object; hers is rejected, too, and cannot be found by its hash."""
    dataset = dataclasses.replace(sales, sources=(Csv(), Json()), reject_limit=RejectLimit())
    names = HEADER.split(",")
    wrong = [dict(zip(names, row.split(","), strict=True)) | {"quantity": "many"} for row in (OTHERS[0], HERS[0])]
    wrong[1] |= {"customer_email": "", "product_title": MARIA}
    drop(dataset, a_json=json.dumps([*wrong, 7]).encode())
    forgetting(MARIA, dataset)
    with engine.connect() as conn:
        assert conn.execute(text("SELECT _line, _record FROM quarantine.orders ORDER BY 2")).all() == [(1, 1), (1, 3)]


@pytest.mark.parametrize(
    ("name", "make", "outcome"),
    [
        ("a.jsonl", lambda rows: "\n".join(map(json.dumps, rows)) + "\n", "rewritten without them"),
        ("a.json", lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]", "rewritten without them"),
        ("a.json", json.dumps, "dropped"),
        ("a.json", lambda rows: json.dumps(rows[0]), "dropped"),
    ],
    ids=["lines", "a list by lines", "a list on one line", "one object"],
)
def test_json(
    platform: Platform, data: Path, drop: Any, forgetting: Any, name: str, make: Callable[[Any], str], outcome: str
) -> None:
    dataset = dataclasses.replace(sales, sources=(Csv(), Json()))
    names = HEADER.split(",")
    rows = [dict(zip(names, row.split(","), strict=True)) for row in (HERS[0], OTHERS[0], HERS[2])]
    if name == "a.json" and outcome != "dropped":
        rows.append(dict(zip(names, order(9, "zoe@example.org").split(","), strict=True)))
    drop(dataset, **{name.replace(".", "_"): make(rows).encode()})
    forgotten = forgetting(MARIA, dataset)
    assert [item["action"].split(":")[0] for item in forgotten.files] == [outcome]
    assert left_of_her(platform, data) == []
    assert set(production(platform.engine)) <= {"T000000001", "T000000009"}


# Killed in the middle


@pytest.mark.parametrize("point", FORGETTING)
def test_killed_and_repeated(platform: Platform, data: Path, drop: Any, forgetting: Any, point: str) -> None:
    drop(a_csv=csv_of(*HERS, *OTHERS, *NOT_HERS), b_csv=csv_of(HERS[0], order(12, "eve@example.org")))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([forget_worker.__name__])
    killed = context.Process(target=forget_worker.main, args=({**os.environ, VARIABLE: point}, MARIA), daemon=True)
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    forgetting()
    assert left_of_her(platform, data) == []
    assert production(platform.engine) == [f"T{n:09d}" for n in (1, 2, 7, 8, 9, 12)]


def test_what_a_landing_left_that_was_killed(platform: Platform, data: Path, drop: Any, forgetting: Any) -> None:
    """Raw files that the ledger does not know go with whoever is in them, once nobody can be about to land them."""
    drop(a_csv=csv_of(*OTHERS))
    lost, arriving = (platform.store.put(io.BytesIO(csv_of(row)))[0] for row in HERS[:2])
    os.utime(platform.store.path(lost), (1e9, 1e9))
    forgetting()
    assert not platform.store.path(lost).exists()
    assert platform.store.path(arriving).exists()
    os.utime(platform.store.path(arriving), (1e9, 1e9))
    assert platform.store.put(io.BytesIO(csv_of(HERS[1])))[0] == arriving
    assert retention.sweep_unknown(platform.engine, platform.store) == 0, "it has just arrived again"


# The command


def test_the_command(platform: Platform, data: Path, drop: Any) -> None:
    drop(a_csv=csv_of(*HERS, *OTHERS, *NOT_HERS))
    result = here("forget", "sales", "-", "--json", text_input=MARIA + "\n")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["rows"]["production.orders"] == 2
    assert [item["records"] for item in report["files"]] == [5]
    assert MARIA.lower() not in (result.stdout + result.stderr).lower()
    again = here("forget", "sales", MARIA)
    assert (again.exit_code, again.stderr.strip()) == (0, "No data of this person was found in sales.")
    assert here("verify", "sales", "--deep").exit_code == 0
    assert left_of_her(platform, data) == []


def test_a_dataset_without_hashes(platform: Platform) -> None:
    assert platform.engine is not None
    result = here("forget", "weather", "ada")
    assert (result.exit_code, "weather has no hashed columns" in result.stderr) == (2, True)
    assert here("forget", "sales", " ").exit_code == 2


# Retention


def aged(platform: Platform, days: float) -> None:
    with platform.engine.begin() as conn:
        conn.execute(update(files).values(arrived_at=files.c.arrived_at - dt.timedelta(days=days)))


def test_raw_files_are_kept_for_a_while(platform: Platform, data: Path, drop: Any, pipeline: Any) -> None:
    (old,) = drop(a_csv=csv_of(*OTHERS))
    age = raw_retention(platform, sales)
    assert age == dt.timedelta(days=90)
    aged(platform, 89)
    with platform.engine.connect() as conn:
        assert not retention.due(conn, sales, age)
    assert list(retention.drop_old(platform.engine, sales, platform.store, age)) == []
    aged(platform, 2)
    drop(b_csv=csv_of(order(3, "zoe@example.org")))
    with platform.engine.connect() as conn:
        assert retention.due(conn, sales, age)
        assert not retention.due(conn, sales, None)
    assert [row.file_id for row in retention.drop_old(platform.engine, sales, platform.store, age)] == [old]
    consistent(platform)
    assert production(platform.engine) == ["T000000001", "T000000002", "T000000003"]

    verified = here("verify", "sales")
    assert verified.exit_code == 0
    assert "the raw files of 1 files were dropped" in verified.stderr
    explained = here("explain", "sales", "T000000001")
    assert "its raw file was dropped on" in explained.stderr
    reprocessed = here("reprocess", "sales", "--json")
    assert "a.csv (file 1) cannot be validated again: its raw file was dropped on" in reprocessed.stderr
    assert [json.loads(line)["name"] for line in reprocessed.stdout.splitlines()] == ["b.csv"]
    assert production(platform.engine) == ["T000000001", "T000000002", "T000000003"]

    # The same bytes once more are the current version still, and are not kept anew.
    same = here("load", "sales", str(data / "sales" / "a.csv"), "--json")
    assert json.loads(same.stdout)["status"] == "unchanged"
    consistent(platform)
    forgotten = here("forget", "sales", "ada@example.org", "--json")
    assert json.loads(forgotten.stdout)["rows"]["production.orders"] == 1
    assert production(platform.engine) == ["T000000002", "T000000003"]


def test_a_setting_says_otherwise(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_PLATFORM_RAW_RETENTION", '{"sales": null, "weather": 1.5}')
    assert raw_retention(Platform(), sales) is None
    assert raw_retention(Platform(), dataclasses.replace(sales, name="weather")) == dt.timedelta(hours=36)
    assert platform.settings is not None


def test_a_raw_file_that_another_file_needs_stays(platform: Platform, drop: Any) -> None:
    data = csv_of(*OTHERS)
    drop(a_csv=data)
    aged(platform, 91)
    drop(b_csv=data)
    assert len(retention.drop_old(platform.engine, sales, platform.store, dt.timedelta(days=90))) == 1
    with platform.engine.connect() as conn:
        remaining = conn.execute(select(files).where(files.c.raw_dropped_at.is_(None))).one()
    assert platform.store.path(remaining.sha256).exists()
