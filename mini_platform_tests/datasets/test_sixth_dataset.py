"""One more dataset is one more file, and is enough alone: in a copy of the project, with the commands that people type."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from mini_platform.dagster.loading import load_defs
from mini_platform_tests.support.repository import PROJECT

if TYPE_CHECKING:
    from sqlalchemy import Engine

HOW_TO = PROJECT / "docs" / "how-to" / "declare-a-dataset.md"
YAML = """\
type: mini_platform.components.Dataset
attributes:
  name: stations
  model: models_of_somebody.Station
  key: station_id
"""
MODEL = '''
import pandera.pandas as pa


class Station(pa.DataFrameModel):
    """Weather stations."""

    station_id: str = pa.Field(str_length={"min_value": 1, "max_value": 64})
    height_m: float = pa.Field(nullable=True, in_range={"min_value": -430, "max_value": 8850})
    country: str = pa.Field(str_length={"min_value": 2, "max_value": 2})
'''
OWN_PATHS = {
    *("/api/stations/", "/api/metrics/daily/", "/api/metrics/summary/", "/api/metrics/download/", "/api/quality/"),
    *("/api/import/", "/api/customers/", "/api/token-auth/", "/data", "/ingest", "/process"),
}
"""Of the datasets that come along."""


def names_in(defs: Any) -> dict[str, list[str]]:
    """Return the names of what Dagster is told of."""
    repository = defs.get_repository_def()
    graph = repository.asset_graph
    return {
        "assets": sorted(key.to_user_string() for key in graph.get_all_asset_keys()),
        "checks": sorted({key.asset_key.to_user_string() for key in graph.asset_check_keys}),
        "sensors": sorted(sensor.name for sensor in repository.sensor_defs),
    }


SESSION = """
from __future__ import annotations
import json, sys
from typing import Any
from fastapi.testclient import TestClient
from typer.testing import CliRunner
from mini_platform.cli import app, output
from mini_platform.definitions import defs
from mini_platform.web.app import create_app
NAMES_IN
output.BRIEF_SECONDS = 1e6  # no progress, which depends on time
requested = json.loads(sys.argv[1])
results = [CliRunner().invoke(app, arguments, catch_exceptions=False) for arguments in requested["commands"]]
with TestClient(create_app(), base_url="http://127.0.0.1:8000") as client:
    answers = [client.get(path, headers={"Accept": requested["accept"]}) for path in requested["paths"]]
outputs = [[result.exit_code, result.stdout, result.stderr] for result in results]
print(json.dumps([names_in(defs), outputs, [[answer.status_code, answer.text] for answer in answers]]))
""".replace("NAMES_IN", inspect.getsource(names_in))
"""Commands one after the other, then pages, and the definitions: in one process, as the start of each takes seconds."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, without its data."""
    root = tmp_path / "project"
    shutil.copytree(PROJECT / "mini_platform", root / "mini_platform")
    for name in ("pyproject.toml", "dg.toml", "dagster.yaml", "workspace.yaml"):
        shutil.copy(PROJECT / name, root)
    return root


def run(project: Path, *command: str | Path, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    """A program of this environment, in the copy."""
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=project, timeout=timeout,
        env={**os.environ, "PYTHONPATH": str(project), "MINI_PLATFORM_PROJECT": str(project),
             "NO_COLOR": "1", "COLUMNS": "200"},
    )  # fmt: skip


Session = tuple[dict[str, list[str]], list[tuple[int, str, str]], list[tuple[int, str]]]


def session(project: Path, commands: Sequence[str], paths: Sequence[str], accept: str) -> Session:
    """Return the names of the definitions, the results of commands, and answers of the web process afterwards."""
    requested = {"commands": [shlex.split(command) for command in commands], "paths": paths, "accept": accept}
    completed = run(project, sys.executable, "-W", "ignore", "-c", SESSION, json.dumps(requested))
    assert completed.returncode == 0, completed.stderr
    names, results, answers = json.loads(completed.stdout)
    return names, [tuple(result) for result in results], [tuple(answer) for answer in answers]


def files_of(project: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(project)): path.read_bytes()
        for path in project.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def in_python(project: Path) -> str:
    """Add the example of the documentation, which is a whole dataset; returns the file that was added."""
    (example,) = re.findall(r"```python\n(\"\"\"Stations.*?)```", HOW_TO.read_text(), re.DOTALL)
    # Of a pattern no example can be drawn; of two letters it can.
    drawable = example.replace('str_matches="^[A-Z]{2}$"', 'isin=["NO", "SE"]')
    (project / "mini_platform" / "datasets" / "stations.py").write_text(drawable)
    return "mini_platform/datasets/stations.py"


def in_yaml(project: Path) -> str:
    """Declare the same in YAML, over a model of pandas that somebody has; returns the file that was added."""
    folder = project / "mini_platform" / "datasets" / "stations"
    folder.mkdir()
    (folder / "defs.yaml").write_text(YAML)
    return "mini_platform/datasets/stations/defs.yaml"


