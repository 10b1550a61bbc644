"""Alert rules, scrape config and dashboard: checked by promtool, and held to what the API really exports."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import httpx
import pytest
import yaml

from mini_platform_tests.support.databases import Pipeline
from mini_platform_tests.support.examples import weather
from mini_platform_tests.support.repository import PROJECT

FOLDER = PROJECT / "mini_platform" / "operations" / "monitoring"
MISSING = "promtool is missing, so no rule was checked: apt-get install prometheus"
NAME = re.compile(r"\b(?:mini_platform|process)_[a-z_]+\b")


@pytest.fixture
def promtool() -> str:
    path = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        warnings.warn(MISSING, stacklevel=1)
        pytest.skip(MISSING)
    return path


def output_of(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_alerts_fire_on_what_they_are_about(promtool: str, tmp_path: Path) -> None:
    for path in (FOLDER / "alerts.yml", Path(__file__).with_name("alerts_test.yml")):
        shutil.copy(path, tmp_path)
    assert "SUCCESS" in output_of(promtool, "test", "rules", "alerts_test.yml", cwd=tmp_path)
    rules = {
        rule["alert"]
        for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    }
    tested = re.findall(r"alertname: (\w+)\n\s+exp_alerts", (tmp_path / "alerts_test.yml").read_text())
    assert set(tested) == rules


def test_the_scrape_config_is_valid(promtool: str) -> None:
    assert "SUCCESS" in output_of(promtool, "check", "config", "--syntax-only", "prometheus.yml", cwd=FOLDER)


def test_requested_metrics_are_what_the_api_exports(client: httpx.Client, pipeline: Pipeline, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("station_id,date,temp_c,precip_mm\nOSL,2026-01-01,1,0\nOSL,2026-01-02,warm,0\n")
    pipeline(weather, path)
    client.get("/api/health/")
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    text = client.get(config["scrape_configs"][0]["metrics_path"]).text
    exported = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    exported |= {f"{name}_bucket" for name in exported}
    requested = {
        name
        for file in ("alerts.yml", "grafana/platform.json")
        for line in (FOLDER / file).read_text().splitlines()
        if '"expr"' in line or "mini_platform_" in line
        for name in NAME.findall(line.replace("mini_platform_tests", ""))
    }
    assert len(requested) > 8
    assert requested - exported == set()


def test_panels_of_the_dashboard_do_not_cover_each_other() -> None:
    dashboard = json.loads((FOLDER / "grafana" / "platform.json").read_text())
    occupied: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & occupied, panel["title"]
        assert max(x for x, _ in cells) < 24
        occupied |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
