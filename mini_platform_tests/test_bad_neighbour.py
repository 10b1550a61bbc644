"""One bad declaration stops itself only: each kind of it beside a healthy dataset, in every command, page and asset.

A new kind is one more entry of `KINDS`. A kind is seen once: its project is looked at by one test, in one database.
"""

from __future__ import annotations

import html
import re
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import httpx
import pytest
import typer
from sqlalchemy import Engine
from typer.testing import Result

from mini_platform.cli import app
from mini_platform.cli.errors import USAGE
from mini_platform.dagster.loading import load_defs
from mini_platform.platform import Platform
from mini_platform.web.app import create_app
from mini_platform.web.site import Site
from mini_platform_tests.support.command import here, objects
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
BROKEN = """
from mini_platform import Dataset, Field, RowModel


class Thing(RowModel):
    thing: str = Field("Number of the thing", str_length={"max_value": 20})


dataset = Dataset(name="broken", table="things", description="Things.", rows=Thing, key=("thing",))
"""
WIDE = """
from mini_platform import Dataset, Field, RowModel

fields = {f"c{number}": Field(f"Column {number}") for number in range(1600)}
hints = {"thing": "str"} | dict.fromkeys(fields, "int | None")
key = {"thing": Field("Number of the thing", str_length={"max_value": 20})}
Thing = type("Thing", (RowModel,), {"__annotations__": hints, "__module__": __name__, **key, **fields})

dataset = Dataset(name="broken", table="things", description="Things.", rows=Thing, key=("thing",))
"""
YAML = "type: mini_platform.components.Dataset\nattributes: {name: broken, model: MODEL, key: meter}\n"


def python(content: str, name: str = "broken") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / f"{name}.py").write_text(content)

    return write


def later(content: str) -> Callable[[Path], None]:
    """Declare it in a file that comes after the healthy one."""
    return python(content, "later")


def in_yaml(content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "broken").mkdir()
        (folder / "broken" / "defs.yaml").write_text(content.replace("MODEL", f"{folder.name}.healthy.Meter"))

    return write


def bytes_of_another_encoding(folder: Path) -> None:
    (folder / "broken.py").write_bytes("x = 'Zähler'\n".encode("latin-1"))


def link_to_nothing(folder: Path) -> None:
    (folder / "broken.py").symlink_to(folder / "nowhere.py")


@dataclass(frozen=True)
class Kind:
    """A kind of bad declaration.

    Attributes:
        write: writes it into the folder of datasets; the dataset is called `broken`.
        why: what the sentence about it says, as a regular expression.
        in_database: statement that is executed before, for what only the database can refuse.
        has_assets: True if Dagster has its assets, as only the database refuses it.
    """

    write: Callable[[Path], None]
    why: str
    in_database: str | None = None
    has_assets: bool = False


KINDS = {
    "syntax": Kind(python("x = 1\nx = ("), r"broken\.py, line 2: SyntaxError: "),
    "does not import": Kind(python("import not_there"), r"broken\.py, line 1: ModuleNotFoundError: .*not_there"),
    "ends the process": Kind(python("import sys\nsys.exit(7)"), r"broken\.py, line 2: SystemExit: 7"),
    "declares none": Kind(python("x = 1"), r"broken\.py declares no dataset: it should say `dataset = Dataset"),
    "wrong type": Kind(python("dataset = 7"), r"broken\.py: `dataset` is of the type int, and should be of Dataset"),
    "invalid": Kind(python(BROKEN.replace('("thing",)', '("day",)')), r"broken\.py.*, line \d+: .*day"),
    "another encoding": Kind(bytes_of_another_encoding, r"broken\.py.*SyntaxError: .*(utf-8|unicode)"),
    "unreadable": Kind(link_to_nothing, r"broken\.py.*(ModuleNotFound|No such file)"),
    "yaml broken": Kind(in_yaml("type: [\n"), r"broken/defs\.yaml, line 2: "),
    "yaml invalid": Kind(in_yaml(YAML.replace("key", "keys")), r"broken/defs\.yaml, line 2: keys: is not known here"),
    "yaml model": Kind(
        in_yaml(YAML.replace("MODEL", "not_there.Meter")), r"defs\.yaml, line 2: not_there cannot be imp"
    ),
    "one table": Kind(
        later(BROKEN.replace('"things"', '"meters"')),
        r"later\.py: the table of dataset healthy and the table of dataset broken would have one name, meters, .*healthy\.py",
    ),
    "no select": Kind(
        python(HEALTHY.replace("healthy", "broken").replace('"meters"', '"things"').replace("m.c.kwh", "m.c.nope")),
        r"broken\.py: .*nope",
    ),
    "one aggregate": Kind(
        later(HEALTHY.replace("healthy", "broken").replace('"meters"', '"things"')),
        r"would have one name, usage, as a table or view of the schema analytics",
    ),
    "too wide": Kind(python(WIDE), r"broken\.py: .*columns", has_assets=True),
    "table taken": Kind(
        python(BROKEN),
        r"broken\.py: production\.things exists already, and the platform did not make it",
        "CREATE TABLE production.things (thing text PRIMARY KEY)",
        has_assets=True,
    ),
    "table of another shape": Kind(
        python(BROKEN),
        r"broken\.py: production\.things.thing is INTEGER in the database and TEXT in the declaration",
        "CREATE TABLE production.things (thing int PRIMARY KEY, _file_id bigint NOT NULL, _loaded_at timestamptz NOT NULL);"
        "COMMENT ON TABLE production.things IS 'Things'",
        has_assets=True,
    ),
}