@pytest.fixture(scope="module")
def known() -> dict[str, list[str]]:
    """The definitions of the project as it is."""
    return names_in(load_defs())


@pytest.mark.parametrize("declare", [in_python, in_yaml])
def test_one_file_is_all(
    declare: object, known: dict[str, list[str]], project: Path, home: Path, engine: Engine, tmp_path: Path
) -> None:
    (project / "models_of_somebody.py").write_text(MODEL)
    before = files_of(project)
    assert callable(declare)
    added = declare(project)
    sample = tmp_path / "more.csv"
    definitions, results, answers = session(
        project,
        [f"sample stations --rows 200 --dirty 0.1 --out {sample}", f"load stations {sample} --json",
         "rejects stations --json", "verify stations"],
        ["/datasets/stations", *(["/stations"] if declare is in_python else [])],
        "text/html",
    )  # fmt: skip
    assert {kind: sorted(set(definitions[kind]) - set(known[kind])) for kind in definitions} == {
        "assets": ["stations/quality_report", "stations/raw_csv", "stations/staging_stations", "stations/stations"],
        "checks": ["stations/quality_report", "stations/raw_csv", "stations/staging_stations", "stations/stations"],
        "sensors": ["stations_files"],
    }
    assert all(set(known[kind]) <= set(definitions[kind]) for kind in known)
    assert [code for code, _, _ in results] == [0] * 4, results
    (outcome,) = map(json.loads, results[1][1].splitlines())
    assert (outcome["status"], outcome["rows_read"], outcome["rows_inserted"]) == ("loaded", 200, 180)
    assert outcome["rows_rejected"] == 20
    rejects = [json.loads(line) for line in results[2][1].splitlines()]
    assert {"height_m_is_number", "height_m_in_range", "station_id_required"} <= {row["rule"] for row in rejects}
    with engine.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM production.stations")).scalar() == 180
        assert conn.execute(text("SELECT count(*) FROM quarantine.stations")).scalar() == 20
        measured = text("SELECT count(*) FROM analytics.quality_report WHERE dataset = 'stations'")
        assert (conn.execute(measured).scalar() or 0) >= 6
    assert [status for status, _ in answers] == [200] * len(answers)
    if declare is in_python:
        shown = " ".join(" ".join(page for _, page in answers).split())
        assert "<dt>Stations</dt><dd>180</dd>" in shown
        assert 'id="countries"' in shown
    after = files_of(project)
    assert set(after) - set(before) == {added}, "one file was added"
    assert {name: after[name] for name in before} == before, "and none was changed"


def test_the_commands_of_dg_know_the_component(project: Path, home: Path) -> None:
    (project / "models_of_somebody.py").write_text(MODEL)
    in_yaml(project)
    dg = Path(sys.executable).with_name("dg")
    assert "mini_platform.components.Dataset" in run(project, dg, "list", "components").stdout
    good = run(project, dg, "check", "yaml")
    assert good.returncode == 0, good.stdout + good.stderr
    path = project / "mini_platform" / "datasets" / "stations" / "defs.yaml"
    path.write_text(YAML.replace("key:", "keys:"))
    bad = run(project, dg, "check", "yaml")
    assert bad.returncode == 1
    assert "defs.yaml:" in bad.stdout + bad.stderr
    assert "'keys'" in bad.stdout + bad.stderr


@pytest.fixture
def alone(project: Path) -> Path:
    """A copy in which the datasets that come along are removed, with all that is their own, and another one is declared."""
    shutil.copytree(PROJECT / "mini_platform_tests", project / "mini_platform_tests", dirs_exist_ok=True)
    for folder in (project / "mini_platform" / "datasets").iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    in_python(project)
    return project


def test_another_dataset_alone(alone: Path, home: Path, engine: Engine, tmp_path: Path) -> None:
    sample = tmp_path / "more.csv"
    definitions, (*good, (code, _, message), (_, findings_in_json, _)), answers = session(
        alone,
        [f"sample stations --rows 20 --out {sample}", f"load stations {sample}", "verify", f"load weather {sample}",
         "doctor --json"],
        ["/openapi.json", "/health", "/stats"],
        "application/json",
    )  # fmt: skip
    assert {name.split("/")[0] for name in definitions["assets"]} == {"stations"}
    assert [code for code, _, _ in good] == [0] * 3, good
    assert (code, message) == (2, "There is no dataset 'weather'. The datasets are: stations.\n")
    findings = [json.loads(line) for line in findings_in_json.splitlines()]
    assert "no dataset declares" in next(
        item["message"] for item in findings if "production.measurements" in item["message"]
    )

    (_, document), (health, how), (stats, figures) = [(status, json.loads(body)) for status, body in answers]
    assert not OWN_PATHS & document["paths"].keys()
    assert {
        path.split("/")[3] for path in document["paths"] if path.startswith("/api/datasets/") and "{" not in path
    } <= {"stations", ""}
    assert not re.search(r"weather|sales|customers|signals|wether", json.dumps(document))
    assert (health, how["status"], how["etl_status"]) == (200, "ok", "success")
    assert (stats, figures["total_records_processed"]) == (200, 20)
