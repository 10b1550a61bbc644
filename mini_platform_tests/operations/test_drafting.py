"""A dataset drafted from a sample: what is found out, and that every draft runs and takes its own sample."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import importlib.util
import io
import json
import keyword
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from typer.testing import CliRunner

from mini_platform import Csv, Json
from mini_platform.cli import app
from mini_platform.definitions import build_defs
from mini_platform.operations.drafting import Inferred, infer, load_draft
from mini_platform.operations.drafting.names import identifiers, snake
from mini_platform.rows.readers import ReadLimits, RefusedFileError
from mini_platform.rows.readers.files import read_rows
from mini_platform.rows.validation import validate
from mini_platform.warehouse.schema import create_all
from mini_platform_tests.support.repository import PROJECT

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from mini_platform import Dataset

LIMITS = ReadLimits()


def inferred(folder: Path, content: bytes | str, name: str = "sample.csv") -> Inferred:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return infer(path, "things", "things", LIMITS)


def columns(inference: Inferred) -> dict[str, Any]:
    """Names and types of the columns, a tuple with None for those that may be empty."""
    return {c.name: (c.type, None) if c.nullable else c.type for c in inference.drafted.columns}


def accepted(dataset: Dataset, path: Path) -> list[dict[str, Any]]:
    """The rows of a file as they would be staged; fails where one of them is rejected, or two have one key."""
    rows: list[dict[str, Any]] = []
    keys = set()
    for block in read_rows(dataset, path, path.name, "test", LIMITS):
        results = validate(dataset, block.rows)
        assert [rule.name for rule, _ in results.broken] == []
        keys |= set(results.keys)
        rows += results.rows.drop("_rules", "_reasons").to_dicts()
    assert len(keys) == len(rows)
    return rows


# How it is written


@pytest.mark.parametrize(
    ("content", "source"),
    [
        ("id,note\n1,a\n2,b\n", Csv()),
        ("id;note;x\n1;a,b;1\n2;c,d;2\n", Csv(delimiter=";")),
        ("id\tnote\n1\ta, b\n", Csv(delimiter="\t")),
        ("id|note\n1|a\n", Csv(delimiter="|")),
        ("id||note\n1||a\n2||b\n", Csv(delimiter="||")),
        ('id, note\n1, "a, b"\n2, "c"\n', Csv(skip_initial_space=True)),
        ("id,note\n1,'a, b'\n2,'it'\n", Csv(quote="'")),
        ('id,note\n1,"a \\" , b"\n2,"c"\n', Csv(escape="\\")),
        ('id,size\n1,"a\n2,"b" x\n', Csv(quote=None)),
        ('id,size\n1,3"\n2,5" x\n', Csv()),
        ("id,note,\n1,a,\n2,b,\n", Csv(trailing_delimiter=True)),
        ("id,note\n1,a,\n2,b,\n", Csv(trailing_delimiter=True)),
        ("A title\nby somebody, somewhere, once\n\nid,note\n1,a\n2,b\n", Csv(skip_lines=3)),
        ("# made by x\n# on a day, at noon\nid,note\n1,a\n2,b\n", Csv(comment="#")),
        ("1,2020-01-01\n2,2020-01-02\n", Csv(header=False)),
        ("id,ID\n1,2\n", Csv(header=False, skip_lines=1)),
        (",a,b\n0,x,y\n1,z,\n", Csv(header=False, skip_lines=1)),
        ('"a\nb","A\nB"\n1,2\n', Csv(header=False, skip_lines=3)),
        ("country,2019,2020\nNO,1,2\nSE,3,4\n", Csv()),
        ("only\none\n", Csv()),
        ("id,note\r\n1,a\r\n", Csv()),
        ("id,name\n1,Zürich\n".encode("latin-1"), Csv(encoding="cp1252")),
        ("id,name\n1,a\x81\n".encode("latin-1"), Csv(encoding="latin-1")),
        ("id,name\n1,Zürich\n".encode("utf-8-sig"), Csv()),
        ("id,name\n1,Zürich\n".encode("utf-16"), Csv()),
        ("id,name\n1,Zürich\n".encode("utf-16-le"), Csv(encoding="utf-16-le")),
        (gzip.compress(b"id;name\n1;a\n", mtime=0), Csv(delimiter=";")),
    ],
)
def test_how_a_csv_file_is_written(content: bytes | str, source: Csv, tmp_path: Path) -> None:
    inference = inferred(tmp_path, content)
    assert inference.drafted.source == source
    assert len(accepted(load_draft(inference.text, "things"), tmp_path / "sample.csv")) == inference.drafted.rows > 0
    assert bool(inference.notes) == (
        source != Csv()
        and source.quote == '"'
        and not (source.escape or source.skip_initial_space)
        and source.comment is None
    )


def test_a_preamble_with_as_many_fields_as_lines_without_a_trailing_delimiter(tmp_path: Path) -> None:
    inference = inferred(tmp_path, "Title\na,b\n1,\n2,\n")
    assert inference.drafted.source == Csv(skip_lines=1, trailing_delimiter=False)
    assert columns(inference) == {"a": int, "b": (str, None)}


@pytest.mark.parametrize(
    ("content", "source", "names"),
    [
        ([{"a": 1, "b": {"c": "x"}}], Json(), ["a", "b_c"]),
        ({"meta": {"n": [1]}, "data": {"items": [{"a": 1}, {"a": 2}]}}, Json(rows="data.items"), ["a"]),
        ({"a": 1, "b": [1, 2.5]}, Json(), ["a", "b"]),
    ],
)
def test_how_a_json_file_is_written(content: Any, source: Json, names: list[str], tmp_path: Path) -> None:
    inference = inferred(tmp_path, json.dumps(content), "x.json")
    assert inference.drafted.source == source
    assert list(columns(inference)) == names


def test_another_suffix_is_declared(tmp_path: Path) -> None:
    inference = inferred(tmp_path, "id;b\n1;2\n", "export.DAT")
    assert load_draft(inference.text, "things").suffixes == (*Csv().suffixes, ".dat")


@pytest.mark.parametrize(("content", "words"), [("", "empty"), ("\n\n", "empty")])
def test_what_nothing_can_be_learnt_from(content: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedFileError, match=words):
        inferred(tmp_path, content)
    for name, text_ in (("a.json", "[]"), ("b.json", "[{}]"), ("c.json", "[1")):
        with pytest.raises(RefusedFileError):
            inferred(tmp_path, text_, name)


# What the columns hold


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2"], int),
        (["1", "", "3"], (int, None)),
        (["1", "NA", "-"], (int, None)),
        (["1.5", "2"], float),
        (["1e3", "nan"], (float, None)),
        (["007", "012"], str),
        (["+4712345678", "+4712345679"], str),
        (["12345678901234567890", "2"], str),
        (["1.5", "12345678901234567890"], str),
        (["0.12345678901234567", "1.5"], str),
        (["2020-01-01", "2020-02-29"], dt.date),
        (["2020-01-01", "2020-02-30"], str),
        (["2026-1-5", "2026-10-15"], dt.date),
        (["12.0", "33.0"], float),
        (["20190508T060000-0400", "2019-05-09T06Z"], dt.datetime),
        (["2020-01-01T00:00:00Z", "2020-01-01 00:00+02"], dt.datetime),
        (["2020-01-01T00:00:00", "2020-01-02T00:00:00"], dt.date),
        (["2020-01-01T00:00:00", "2020-01-02T00:30:00"], str),
        (["true", "False"], bool),
        (["yes", "No", "n/a"], (bool, None)),
        (["yes", "n/a"], (str, None)),
        (["y", "n"], bool),
        (["y", "x"], str),
        (["0", "1"], int),
        (["NA", "NO"], str),
        (["Oslo", "-"], (str, None)),
        (["-", "-"], str),
        (["", ""], (str, None)),
        (["1,5", "2,25", "1.234,5"], float),
        (["1,234", "1,234,567"], float),
        (["1,234", "5,678"], str),
        (["31.01.2020", "01.02.2020"], dt.date),
        (["31/01/2020", "01/02/2020"], dt.date),
        (["01/31/2020", "02/01/2020"], dt.date),
        (["01/02/2020", "03/04/2020"], str),
        (["31.02.2020", "01.02.2020"], str),
        (["[1,2]", "[]"], (list[float], None)),
        (['[1,"a"]', "[]"], str),
    ],
)
def test_types(cells: list[str], kind: Any, tmp_path: Path) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=";").writerows([("id", "value"), *((f"k{i}", cell) for i, cell in enumerate(cells))])
    inference = inferred(tmp_path, out.getvalue())
    assert columns(inference)["value"] == kind
    rows = accepted(load_draft(inference.text, "things"), tmp_path / "sample.csv")
    empty = sum(not row["value"] for row in rows)
    assert empty > 0 if isinstance(kind, tuple) else empty == 0


@pytest.mark.parametrize(
    ("name", "cells", "decimals"),
    [
        ("price", ["1.50", "20.25"], 2),
        ("total_amount", ["1.500", "2.125"], 3),
        ("price", ["1.5", "2.25"], None),
        ("height", ["1.50", "2.25"], None),
        ("x", [f"{n}.99" for n in range(12)], 2),
    ],
)
def test_money_is_an_exact_decimal(name: str, cells: list[str], decimals: int | None, tmp_path: Path) -> None:
    inference = inferred(tmp_path, "\n".join([f"id,{name}", *(f"{i},{cell}" for i, cell in enumerate(cells))]))
    column = load_draft(inference.text, "things").columns[1]
    assert (column.type, column.decimals) == ((Decimal, decimals) if decimals else (float, 2))


def test_what_is_about_people_is_masked_and_not_repeated(tmp_path: Path) -> None:
    inference = inferred(
        tmp_path,
        "id,First Name,contact,Mobile,Station Name\n1,Ann,a@example.com,+471,Oslo\n2,Bob,b@example.com,+472,Rome\n",
    )
    dataset = load_draft(inference.text, "things")
    assert {c.name: c.personal for c in dataset.columns} == {
        "id": None,
        "first_name": "mask",
        "contact": "mask",
        "mobile": "mask",
        "station_name": None,
    }
    assert "email" in dataset.columns[2].checks
    assert not [value for value in ("Ann", "a@example.com", "+471") if value in inference.text]


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("name,id\na,1\nb,2\n", ("id",)),
        ("a,order_id,customer_id\n1,7,1\n2,8,1\n", ("order_id",)),
        ("station_id,date,temp\nA,2020-01-01,1\nA,2020-01-02,2\nB,2020-01-01,3\n", ("station_id", "date")),
        ("station_id,date\nA,2020-01-01\nA,2020-01-02\n", ("station_id", "date")),
        ("code,year,kind,v\nA,1,x,0\nA,1,y,0\nA,2,x,0\nB,1,x,0\n", ("code", "year", "kind")),
        ("id,code\n,A\n2,B\n", ("code",)),
        ("id,x\nA,1\nA,1\n", ("source_file", "source_line")),
        ("id,source_file\nA,1\nA,1\n", ("source_file_2", "source_line")),
        ("x,y\n1.5,2.5\n2.5,3.5\n", ("source_file", "source_line")),
        ("id,x\n01,1\n1,1\n", ("id",)),
        ("id,x\n1.0,1\n1,1\n", ("source_file", "source_line")),
        (f"id,x\n{'a' * 3000},1\n{'b' * 3000},2\n", ("x",)),
        ("id,x\n", ("source_file", "source_line")),
    ],
)
def test_keys(content: str, key: tuple[str, ...], tmp_path: Path) -> None:
    dataset = load_draft(inferred(tmp_path, content).text, "things")
    assert dataset.key == key
    accepted(dataset, tmp_path / "sample.csv")


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Customer Id", "customer_id"),
        ("customerId", "customer_id"),
        ("HTTPCode", "http_code"),
        ("Straße Nr.", "strasse_nr"),
        ("Température", "temperature"),
        ("名前", ""),
        ("  --  ", ""),
    ],
)
def test_snake_case(header: str, name: str) -> None:
    assert snake(header) == name


def test_names_are_never_another_columns_header() -> None:
    assert identifiers(["Temp °C", "temp c", "class", "xmin", "1st", "str", "名前", "", "a"]) == [
        "temp_c_2", "temp_c", "class_", "xmin_", "n_1st", "str_", "column_7", "column_8", "a",
    ]  # fmt: skip


def test_rows_that_nothing_tells_apart_are_reported(tmp_path: Path) -> None:
    inference = inferred(tmp_path, '[{"a": 1}, {"a": 1}, {"a": 2}]', "x.json")
    assert inference.drafted.key == ()
    (note,) = inference.notes
    assert note.startswith("2 rows start on the same line as another row and would replace it")


# Whatever the sample


WORDS = st.one_of(
    st.sampled_from(
        ["", " ", "id", "ID", "a-b", "a b", "a_b", "A.B", "名前", "Å", "_x", "__x", "9", "°C", "x (mm)", "dt", "pl"]
    ),
    st.sampled_from(
        [*keyword.kwlist, *keyword.softkwlist, "str", "int", "xmin", "ctid", "Field", "RowModel", "number", "day"]
    ),
    st.sampled_from(
        ["source_file", "column_1", "x_text", "x", "dataset", "name " * 40, "e" * 300, '"', "\\", "'", "{x}", "%s"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
)
CELLS = st.one_of(
    st.sampled_from(
        ["", "NA", "-", "0", "1", "007", "1.50", "2.75", "-3", "1e5", "1e999", "nan", "true", "no", "y", "t"]
    ),
    st.sampled_from(
        ["2020-01-01", "31.12.2020", "01/02/2020", "2020-01-01T00:00:00Z", "2020-01-01 10:00", "[1,2]", "[]"]
    ),
    st.sampled_from(
        ["1,5", "1.234,5", "1,234", "a@example.com", "x y", "+4712345678", "9" * 25, "=1+1", '"', "it's", "a;b|c\td"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    """A header of any kind, and rows whose columns are each of one kind or of several."""
    width = draw(st.sampled_from([*range(1, 7)] * 3 + [200]))
    header = [draw(WORDS) for _ in range(min(width, 8))]
    header += [f"column {n}" for n in range(width - len(header))]
    height = draw(st.integers(0, 6))
    pools = [draw(st.lists(CELLS, min_size=1, max_size=4)) for _ in range(min(width, 8))]
    return header, [[draw(st.sampled_from(pools[i % len(pools)])) for i in range(width)] for _ in range(height)]


def written_as(header: list[str], rows: list[list[str]], form: str) -> bytes:
    if form == "json":
        return json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=1).encode()
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=form, lineterminator="\n").writerows([header, *rows])
    return out.getvalue().encode()


def test_a_day_that_is_called_a_key_is_one_once(tmp_path: Path) -> None:
    inference = inferred(tmp_path, "id,n\n2024-01-01,x\n2024-01-02,x\n")
    assert load_draft(inference.text, "things").key == ("id",)


def test_every_draft_runs_takes_its_sample_and_is_clean(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("drafts")
    drafts: list[str] = []

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(tables(), st.sampled_from([",", ";", "\t", "json"]))
    def check(table: tuple[list[str], list[list[str]]], form: str) -> None:
        try:
            inference = inferred(folder, written_as(*table, form), "x.json" if form == "json" else "x.csv")
        except RefusedFileError as refusal:
            # Only where there is nothing to learn from: no header, no names, text that is no text.
            assert any(words in str(refusal) for words in ("empty", "no objects with names", "is not strict"))  # noqa: PT017
            return
        accepted(load_draft(inference.text, "things"), folder / ("x.json" if form == "json" else "x.csv"))
        drafts.append(inference.text)

    check()
    assert len(drafts) > 60
    datasets = folder / "mini_platform" / "datasets"  # Where the linter knows what a rule's first argument is.
    datasets.mkdir(parents=True)
    for number, draft in enumerate(drafts):
        (datasets / f"draft_{number}.py").write_text(draft)
    clean("ruff", "check", "--config", PROJECT / "pyproject.toml", datasets, cwd=folder)
    clean("ruff", "format", "--check", "--config", PROJECT / "pyproject.toml", datasets, cwd=folder)
    several = sorted(datasets.iterdir(), key=lambda path: len(set(path.read_text().split())))[-8:]
    clean("mypy", *several)


def clean(*command: str | Path, cwd: Path = PROJECT) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *map(str, command)], capture_output=True, text=True, check=False, cwd=cwd, timeout=280
    )
    assert result.returncode == 0, result.stdout + result.stderr


# To production


def declared(path: Path) -> Dataset:
    """The dataset of a module that stands in a file, imported as any other."""
    spec = importlib.util.spec_from_file_location(f"drafted_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    dataset: Dataset = module.dataset
    return dataset


def loaded_by_dagster(dataset: Dataset, data: Path, engine: Engine, *samples: Path) -> Any:
    """The result of everything of a dataset, as *Materialize all* does it."""
    folder = data / dataset.name
    folder.mkdir(exist_ok=True)
    for sample in samples:
        (folder / sample.name).write_bytes(sample.read_bytes())
        os.utime(folder / sample.name, (1, 1))
    for refused in create_all(engine, [dataset]).values():
        raise refused
    job = build_defs({dataset.name: dataset}).resolve_job_def(f"load_{dataset.name}")
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(instance=instance)
    assert result.success
    return result


STATIONS = """Liste der Messstellen;;;;;;
Stand: gestern;;;;;;
Stations-Nr.;Name;Höhe (m);Temperatur (°C);Niederschlag (mm);In Betrieb seit;Gebühr EUR
00017;Zürich-Fluntern;556;9,4;1.085,5;01.04.1949;12.50
00018;Genève;410;10,9;-;31.12.1953;10.00
00020;"Säntis; Gipfel";2502;-1,4;2.837,0;01.09.1882;7.25
"""


def test_a_list_never_seen_before_goes_to_production(data: Path, engine: Engine, tmp_path: Path) -> None:
    """Semicolons, latin-1, decimal commas, days as people write them, lines before the header, zeros in front."""
    sample, module = tmp_path / "messstellen.csv", tmp_path / "stations.py"
    sample.write_bytes(STATIONS.encode("latin-1"))
    invocation = CliRunner().invoke(
        app,
        ["new", "stations", "--table", "places", "--from", str(sample), "--out", str(module)],
        catch_exceptions=False,
    )
    assert invocation.exit_code == 0, invocation.output
    assert invocation.stderr.splitlines()[:3] == [
        "The file is not UTF-8 and is read as cp1252: check its letters.",
        "The delimiter is ';'.",
        "2 lines come before the header.",
    ]
    dataset = declared(module)
    dirty = tmp_path / "dirty.csv"
    dirty.write_bytes(
        (
            STATIONS
            + "00021;Bern;hoch;1,5;1;31.01.1999;1.00\n00023;Biel;1;1;1;30.02.1999;1.00\n00022;Chur;1;1;1;01.01.1999;1.00\n"
        ).encode("latin-1")
    )
    result = loaded_by_dagster(dataset, data, engine, sample, dirty)
    with engine.connect() as conn:
        rows = conn.execute(
            text(
                "SELECT stations_nr, name, hohe_m, temperatur_c, niederschlag_mm, in_betrieb_seit, gebuhr_eur "
                "FROM production.places ORDER BY 1"
            )
        ).all()
        rejected = conn.execute(text("SELECT _line, _rules FROM quarantine.places")).all()
        report = conn.execute(text("SELECT count(*) FROM analytics.quality_report WHERE dataset = 'stations'")).scalar()
    assert rows == [
        ("00017", "Zürich-Fluntern", 556, 9.4, 1085.5, dt.date(1949, 4, 1), Decimal("12.50")),
        ("00018", "Genève", 410, 10.9, None, dt.date(1953, 12, 31), Decimal("10.00")),
        ("00020", "Säntis; Gipfel", 2502, -1.4, 2837.0, dt.date(1882, 9, 1), Decimal("7.25")),
        ("00022", "Chur", 1, 1.0, 1.0, dt.date(1999, 1, 1), Decimal("1.00")),
    ]
    assert sorted((line, sorted(rules)) for line, rules in rejected) == [
        (7, ["hohe_m_is_integer"]),
        (8, ["in_betrieb_seit_required", "in_betrieb_seit_text_in_betrieb_seit_is_read"]),
    ]
    assert report > 10
    evaluations = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert evaluations["every_row_accounted_for"].passed
    assert {name for name, check in evaluations.items() if not check.passed} == {
        rule for _, rules in rejected for rule in rules
    }


def test_json_goes_to_production(data: Path, engine: Engine, tmp_path: Path) -> None:
    sample, module = tmp_path / "readings.json", tmp_path / "readings.py"
    items = [
        {
            "sensorId": i % 2,
            "at": f"2024-01-0{i + 1}T00:00:00+01:00",
            "values": [i, 0.5],
            "who": {"e-mail": f"x{i}@example.com"},
        }
        for i in range(5)
    ]
    sample.write_text(json.dumps({"page": 1, "data": {"items": items}}))
    result = CliRunner().invoke(
        app, ["new", "readings", "--from", str(sample), "--out", str(module)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    loaded_by_dagster(declared(module), data, engine, sample)
    with engine.connect() as conn:
        rows = conn.execute(
            text("SELECT sensor_id, at, values, who_e_mail FROM production.readings ORDER BY at LIMIT 1")
        ).all()
        count = conn.execute(text("SELECT count(*) FROM production.readings")).scalar()
    assert rows == [(0, dt.datetime(2023, 12, 31, 23, tzinfo=dt.UTC), [0.0, 0.5], "x0@example.com")]
    assert count == 5


def test_two_hundred_columns_of_any_name_go_to_production(data: Path, engine: Engine, tmp_path: Path) -> None:
    header = [
        *keyword.kwlist,
        *keyword.softkwlist,
        "xmin",
        "ctid",
        "oid",
        "user",
        "select",
        "名前",
        "Å",
        "A b",
        "a-b",
        "",
        "1",
    ]
    header += [f"column {n}" for n in range(200 - len(header))]
    sample, module = tmp_path / "wide.csv", tmp_path / "wide.py"
    sample.write_bytes(written_as(header, [[str(n) for n in range(200)], ["x"] * 200], ","))
    module.write_text(infer(sample, "wide", "wide", LIMITS).text)
    loaded_by_dagster(declared(module), data, engine, sample)
    with engine.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM production.wide")).scalar() == 2


# The command


def new(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["new", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("weather", (), "There is a dataset 'weather' already."),
        ("Weather", (), "'Weather' cannot name a dataset"),
        ("class", (), "'class' cannot name a dataset"),
        ("a" * 41, (), "cannot name a dataset"),
        ("things", ("--table", "measurements"), "The dataset weather has a table 'measurements' already"),
        ("things", ("--table", "quality_report"), "The table cannot be named 'quality_report'"),
        ("things", ("--from", "nowhere.csv"), "nowhere.csv is not a file."),
        ("things", ("--out", "nowhere/x.py"), "nowhere is not a folder."),
        ("things", ("--out", "sample.csv"), "sample.csv exists already; nothing was written."),
        ("things", ("--from", "empty.csv"), "empty.csv: The file is empty"),
    ],
)
def test_what_cannot_be_drafted(
    name: str, options: tuple[str, ...], words: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sample.csv").write_text("a,b\n1,2\n")
    Path("empty.csv").write_text("")
    result = new(name, *(() if "--from" in options else ("--from", "sample.csv")), *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert Path("sample.csv").read_text() == "a,b\n1,2\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.csv", "sample.csv"]
