"""Datasets declared in YAML: through Dagster's component loader to tables, and the messages for mistakes."""

from __future__ import annotations

import datetime as dt
import os
import uuid
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import dagster as dg
import pandas as pd
import pandera.pandas as pap
import pandera.polars as pa
import polars as pl
import pytest
from pandera.engines import pandas_engine
from sqlalchemy import text

from mini_platform import Csv, Dataset, DeclarationError, Field, Json, RejectLimit, RowModel
from mini_platform.components import Dataset as Component
from mini_platform.dagster.build import build_defs
from mini_platform.dagster.components import project_defs
from mini_platform.declare.from_yaml import YamlError
from mini_platform.declare.pandera_models import description_of, translate_model
from mini_platform.declare.registry import Registry
from mini_platform.rows.validation import validate
from mini_platform_tests.support.yaml_files import read_yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

MODELS = '''
import datetime as dt

import pandera.polars as pa
import polars as pl

from mini_platform import Field, RowModel


class Reading(pa.DataFrameModel):
    """Readings of meters."""

    meter: str = pa.Field(str_length={"min_value": 1, "max_value": 20}, description="Number of the meter")
    month: pl.Date
    kwh: float = pa.Field(ge=0, nullable=True, metadata={"unit": "kWh"})


class Station(RowModel):
    """A station."""

    id: int = Field("Number", ge=1)
    name: str | None = Field("Name")


class Clever(pa.DataFrameModel):
    id: int

    @pa.check("id")
    def even(cls, data):
        return data.lazyframe.select(pl.col(data.key) % 2 == 0)


model = 7
'''
METERS = """\
type: mini_platform.components.Dataset
attributes:
  name: meters
  table: readings
  model: PACKAGE.models.Reading
  key: [meter, month]
  owners: team:energy
  csv: {delimiter: ";"}
  freshness_hours: 24
  reject_limit: {share: 0.9, rows: 100, min_rows: 20}
"""
STATIONS = """\
type: mini_platform.components.Dataset
attributes: {name: stations, model: PACKAGE.models.Station, key: id, json: {}}
"""

Project = Any


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Called with the text of `defs.yaml` by name of its folder: somebody's project, whose package is made for this test."""

    def make(**files: str) -> Path:
        package = f"shop_{uuid.uuid4().hex}"
        root = tmp_path / package
        (root / package / "defs").mkdir(parents=True)
        (root / package / "__init__.py").touch()
        (root / package / "defs" / "__init__.py").touch()
        (root / package / "models.py").write_text(MODELS)
        (root / "dg.toml").write_text(f'directory_type = "project"\n[project]\nroot_module = "{package}"\n')
        for name, content in files.items():
            folder = root / package / "defs" / name
            folder.mkdir()
            (folder / "defs.yaml").write_text(content.replace("PACKAGE", package))
        monkeypatch.syspath_prepend(str(root))
        return root

    return make


def yaml_of(root: Path, name: str) -> Path:
    (path,) = root.rglob(f"defs/{name}/defs.yaml")
    return path


def contents(defs: dg.Definitions) -> dict[str, Any]:
    """Return the contents of definitions: assets with their parents, checks, sensors."""
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    nodes = {key: graph.get(key) for key in graph.get_all_asset_keys()}
    return {
        "assets": {
            key.to_user_string(): (
                sorted(map(str, node.parent_keys)), node.description, sorted(node.kinds), node.group_name, node.owners,
                node.freshness_policy,
            )
            for key, node in nodes.items()
        },
        "checks": sorted(map(str, graph.asset_check_keys)),
        "sensors": sorted(sensor.name for sensor in repository.sensor_defs),
    }  # fmt: skip


