"""The command line: real processes on a real Postgres; in-process where the process does not matter."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2.extensions
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL, Engine, Table, func, select, table, text

from mini_platform.cli.listing import Status
from mini_platform.landing import folder
from mini_platform.warehouse import ledger
from mini_platform.warehouse.connection import libpq_url
from mini_platform.warehouse.embedded import binary
from mini_platform.warehouse.tables import COUNTERS, STATUSES, dataset_tables, files
from mini_platform_tests.support import examples
from mini_platform_tests.support.command import cli, here, objects
from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.sample_files import SAMPLE_FILES

if TYPE_CHECKING:
    from mini_platform.platform import Platform


SAMPLES = SAMPLE_FILES / "weather"
HEADER = "station_id,date,temp_c,precip_mm\n"
KEYS = ["file_id", "name", "status", "rows_read", *COUNTERS, "error"]


def production() -> Table:
    return dataset_tables(examples.weather).production


def written(path: Path, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


def count(engine: Engine, schema: str, name: str) -> int:
    with engine.connect() as conn:
        return conn.scalar(select(func.count()).select_from(table(name, schema=schema))) or 0


def ledger_rows(engine: Engine) -> list[Any]:
    with engine.connect() as conn:
        return list(conn.execute(select(files).order_by(files.c.file_id)))


@pytest.fixture
def in_process_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs of Dagster by commands in this process: definitions are made anew, as they keep the first database they see."""
    monkeypatch.setenv("DAGSTER_HOME", str(PROJECT))
    monkeypatch.delitem(sys.modules, "mini_platform.definitions", raising=False)
    yield
    sys.modules.pop("mini_platform.definitions", None)


# load, with Dagster; as a process of its own where that matters


def test_load_accounts_for_every_row_and_is_a_run_of_dagster(engine: Engine, home: Path) -> None:
    completed = cli("load", "weather", SAMPLES / "seattle.csv", SAMPLES / "dirty.csv", "--json")

    progress = completed.stderr.splitlines()
    assert (completed.returncode, progress[-1]) == (0, "Starting Dagster to load 2 files…")
    assert all(line.endswith("…") for line in progress)
    good, dirty = objects(completed.stdout)
    assert list(good) == KEYS
    assert list(dirty) == KEYS
    assert (good["name"], good["status"], good["rows_inserted"]) == ("seattle.csv", "loaded", 1461)
    assert (dirty["name"], dirty["status"]) == ("dirty.csv", "loaded")
    assert dirty["rows_rejected"] > 0
    for outcome in (good, dirty):
        assert outcome["rows_read"] == sum(outcome[name] for name in COUNTERS)
    assert count(engine, "production", "measurements") == good["rows_inserted"] + dirty["rows_inserted"]
    assert count(engine, "quarantine", "measurements") == dirty["rows_rejected"]
    assert count(engine, "analytics", "daily_metrics") > 0
    with engine.connect() as conn:
        runs = conn.execute(text("SELECT run_id, status FROM dagster.runs")).all()
        tags = (
            conn.execute(text("SELECT value FROM dagster.run_tags WHERE key = 'mini_platform/dataset'")).scalars().all()
        )
    assert [run.status for run in runs] == ["SUCCESS"]
    assert tags == ["weather"]
    assert {row.run_id for row in ledger_rows(engine)} == {runs[0].run_id}

    # The same bytes again: nothing to run, so neither Dagster nor polars is even imported.
    again = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "mini_platform.cli",
            "load",
            "weather",
            SAMPLES / "seattle.csv",
            "--json",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    (unchanged,) = objects(again.stdout)
    assert (unchanged["status"], unchanged["rows_read"], unchanged["error"]) == ("unchanged", 0, None)
    imported = {line.rpartition("|")[2].strip() for line in again.stderr.splitlines()}
    assert "sqlalchemy" in imported
    assert not imported & {"dagster", "polars", "pandera", "pandas"}
    assert count(engine, "dagster", "runs") == 1


