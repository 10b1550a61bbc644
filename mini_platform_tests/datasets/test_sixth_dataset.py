"""One more dataset is one more file, and is enough alone: in a copy of the project, with the commands that people type."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from mini_platform.config.settings import PROJECT

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
NAMES = """
import json
from mini_platform.definitions import defs
repository = defs.get_repository_def()
graph = repository.asset_graph
print(json.dumps({
    "assets": sorted(key.to_user_string() for key in graph.get_all_asset_keys()),
    "checks": sorted({key.asset_key.to_user_string() for key in graph.asset_check_keys}),
    "sensors": sorted(sensor.name for sensor in repository.sensor_defs),
}))
"""
OWN_PATHS = {
    *("/api/stations/", "/api/metrics/daily/", "/api/metrics/summary/", "/api/metrics/download/", "/api/quality/"),
    *("/api/import/", "/api/customers/", "/api/token-auth/", "/data", "/ingest", "/process"),
}
"""Of the datasets that come along."""
ANSWERS = """
import json, httpx
from mini_platform.web.site import Site
from mini_platform.web.app import create_app
from mini_platform_tests.support.web import serving
site = Site()
with serving(create_app(site)) as url, httpx.Client(base_url=url, timeout=60) as client:
    answers = [client.get(path) for path in ("/openapi.json", "/health", "/stats")]
    print(json.dumps([(answer.status_code, answer.json()) for answer in answers]))
site.close()
"""

PAGES = """
import sys
from fastapi.testclient import TestClient
from mini_platform.web.app import create_app
ask = TestClient(create_app(), base_url="http://127.0.0.1:8000")
for path in sys.argv[1:]:
    answer = ask.get(path, headers={"Accept": "text/html"})
    print(answer.status_code, " ".join(answer.text.split()))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, without its data."""
    root = tmp_path / "project"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "mini_platform", root / "mini_platform", ignore=ignored)
    for name in ("pyproject.toml", "dg.toml", "dagster.yaml", "workspace.yaml"):
        shutil.copy(PROJECT / name, root)
    return root


def run(project: Path, *command: str | Path, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    """A program of this environment, in the copy."""
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, cwd=project, timeout=timeout,
        env={**os.environ, "PYTHONPATH": str(project), "NO_COLOR": "1", "COLUMNS": "200"},
    )  # fmt: skip


def platform(project: Path, *arguments: str | Path) -> str:
    completed = run(project, sys.executable, "-m", "mini_platform.cli", *arguments)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def files_of(project: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(project)): path.read_bytes()
        for path in project.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def names(project: Path) -> dict[str, list[str]]:
    completed = run(project, sys.executable, "-W", "ignore", "-c", NAMES)
    assert completed.returncode == 0, completed.stderr
    definitions: dict[str, list[str]] = json.loads(completed.stdout)
    return definitions


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


@pytest.mark.parametrize("declare", [in_python, in_yaml])
def test_one_file_is_all(declare: object, project: Path, home: Path, engine: Engine, tmp_path: Path) -> None:
    (project / "models_of_somebody.py").write_text(MODEL)
    before, known = files_of(project), names(project)
    assert callable(declare)
    added = declare(project)
    definitions = names(project)
    assert {kind: sorted(set(definitions[kind]) - set(known[kind])) for kind in definitions} == {
        "assets": ["stations/quality_report", "stations/raw_csv", "stations/staging_stations", "stations/stations"],
        "checks": ["stations/quality_report", "stations/raw_csv", "stations/staging_stations", "stations/stations"],
        "sensors": ["stations_files"],
    }
    assert all(set(known[kind]) <= set(definitions[kind]) for kind in known)

    sample = tmp_path / "more.csv"
    platform(project, "sample", "stations", "--rows", "200", "--dirty", "0.1", "--out", sample)
    (outcome,) = map(json.loads, platform(project, "load", "stations", sample, "--json").splitlines())
    assert (outcome["status"], outcome["rows_read"], outcome["rows_inserted"]) == ("loaded", 200, 180)
    assert outcome["rows_rejected"] == 20
    rejects = [json.loads(line) for line in platform(project, "rejects", "stations", "--json").splitlines()]
    assert {"height_m_is_number", "height_m_in_range", "station_id_required"} <= {row["rule"] for row in rejects}
    platform(project, "verify", "stations")
    with engine.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM production.stations")).scalar() == 180
        assert conn.execute(text("SELECT count(*) FROM quarantine.stations")).scalar() == 20
        measured = text("SELECT count(*) FROM analytics.quality_report WHERE dataset = 'stations'")
        assert (conn.execute(measured).scalar() or 0) >= 6
    completed = run(
        project, sys.executable, "-c", PAGES, "/datasets/stations", *(["/stations"] if declare is in_python else [])
    )
    assert completed.returncode == 0, completed.stderr
    assert [line[:3] for line in completed.stdout.splitlines()] == ["200"] * completed.stdout.count("\n")
    if declare is in_python:
        assert "<dt>Stations</dt><dd>180</dd>" in completed.stdout
        assert 'id="countries"' in completed.stdout
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


def test_a_mistake_in_yaml_is_a_sentence_of_every_command(project: Path, home: Path) -> None:
    in_yaml(project)
    completed = run(project, sys.executable, "-m", "mini_platform.cli", "files")
    assert completed.returncode == 2
    assert completed.stderr.startswith(
        f"{project}/mini_platform/datasets/stations/defs.yaml, line 4: models_of_somebody cannot be"
    )
    assert "Traceback" not in completed.stderr


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
    assert {name.split("/")[0] for name in names(alone)["assets"]} == {"stations"}
    sample = tmp_path / "more.csv"
    platform(alone, "sample", "stations", "--rows", "20", "--out", sample)
    platform(alone, "load", "stations", sample)
    platform(alone, "verify")
    completed = run(alone, sys.executable, "-m", "mini_platform.cli", "load", "weather", sample)
    assert (completed.returncode, completed.stderr) == (
        2,
        "There is no dataset 'weather'. The datasets are: stations.\n",
    )
    findings = [
        json.loads(line)
        for line in run(alone, sys.executable, "-m", "mini_platform.cli", "doctor", "--json").stdout.splitlines()
    ]
    assert "no dataset declares" in next(
        item["message"] for item in findings if "production.measurements" in item["message"]
    )

    answered = run(alone, sys.executable, "-W", "ignore", "-c", ANSWERS)
    assert answered.returncode == 0, answered.stderr
    (_, document), (health, how), (stats, figures) = json.loads(answered.stdout)
    assert not OWN_PATHS & document["paths"].keys()
    assert {
        path.split("/")[3] for path in document["paths"] if path.startswith("/api/datasets/") and "{" not in path
    } <= {"stations", ""}
    assert not re.search(r"weather|sales|customers|signals|wether", json.dumps(document))
    assert (health, how["status"], how["etl_status"]) == (200, "ok", "success")
    assert (stats, figures["total_records_processed"]) == (200, 20)
