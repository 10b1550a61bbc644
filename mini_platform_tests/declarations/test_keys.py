"""Keys: what tells the rows of a declared dataset apart."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Engine, text

from mini_platform import Csv, Dataset, DeclarationError, Field, Json, KeepHighest, RejectLimit, RowModel
from mini_platform.operations.explain import explain_row, parse_key
from mini_platform.platform import Platform
from mini_platform.rows.readers import ReadLimits
from mini_platform.rows.readers.json import read_json
from mini_platform.warehouse.places import tables_of
from mini_platform.warehouse.quality import measure
from mini_platform.warehouse.schema import MismatchError, create_all
from mini_platform.warehouse.tables import ops_metadata
from mini_platform_tests.support.trial import Declared, Trial

Cells = dict[str, tuple[Any, dict[str, Any], list[str], list[Any]]]
KINDS: Cells = {
    "str": (str, {}, ["a", "B", "ä"], ["a", "B", "ä"]),
    "int": (int, {}, ["-9223372036854775808", "0", "9223372036854775807"], [-(2**63), 0, 2**63 - 1]),
    "float": (float, {}, ["298.15", "-1e-300", "0.1"], [298.15, -1e-300, 0.1]),
    "decimal": (Decimal, {}, ["9.49", "19.95", "-0.01"], [Decimal("9.49"), Decimal("19.95"), Decimal("-0.01")]),
    "decimal_0": (Decimal, {"decimals": 0}, ["1", "12345678901234567", "-3"], [1, 12345678901234567, -3]),
    "decimal_9": (Decimal, {"decimals": 9}, ["0.000000001", "1", "2.5"], [Decimal("0.000000001"), 1, Decimal("2.5")]),
    "date": (dt.date, {}, ["0001-01-01", "2024-02-29"], [dt.date(1, 1, 1), dt.date(2024, 2, 29)]),
    "datetime": (
        dt.datetime,
        {},
        ["2024-01-01T00:00:00.000001Z", "2024-01-01T00:00:00+01:00"],
        [dt.datetime(2024, 1, 1, 0, 0, 0, 1, dt.UTC), dt.datetime(2023, 12, 31, 23, tzinfo=dt.UTC)],
    ),
    "bool": (bool, {}, ["true", "NO"], [True, False]),
}
"""Type, options, cells, and what they are."""


def dataset(
    keys: dict[str, tuple[Any, dict[str, Any]]], rest: dict[str, tuple[Any, dict[str, Any]]], **options: Any
) -> Dataset:
    """A dataset `t` with these columns: name -> type and options of `Field`."""
    columns = keys | rest
    body = {name: Field(name, **field_options) for name, (_, field_options) in columns.items()}
    hints = {name: kind for name, (kind, _) in columns.items()}
    model = type("Row", (RowModel,), body | {"__annotations__": hints, "__module__": __name__})
    return Dataset(name="t", table="t", description="x", rows=model, **{"key": tuple(keys)} | options)


def explained(trial: Trial, *key: str) -> Any:
    with trial.platform.engine.connect() as conn:
        raw = trial.platform.raw_files(trial.dataset)
        return explain_row(conn, trial.dataset, parse_key(trial.dataset, key), raw)


def csv(*rows: tuple[Any, ...]) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_any_type(declared: Declared, kind: str) -> None:
    """A key of any type is stored as it came; its row is updated, unchanged, retracted and explained by it."""
    python_type, options, cells, values = KINDS[kind]
    stored_by_its_key(declared, {"k": (python_type, options)}, [(cell,) for cell in cells], [(v,) for v in values])


def test_a_key_of_all_types_together(declared: Declared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mini_platform.warehouse.load.BULK_ROWS", 1)
    columns = {f"k_{kind}": (python_type, options) for kind, (python_type, options, _, _) in KINDS.items()}
    cells = [tuple(of_kind[i % len(of_kind)] for _, _, of_kind, _ in KINDS.values()) for i in range(3)]
    values = [tuple(of_kind[i % len(of_kind)] for _, _, _, of_kind in KINDS.values()) for i in range(3)]
    stored_by_its_key(declared, columns, cells, values)


def stored_by_its_key(
    declared: Declared, key: Any, cells: list[tuple[str, ...]], values: list[tuple[Any, ...]]
) -> None:
    trial = declared(dataset(key, {"n": (int | None, {})}))

    def numbers() -> dict[tuple[Any, ...], int]:
        return {tuple(row): n for *row, n in trial.rows(*key, "n")}

    first = trial.load("a.csv", csv((*key, "n"), *((*row, 1) for row in cells)))
    assert (first.rows_inserted, first.rows_rejected) == (len(cells), 0)
    assert numbers() == dict.fromkeys(values, 1)
    *same, changed = cells
    second = trial.load("b.csv", csv((*key, "n"), *((*row, 1) for row in same), (*changed, 2), (*changed, 3)))
    counts = (second.rows_unchanged, second.rows_updated, second.rows_superseded, second.rows_inserted)
    assert counts == (len(cells) - 1, 1, 1, 0)
    expected = dict.fromkeys(values, 1) | {values[-1]: 3}
    assert numbers() == expected
    assert [o.verdict for o in explained(trial, *changed).occurrences] == ["superseded", "superseded", "current"]
    trial.reprocess()
    assert numbers() == expected


def test_spellings_of_one_number_are_one_key(declared: Declared) -> None:
    """-0.0 and 0.0, 1 and 1.00 are one key within a file and between files."""
    trial = declared(dataset({"f": (float, {}), "d": (Decimal, {})}, {"n": (int, {})}))
    loaded = trial.load("a.csv", "f,d,n\n0.0,1,1\n-0.0,1.00,2\n")
    assert (loaded.rows_inserted, loaded.rows_superseded, loaded.keys_unique) == (1, 1, False)
    assert trial.load("b.csv", "f,d,n\n0,+1.0,2\n").rows_unchanged == 1


def test_no_column_counts_by_itself() -> None:
    """Only what is declared an identity is generated by the database."""
    tables = [*ops_metadata.tables.values()]
    for python_type, options, _, _ in KINDS.values():
        tables += tables_of(dataset({"k": (python_type, options)}, {}))
    counters = [table.autoincrement_column for table in tables if table.autoincrement_column is not None]
    assert all(column.identity for column in counters)


OLD = """
CREATE TABLE production.t (
    k {} PRIMARY KEY, n bigint, _file_id bigint NOT NULL, _loaded_at timestamptz NOT NULL, _extra jsonb
);
COMMENT ON TABLE production.t IS 'Things'"""


def test_a_needless_counter_of_an_earlier_version_goes(engine: Engine, declared: Declared) -> None:
    with engine.begin() as conn:
        conn.execute(text(OLD.format("bigserial")))
        conn.execute(text("INSERT INTO production.t VALUES (7, 1, 1, now())"))
    trial = declared(dataset({"k": (int, {})}, {"n": (int | None, {})}))
    assert trial.rows("k", "n") == [(7, 1)]
    with engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) FROM pg_class WHERE relkind = 'S' AND relname = 't_k_seq'")) == 0
        assert conn.scalar(text("SELECT count(*) FROM pg_attrdef WHERE adrelid = 'production.t'::regclass")) == 0


def test_a_lossy_counter_of_an_earlier_version_is_reported(platform: Platform, declared: Declared) -> None:
    """The repair that the message proposes brings every digit back."""
    prices = dataset({"k": (Decimal, {})}, {"n": (int | None, {})})
    trial = declared(prices)
    trial.load("a.csv", "k,n\n9.49,1\n19.95,2\n")
    with platform.engine.begin() as conn:
        conn.execute(text("DROP TABLE production.t"))
        conn.execute(text(OLD.format("serial")))
        conn.execute(text("INSERT INTO production.t VALUES (9, 1, 1, now()), (20, 2, 1, now())"))
        conn.execute(text("DELETE FROM ops.fingerprints WHERE name = 't'"))
    with pytest.raises(MismatchError, match=r"production\.t\.k was made a counter") as error:
        raise create_all(platform.engine, [prices])["t"]
    assert "`mini-platform psql -c 'DROP TABLE production.t CASCADE'`" in str(error.value)
    assert "`mini-platform reprocess t`" in str(error.value)
    with platform.engine.begin() as conn:
        conn.execute(text("DROP TABLE production.t CASCADE"))
    create_all(platform.engine, [prices])
    trial.reprocess()
    assert trial.rows("k", "n") == [(Decimal("9.49"), 1), (Decimal("19.95"), 2)]


@pytest.mark.parametrize(
    ("personal", "one", "other", "bulk"),
    [("hash", "Ada@x.org", "ada@x.org", True), ("last4", "0151 1234567", "+49 151 123-4567", False)],
)
@pytest.mark.parametrize("duplicates", ["last", "first", "reject", KeepHighest("n")], ids=str)
def test_uniqueness_is_validated_on_what_is_stored(
    declared: Declared,
    monkeypatch: pytest.MonkeyPatch,
    duplicates: Any,
    personal: str,
    one: str,
    other: str,
    *,
    bulk: bool,
) -> None:
    """Two spellings of one person are one key, and the person is found by either."""
    if bulk:
        monkeypatch.setattr("mini_platform.warehouse.load.BULK_ROWS", 1)
    key = {"who": (str, {"personal": personal})}
    trial = declared(dataset(key, {"n": (int, {})}, duplicates=duplicates, unexpected_columns="ignore"))
    rows = [(one, 1), (other, 2), ("Bob 22222222", 5), ("Cyd 33333333", 6), ("Eve 44444444", 6)]
    file = trial.load("a.csv", csv(("who", "n"), *rows))
    expected = {"first": [1], "reject": []}.get(str(duplicates), [2])
    assert [n for (n,) in trial.rows("n") if n < 5] == expected
    assert (file.status, file.rows_superseded, file.rows_rejected) == (
        "loaded",
        *((0, 2) if duplicates == "reject" else (1, 0)),
    )
    explanation = explained(trial, one)
    lost = "rejected" if duplicates == "reject" else "superseded"
    results = [(o.line, o.verdict) for o in explanation.occurrences]
    assert results == [(2, "current" if expected == [1] else lost), (3, "current" if expected == [2] else lost)]
    assert (explanation.row is not None) == bool(expected)
    assert trial.load("b.csv", csv(("who", "n"), (other, *(expected or [7])))).rows_unchanged == len(expected)


def test_a_person_is_located_by_an_earlier_key_too(declared: Declared, monkeypatch: pytest.MonkeyPatch) -> None:
    people = declared(
        dataset({"who": (str, {"personal": "hash"})}, {"n": (int, {})}, unexpected_columns="ignore")
    ).dataset

    def with_keys(keys: str) -> Trial:
        monkeypatch.setenv("MINI_PLATFORM_PII_KEYS", keys)
        return Trial(Platform({"t": people}), people)

    with_keys("old:0123456789abcdef").load("a.csv", "who,n\nada@x.org,1\n")
    trial = with_keys("new:fedcba9876543210,old:0123456789abcdef")
    assert explained(trial, "Ada@x.org").row["n"] == 1
    ((stored,),) = trial.rows("who")
    assert explained(trial, stored).row["n"] == 1


@pytest.mark.parametrize(
    ("columns", "options", "why"),
    [
        ({"k": (list[float], {})}, {}, "k is a list, which cannot be in key"),
        (
            {"k": (int, {}), "v": (list[float] | None, {})},
            {"key": ("k",), "indexes": ("v",)},
            "v is a list, .* in indexes",
        ),
        (
            {"k": (int, {}), "v": (list[float], {})},
            {"key": ("k",), "duplicates": KeepHighest("v")},
            "cannot be in duplicates",
        ),
        ({"k": (dt.datetime, {"system": "first_loaded"})}, {}, "only known once its row is written"),
        ({"k": (str, {"personal": "redact"})}, {"unexpected_columns": "ignore"}, "all rows would have one key"),
    ],
)
def test_what_cannot_tell_rows_apart_is_refused(columns: Any, options: Any, why: str) -> None:
    with pytest.raises(DeclarationError, match=why):
        dataset(columns, {}, **options)


ALL_OF_THE_KEY: dict[str, Any] = {
    "read": ({"a": (str, {}), "b": (int, {})}, ["ann,1", "bob,2"], "ann", "1"),
    "derived": (
        {"a": (str, {}), "b": (str, {"derived": lambda col: col("a").str.to_uppercase()})},
        ["ann", "bob"],
        "ann",
        "ANN",
    ),
    "given": (
        {"a": (str, {"system": "file"}), "b": (int, {"system": "line"}), "c": (str, {})},
        ["ann", "bob"],
        "a.csv",
        "2",
        "ann",
    ),
    "source": ({"a": (str, {"system": "source"}), "b": (str, {})}, ["ann", "bob"], "csv", "ann"),
    "hashed": ({"a": (str, {"personal": "hash"}), "b": (str, {})}, ["ann,x", "bob,x"], "Ann", "x"),
}


@pytest.mark.parametrize(
    ("kind", "duplicates", "moments"),
    [
        *((kind, "last", False) for kind in ALL_OF_THE_KEY),
        ("read", "last", True),
        ("given", "last", True),
        ("read", "reject", True),
    ],
)
def test_all_columns_are_the_key(declared: Declared, kind: str, duplicates: Any, *, moments: bool) -> None:
    """A list of members: what is there already is unchanged, whatever the platform keeps beside it."""
    columns, rows, *key = ALL_OF_THE_KEY[kind]
    system_columns = ("first_loaded", "last_loaded") if moments else ()
    rest = {name: (dt.datetime, {"system": name}) for name in system_columns}
    trial = declared(dataset(columns, rest, unexpected_columns="ignore", duplicates=duplicates))
    header = ",".join(name for name, (_, options) in columns.items() if not {"system", "derived"} & set(options))
    data = "\n".join([header, *rows, ""])
    assert trial.load("a.csv", data).rows_inserted == 2
    before = trial.rows(*columns, *system_columns)
    assert trial.load("a.csv", data + "\n").rows_unchanged == 2
    assert trial.rows(*columns, *system_columns) == before
    assert [o.verdict for o in explained(trial, *key).occurrences] == ["current", "unchanged"]
    trial.reprocess()
    assert len(trial.rows(*columns)) == 2


def test_explain_compares_lists_and_asks_columns_that_are_not_stored(declared: Declared) -> None:
    columns = {"seq": (int, {"stored": False}), "v": (list[float] | None, {})}
    trial = declared(dataset({"k": (int, {})}, columns, duplicates=KeepHighest("seq")))
    trial.load("a.csv", 'k,seq,v\n1,5,"[1,2.5]"\n1,3,"[7]"\n')
    trial.load("b.csv", 'k,seq,v\n1,5,"[1, 2.5]"\n')
    assert [o.verdict for o in explained(trial, "1").occurrences] == ["current", "superseded", "unchanged"]


def test_explain_knows_which_file_of_a_batch_won(declared: Declared) -> None:
    """The last file of a batch says what is there already: its row won over that of the file before it."""
    trial = declared(dataset({"k": (int, {})}, {"v": (int, {})}))
    trial.load("a.csv", "k,v\n1,1\n")
    trial.land("b.csv", "k,v\n1,2\n")
    trial.land("c.csv", "v,k\n1,1\n")
    trial.run()
    assert [o.verdict for o in explained(trial, "1").occurrences] == ["current", "superseded", "unchanged"]


@pytest.mark.parametrize("duplicates", ["first", "reject"])
def test_a_row_is_of_a_file_that_says_it(declared: Declared, duplicates: Any) -> None:
    """Two files say the same, until the one that brought the row is validated again and says it no more."""
    columns = {"v": (int, {}), "where": (str, {"system": "file"})}
    trial = declared(dataset({"k": (int, {})}, columns, reject_limit=RejectLimit(share=1)))
    trial.load("a.csv", "k,v\n1,2\n1,1\n2,7\n")
    trial.load("b.csv", "k,v\n1,1\n2,7\n")
    assert trial.rows("k", "v", "where") == [(1, 1, "a.csv"), (2, 7, "a.csv")]
    trial.dataset = dataset({"k": (int, {})}, columns, reject_limit=RejectLimit(share=1), duplicates=duplicates)
    trial.reprocess()
    assert trial.rows("k", "v", "where") == [(1, 1, "b.csv"), (2, 7, "a.csv")]


FORMS: dict[str, tuple[Any, dict[str, Any], list[str], Any]] = {
    "int": (int, {"lt": 100}, ["12", "12.0", "1.2E1", " 012. "], "100.0"),
    "decimal": (Decimal, {"lt": 100}, ["0.5", ".50", "5e-1", "00.500"], "1e2"),
    "date": (
        dt.date,
        {"lt": dt.date(2027, 1, 1)},
        ["2026-01-05", "2026-1-5", "2026-01-05T00:00:00.000000000"],
        "2027-1-1",
    ),
    "time": (
        dt.datetime,
        {"lt": dt.datetime(2027, 1, 1, tzinfo=dt.UTC)},
        ["2026-01-05T06:00:00Z", "20260105T060000Z", "2026-01-05T02-04:00", "2026-01-05T06:00:00,0Z"],
        "2027-01-01T06Z",
    ),
}
"""Type and limit of a key, a key in several forms, and one in such a form that breaks the limit."""


@pytest.mark.parametrize("kind", FORMS)
def test_a_key_in_several_forms_is_one(declared: Declared, kind: str) -> None:
    python_type, limit, forms, beyond = FORMS[kind]
    limits = {"reject_limit": RejectLimit(share=None), "duplicates": "reject"}
    trial = declared(dataset({"k": (python_type, limit)}, {"v": (int, {})}, **limits))
    for number, form in enumerate(forms):
        trial.load(f"{number}.csv", f'k,v\n"{form}",{number}.0\n"{beyond}",1\n')
        assert [v for _, v in trial.rows("k", "v")] == [number]
    twice = trial.load("twice.csv", "k,v\n" + "".join(f'"{form}",7\n' for form in forms))
    assert (twice.rows_rejected, twice.rule_counts) == (len(forms), {"key_once": len(forms)})
    assert [reject["value"] for reject in trial.rejects()][:2] == [beyond, beyond], "as it arrived"
    for form in forms:
        explanation = explained(trial, form)
        assert (explanation.row or {})["v"] == len(forms) - 1
        assert len(explanation.occurrences) == 2 * len(forms)
    with trial.platform.engine.connect() as conn:
        figures = measure(conn, trial.dataset, "test").set_index(["table_name", "column_name"])
    assert figures.loc[("staging.t", "k"), "distinct_values"] == 1


def test_values_outside_of_a_limit_are_measured_in_any_form(declared: Declared) -> None:
    columns = {kind: (python_type, limit) for kind, (python_type, limit, *_) in FORMS.items()}
    trial = declared(dataset({"k": (int, {})}, columns, reject_limit=RejectLimit(share=None)))
    beyond = ",".join(f'"{cell}"' for *_, cell in FORMS.values())
    inside = ",".join(f'"{forms[-1]}"' for _, _, forms, _ in FORMS.values())
    trial.load("a.csv", f"k,{','.join(FORMS)}\n1,{beyond}\n2,{inside}\n")
    with trial.platform.engine.connect() as conn:
        figures = measure(conn, trial.dataset, "test").set_index(["table_name", "column_name"])
    assert [figures.loc[("staging.t", kind), "maximum"] for kind in FORMS] == [
        "100", "100.00", "2027-01-01", "2027-01-01 06:00:00+00"
    ]  # fmt: skip
    assert set(figures.loc[[("staging.t", kind) for kind in FORMS], "distinct_values"]) == {2}


def placed(*key: str, **options: Any) -> Dataset:
    """A dataset of rows that are known by their place."""
    system_columns = {name: (str if name == "file" else int, {"system": name}) for name in ("file", "line", "record")}
    columns: dict[str, Any] = {name: system_columns[name] for name in key}
    return dataset(columns, {"v": (str, {"isin": list("pqrst")})}, sources=(Csv(), Json()), **options)


@pytest.mark.parametrize(
    ("name", "data", "places", "rejected"),
    [
        ("a.json", '[{"v":"p"},{"v":"q"},{"v":"r"}]', [(1, 1), (1, 2), (1, 3)], []),
        ("a.json", '[{"v":"p"},{"v":"?"},3,{"v":"q"},\n{"v":"r"},{"v":"s"}]', [(1, 1), (1, 4), (2, 1), (2, 2)], [2, 3]),
        ("a.jsonl", '{"v":"p"}\n\n{"v":"q"}\n', [(1, 1), (3, 1)], []),
        ("a.csv", "v\np\nq\n", [(2, 1), (3, 1)], []),
    ],
)
def test_a_place_is_a_key(declared: Declared, name: str, data: str, places: Any, rejected: list[int]) -> None:
    """File, line and the number of the record on its line: no row is lost, and rejects tell their place, too."""
    trial = declared(placed("file", "line", "record"))
    assert trial.load(name, data).rows_inserted == len(places)
    assert trial.rows("line", "record") == places
    assert [reject["record"] for reject in trial.rejects()] == rejected
    line, record = places[-1]
    assert [(o.line, o.record) for o in explained(trial, name, str(line), str(record)).occurrences] == [places[-1]]
    trial.reprocess()
    assert trial.rows("line", "record") == places


def test_records_of_a_line_are_counted_across_blocks(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" + ",".join(f'{{"v":"{i}"}}' for i in range(1000)) + ",7]")
    columns = placed("file", "line", "record").read_columns
    blocks = list(read_json(path, Json(), columns, limits=ReadLimits(), block_bytes=1000))
    numbers = [number for block in blocks for number in (block.records if block.records is not None else ())]
    assert len(blocks) > 5
    assert numbers == list(range(1, 1001))
    assert [one.record for block in blocks for one in block.malformed] == [1001]


def test_no_row_of_a_shared_line_is_lost_in_silence(declared: Declared) -> None:
    trial = declared(placed("file", "line", reject_limit=RejectLimit()))
    file = trial.load("a.json", '[{"v":"p"},{"v":"q"},{"v":"r"},\n{"v":"s"}]')
    assert (file.rows_inserted, file.rows_superseded, file.rows_rejected) == (2, 0, 2)
    assert {(r["rule"], r["record"]) for r in trial.rejects()} == {("line_once", 2), ("line_once", 3)}
    assert 'no column with system="record"' in trial.rejects()[0]["reason"]
    assert trial.load("b.jsonl", '{"v":"p"}\n{"v":"q"}\n').rows_inserted == 2
    with pytest.raises(DeclarationError, match='the key needs a column with system="line", too'):
        placed("file", "record")


def noise(count: int, seed: int = 0) -> str:
    """Letters that Postgres cannot compress."""
    return "".join(Random(seed).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=count))  # noqa: S311 - no secret


TEXT: Any = (str, {})
TOO_LONG: dict[str, tuple[dict[str, Any], dict[str, Any], str, dict[str, str]]] = {
    "read": ({"k": TEXT}, {}, "k", {"k": noise(2601)}),
    "derived": (
        {"k": (str, {"derived": lambda col: col("a") + col("a")})}, {"key": ("k",)}, "k", {"a": noise(1301)},
    ),
    "grown by its case": ({"k": (str, {"case": "upper"})}, {}, "k", {"k": noise(2590) + "ŉŉŉŉ"}),
    "a length that only warns": (
        {"k": (str, {"str_length": {"max_value": 10}, "warn": "str_length"})}, {}, "k", {"k": noise(2701)},
    ),
    "a length in characters": (
        {"k": (str, {"str_length": {"max_value": 2600}})}, {}, "k", {"k": "".join(map(chr, range(0x4E00, 0x4E00 + 900)))},
    ),
    "an index": ({"i": TEXT, "k": (str | None, {})}, {"key": ("i",), "indexes": ("k",)}, "k", {"i": "x", "k": noise(2800)}),
    "two texts": ({"k": TEXT, "k2": TEXT}, {}, "k2", {"k": noise(1300), "k2": noise(1301, 1)}),
    "beside others": (
        {"k": TEXT} | {f"d{i}": (Decimal, {}) for i in range(12)},
        {},
        "k",
        {"k": noise(2580)} | {f"d{i}": f"123456789012345{i % 10}.{i}" for i in range(12)},
    ),
}  # fmt: skip
"""Columns, options, the column at fault, and a row with a value that no index takes."""


@pytest.mark.parametrize("kind", TOO_LONG)
def test_a_value_too_long_for_its_index_rejects_its_row(declared: Declared, kind: str) -> None:
    columns, options, at_fault, cells = TOO_LONG[kind]
    rest = {name: TEXT for name in cells if name not in columns}
    trial = declared(dataset(columns, rest, **{"key": tuple(columns)} | options, reject_limit=RejectLimit()))
    short = {name: cell if columns.get(name, TEXT)[0] is Decimal else "ok" for name, cell in cells.items()}
    file = trial.load("a.csv", csv(tuple(cells), tuple(cells.values()), tuple(short.values())))
    assert (file.status, file.rows_inserted, file.rows_rejected) == ("loaded", 1, 1)
    assert [(r["column"], r["rule"]) for r in trial.rejects()] == [(at_fault, f"{at_fault}_indexable")]


def test_the_longest_values_that_are_taken_fit_into_an_index(declared: Declared) -> None:
    """One key has one text beside thirty-one other values, another has thirty-two texts."""
    others = {f"d{i}": (Decimal, {}) for i in range(31)}
    one = dataset({"k": TEXT} | others, {})
    trial = declared(one)
    values = [noise(one.index_bounds["k"]), *(f"1234567890123456.{i}" for i in range(31))]
    assert trial.load("a.csv", csv(("k", *others), tuple(values))).rows_inserted == 1
    texts = {f"k{i}": TEXT for i in range(32)}
    most = dataset(texts, {}).index_bounds["k0"]
    many = replace(dataset(texts, {}), name="u", table="u")
    wide = declared(many)
    assert wide.load("b.csv", csv(tuple(texts), tuple(noise(most, i) for i in range(32)))).rows_inserted == 1
    with pytest.raises(DeclarationError, match="the key has 33 columns"):
        dataset(texts | {"k32": TEXT}, {})


def test_a_long_name_of_a_file_rejects_its_rows(declared: Declared) -> None:
    columns = {"file": (str, {"system": "file"}), "a": TEXT, "b": TEXT}
    trial = declared(dataset(columns, {}))
    file = trial.load(noise(900) + ".csv", "a,b\nx,y\n")
    assert (file.status, file.rule_counts) == ("loaded", {"file_indexable": 1})
    assert trial.load("a.csv", "a,b\nx,y\n").rows_inserted == 1