TAKING = {
    "load": "load NAME FILE --json",
    "files": "files NAME",
    "rejects": "rejects NAME --json",
    "reprocess": "reprocess NAME --json",
    "explain": "explain NAME m1 --json",
    "export": "export NAME --out OUT",
    "sample": "sample NAME --out OUT",
    "verify": "verify NAME --json",
    "sync": "sync NAME",
    "sources": "sources NAME",
    "forget": "forget NAME m1",
    "adopt": "adopt NAME --from -",
}
"""Every command that takes a dataset, in this order."""
OF_HEALTHY = {"forget": USAGE, "adopt": USAGE}
"""Exit codes for the healthy dataset other than 0: it has no personal data, and no other system's table."""
OF_DECLARED = {"sample": 0}
"""Exit codes for a dataset that only the database refuses: this command does without it."""
LISTING = (
    "files --json",
    "verify --json",
    "sources",
    "alerts list --json",
    "key list",
    "purge --dry-run",
    "backup OUT2",
)
"""Commands about all datasets."""
ABOUT_ALL = (
    "/", "/files", "/quality", "/runs", "/state", "/stats", "/metrics", "/openapi.json", "/api/datasets/", "/api/health/",
)  # fmt: skip


@pytest.fixture
def database_url(restored_url: str) -> str:
    return restored_url