def test_a_project_in_yaml_is_what_build_defs_makes_and_runs(
    project: Callable[..., Path], data: Path, engine: Engine
) -> None:
    root = project(meters=METERS, stations=STATIONS)
    defs = dg.ComponentTree.for_project(root).build_defs()
    declared = {d.name: d for name in ("meters", "stations") for d in read_yaml(yaml_of(root, name))}
    assert contents(defs) == contents(build_defs(declared))
    assert declared["meters"].sources == (Csv(delimiter=";"),)
    assert declared["meters"].reject_limit == RejectLimit(share=0.9, rows=100, min_rows=20)
    assert declared["meters"].freshness == dt.timedelta(hours=24)
    assert declared["stations"].sources == (Json(),)
    drop(data / "meters" / "a.csv", "kWh;Meter;month\n1,5;007;2024-01-01\n-1;007;2024-02-01\n2.5;007;2024-03-01\n")
    drop(data / "stations" / "a.json", '[{"id": 1, "name": "Oslo"}, {"id": 0}]')
    with dg.DagsterInstance.ephemeral() as instance:
        for name in declared:  # Nothing made the tables: the platform that the components share knows all of them.
            assert defs.resolve_job_def(f"load_{name}").execute_in_process(instance=instance).success
    with engine.connect() as conn:
        assert conn.execute(text("SELECT meter, month, kwh FROM production.readings")).all() == [
            ("007", dt.date(2024, 3, 1), 2.5)
        ]
        assert sorted(conn.execute(text("SELECT kwh, _rules FROM quarantine.readings")).all()) == [
            ("-1", ["kwh_greater_than_or_equal_to"]),
            ("1,5", ["kwh_is_number"]),
        ]
        assert conn.execute(text("SELECT id, name FROM production.stations")).all() == [(1, "Oslo")]
        assert conn.execute(text("SELECT count(DISTINCT dataset) FROM analytics.quality_report")).scalar() == 2


def drop(path: Path, content: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    os.utime(path, (1, 1))


def test_where_a_definition_came_from_is_shown(project: Callable[..., Path]) -> None:
    root = project(meters=METERS)
    defs = dg.ComponentTree.for_project(root).build_defs()
    metadata = defs.get_repository_def().asset_graph.get(dg.AssetKey(["meters", "readings"])).metadata
    (reference,) = metadata["dagster/code_references"].code_references
    assert Path(reference.file_path) == yaml_of(root, "meters")


# Mistakes


def test_a_bad_component_stops_itself_only(project: Callable[..., Path]) -> None:
    root = project(
        meters=METERS,
        stations=STATIONS.replace("key:", "keys:"),
        unknown="type: nowhere.Component\n",
        unparsed="type: [\n",
        weather=STATIONS.replace("name: stations", "name: weather, table: readings"),
    )
    defs_folder = root / root.name / "defs"
    (defs_folder / "own.py").write_text("import dagster as dg\n\n@dg.asset\ndef own(): ...\n")
    (defs_folder / "wrong.py").write_text("import not_there\n")
    registry = Registry(str(defs_folder.parent / "datasets"))
    (defs_folder.parent / "datasets").mkdir()
    defs, failed = project_defs(dg.ComponentTree.for_project(root), registry.datasets, registry)
    assert sorted(declared.name for declared in registry.invalid) == ["stations", "unparsed", "weather"]
    assert {declared.name: declared.message.partition(": ")[2] for declared in failed} == {
        "unknown": "ModuleNotFoundError: No module named 'nowhere'",
        "wrong": "ModuleNotFoundError: No module named 'not_there'",
    }
    names = {key.path[0] for key in defs.get_repository_def().asset_graph.get_all_asset_keys()}
    assert names == {"meters", "own"}


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("table:", "tabel:", 4, "tabel: is not known here; did you mean table?"),
        ("delimiter", "delimter", 8, "delimter: is not known here; did you mean delimiter?"),
        ('";"', '"\\n"', 8, "the delimiter"),
        ("PACKAGE.models.Reading", "nowhere.Reading", 5, "nowhere cannot be imported: ModuleNotFoundError"),
        ("models.Reading", "models.Writing", 5, "has no Writing"),
        ("PACKAGE.models.Reading", "Reading", 5, "is not a dotted path"),
        ("models.Reading", "models.model", 5, "is neither a RowModel nor a Pandera model"),
        ("[meter, month]", "[meter, day]", 6, "key names ['day'], which Reading lacks"),
        ("[meter, month]", "[meter, kwh]", 6, "key columns ['kwh'] may not be empty"),
        ("[meter, month]", "[]", 6, "key"),
        ("  key: [meter, month]\n", "", 3, "key"),
        ("owners: team:energy", "indexes: nothing", 7, "indexes names ['nothing']"),
        ("0.9", "much", 10, "share"),
        ("min_rows: 20", "min_rows: -1", 10, "min_rows is -1"),
        ("name: meters", "name: The Meters", 3, "name"),
        ("24", "-1", 9, "freshness_hours"),
        ("owners: team:energy", "aggregates: PACKAGE.models.Station", 7, "is not an instance of Aggregate"),
        ("owners: team:energy", "page: PACKAGE.models.Station", 7, "is not an instance of Page"),
    ],
)
def test_a_mistake_is_reported_with_file_and_line(
    old: str, new: str, line: int, words: str, project: Callable[..., Path]
) -> None:
    assert old in METERS
    root = project(meters=METERS.replace(old, new))
    path = yaml_of(root, "meters")
    with pytest.raises(YamlError) as ours:
        read_yaml(path)
    assert f"{path}, line {line}: " in str(ours.value)
    assert words.lower() in str(ours.value).lower()
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - Dagster wraps it; what counts is what stands in it
        dg.ComponentTree.for_project(root).build_defs()
    messages, error = [], theirs.value
    while error is not None:
        messages.append(str(error))
        error = error.__cause__
    assert str(path) in "\n".join(messages)
    # Dagster gives no line to what is missing.
    assert not new or f"line {line}" in "\n".join(messages) or f"defs.yaml:{line}" in "\n".join(messages)


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("type: mini_platform.components.Dataset\nattributes:\n  name: [a\n", 4, "expected"),
        ("type: mini_platform.components.Dataset\n", 1, "attributes are missing"),
        ("type: mini_platform.components.Dataset\nattributes:\n  name: a\n  name: b\n", 4, "a second time"),
        ("type: mini_platform.components.Dataset\nattribute: {}\n", 2, "attribute is not known"),
        ("type: mini_platform.components.Dataset\nattributes: 7\n", 2, "names with values"),
        ("type: mini_platform.components.Dataset\nattributes: {}\n", 2, "name: field required"),
    ],
)
def test_a_file_that_declares_nothing(content: str, line: int, words: str, tmp_path: Path) -> None:
    path = tmp_path / "defs.yaml"
    path.write_text(content)
    with pytest.raises(YamlError) as refusal:
        read_yaml(path)
    assert f"{path}, line {line}: " in str(refusal.value)
    assert words in str(refusal.value)


