"""Personal data that stands where it should not: rows that are shifted, keys of objects that are data.

Nobody declared the title of a product to be personal, and one comma too many puts an address there. Each file has such
rows; all that the platform keeps and shows besides the raw files is searched for what marks a person.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from dagster import serialize_value
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, Text, select, text
from typer.testing import CliRunner

from mini_platform import Csv, Dataset, Field, Json, RowModel
from mini_platform.cli import app
from mini_platform.datasets import all_datasets
from mini_platform.definitions import build_defs
from mini_platform.platform import Platform
from mini_platform.rows.protection import shape, shapes
from mini_platform.warehouse import ledger, validated_rows
from mini_platform.warehouse.tables import files
from mini_platform.web.api import relations
from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.examples import customers, sales
from mini_platform_tests.support.orders import csv_of, order

CANARIES = (
    "Canary Quux",
    "canary.quux@example.org",
    "+49 30 9018271",
    "499018271",
    "9018271.5",
    "13 Quux Lane 9018271",
)
MARK = re.compile(r"quux|9018271", re.IGNORECASE)
SALES = replace(sales, sources=(Csv(), Json()), unexpected_columns="ignore")
CUSTOMERS = customers
OPEN = [column.name for column in SALES.read_columns if not column.personal]
PERSON = {
    "customer_name": CANARIES[0],
    "customer_email": CANARIES[1],
    "customer_phone": CANARIES[2],
    "customer_address": CANARIES[5],
}


def person(number: int, **cells: str) -> str:
    """An order of hers."""
    values = PERSON | cells
    return order(number, values.pop("customer_email"), values.pop("customer_name"), **values)


def others(count: int = 150) -> list[str]:
    """So many valid orders that the file is not refused."""
    return [order(n, f"buyer{n}@example.org") for n in range(count)]


def rotated(row: str, by: int) -> str:
    cells = row.split(",")
    return ",".join(cells[by:] + cells[:by])


def as_json(number: int, **more: object) -> dict[str, object]:
    names = [column.name for column in SALES.read_columns]
    return dict(zip(names, order(number, f"buyer{number}@example.org").split(","), strict=True)) | more


SHIFTED = {
    "wrong-column.csv": csv_of(
        *others(),
        *(person(200 + 10 * n + m, **({column: value, "is_best_seller": "perhaps"}
                 if column != "is_best_seller" else {column: value}))
          for n, column in enumerate(OPEN) if column != "order_id" for m, value in enumerate(CANARIES)),
        *(order(0, "a@example.org", order_id=value) for value in CANARIES),
    ),
    "rotated.csv": csv_of(*others(40), *(rotated(person(300 + by), by) for by in range(1, 16))),
    "comma.csv": csv_of(
        *others(40),
        *(person(320).replace(cell, f"Quux,{cell}") for cell in PERSON.values()),
        *(person(321).replace(f",{cell}", "") for cell in PERSON.values()),
        # One field too many, and one too few, elsewhere: the number is right again.
        person(322).replace("Canary Quux", "Quux,Canary").replace(",2024-05-02T10:00:00Z", ""),
        person(323).replace("+49 30 9018271,", "").replace(",Toys", ",Toys,Quux"),
    ),
    "order-of-columns.csv": csv_of(*others(98), *(person(330 + n) for n in range(2))).replace(
        b"customer_name,customer_email,customer_phone,customer_address,product_title",
        b"product_title,customer_name,customer_phone,customer_address,customer_email",
    ),
}  # fmt: skip
UNDECLARED = {
    "wider.csv": csv_of(*others(40), person(340, quantity="none")).replace(b"order_date\n", b"order_date,Quux\n", 1)
    .replace(b",2024-05-02\n", b",2024-05-02,Canary Quux\n"),
    "keys.json": json.dumps(
        [*(as_json(n) for n in range(20)),
         *(as_json(350 + n, **{value: "1", "buyers": {value: value}}) for n, value in enumerate(CANARIES)),
         as_json(360, quantity={CANARIES[1]: CANARIES[0]}),
         as_json(361, product_title=[CANARIES[1]], quantity="0"),
         as_json(362, product_category={CANARIES[1]: {CANARIES[2]: 1}})]
    ).encode(),
    "keys.jsonl": "\n".join(
        [*(json.dumps(as_json(n)) for n in range(20)),
         json.dumps({CANARIES[1]: 1}),
         f'{{"{CANARIES[1]}": "{CANARIES[0]}", "{CANARIES[1]}": 2}}',
         f'{{"{CANARIES[1]}" {CANARIES[1]}}}',
         json.dumps(CANARIES)]
    ).encode(),
}  # fmt: skip


def load(data: Path, home: Path, dataset: Dataset, contents: Mapping[str, bytes]) -> str:
    """Drop files and load them as Dagster does; all that its event log and its own files say."""
    for name, content in contents.items():
        (data / dataset.name / name).write_bytes(content)
        os.utime(data / dataset.name / name, (0, 1_700_000_000))
    (home / "dagster").mkdir(parents=True)
    with dg.DagsterInstance.local_temp(str(home / "dagster")) as instance:
        job = build_defs(all_datasets() | {dataset.name: dataset}).resolve_job_def(f"load_{dataset.name}")
        result = job.execute_in_process(instance=instance)
        assert result.success
        return "\n".join(serialize_value(entry) for entry in instance.all_logs(result.run_id))


def command_outputs(*commands: str) -> dict[str, str]:
    outputs = {}
    for command in commands:
        result = CliRunner().invoke(app, command.split())
        assert result.exit_code in (0, 1), (command, result.output)
        assert result.output, command
        outputs[command] = result.output
    return outputs


def tables(engine: Engine) -> dict[str, str]:
    """Every row of every table of every schema, as text."""
    with engine.connect() as conn:
        names = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname !~ '^(pg_|information)'"
        return {
            name: "\n".join(conn.execute(text(f"SELECT t::text FROM {name} t")).scalars())  # noqa: S608
            for name in conn.execute(text(names)).scalars().all()
        }


def leaks(places: Mapping[str, str], mark: re.Pattern[str] = MARK) -> list[tuple[str, str]]:
    return [
        (place, content[max(0, m.start() - 80) : m.end() + 20])
        for place, content in places.items()
        for m in mark.finditer(content)
    ]


def everything(home: Path, engine: Engine, *commands: str) -> dict[str, str]:
    """All that the platform keeps and shows besides the raw files."""
    own = (path for path in home.rglob("*") if path.is_file() and not path.is_relative_to(home / "raw"))
    return (
        command_outputs(*commands)
        | tables(engine)
        | {str(path): path.read_bytes().decode("utf-8", "replace") for path in own}
    )


def test_a_shifted_row_gives_nobody_away(
    home: Path, data: Path, engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = {"events": load(data, home, SALES, SHIFTED)}
    with engine.connect() as conn:
        statuses = dict(conn.execute(text("SELECT name, status FROM ops.files")).tuples().all())
        assert statuses == dict.fromkeys(SHIFTED, "loaded") | {"order-of-columns.csv": "refused"}
        assert conn.scalar(text("SELECT count(*) FROM quarantine.orders")) >= len(OPEN) * len(CANARIES)
        assert conn.scalar(text("SELECT count(*) FROM staging.orders WHERE _rules IS NOT NULL")) > 80
    texts |= everything(
        home, engine, *("rejects sales", "rejects sales --json", "files --json", "explain sales T000000322", "verify"),
        *("explain sales T000000212 --json", "explain sales T000000225"),
    )  # fmt: skip
    printed = capfd.readouterr()
    texts |= {"standard output": printed.out, "standard error": printed.err}
    assert leaks(texts)[:20] == []
    raw = "".join(path.read_bytes().decode() for path in (home / "raw").rglob("*") if path.is_file())
    assert len(MARK.findall(raw)) > 300, "where it is in clear, the marks are found"
    assert "aaaaaa.aaaa@aaaaaaa.aaa" in texts["rejects sales"], "what is wrong is shown by its shape"


def test_nor_does_a_name_that_nobody_declared(home: Path, data: Path, engine: Engine) -> None:
    texts = {"events": load(data, home, SALES, UNDECLARED)}
    with engine.connect() as conn:
        statuses = dict(conn.execute(text("SELECT name, status FROM ops.files")).tuples().all())
        assert statuses == dict.fromkeys(UNDECLARED, "loaded")
    texts |= everything(home, engine, "rejects sales", "files --json", "explain sales T000000361", "verify")
    assert leaks(texts)[:20] == []
    assert "aaaaaa.aaaa@aaaaaaa.aaa" in texts["ops.files"], "it is known by its shape"


def test_what_is_not_shown_is_not_lost(tmp_path: Path, platform: Platform, pipeline: Pipeline) -> None:
    """Validated again by other rules, the row is loaded as it arrived: it is read from the raw file."""
    category = "Toys and more " * 8
    (tmp_path / "a.csv").write_bytes(csv_of(*others(3), order(5, "ada@example.org", product_category=category)))
    pipeline(SALES, tmp_path / "a.csv")
    with platform.engine.begin() as conn:
        quarantined_category = conn.scalar(text("SELECT product_category FROM quarantine.orders"))
        assert quarantined_category == "aaaa aaa aaaa " * 8
        ledger.return_to_landed(conn, "sales", files.c.status == "loaded")
    attributes = {name: value for name, value in vars(SALES.rows).items() if name not in ("__dict__", "__weakref__")}
    wider = attributes | {"product_category": Field("Category", str_length={"min_value": 1, "max_value": 150})}
    pipeline(replace(SALES, rows=type("Wider", (RowModel,), wider)))
    with platform.engine.connect() as conn:
        query = "SELECT product_category FROM production.orders WHERE order_id = 'T000000005'"
        assert conn.scalar(text(query)) == category.strip()


def customer(number: int, **cells: str) -> str:
    names = [column.name for column in CUSTOMERS.read_columns]
    defaults = dict.fromkeys(names, "x") | {
        "index": str(number), "customer_id": f"C{number}", "email": "a@example.org", "subscription_date": "2024-02-03"
    }  # fmt: skip
    return ",".join((defaults | cells).values())


@pytest.mark.parametrize("large", [False, True])
def test_what_is_only_masked_is_not_shown_where_it_is_shifted(
    home: Path, data: Path, engine: Engine, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:  # Of a large file that comes alone figures are kept.
        monkeypatch.setattr(validated_rows, "GATHERED_ROWS", 100)
    columns = [column.name for column in CUSTOMERS.read_columns]
    rows = [customer(n) for n in range(60)]
    rows += [
        customer(100 + 10 * n + m, email="none", **{column: value})
        for n, column in enumerate(columns) if column != "email" for m, value in enumerate(CANARIES)
    ]  # fmt: skip
    keys = {"customer_id": "C1", "index": "1", "email": "a@example.org", "subscription_date": "2024-02-03"}
    contents = {
        "shifted.csv": "\n".join([",".join(columns), *rows, *rows[:60], ""]).encode(),
        "keys.jsonl": "\n".join(json.dumps(keys | {value: value}) for value in CANARIES).encode(),
    }
    if large:
        del contents["keys.jsonl"]
    texts = {"events": load(data, home, CUSTOMERS, contents)}
    with engine.connect() as conn:
        rejects = relations.rejects(CUSTOMERS)
        listed = select(*(column.element for column in rejects.columns.values())).select_from(rejects.source)
        texts["the list of rejects"] = str(conn.execute(listed).all())
        assert bool(conn.scalar(text("SELECT count(figures) FROM ops.files"))) == large
    texts |= command_outputs(
        "rejects customers", "rejects customers --json", "files --json", "explain customers C100", "verify"
    )
    texts |= {name: rows for name, rows in tables(engine).items() if name.startswith(("ops.", "analytics.quality"))}
    assert leaks(texts)[:20] == []
    assert "aaaaaa.aaaa@aaaaaaa.aaa" in texts["events"]
    assert "aaaaaa.aaaa@aaaaaaa.aaa" in texts["the list of rejects"]


@given(st.text(max_size=30) | st.from_regex(r"[ +-]?[0-9]{1,8}([.][0-9]{0,4})?", fullmatch=True))
def test_a_shape_is_alike_alone_and_in_a_column(value: str) -> None:
    assert shapes(pl.Series([value, None])).to_list() == [shape(value), None]
    assert shape(shape(value)) == shape(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Ada.Byron+1@example.org", "aaa.aaaaa+9@aaaaaaa.aaa"),
        ("Ångström 李 5", "aaaaaaaa a 9"),
        ("+1 202 555 0199", "+9 999 999 9999"),
        ("12025550199", "99999999999"),
        ("5550199", "9999999"),
        ("ada\n2024-01-01", "aaaa9999-99-99"),
        ("\u0663\u0664 \uff11\u200b\u0301", "aa aaa"),
        ("x" * 300, "a" * 200),
        *((text, text) for text in ("", "0", "-12.50", "123456", "2024-02-30", "2024-02-30T25:00:00.5Z", "Yes", " 7 ")),
    ],
)
def test_shapes(value: str, expected: str, engine: Engine) -> None:
    assert shape(value) == expected
    with engine.connect() as conn:
        subquery = text("SELECT CAST(:value AS text) AS cell").columns(cell=Text).bindparams(value=value).subquery()
        assert conn.scalar(select(relations._shape(subquery.c.cell))) == expected