@pytest.fixture
def folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The datasets of a project, of which one is healthy."""
    package = tmp_path / f"acme_{uuid.uuid4().hex}"
    package.mkdir()
    (package / "healthy.py").write_text(HEALTHY)
    (home.with_name("data") / "healthy").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MINI_PLATFORM_DATASETS", package.name)
    monkeypatch.delitem(sys.modules, "mini_platform.definitions", raising=False)
    return package


def run(command: str, name: str, tmp_path: Path) -> Result:
    readings = tmp_path / "readings.csv"
    readings.write_text("meter,kwh\nm1,1.5\nm2,-1\n")
    words = {"NAME": name, "FILE": str(readings), "OUT": str(tmp_path / "out.csv"), "OUT2": str(tmp_path / "backups")}
    result = here(
        *(words.get(word, word) for word in command.split()), text_input="postgresql://nobody@127.0.0.1:1/none"
    )
    assert "Traceback" not in result.output
    return result


def test_every_command_that_takes_a_dataset_is_looked_at() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    takes = {name for name, command in commands.items() if any(p.metavar == "DATASET" for p in command.params)}
    assert takes == TAKING.keys()


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_a_bad_declaration_stops_itself_only(kind: Kind, folder: Path, engine: Engine, tmp_path: Path) -> None:
    kind.write(folder)
    if kind.in_database:
        with engine.begin() as conn:
            conn.exec_driver_sql(kind.in_database)
    _commands(kind, tmp_path)
    _dagster(kind)
    _web(kind)


def _commands(kind: Kind, tmp_path: Path) -> None:
    for name, command in TAKING.items():
        healthy = run(command, "healthy", tmp_path)
        assert healthy.exit_code == OF_HEALTHY.get(name, 0), (name, healthy.output)
        assert not re.search(kind.why, healthy.stdout), name
        broken = run(command, "broken", tmp_path)
        expected = OF_DECLARED.get(name, USAGE) if kind.has_assets else USAGE
        assert broken.exit_code == expected, (name, broken.output)
        assert (broken.exit_code == 0) is not bool(re.search(kind.why, broken.stderr)), (name, broken.stderr)
    (file,) = objects(run("files healthy --json", "", tmp_path).stdout)
    assert (file["status"], file["rows_read"], file["rows_unchanged"], file["rows_rejected"]) == ("loaded", 2, 1, 1)
    for command in LISTING:
        result = run(command, "", tmp_path)
        assert result.exit_code == 0, (command, result.output)
    (incident,) = [one for one in objects(run("alerts list --json", "", tmp_path).stdout) if one["dataset"] == "broken"]
    assert incident["kind"] == "declaration_invalid"
    assert re.search(kind.why, incident["message"])
    findings = objects(run("doctor --json", "", tmp_path).stdout)
    (finding,) = [one for one in findings if one["check"] == "datasets"]
    assert finding["level"] == "problem"
    assert re.search(kind.why, finding["message"])
    assert not any("DROP" in one["advice"] for one in findings), "the tables of an invalid dataset may have rows"
    (sentence,) = objects(run("status --json", "", tmp_path).stdout)[0]["invalid_declarations"] or [""]
    assert kind.has_assets or re.search(kind.why, sentence), "nothing is running that it could ask for the database"


def _dagster(kind: Kind) -> None:
    defs = load_defs()
    graph = defs.get_repository_def().asset_graph
    of_broken = {key for key in graph.get_all_asset_keys() if key.path[0] == "broken"}
    assert graph.get(dg.AssetKey(["healthy", "meters"])).is_materializable
    result = defs.resolve_job_def("load_healthy").execute_in_process(raise_on_error=False)
    assert result.success
    if not kind.has_assets:
        (key,) = of_broken
        assert not graph.get(key).is_materializable
        assert re.search(kind.why, graph.get(key).description or "")
        assert "invalid" in graph.get(key).kinds
        return
    for key in of_broken:
        step = defs.get_implicit_global_asset_job_def()
        failed = step.execute_in_process(raise_on_error=False, asset_selection=[key])
        (error,) = [event.step_failure_data.error for event in failed.get_step_failure_events()]
        while error.cause:
            error = error.cause
        assert re.search(kind.why, error.message), key
    (sensor,) = [one for one in defs.sensors or () if one.name == "broken_files"]
    with dg.build_sensor_context(resources={"platform": Platform()}) as context:
        assert re.search(kind.why, sensor(context).skip_message)


def _web(kind: Kind) -> None:
    platform = Platform()
    site = create_app(Site(platform))
    paths = sorted({path for method, path in endpoints_of(site.routes) if method == "GET" and "{dataset}" in path})
    with serving(site) as url, httpx.Client(base_url=url, timeout=60) as client:
        for path in paths:  # First those of the bad one: nothing was asked that would have opened the database.
            answer = client.get(path.format(dataset="broken", analytics="usage", file_id=1))
            assert answer.status_code == 503, (path, answer.text)
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert re.search(kind.why, answer.json()["detail"]), path
            answer = client.get(path.format(dataset="healthy", analytics="usage", file_id=1))
            assert answer.status_code == 200, (path, answer.text)
        upload = client.post("/api/datasets/broken/files/", files={"file": ("a.csv", b"meter\nm3\n")})
        assert (upload.status_code, upload.headers["Content-Type"]) == (503, "application/problem+json")
        for path in ABOUT_ALL:
            assert client.get(path).status_code == 200, path
        assert [one["name"] for one in client.get("/api/datasets/").json()["results"]] == ["healthy"]
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert health.json()["declarations_invalid"] == ["broken"]
        overview = html.unescape(client.get("/", headers={"Accept": "text/html"}).text)
        assert re.search(kind.why, overview)
        page = client.get("/datasets/broken", headers={"Accept": "text/html"})
        assert page.status_code == 503
        assert re.search(kind.why, html.unescape(page.text))
    platform.engine.dispose()