def test_other_components_are_left_to_dagster(tmp_path: Path) -> None:
    path = tmp_path / "defs.yaml"
    path.write_text("type: dagster.DefsFolderComponent\n---\nrequirements: {}\n")
    assert read_yaml(path) == []


def test_the_component_knows_its_words() -> None:
    schema = Component.get_model_cls().model_json_schema()
    assert schema["required"] == ["name", "model", "key"]
    assert schema["additionalProperties"] is False
    assert {"csv", "json", "unexpected_columns", "reject_limit"} < set(schema["properties"])


# Models of Pandera


class Polars(pa.DataFrameModel):
    """Things.

    And more about them.
    """

    id: int = pa.Field(ge=1, le=10, unique=True)
    name: str = pa.Field(nullable=True, isin=["x", "y"], title="Its name", metadata={"personal": "mask"})
    kind: str = pa.Field(str_matches="^[a-z]+$", raise_warning=True)
    day: pl.Date
    at: Annotated[pl.Datetime, "us", "UTC"]
    price: Annotated[pl.Decimal, 6, 2]
    values: Annotated[pl.List, pl.Float64]
    ok: bool | None = pa.Field(nullable=True, alias="Is OK", description="Whether", metadata={"unit": "1", "other": 3})
    share: float = pa.Field(in_range={"min_value": 0, "max_value": 1, "include_max": False})

    class Config:
        strict = True


class Pandas(pap.DataFrameModel):
    id: int = pap.Field(gt=0)
    name: pd.StringDtype = pap.Field(nullable=True, str_startswith="x")
    at: Annotated[pd.DatetimeTZDtype, "us", "UTC"]
    day: pandas_engine.Date
    price: Annotated[pandas_engine.Decimal, 18, 3, None]
    count: pd.Int64Dtype = pap.Field(nullable=True, notin=[7])
    ok: pd.BooleanDtype = pap.Field(nullable=True)
    share: float = pap.Field(ne=0)


def within(low: int, high: int) -> dict[str, Any]:
    return {"min_value": low, "max_value": high, "include_min": False, "include_max": False}


def dataset_of(model: Any) -> Dataset:
    return Dataset(name="things", table="things", description="Things.", rows=model, key=("id",))


