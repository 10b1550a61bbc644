"""Logs: the outcome of a file is logged with the ids of the file and of the run, in the form that is set."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mini_platform_tests.support.repository import PROJECT

LOAD = """
import sys
from pathlib import Path
from mini_platform.config import logs
from mini_platform_tests.support.examples import weather as dataset
from mini_platform.landing import folder
from mini_platform.operations.processing import process
from mini_platform.platform import Platform
from mini_platform.config.settings import load_settings

platform = Platform()
logs.configure(load_settings().logs)
path = Path(sys.argv[1])
list(folder.land(platform.engine, dataset, platform.store, [folder.DroppedFile(path.name, path, "")], "test"))
process(platform, dataset, run_id="run-4711")
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_became_of_a_file(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    assert home.parent == tmp_path
    monkeypatch.setenv("MINI_PLATFORM_LOGS", form)
    (tmp_path / "a.csv").write_text("station_id,date,temp_c,precip_mm\nOSL,2026-01-01,1,0\n")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "a.csv")]
    completed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT, timeout=200)
    assert completed.returncode == 0, completed.stderr
    if form == "console":
        assert "file loaded" in completed.stderr
        assert "run_id=run-4711" in completed.stderr
        return
    lines = [json.loads(line) for line in completed.stderr.splitlines()]
    events = [(line["event"], line["level"], line["file_id"], line["run_id"]) for line in lines]
    assert events == [("file staged", "info", 1, "run-4711"), ("file loaded", "info", 1, "run-4711")]
    assert all(line["timestamp"].endswith("Z") for line in lines)
