"""A real Postgres for the tests: one server per test process, a database of its own for each test.

    server          the server's URL; started when the first test needs it, stopped at the end of the session
    database_url    an empty database with every table in it, Dagster's too; dropped afterwards
    restored_url    the database of a module, as it was when it was new; for many small tests
    engine          on that database
    home, data      folders of this test; the settings' environment points to them and to that database
    platform        the platform's resource in that environment
    pipeline        lands and processes files, without Dagster
    samples         every sample in data/, loaded by it
    web             URL of the web process's app on that database, served by uvicorn on a free port
    client          an HTTP client of it
    samples_engine  on a database with every sample, which the tests of a module share: they only read
    samples_web     URL of the web process's app on that database

In-process tests of assets should build their own definitions by `build_defs(all_datasets())`: those in
`mini_platform.definitions.defs` keep the engine of the first database that they saw.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

pytest.register_assert_rewrite("mini_platform_tests.support")

from mini_platform.cli import output
from mini_platform.datasets import all_datasets
from mini_platform.platform import Platform
from mini_platform.warehouse import connection, embedded
from mini_platform.warehouse.schema import create_all
from mini_platform_tests.support import claims, drawn, rings
from mini_platform_tests.support.databases import (
    FAST,
    TEMPLATE,
    TEMPLATE_WITH_SAMPLES,
    WATCH,
    Pipeline,
    ReusedDatabase,
    copied,
    execute,
    load_files,
    open_platform,
    set_environment,
    url_of,
)
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.sample_files import SAMPLE_FILES
from mini_platform_tests.support.web import serving_platform


def pytest_report_header() -> str:
    return drawn.header()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == drawn.REPORT and report.when == "call":
                terminalreporter.write_line(str(value))
    replaced_systems(terminalreporter)


def replaced_systems(terminalreporter: pytest.TerminalReporter) -> None:
    """Write how many claims of each replaced system hold, if their list was tested in this run."""
    passed: dict[str, bool] = {}
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            if outcome != "passed" or report.when == "call":
                test = report.nodeid.partition("[")[0].removeprefix("mini_platform_tests/")
                passed[test] = passed.get(test, True) and outcome == "passed"
    if "replaced/test_claims.py::test_every_claim_names_tests_that_exist_or_a_reason" not in passed:
        return
    terminalreporter.section("claims of the replaced systems")
    for system in claims.SYSTEMS:
        module = import_module(f"mini_platform_tests.replaced.test_{system}")
        terminalreporter.write_line(claims.line(system, claims.counts(module.CLAIMS, passed)))


def pytest_itemcollected(item: pytest.Item) -> None:
    rings.mark(item)


@pytest.hookimpl(trylast=True)  # After `-m` has chosen.
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    drawn.deselect(config, items)


@pytest.fixture(scope="session", autouse=True)
def no_progress() -> None:
    """In this process commands do not say what they are doing, as that depends on time."""
    output.BRIEF_SECONDS = 1e6


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("server")
    url = embedded.ensure_running(home, FAST)
    watch = subprocess.Popen(
        [sys.executable, "-c", WATCH, str(home)], stdin=subprocess.PIPE, cwd=PROJECT, start_new_session=True
    )
    yield url
    watch.communicate(timeout=60)
    assert embedded.pid(home) is None


@pytest.fixture(scope="session")
def template(server: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a database with every table in it, from which those of the tests are copied."""
    from mini_platform.dagster.storage import PlatformStorage

    execute(server, f"CREATE DATABASE {TEMPLATE}")
    url = url_of(server, TEMPLATE)
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, url, tmp_path_factory.mktemp("template"))
        db_engine = connection.engine(url)
        for refused in create_all(db_engine, all_datasets().values()).values():
            raise refused
        db_engine.dispose()
        PlatformStorage.from_config_value(None, {})
    return TEMPLATE


@pytest.fixture(scope="session")
def template_with_samples(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Name of a database in which every sample of every dataset is loaded, and the home of its platform."""
    folder = tmp_path_factory.mktemp("samples")
    execute(server, f"CREATE DATABASE {TEMPLATE_WITH_SAMPLES} TEMPLATE {template}")
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, url_of(server, TEMPLATE_WITH_SAMPLES), folder)
        sample_platform = Platform()
        for name, dataset in reversed(all_datasets().items()):
            load_files(
                sample_platform,
                dataset,
                *sorted(path for path in (SAMPLE_FILES / name).iterdir() if path.name[0] != "."),
            )
        sample_platform.engine.dispose()
    return TEMPLATE_WITH_SAMPLES, folder / "home"


@pytest.fixture
def database_url(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    if "samples" in request.fixturenames:
        template, _ = request.getfixturevalue("template_with_samples")
    else:
        template = request.getfixturevalue("template")
    with copied(server, template) as url:
        yield url


@pytest.fixture(scope="module")
def reused_database(server: str, template: str) -> Iterator[ReusedDatabase]:
    with copied(server, template) as url:
        yield ReusedDatabase(url)


@pytest.fixture
def restored_url(reused_database: ReusedDatabase) -> Iterator[str]:
    """URL of the module's database; for modules of many small tests, which define `database_url` by it."""
    yield reused_database.url
    reused_database.restore()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    db_engine = connection.engine(database_url)
    yield db_engine
    db_engine.dispose()


@pytest.fixture
def home(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    set_environment(monkeypatch, database_url, tmp_path)
    if "samples" in request.fixturenames:
        _, folder = request.getfixturevalue("template_with_samples")
        shutil.copytree(folder, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def data(home: Path) -> Path:
    folder = home.with_name("data")
    for name in all_datasets():
        (folder / name).mkdir(parents=True)
    return folder


@pytest.fixture
def platform(home: Path) -> Iterator[Platform]:
    instance = Platform()
    assert instance.settings.home == home
    yield instance
    instance.engine.dispose()


@pytest.fixture
def pipeline(platform: Platform) -> Pipeline:
    """Called with a dataset and paths of files, see `load_files`."""
    return partial(load_files, platform)


@pytest.fixture
def samples(home: Path) -> None:
    """Every sample of every dataset, loaded, in a copy of one database and home; the first file is of weather."""


@pytest.fixture
def web(platform: Platform) -> Iterator[str]:
    with serving_platform(platform) as url:
        yield url


@pytest.fixture(scope="module")
def samples_platform(
    server: str, template_with_samples: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    name, folder = template_with_samples
    copy = tmp_path_factory.mktemp("read")
    shutil.copytree(folder, copy / "home")
    with open_platform(server, name, copy) as sample_platform:
        yield sample_platform


@pytest.fixture(scope="module")
def samples_engine(samples_platform: Platform) -> Engine:
    return samples_platform.engine


@pytest.fixture(scope="module")
def samples_web(samples_platform: Platform) -> Iterator[str]:
    with serving_platform(samples_platform) as url:
        yield url


@pytest.fixture
def client(web: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=web, timeout=30) as http_client:
        yield http_client