def test_a_polars_model_is_translated() -> None:
    translated = translate_model(Polars)
    columns = {c.name: c for c in dataset_of(Polars).columns}
    assert (description_of(Polars), translated.unexpected_columns, translated.unique) == (
        "Things.",
        "refuse",
        (frozenset({"id"}),),
    )
    assert {n: (c.type, c.nullable) for n, c in columns.items()} == {
        "id": (int, False),
        "name": (str, True),
        "kind": (str, False),
        "day": (dt.date, False),
        "at": (dt.datetime, False),
        "price": (Decimal, False),
        "values": (list[float], False),
        "is_ok": (bool, True),
        "share": (float, False),
    }
    assert columns["id"].checks == {"greater_than_or_equal_to": 1, "less_than_or_equal_to": 10}
    assert (columns["name"].personal, columns["name"].description) == ("mask", "Its name")
    assert columns["kind"].warn == ("str_matches",)
    assert (columns["price"].decimals, columns["price"].checks) == (2, {"between": within(-10000, 10000)})
    ok = columns["is_ok"]
    assert (ok.aliases, ok.optional, ok.unit, ok.description) == (("Is OK",), True, "1", "Whether")
    assert columns["share"].checks == {"in_range": {"min_value": 0, "max_value": 1, "include_max": False}}


GOOD = {
    "id": "1",
    "name": "x",
    "kind": "a",
    "day": "2024-01-01",
    "at": "2024-01-01T00:00:00Z",
    "price": "1.50",
    "values": "[1]",
    "is_ok": "true",
    "share": "0.5",
}


@pytest.mark.parametrize(
    ("changed", "rules"),
    [
        ({}, []),
        ({"id": "11"}, ["id_less_than_or_equal_to"]),
        ({"name": ""}, []),
        ({"name": "z"}, ["name_isin"]),
        ({"kind": "A"}, []),
        ({"price": "10000"}, ["price_between"]),
        ({"price": "-9999.99"}, []),
        ({"share": "1"}, ["share_in_range"]),
    ],
)
def test_a_translated_model_judges(changed: dict[str, str], rules: list[str]) -> None:
    results = validate(dataset_of(Polars), pl.DataFrame([{**GOOD, **changed}]))
    assert [rule.name for rule, _ in results.broken if rule.severity == "error"] == rules


def test_a_pandas_model_is_translated() -> None:
    dataset = dataset_of(Pandas)
    assert {c.name: (c.type, c.nullable, dict(c.checks)) for c in dataset.columns} == {
        "id": (int, False, {"greater_than": 0}),
        "name": (str, True, {"str_startswith": "x"}),
        "at": (dt.datetime, False, {}),
        "day": (dt.date, False, {}),
        "price": (Decimal, False, {"between": within(-(10**14), 10**15)}),  # A sign is a digit there.
        "count": (int, True, {"notin": [7]}),
        "ok": (bool, True, {}),
        "share": (float, False, {"not_equal_to": 0}),
    }
    row = {"id": "1", "name": "y", "at": "2024-01-01T00:00:00Z", "day": "2024-01-01", "price": "1", "count": "7"}
    results = validate(dataset, pl.DataFrame([{**row, "ok": "", "share": "0"}]))
    assert [rule.name for rule, _ in results.broken] == ["name_str_startswith", "count_notin", "share_not_equal_to"]


def test_our_own_model_is_taken_as_it_is() -> None:
    class Ours(RowModel):
        """Ours."""

        id: int = Field("Number")

    assert translate_model(Ours).rows is Ours


class Narrow(pa.DataFrameModel):
    id: pl.Int32


class Naive(pa.DataFrameModel):
    id: pl.Datetime


class Wide(pa.DataFrameModel):
    id: Annotated[pl.Decimal, 30, 2]


class Whole(pa.DataFrameModel):
    id: int

    @pa.dataframe_check
    def together(cls, data: Any) -> Any:
        return data.lazyframe.select(pl.col("id") > 0)


class LookAround(pa.DataFrameModel):
    id: str = pa.Field(str_matches="^(?!x)")


class Ordered(pa.DataFrameModel):
    id: int

    class Config:
        ordered = True


class Pattern(pap.DataFrameModel):
    id: int = pap.Field(alias="x_[0-9]", regex=True)


class Misplaced(pa.DataFrameModel):
    id: int = pa.Field(metadata={"checks": {}})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Narrow, "Narrow.id has the type Int32"),
        (Naive, "without a time zone"),
        (Wide, "30 digits; at most 18"),
        (Whole, "the check together of whole rows"),
        (LookAround, "cannot be used by polars"),
        (Ordered, "has ordered columns"),
        (Pattern, "has regex"),
        (Misplaced, "metadata cannot contain checks"),
        (RowModel, "neither a RowModel nor a Pandera model"),
        (7, "7 is neither a RowModel nor a Pandera model"),
        (int, "int is neither a RowModel nor a Pandera model"),
    ],
)
def test_what_cannot_be_translated_is_reported(model: Any, words: str) -> None:
    with pytest.raises(DeclarationError) as refusal:
        translate_model(model)
    assert words in str(refusal.value)
