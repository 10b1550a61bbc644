"""Personal data that is kept in the tables (`personal="mask"`) is shown nowhere: not by Dagster, nor by the command line.

Each personal cell of the files holds a canary, in valid rows, in rejected ones, in records without columns, under names that
nobody declared, and where a header should stand. Everything that a run leaves in Dagster's event log and that commands print
is searched for it. The tables keep it: that is what the dataset is for.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster import serialize_value
from sqlalchemy import Engine, select, text
from typer.testing import CliRunner

from mini_platform.cli import app
from mini_platform.datasets import all_datasets
from mini_platform.definitions import build_defs
from mini_platform.warehouse.tables import dataset_tables
from mini_platform_tests.support.examples import customers

CUSTOMERS = customers
CANARY = "canary7"
PERSONAL = ("first_name", "last_name", "phone_1", "phone_2", "email", "website")
VALID = {
    "index": "1",
    "customer_id": "C1",
    "first_name": f"First{CANARY}",
    "last_name": f"Last{CANARY}",
    "company": "Company",
    "city": "Oslo",
    "country": "Norway",
    "phone_1": f"+47 {CANARY}",
    "phone_2": f"+48 {CANARY}",
    "email": f"{CANARY}@example.org",
    "subscription_date": "2024-02-03",
    "website": f"https://{CANARY}.example.org/",
}


def csv_of(*rows: dict[str, str], header: bool = True, more: str = "") -> bytes:
    lines = [",".join(VALID)] if header else []
    return "\n".join([*lines, *(",".join((VALID | row).values()) for row in rows), more, ""]).encode()


def nested(**cells: str) -> dict[str, object]:
    return {"user": {column.aliases[0].removeprefix("user_"): cells.get(column.name, VALID[column.name])
                     for column in CUSTOMERS.read_columns}}  # fmt: skip


FILES = {
    "valid.csv": csv_of({}, {"customer_id": "C2"}),
    "rejected.csv": csv_of(
        *({"customer_id": f"G{n}"} for n in range(9)),
        {"customer_id": "C3", "email": f"{CANARY} at example.org"},
        {"customer_id": "C4", "subscription_date": "2024-02-30"},
        {"customer_id": ""},
        more=f"{CANARY},{CANARY}@example.org",
    ),
    "refused.csv": csv_of(*[{"email": CANARY}] * 99, {"email": f"@{CANARY}"}, more=f"{CANARY},"),
    "without-header.csv": csv_of({}, {}, header=False),
    "wider.csv": csv_of().replace(b"website\n", b"website,note\n")
    + (",".join([*(VALID | {"customer_id": "C5"}).values(), f"a note about {CANARY}"]) + "\n").encode(),
    "cut.json": json.dumps([nested()])[:-4].encode(),
    "nested.json": json.dumps([nested(customer_id="C6"), nested(customer_id="C7") | {"note": CANARY}]).encode(),
    "lines.jsonl": "\n".join(
        [
            *(json.dumps(nested(customer_id=f"L{n}")) for n in range(6)),
            json.dumps(nested(email=CANARY)),
            json.dumps([CANARY]),
            f'{{"email": "{CANARY}" "{CANARY}"}}',
            f'{{"email": "{CANARY}", "email": "{CANARY}"}}',
            f'{{"email": {CANARY}}}',
        ]
    ).encode(),
}


def occurrences(what: str, output: str) -> list[str]:
    return [f"{what}: …{output[max(0, m.start() - 150) : m.end() + 30]}…" for m in re.finditer(CANARY, output)]


def test_shown_nowhere(data: Path, home: Path, engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    for name, content in FILES.items():
        (data / "customers" / name).write_bytes(content)
        os.utime(data / "customers" / name, (time.time() - 60,) * 2)
    defs = build_defs(all_datasets())
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("load_customers").execute_in_process(instance=instance, raise_on_error=False)
        assert result.success
        events = instance.all_logs(result.run_id)
        leaks = occurrences("the event log", "\n".join(serialize_value(event) for event in events))
        assert any("failing_rows" in serialize_value(event) for event in events), "samples of rejected rows are shown"
    printed = capfd.readouterr()
    leaks += occurrences("standard output", printed.out) + occurrences("standard error", printed.err)
    commands = (
        *("files", "files --json", "status --json", "verify"),
        *("rejects customers", "rejects customers --json", "explain customers C1", "explain customers C3 --json"),
        *(
            "explain customers C4",
            "explain customers C7 --json",
            "reprocess customers",
            f"explain customers {'x' * 99}",
        ),
    )
    for command in commands:
        invocation = CliRunner().invoke(app, command.split())
        assert invocation.exit_code in (0, 1), (command, invocation.output)
        assert invocation.output, command
        leaks += occurrences(command, invocation.output)
    with engine.connect() as conn:
        for table in ("ops.files", "analytics.quality_report", "analytics.customers_by_country"):
            leaks += occurrences(table, str(conn.execute(text(f"SELECT * FROM {table}")).all()))  # noqa: S608
    assert not leaks, "\n".join(leaks[:20])


def test_the_tables_keep_it(data: Path, home: Path, engine: Engine) -> None:
    """And every file of the canary's does what it is there for."""
    for name, content in FILES.items():
        (data / "customers" / name).write_bytes(content)
        os.utime(data / "customers" / name, (time.time() - 60,) * 2)
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_defs(all_datasets()).resolve_job_def("load_customers")
        assert job.execute_in_process(instance=instance).success
    tables = dataset_tables(CUSTOMERS)
    with engine.connect() as conn:
        status = dict(conn.execute(text("SELECT name, status FROM ops.files")).tuples().all())
        assert status == dict.fromkeys(FILES, "loaded") | dict.fromkeys(
            ("refused.csv", "without-header.csv", "cut.json"), "refused"
        )
        rows = conn.execute(select(tables.production)).mappings().all()
        assert {row["customer_id"] for row in rows} == {
            *(f"C{n}" for n in (1, 2, 5, 6, 7)), *(f"G{n}" for n in range(9)), *(f"L{n}" for n in range(6))
        }  # fmt: skip
        for row in rows:
            assert [CANARY in row[name] for name in PERSONAL] == [True] * len(PERSONAL)
        broken = conn.execute(select(tables.quarantine.c._rules)).scalars().all()
    rules = {rule for rules in broken for rule in rules}
    assert rules == {
        *("email_email", "subscription_date_is_date", "customer_id_required", "row_has_header_fields"),
        *("row_is_object", "row_is_json", "row_names_once"),
    }


def test_which_columns_are_personal() -> None:
    assert tuple(column.name for column in CUSTOMERS.columns if column.personal) == PERSONAL