def test_load_says_why_a_file_is_refused_and_loads_the_others(
    in_process_runs: None, engine: Engine, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "header.csv").write_text("a,b\n1,2\n")
    bad = written(tmp_path / "bad.csv", *["A,2020-01-01,nan,", "A,2020-01-02,999,"] * 49, "A,2020-01-03,1,", ",,,")
    good = written(tmp_path / "good.csv", "A,2020-01-01,1,1")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "named so.csv").symlink_to(good)

    completed = here("load", "weather", tmp_path / "header.csv", bad, tmp_path / "links" / "named so.csv")

    assert completed.exit_code == 1
    assert "header.csv is refused: The header lacks station_id, date, temp_c, precip_mm." in completed.stderr
    assert "bad.csv is refused: 99 of 100 rows are rejected" in completed.stderr
    assert [row.status for row in ledger_rows(engine)] == ["refused", "refused", "loaded"]
    assert [row.name for row in ledger_rows(engine)] == ["header.csv", "bad.csv", "named so.csv"]
    assert count(engine, "production", "measurements") == 1

    again = here("load", "weather", bad, good, "--json")  # One repeats a refused file, the other has a new name.

    assert again.exit_code == 1
    repeated, renamed = objects(again.stdout)
    assert repeated["status"] == "unchanged"
    assert repeated["error"].startswith("it repeats file 2, which is refused: 99 of 100 rows are rejected")
    assert (renamed["status"], renamed["rows_unchanged"], renamed["error"]) == ("loaded", 1, None)


