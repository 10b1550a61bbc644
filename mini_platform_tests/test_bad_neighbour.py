"""One bad declaration stops itself only: each kind of it beside a healthy dataset, in every command, page and asset.

A new kind is one more entry of `KINDS`. All stand in one project, whose database and web process the tests share.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import httpx
import pytest
import typer
from typer.testing import Result

from mini_platform import platform as platform_module
from mini_platform.cli import app
from mini_platform.cli.errors import USAGE
from mini_platform.dagster.loading import load_defs
from mini_platform.platform import Platform
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.support.command import here, objects
from mini_platform_tests.support.databases import copied, execute, set_environment
from mini_platform_tests.support.web import endpoints_of, serving

HEALTHY = """
from mini_platform import Aggregate, Dataset, Field, RowModel
from sqlalchemy import func, select


class Meter(RowModel):
    meter: str = Field("Number of the meter", str_length={"max_value": 20})
    kwh: float | None = Field("Consumption", unit="kWh", ge=0)


def usage(m):
    return select(m.c.meter, func.max(m.c.kwh).label("most")).group_by(m.c.meter)


dataset = Dataset(
    name="healthy", table="meters", description="Meters.", rows=Meter, key=("meter",),
    aggregates=(Aggregate(usage, ("meter",), {"meter": ("Meter",), "most": ("Most",)}, ("meter", "most")),),
)
"""
COMPUTING = HEALTHY.replace('"healthy"', '"NAME"').replace('"meters"', '"NAME_table"')
PLAIN = """
from mini_platform import Dataset, Field, RowModel


class Thing(RowModel):
    thing: str = Field("Number of the thing", str_length={"max_value": 20})


dataset = Dataset(name="NAME", table="NAME_table", description="Things.", rows=Thing, key=("thing",))
"""
WIDE = """
from mini_platform import Dataset, Field, RowModel

fields = {f"c{number}": Field(f"Column {number}") for number in range(1600)}
hints = {"thing": "str"} | dict.fromkeys(fields, "str | None")
key = {"thing": Field("Number of the thing", str_length={"max_value": 20})}
Thing = type("Thing", (RowModel,), {"__annotations__": hints, "__module__": __name__, **key, **fields})

