"""The findings of the doctor on real servers, folders, ports and variables; and what it does not touch."""

from __future__ import annotations

import datetime as dt
import shlex
import socket
import subprocess
import sys
import tomllib
import types
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sqlalchemy import Engine, FromClause, Select, func, select, text

from mini_platform import Aggregate, Dataset, Field, RowModel, View
from mini_platform.config import extras
from mini_platform.config.project import Project
from mini_platform.config.settings import load_settings
from mini_platform.operations import doctor, lock
from mini_platform.operations.check_result import CheckResult
from mini_platform.operations.doctor import examine
from mini_platform.warehouse.schema import create_all
from mini_platform_tests.support.command import cli, objects
from mini_platform_tests.support.ports import free_port
from mini_platform_tests.support.repository import PROJECT


@pytest.fixture(autouse=True)
def ports(data: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports of its own: on this machine a platform may run."""
    home.mkdir()
    for name in ("DAGSTER", "API"):
        monkeypatch.setenv(f"MINI_PLATFORM_{name}_PORT", str(free_port()))


def check_results(check: str, level: str) -> list[CheckResult]:
    return [finding for finding in examine() if (finding.check, finding.level) == (check, level)]


def test_a_healthy_platform_has_no_problem() -> None:
    result = cli("doctor", "--json")
    assert result.returncode == 0, result.stdout
    findings = objects(result.stdout)
    assert {item["level"] for item in findings} <= {"ok", "warning"}, findings
    checks = {"versions", "settings", "inboxes", "disk", "encryption", "ports", "database", "clock", "tables", "roles"}
    checks |= {"incidents"}
    assert {item["check"] for item in findings if item["level"] == "ok"} >= checks - {"disk"}
    assert {item["check"] for item in findings} == checks
    assert all(item["do"] for item in findings if item["level"] != "ok")


def test_tables_that_nothing_declares_any_more(engine: Engine) -> None:
    def by_day(t: FromClause) -> Select[Any]:
        return select(t.c.day, func.count().label("n")).group_by(t.c.day)

    class Rows(RowModel):
        day: str = Field("Day", str_length={"max_value": 10})
        since: dt.datetime = Field("Since", system="first_loaded")

    descriptions = {"day": ("Day",), "n": ("N",)}
    counted = Aggregate(by_day, ("day",), descriptions, ("day", "n"), surrogate="nr")
    view = View(types.FunctionType(by_day.__code__, globals(), "seen"), descriptions, ("day", "n"))
    past = Dataset("past", "days", Rows, ("day",), "Of yesterday", aggregates=(counted,), views=(view,))
    create_all(engine, [past])
    (finding,) = check_results("tables", "warning")
    names = "analytics.seen, analytics.by_day, ops.gone_days, ops.surrogates_by_day, production.days, quarantine.days"
    assert finding.message.startswith(f"no dataset declares {names}, staging.days any more")
    with engine.begin() as conn:
        conn.exec_driver_sql(shlex.split(finding.advice)[-1])
    assert check_results("tables", "warning") == []
    create_all(engine, [past])  # It is declared again.
    assert len(check_results("tables", "warning")) == 1


@pytest.mark.parametrize(
    ("name", "value", "level", "words"),
    [
        ("MINI_PLATFORM_RAW_RETENTOIN", "{}", "warning", "MINI_PLATFORM_RAW_RETENTION?"),
        ("MINI_PLATFORM_LEASE_SECONDS", "-1", "problem", "MINI_PLATFORM_LEASE_SECONDS is not valid"),
        ("MINI_PLATFORM_ETL_INTERVAL", "7", "problem", "MINI_PLATFORM_ETL_INTERVAL is not valid"),
    ],
)
def test_settings(monkeypatch: pytest.MonkeyPatch, name: str, value: str, level: str, words: str) -> None:
    monkeypatch.setenv(name, value)
    assert [words in f"{finding.message} {finding.advice}" for finding in check_results("settings", level)] == [True]


@pytest.mark.parametrize(
    "name", ["MINI_PLATFORM_API_SOURCE__RECORDS_API__URL", "MINI_PLATFORM_ETL_INTERVAL", "MINI_PLATFORM_PII_KEYS"]
)
def test_known_variables_are_not_pointed_out(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    values = {"MINI_PLATFORM_ETL_INTERVAL": "300", "MINI_PLATFORM_PII_KEYS": "a:" + "s" * 16}
    monkeypatch.setenv(name, values.get(name, "https://example.com/"))
    assert check_results("settings", "warning") == []


@pytest.mark.parametrize(
    ("extra", "setting", "value", "check"),
    [
        ("s3", "MINI_PLATFORM_INBOX__WEATHER__URL", "s3://bucket/prefix", "inboxes"),
        ("s3", "MINI_PLATFORM_RAW_STORE", "s3://bucket/prefix", "raw store"),
        ("sftp", "MINI_PLATFORM_INBOX__WEATHER_PARTNER__URL", "sftp://user@sftp.example.com/outgoing", "inboxes"),
        ("alerts", "MINI_PLATFORM_ALERTS", "json://127.0.0.1", "alerts"),
        ("sentry", "SENTRY_DSN", "https://key@sentry.example.com/1", "sentry"),
    ],
)
def test_a_setting_whose_extra_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, extra: str, setting: str, value: str, check: str
) -> None:
    """Said by the doctor, and once by `up` and the API (`refusals`)."""
    monkeypatch.setenv(setting, value)
    assert list(extras.refusals(load_settings())) == []
    monkeypatch.setitem(sys.modules, extras.MODULES[extra], None)  # as if it were not there
    sentence = f"{setting} needs packages that are not installed: pip install 'mini-platform[{extra}]'"
    assert [finding.message for finding in check_results(check, "problem")] == [sentence]
    assert list(extras.refusals(load_settings())) == [sentence]


def test_a_database_that_is_away_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://me:hunter2hunter2@127.0.0.1:{free_port()}/none")
    result = cli("doctor")
    assert result.returncode == 1
    assert "cannot be reached" in result.stdout
    assert "hunter2" not in result.stdout + result.stderr


def test_an_embedded_server_that_does_not_run_is_not_started(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.delenv("DATABASE_URL")
    assert [finding.message for finding in check_results("database", "warning")] == ["the embedded server does not run"]
    assert list(home.iterdir()) == []


def test_tables_of_another_declaration_are_pointed_out(engine: Engine) -> None:
    with engine.begin() as conn:
        conn.execute(text("UPDATE ops.fingerprints SET sha256 = 'other' WHERE name = 'weather'"))
    assert len(check_results("tables", "warning")) == 1
    with engine.begin() as conn:
        assert conn.scalar(text("SELECT sha256 FROM ops.fingerprints WHERE name = 'weather'")) == "other"


def test_a_port_that_somebody_else_has_is_a_problem(monkeypatch: pytest.MonkeyPatch, web: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("MINI_PLATFORM_DAGSTER_PORT", str(other.getsockname()[1]))
        monkeypatch.setenv("MINI_PLATFORM_API_PORT", web.rpartition(":")[2])
        assert [finding.message.split()[:4] for finding in check_results("ports", "problem")] == [
            ["port", str(other.getsockname()[1]), "of", "Dagster"]
        ]
        # A default port that is busy is none: `up` takes the next one.
        assert [finding.message.startswith("the API answers") for finding in check_results("ports", "ok")] == [True]
        # A default port that is busy is none: `up` takes the next one.
        monkeypatch.setattr("mini_platform.operations.doctor.is_set", lambda name: name == "api_port")
        assert not check_results("ports", "problem")


def test_folders_and_secrets(data: Path, home: Path) -> None:
    (data / "weather").rmdir()
    (home / "pii.key").write_text("local:secret")
    (home / "pii.key").chmod(0o644)
    assert ["weather" in finding.advice for finding in check_results("inboxes", "warning")] == [True]
    assert [finding.advice for finding in check_results("secrets", "problem")] == [f"chmod 600 {home / 'pii.key'}"]


def test_outside_a_clone_packages_are_compared_with_what_the_installed_platform_requires(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "project", lambda: Project(tmp_path, "acme"))
    (finding,) = check_results("versions", "ok")
    assert "packages as in the requirements of mini-platform" in finding.message
    (tmp_path / "requirements.lock").write_text("rich==1.0 \\\n    # via mini-platform (pyproject.toml)\n")
    (finding,) = check_results("versions", "problem")
    assert finding.message.startswith("packages differ from requirements.lock: rich ")


def test_what_runs_is_locked_and_what_develops_is_left_out() -> None:
    text_ = (PROJECT / "requirements.lock").read_text()
    packages = lock.runtime(text_)
    names = [package.name for package in packages]  # some twice: for different versions of Python
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    lines = [*declared["project"]["dependencies"], *chain(*declared["project"]["optional-dependencies"].values())]
    dependencies = {canonicalize_name(Requirement(line).name) for line in lines} - {"mini-platform"}
    assert dependencies <= set(names)
    tools = {canonicalize_name(Requirement(line).name) for line in declared["dependency-groups"]["dev"]}
    assert not (tools - dependencies) & set(names)
    assert all("--hash=sha256:" in package.block for package in packages)
    assert 50 < len(packages) < len(list(lock.read(text_)))
    result = subprocess.run(
        [sys.executable, "-I", PROJECT / "mini_platform" / "operations" / "lock.py", "hatchling"],
        input=text_, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout == "".join(package.block for package in lock.runtime(text_, "hatchling"))
    assert "\nhatchling==" in result.stdout