def test_load_takes_up_what_waits_under_the_same_bytes_even_from_a_dead_process(
    in_process_runs: None, engine: Engine, platform: Platform, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.csv", "A,2020-01-01,1,1", "A,2020-01-02,2,2")
    list(folder.land(engine, examples.weather, platform.store, [folder.DroppedFile("a.csv", path, "")]))
    dead = ledger.Worker(engine, "the run that died", lease_seconds=4)
    assert len(ledger.claim(dead, "weather", "landed", 1)) == 1

    completed = here("load", "weather", path, "--json")

    assert completed.exit_code == 0
    assert objects(completed.stdout)[0]["status"] == "unchanged"
    assert completed.stderr == "a.csv (file 1) is processed by run the run that died; waiting.\n"
    assert [row.status for row in ledger_rows(engine)] == ["loaded", "unchanged"]
    assert count(engine, "production", "measurements") == 2


def test_load_of_two_files_of_one_name_makes_two_versions(
    in_process_runs: None, engine: Engine, home: Path, tmp_path: Path
) -> None:
    one = written(tmp_path / "one" / "a.csv", "A,2020-01-01,1,1")
    two = written(tmp_path / "two" / "a.csv", "A,2020-01-01,2,2")
    three = written(tmp_path / "three" / "a.csv", "A,2020-01-01,1,1")

    completed = here("load", "weather", one, one, two, three, "--json")

    assert completed.exit_code == 0
    assert [outcome["status"] for outcome in objects(completed.stdout)] == ["loaded", "unchanged", "loaded", "loaded"]
    assert [row.version for row in ledger_rows(engine)] == [1, 1, 2, 3]
    with engine.connect() as conn:
        assert conn.execute(select(production().c.temp_c, production().c._file_id)).all() == [(1.0, 4)]


def test_load_shows_progress_on_a_terminal_and_only_there(engine: Engine, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    assert here("sample", "weather", "--rows", "20000", "--out", path).exit_code == 0
    ours, theirs = pty.openpty()
    chunks: list[bytes] = []

    def watch() -> None:
        while True:
            try:
                chunks.append(os.read(ours, 4096))
            except OSError:  # The last holder of the terminal is gone.
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    process = subprocess.Popen(
        [sys.executable, "-m", "mini_platform.cli", "load", "weather", str(path), "--json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    shown, _ = process.communicate(timeout=120)
    thread.join(10)
    os.close(ours)

    assert [outcome["rows_inserted"] for outcome in objects(shown)] == [20000]
    terminal = b"".join(chunks).decode()
    assert "Storing more.csv" in terminal
    assert "Writing tables of more.csv" in terminal
    assert "dagster" not in terminal


def test_redrive_takes_refused_and_failed_files_again_and_changes_nothing_twice(
    in_process_runs: None, engine: Engine, platform: Platform, pipeline: Pipeline, tmp_path: Path
) -> None:
    remaining_file = written(tmp_path / "kept.csv", "A,2020-01-01,1,1", "A,2020-01-02,x,1")
    lost = written(tmp_path / "lost.csv", "A,2020-01-01,2,2")
    pipeline(examples.weather, remaining_file, lost)
    with engine.connect() as conn:
        before = conn.execute(select(production())).all()
    raw = platform.store.path(ledger_rows(engine)[1].sha256)
    raw.rename(raw.with_suffix(".away"))

    without = here("reprocess", "weather", "--json")

    assert without.exit_code == 1
    first, second = objects(without.stdout)
    assert (first["status"], first["rows_superseded"], first["rows_rejected"]) == ("loaded", 1, 1)
    assert second["status"] == "failed"
    assert second["error"].startswith("its raw file is missing")

    raw.with_suffix(".away").rename(raw)
    healed = here("reprocess", "weather", "--file", "2", "--json")

    assert healed.exit_code == 0
    assert [(o["file_id"], o["status"], o["rows_unchanged"]) for o in objects(healed.stdout)] == [(2, "loaded", 1)]
    with engine.connect() as conn:
        assert conn.execute(select(production())).all() == before
    assert here("verify").exit_code == 0


# Listings


def test_files_lists_the_ledger_for_people_and_for_programs(pipeline: Pipeline, tmp_path: Path) -> None:
    assert "No file has arrived yet." in here("files").stderr
    name = f"{'long ' * 40}.csv"
    pipeline(
        examples.weather,
        written(tmp_path / "[red]a\x1b.csv", "A,2020-01-01,1,1"),
        written(tmp_path / name, "A,2020-01-02,1,1"),
    )
    (tmp_path / "b.csv").write_text("")
    pipeline(examples.weather, tmp_path / "b.csv")

    listing = here("files", "weather")
    refused = objects(here("files", "--status", "refused", "--json").stdout)

    assert listing.exit_code == 0
    assert len(listing.stdout.splitlines()) == 5, "a file is one line in a pipe, however long"
    assert name in listing.stdout
    assert "[red]a\\x1b.csv" in listing.stdout, "neither markup nor a command for the terminal"
    assert "The file is empty" in listing.stdout
    assert [(row["file_id"], row["name"], row["version"], row["status"]) for row in refused] == [
        (3, "b.csv", 1, "refused")
    ]
    assert refused[0]["arrived_at"].endswith("Z")
    assert set(Status) == set(STATUSES)


def test_rejects_explain_each_broken_rule(pipeline: Pipeline, tmp_path: Path) -> None:
    one = written(
        tmp_path / "a.csv", "A,2020-01-01,nan,-1", "A,2020-01-02,1,1", "A,2020-01-03,1,1,9", "A,2020-01-04,1,1"
    )
    two = written(tmp_path / "b.csv", "A,2020-01-05,1,1", "A,31/12/2020,1,1")
    pipeline(examples.weather, one, two)

    rows = objects(here("rejects", "weather", "--json").stdout)

    assert [(r["file"], r["line"], r["column"], r["value"], r["rule"]) for r in rows] == [
        ("a.csv", 2, "temp_c", "nan", "temp_c_is_number"),
        ("a.csv", 2, "precip_mm", "-1", "precip_mm_in_range"),
        ("a.csv", 4, None, "A,2020-01-03,1,1,9", "row_has_header_fields"),
        ("b.csv", 3, "date", "31/12/2020", "date_is_date"),
    ]
    assert rows[1]["sentence"] == "precip_mm is outside 0 to 2000 mm/day"
    assert objects(here("rejects", "weather", "--json", "--file", "2").stdout) == rows[3:]
    assert objects(here("rejects", "weather", "--json", "--limit", "2").stdout) == rows[:2]
    shown = here("rejects", "weather").stdout
    assert all(row["sentence"] in shown for row in rows)


def test_rejects_of_a_list_name_its_element(pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"time_stamp": f"2024-01-0{day}T00:00:00Z", "data": [day]} for day in range(10)]))
    pipeline(examples.signals, path)
    (row,) = objects(here("rejects", "signals", "--json").stdout)
    assert (row["line"], row["record"], row["value"]) == (1, 1, "2024-01-00T00:00:00Z")
    assert "element" in here("rejects", "signals").stdout.splitlines()[0]
    (row,) = csv.DictReader(io.StringIO(here("rejects", "signals", "--csv").stdout))
    assert (row["line"], row["record"]) == ("1", "1")


def test_rejects_as_csv_are_harmless_to_spreadsheet_programs(pipeline: Pipeline, tmp_path: Path) -> None:
    values = ("=1+1", "+x", "-2+3", "@a", "-95.5", "+1e309", "plain")
    rows = [f"A,2020-01-{day:02},{value},1" for day, value in enumerate(values, 1)]
    good = [f"A,2021-01-{day:02},1,1" for day in range(1, 20)]
    pipeline(examples.weather, written(tmp_path / "=cmd.csv", *rows, *good))

    cells = list(csv.DictReader(io.StringIO(here("rejects", "weather", "--csv").stdout)))

    assert list(cells[0]) == ["file", "line", "column", "value", "rule", "sentence", "file_id"]
    assert [row["value"] for row in cells] == ["'=1+1", "'+x", "'-2+3", "'@a", "-95.5", "+1e309", "plain"]
    assert {row["file"] for row in cells} == {"'=cmd.csv"}


# verify and explain


def test_verify_finds_what_does_not_agree(
    engine: Engine, platform: Platform, pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline(
        examples.weather,
        written(tmp_path / "a.csv", "A,2020-01-01,1,1"),
        written(tmp_path / "b.csv", "B,2020-01-02,2,2"),
    )
    assert here("verify", "--deep").exit_code == 0

    with engine.begin() as conn:
        conn.execute(text("UPDATE analytics.summary SET rows = 7 WHERE station_id = 'A'"))
        conn.execute(text("DELETE FROM analytics.daily_metrics"))
    one, two = (platform.store.path(row.sha256) for row in ledger_rows(engine))
    one.write_bytes(one.read_bytes().replace(b"2020", b"2021"))
    shallow = here("verify", "weather", "--json")
    two.unlink()
    deep = here("verify", "weather", "--deep", "--json")

    assert (shallow.exit_code, deep.exit_code) == (1, 1)
    daily, summary, raw = objects(shallow.stdout)
    assert [(c["check"], c["ok"], len(c["differences"])) for c in (daily, summary, raw)] == [
        ("daily_metrics", False, 2),
        ("summary", False, 1),
        ("raw_csv", True, 0),
    ]
    assert summary["differences"][0]["key"] == {"station_id": "A"}
    assert (summary["differences"][0]["stored"]["rows"], summary["differences"][0]["computed"]["rows"]) == (7, 1)
    raw = objects(deep.stdout)[2]
    assert [(d["name"], d["problem"]) for d in raw["differences"]] == [
        ("a.csv", "the bytes of its raw file were changed"),
        ("b.csv", "its raw file is missing"),
    ]
    assert "b.csv" in here("verify").stderr


def test_explain_tells_the_whole_story_of_a_row(
    engine: Engine, platform: Platform, pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline(examples.weather, written(tmp_path / "a.csv", "A,2020-01-01,1,1", "B,2020-01-01,9,9"))
    pipeline(
        examples.weather, written(tmp_path / "b.csv", " A ,2020-01-01,2,1", "A,2020-01-01,x,-1", "A,2020-01-01,3,1")
    )
    pipeline(examples.weather, written(tmp_path / "c.csv", "A,2020-01-01,3.0,1"))
    pipeline(examples.weather, written(tmp_path / "d.csv", "A,2020-01-01,4,1", *["A,,,"] * 99))  # refused
    waiting = folder.DroppedFile("e.csv", written(tmp_path / "e.csv", "A,2020-01-01,5,1"), "")
    list(folder.land(engine, examples.weather, platform.store, [waiting]))

    result = here("explain", "weather", "A", "2020-01-01", "--json")

    assert result.exit_code == 0
    (story,) = objects(result.stdout)
    assert story["row"] == {"station_id": "A", "date": "2020-01-01", "temp_c": 3.0, "precip_mm": 1.0}
    assert (story["file_name"], story["version"], story["line"], story["run_id"]) == ("b.csv", 1, 4, "test")
    assert "temp_c_in_range" in story["rules"]
    assert [(o["file"], o["line"], o["values"]["temp_c"], o["verdict"]) for o in story["occurrences"]] == [
        ("a.csv", 2, "1", "superseded"),
        ("b.csv", 2, "2", "superseded"),
        ("b.csv", 3, "x", "rejected"),
        ("b.csv", 4, "3", "current"),
        ("c.csv", 2, "3.0", "unchanged"),
        ("d.csv", 2, "4", "not loaded"),
        ("e.csv", 2, "5", "pending"),
    ]
    assert story["occurrences"][2]["reasons"] == [
        "temp_c is not a number",
        "precip_mm is outside 0 to 2000 mm/day",
    ]
    shown = here("explain", "weather", "A", "2020-01-01").stdout
    assert "b.csv (file 2, version 1)" in shown
    assert "superseded" in shown


def test_explain_says_why_there_is_no_row(
    engine: Engine, platform: Platform, pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline(examples.weather, written(tmp_path / "a.csv", "A,2020-01-01,999,1", "A,2020-01-02,1,1"))
    rejected = here("explain", "weather", "A", "2020-01-01")

    assert rejected.exit_code == 1
    assert "temp_c is outside -90 to 60 °C" in rejected.stdout
    assert "No row of production.measurements has the key station_id=A, date=2020-01-01." in rejected.stderr

    platform.store.path(ledger_rows(engine)[0].sha256).unlink()
    (story,) = objects(here("explain", "weather", "A", "2020-01-02", "--json").stdout)

    assert (story["row"]["temp_c"], story["file_name"], story["line"], story["occurrences"]) == (1.0, "a.csv", None, [])
    assert story["unread"] == ["a.csv (file 1): its raw file is missing"]


# Mistakes


MISTAKES = (
    (["load", "wether", "x.csv"], "There is no dataset 'wether'; did you mean weather? The datasets are: "),
    (["files", "x"], "There is no dataset 'x'. The datasets are: "),
    (["lod", "weather"], "Did you mean 'load'?"),
    (["load", "weather", "/none/x.csv"], "/none/x.csv: No such file or directory"),
    (["load", "weather", f"{SAMPLES}/seatle.csv"], "seatle.csv: No such file or directory; did you mean seattle.csv?"),
    (["load", "weather", "/"], "/: it is a folder"),
    (["load", "weather", "/dev/null"], "/dev/null: it is not a regular file"),
    (["explain", "weather", "A"], "The key of weather has 2 values (station_id, date), not 1."),
    (["explain", "weather", "A", "2020-02-30"], "date: '2020-02-30' is not a date of the form YYYY-MM-DD."),
    (["explain", "weather", " ", "2020-02-03"], "station_id: ' ' is empty."),
    (["rejects", "weather", "--file", "99"], "weather has no file 99."),
    (["reprocess", "weather", "--file", "99"], "weather has no file 99."),
    (["rejects", "weather", "--csv", "--json"], "Use either --csv or --json."),
    (["files", "--status", "lost"], "lost"),
    (["sample", "weather", "--out", "/none/x.csv"], "/none is not a folder."),
    (["sample", "weather", "--out", "x.csv", "--dirty", "2"], "dirty"),
)


def test_a_mistake_is_a_sentence_and_exit_code_2(home: Path, subtests: pytest.Subtests) -> None:
    for arguments, sentence in MISTAKES:
        with subtests.test(" ".join(arguments)):
            result = here(*arguments)

            assert (result.exit_code, result.stdout) == (2, "")
            assert sentence in result.stderr


WRONG_SETTINGS = (
    (
        "MINI_PLATFORM_LEASE_SECONDS",
        "0",
        2,
        "MINI_PLATFORM_LEASE_SECONDS is not valid: Input should be greater than 0.",
    ),
    ("MINI_PLATFORM_DAGSTER_PORT", "x", 2, "MINI_PLATFORM_DAGSTER_PORT is not valid: "),
    ("DATABASE_URL", "nonsense", 2, "DATABASE_URL is not valid: Value error, it should look like postgresql://"),
    ("DATABASE_URL", "sqlite:///x.db", 2, "DATABASE_URL names a sqlite database; Postgres is required."),
    ("DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/x", 1, "The database x at 127.0.0.1:1 cannot be reached"),
)


def test_a_wrong_setting_is_a_sentence(home: Path, subtests: pytest.Subtests) -> None:
    for name, value, code, sentence in WRONG_SETTINGS:
        with subtests.test(f"{name}={value}"), pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, value)
            result = here("files")

            assert (result.exit_code, result.stdout) == (code, "")
            assert sentence in result.stderr
            assert "secret" not in result.stderr


# Tools


def test_the_format_of_a_sample(tmp_path: Path) -> None:
    """The format is the requested one, otherwise that of the name of the file."""

    def sample(*options: str) -> str:
        result = here("sample", "customers", "--rows", "3", *options)
        assert result.exit_code == 0, result.output
        return result.stdout

    forms = {form: sample("--out", "-", "--format", form) for form in ("csv", "jsonl", "json")}
    rows = json.loads(forms["json"])
    assert [json.loads(line) for line in forms["jsonl"].splitlines()] == rows
    assert len(rows) == 3
    assert len(forms["csv"].splitlines()) == 4
    assert forms["csv"].startswith("index,")
    for name, form in (("a.csv", "csv"), ("a.jsonl", "jsonl"), ("a.json", "json")):
        sample("--out", str(tmp_path / name))
        assert (tmp_path / name).read_text() == forms[form]
    sample("--out", str(tmp_path / "b.json"), "--format", "jsonl")
    assert (tmp_path / "b.json").read_text() == forms["jsonl"], "what is asked for counts"
    result = here("sample", "customers", "--out", "-", "--format", "xml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'xml' is not a format. The formats are: csv, jsonl, json." in result.stderr


def test_the_same_seed_gives_the_same_sample(tmp_path: Path) -> None:
    def sample(seed: int) -> str:
        result = here("sample", "weather", "--rows", "200", "--dirty", "0.1", "--seed", str(seed), "--out", "-")
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout

    assert sample(1) == sample(1) != sample(2)
    written_to = tmp_path / "a.csv"
    result = here("sample", "weather", "--rows", "200", "--dirty", "0.1", "--seed", "1", "--out", written_to, "--json")
    assert written_to.read_bytes().decode().splitlines() == sample(1).splitlines()
    (summary,) = objects(result.stdout)
    assert (summary["rows"], sum(summary["dirty"].values())) == (200, 20)


@given(user=st.none() | st.text(min_size=1), password=st.none() | st.text(min_size=1), database=st.text(min_size=1))
def test_libpq_reads_the_url_as_sqlalchemy_does(user: str | None, password: str | None, database: str) -> None:
    def storable(words: str | None) -> str | None:
        return words and (words.replace("\0", "").encode(errors="ignore").decode() or "x")

    user, password, database = storable(user), storable(password) if user else None, storable(database) or ""
    query = {"host": "/a folder/with?odd&signs=%", "connect_timeout": "5"}
    url = URL.create("postgresql+psycopg2", user, password, None, None, database, query)

    parsed = psycopg2.extensions.parse_dsn(libpq_url(url))

    assert parsed == {k: v for k, v in {"user": user, "password": password, "dbname": database, **query}.items() if v}


def test_psql_takes_the_url_as_it_is_printed(engine: Engine, home: Path) -> None:
    url = here("url").stdout.strip()
    shown = subprocess.run(
        [binary("psql"), url, "-Atc", "SELECT current_database()"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == engine.url.database


def test_psql_gets_its_arguments_and_no_password_among_them(engine: Engine, home: Path) -> None:
    secret = engine.url.set(password="S3CRET €/@").render_as_string(hide_password=False)
    arguments = "\\! tr '\\0' ' ' < /proc/$PPID/cmdline; echo"

    completed = cli(
        "psql",
        "-At",
        "-v",
        "x=-h",
        "-c",
        "SELECT 41 + 1",
        "-c",
        arguments,
        "-c",
        "\\! echo $PGPASSWORD",
        DATABASE_URL=secret,
    )

    answer, command, password = completed.stdout.splitlines()
    assert (completed.returncode, answer, password) == (0, "42", "S3CRET €/@")
    assert "x=-h" in command
    assert "S3CRET" not in command


def test_status_knows_that_nothing_runs(home: Path) -> None:
    (status,) = objects(here("status", "--json").stdout)
    assert (status["running"], status["home"]) == (False, str(home))
    assert "running" in here("status").stdout


def test_help_is_quick() -> None:
    """Measured by what it imports, as times depend on the machine: 0.3 s instead of 4 s here."""
    heavy = {"dagster", "polars", "pandera", "pandas", "sqlalchemy", "pydantic", "psutil"}
    code = f"import sys; from mini_platform.cli import app; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    help_text = here("--help").stdout
    for command in (
        "up",
        "down",
        "status",
        "load",
        "files",
        "rejects",
        "reprocess",
        "verify",
        "explain",
        "sample",
        "url",
        "psql",
    ):
        assert f" {command} " in help_text
        assert here(command, "--help").exit_code == 0