dataset = Dataset(name="NAME", table="NAME_table", description="Things.", rows=Thing, key=("thing",))
"""
YAML = """\
type: mini_platform.components.Dataset
attributes: {name: NAME, table: NAME_table, model: acme_bad_neighbour.a_healthy.Meter, key: meter}
"""
SHAPED = """
CREATE TABLE production.NAME_table (thing int PRIMARY KEY, _file_id bigint NOT NULL, _loaded_at timestamptz NOT NULL);
COMMENT ON TABLE production.NAME_table IS 'Things'
"""


Writer = Callable[[Path, str], None]
"""Writes the declaration of a dataset with a name into the folder of datasets."""


def python(content: str) -> Writer:
    return lambda folder, name: [(folder / f"{name}.py").write_text(content.replace("NAME", name))].clear()


def in_yaml(content: str) -> Writer:
    def write(folder: Path, name: str) -> None:
        (folder / name).mkdir()
        (folder / name / "defs.yaml").write_text(content.replace("NAME", name))

    return write


def in_another_encoding(folder: Path, name: str) -> None:
    (folder / f"{name}.py").write_bytes("x = 'Zähler'\n".encode("latin-1"))


def link_to_nothing(folder: Path, name: str) -> None:
    (folder / f"{name}.py").symlink_to(folder / "nowhere.py")


@dataclass(frozen=True)
class Kind:
    """A kind of bad declaration.

    Attributes:
        write: writes it.
        why: what the sentence about it says, as a regular expression.
        in_database: statement that is executed before, for what only the database can refuse.
        refused_by: what refuses it: the registry, its tables as they would be made, or the database, as they are.
    """

    write: Writer
    why: str
    in_database: str | None = None
    refused_by: Literal["registry", "tables", "database"] = "registry"


KINDS = {
    "syntax": Kind(python("x = 1\nx = ("), r"syntax\.py, line 2: SyntaxError: "),
    "no_import": Kind(python("import not_there"), r"no_import\.py, line 1: ModuleNotFoundError: .*not_there"),
    "ends_the_process": Kind(python("import sys\nsys.exit(7)"), r"process\.py, line 2: SystemExit: 7"),
    "declares_none": Kind(python("x = 1"), r"none\.py declares no dataset: it should say `dataset = Dataset"),
    "wrong_type": Kind(
        python("dataset = 7"), r"wrong_type\.py: `dataset` is of the type int, and should be of Dataset"
    ),
    "invalid": Kind(python(PLAIN.replace('("thing",)', '("day",)')), r"invalid\.py.*, line \d+: .*day"),
    "encoding": Kind(in_another_encoding, r"encoding\.py.*SyntaxError: .*(utf-8|unicode)"),
    "unreadable": Kind(link_to_nothing, r"unreadable"),
    "yaml_broken": Kind(in_yaml("type: [\n"), r"yaml_broken/defs\.yaml, line 2: "),
    "yaml_invalid": Kind(
        in_yaml(YAML.replace("key:", "keys:")), r"invalid/defs\.yaml, line 2: keys: is not known here"
    ),
    "yaml_model": Kind(
        in_yaml(YAML.replace("acme_", "not_")), r"model/defs\.yaml, line 2: not_bad.* cannot be imported"
    ),
    "one_table": Kind(
        python(PLAIN.replace("NAME_table", "meters")),
        r"one_table\.py: the table of dataset healthy and the table of dataset one_table would have one name, meters.*; the "
        r"other one is declared in .*healthy\.py",
    ),
    "one_aggregate": Kind(
        python(COMPUTING), r"one_aggregate\.py: .* one name, usage, as a table or view of .* analytics"
    ),
    "no_select": Kind(
        python(COMPUTING.replace("usage", "used").replace("m.c.kwh", "m.c.nope")),
        r"no_select\.py: .*nope",
        refused_by="tables",
    ),
    "too_wide": Kind(python(WIDE), r"too_wide\.py: .*at most 1600 columns", refused_by="database"),
    "table_taken": Kind(
        python(PLAIN),
        r"table_taken\.py: production\.table_taken_table exists already, and the platform did not make it",
        "CREATE TABLE production.NAME_table (thing text PRIMARY KEY)",
        refused_by="database",
    ),
    "other_shape": Kind(
        python(PLAIN),
        r"other_shape\.py: production\.other_shape_table\.thing is INTEGER in the database and TEXT",
        SHAPED,
        refused_by="database",
    ),
}
BAD = pytest.mark.parametrize("name", KINDS)

TAKING = {
    "load": "load NAME FILE --json",
    "files": "files NAME",
    "rejects": "rejects NAME --json",
    "reprocess": "reprocess NAME --json",
    "explain": "explain NAME m1 --json",
    "export": "export NAME --out OUT",
    "sample": "sample NAME --out OUT --rows 5",
    "verify": "verify NAME --json",
    "sync": "sync NAME",
    "sources": "sources NAME",
    "forget": "forget NAME m1",
    "adopt": "adopt NAME --from -",
}
"""Every command that takes a dataset, in this order."""
OF_HEALTHY = {"forget": USAGE, "adopt": USAGE}
"""Exit codes for the healthy dataset other than 0: it has no personal data, and no other system's table."""
WITHOUT_TABLES = ("sample",)
"""Commands that do without tables, and so for a dataset whose declaration is valid by itself."""
LISTING = ("files --json", "sources", "alerts list --json", "key list", "backup BACKUPS")
"""Commands about the whole platform."""
SAYING = ("verify", "purge --dry-run")
"""Commands about all datasets that say which ones are left out."""
ABOUT_ALL = (
    "/", "/files", "/quality", "/runs", "/state", "/stats", "/metrics", "/openapi.json", "/api/datasets/", "/api/health/",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a project with a healthy dataset and a bad one of each kind, whose environment is set."""
    root = tmp_path_factory.mktemp("project")
    package = root / "acme_bad_neighbour"
    package.mkdir()
    (package / "a_healthy.py").write_text(HEALTHY)
    with copied(server, template) as url, pytest.MonkeyPatch.context() as patch:
        for name, kind in KINDS.items():
            kind.write(package, name)
            if kind.in_database:
                execute(url, kind.in_database.replace("NAME", name))
        set_environment(patch, url, root)
        (root / "data" / "healthy").mkdir(parents=True)
        (root / "readings.csv").write_text("meter,kwh\nm1,1.5\nm2,-1\n")
        patch.syspath_prepend(str(root))
        patch.setenv("MINI_PLATFORM_DATASETS", package.name)
        patch.delitem(sys.modules, "mini_platform.definitions", raising=False)
        yield root
        sys.modules.pop("mini_platform.definitions", None)  # It has these datasets.


@pytest.fixture(scope="module")
def run(folder: Path) -> Callable[..., Result]:
    """Called with a command, and the name of the dataset that it is about."""

    def call(command: str, name: str = "") -> Result:
        files = {"FILE": "readings.csv", "OUT": "out.csv", "BACKUPS": "backups"}
        words = {"NAME": name} | {word: str(folder / file) for word, file in files.items()}
        result = here(*(words.get(word, word) for word in command.split()), text_input="postgresql://127.0.0.1:1/none")
        assert "Traceback" not in result.output
        return result

    return call


@pytest.fixture(scope="module")
def loaded(run: Callable[..., Result]) -> dict[str, Result]:
    """The results of every command that takes a dataset, for the healthy one; its file is loaded by the first."""
    return {name: run(command, "healthy") for name, command in TAKING.items()}


def values_of(lines: list[dict[str, Any]], *names: str) -> str:
    """The values with these names, as lines."""
    return "\n".join(str(line[name]) for line in lines for name in names)


# Commands


def test_every_command_that_takes_a_dataset_is_looked_at() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    takes = {name for name, command in commands.items() if any(p.metavar == "DATASET" for p in command.params)}
    assert takes == TAKING.keys()


def test_the_healthy_one_is_as_without_bad_ones(run: Callable[..., Result], loaded: dict[str, Result]) -> None:
    assert {name: result.exit_code for name, result in loaded.items()} == dict.fromkeys(TAKING, 0) | OF_HEALTHY
    (file,) = objects(run("files healthy --json").stdout)
    assert (file["status"], file["rows_read"], file["rows_unchanged"], file["rows_rejected"]) == ("loaded", 2, 1, 1)


@BAD
def test_a_command_about_a_bad_one_says_why(name: str, run: Callable[..., Result]) -> None:
    for command, arguments in TAKING.items():
        result = run(arguments, name)
        if KINDS[name].refused_by != "registry" and command in WITHOUT_TABLES:
            assert result.exit_code == 0, result.output
        else:
            assert (result.exit_code, result.stdout) == (USAGE, ""), command
            assert re.search(KINDS[name].why, result.stderr), command


def test_commands_about_all(run: Callable[..., Result], loaded: dict[str, Result]) -> None:
    for command in (*LISTING, *SAYING):
        result = run(command)
        assert result.exit_code == 0, (command, result.output)
        if command in SAYING:
            assert all(re.search(kind.why, result.stderr) for kind in KINDS.values()), command


def test_each_is_a_finding_of_the_doctor_an_incident_and_a_fact_of_the_status(run: Callable[..., Result]) -> None:
    findings = objects(run("doctor --json").stdout)
    problems = [one for one in findings if one["check"] == "datasets" and one["level"] == "problem"]
    incidents = [one for one in objects(run("alerts list --json").stdout) if one["kind"] == "declaration_invalid"]
    assert len(problems) == len(KINDS)
    assert {one["dataset"] for one in incidents} == KINDS.keys()
    (facts,) = objects(run("status --json").stdout)
    for name, kind in KINDS.items():
        assert re.search(kind.why, values_of(problems, "message")), name
        assert re.search(kind.why, values_of(incidents, "message")), name
        assert re.search(kind.why, "\n".join(facts["invalid_declarations"])), name
    assert "DROP" not in values_of(findings, "advice"), "the tables of an invalid dataset may have rows"


# Dagster


@pytest.fixture(scope="module")
def defs(folder: Path) -> dg.Definitions:
    return load_defs()


def test_the_assets_of_the_healthy_one_materialize(defs: dg.Definitions) -> None:
    assert defs.resolve_job_def("load_healthy").execute_in_process(raise_on_error=False).success


@BAD
def test_a_bad_one_is_an_asset_that_says_why(name: str, defs: dg.Definitions) -> None:
    graph = defs.get_repository_def().asset_graph
    keys = {key for key in graph.get_all_asset_keys() if key.path[0] == name}
    if KINDS[name].refused_by != "database":
        (asset,) = map(graph.get, keys)
        assert (asset.is_materializable, asset.group_name) == (False, name)
        assert re.search(KINDS[name].why, asset.description or "")
        assert "invalid" in asset.kinds
        return
    with dg.build_sensor_context(resources={"platform": Platform()}) as context:
        (sensor,) = [one for one in defs.sensors or () if one.name == f"{name}_files"]
        assert re.search(KINDS[name].why, sensor(context).skip_message)
    job = defs.resolve_implicit_global_asset_job_def()
    for key in keys:
        failed = job.execute_in_process(raise_on_error=False, asset_selection=[key])
        (step,) = failed.get_step_failure_events()
        error = step.step_failure_data.error
        while error.cause:
            error = error.cause
        assert re.search(KINDS[name].why, error.message), key


# Web


@pytest.fixture(scope="module")
def site(folder: Path, loaded: dict[str, Result]) -> Iterator[tuple[httpx.Client, list[str]]]:
    """A client of the web process's app, and the paths of datasets that it serves."""
    platform = Platform()
    served = create_app(Site(platform))
    paths = sorted({path for method, path in endpoints_of(served.routes) if method == "GET" and "{dataset}" in path})
    with serving(served) as url, httpx.Client(base_url=url, timeout=60) as client:
        # The first request of all, before anything has opened the database.
        assert client.get("/api/datasets/too_wide/rows/").status_code == 503
        yield client, paths
    platform.engine.dispose()


def test_pages_and_paths_of_the_healthy_one(site: tuple[httpx.Client, list[str]]) -> None:
    client, paths = site
    for path in paths:
        assert client.get(path.format(dataset="healthy", analytics="usage", file_id=1)).status_code == 200, path


@BAD
def test_pages_and_paths_of_a_bad_one_say_why(name: str, site: tuple[httpx.Client, list[str]]) -> None:
    client, paths = site
    answers = [client.get(path.format(dataset=name, analytics="usage", file_id=1)) for path in paths]
    answers.append(client.post(f"/api/datasets/{name}/files/", files={"file": ("a.csv", b"meter\nm3\n")}))
    for answer in answers:
        assert answer.status_code == 503, answer.request.url
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert re.search(KINDS[name].why, answer.json()["detail"]), answer.request.url
    for path in (f"/datasets/{name}", *([] if KINDS[name].refused_by == "database" else [f"/{name}"])):
        page = client.get(path, headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
        assert re.search(KINDS[name].why, html.unescape(page.text))


def test_pages_and_paths_about_all(site: tuple[httpx.Client, list[str]]) -> None:
    client, _ = site
    for path in ABOUT_ALL:
        assert client.get(path).status_code == 200, path
    assert [one["name"] for one in client.get("/api/datasets/").json()["results"]] == ["healthy"]
    health = client.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert set(health.json()["declarations_invalid"]) == KINDS.keys()
    overview = html.unescape(client.get("/", headers={"Accept": "text/html"}).text)
    assert [name for name, kind in KINDS.items() if not re.search(kind.why, overview)] == []


def test_what_the_database_refused_works_once_it_is_corrected(
    site: tuple[httpx.Client, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test: the processes that run take it up by themselves."""
    client, _ = site
    with Platform().engine.begin() as conn:
        conn.exec_driver_sql("DROP TABLE production.table_taken_table")
    monkeypatch.setattr(platform_module, "PAUSE_SECONDS", 0)
    assert client.get("/api/datasets/table_taken/rows/").status_code == 200
    assert "table_taken" not in client.get("/health").json()["declarations_invalid"]
