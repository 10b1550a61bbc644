"""Projects of one's own, from `init` to `down`, by the wheel and outside of any clone; one by typing the tutorial."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from mini_platform_tests.support.drawn import REPORT
from mini_platform_tests.support.installed import RAW_STORE, SETTINGS_OF_EXTRAS, Environment, to_install
from mini_platform_tests.support.ports import free_port
from mini_platform_tests.support.repository import PROJECT

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(600)]
TUTORIAL = PROJECT / "docs" / "tutorial.md"
API, DAGSTER = "8000", "3000"
ARRIVES_WITHIN = 60.0


class Session:
    """Commands of an environment in a folder; the time of each is reported at the end of the run."""

    def __init__(self, environment: Environment, folder: Path, report: Callable[[str, object], None]) -> None:
        self.environment, self.folder, self.settings = environment, folder, dict[str, str]()
        self._report = report

    def type(self, command: str, shows: Callable[[str], bool] = lambda _: True) -> str:
        """Type a command, again and again until its output shows something; return the output."""
        began = time.monotonic()
        while True:
            result = self.environment.run("bash", "-euc", command, cwd=self.folder, timeout=200, **self.settings)
            output = result.stdout + result.stderr
            if result.returncode == 0 and shows(output):
                self._report(REPORT, f"{time.monotonic() - began:6.1f} s  {command}")
                return output
            assert time.monotonic() - began < ARRIVES_WITHIN, f"{command}\n{output}"
            time.sleep(0.5)


@pytest.fixture
def session(
    environment: Environment, tmp_path: Path, record_property: Callable[[str, object], None]
) -> Iterator[Session]:
    session = Session(environment, tmp_path, record_property)
    yield session
    environment.run("mini-platform", "down", cwd=session.folder)


@pytest.fixture
def busy_ports() -> Iterator[None]:
    """Somebody listens at the default ports."""
    with ExitStack() as stack:
        for port in (API, DAGSTER):
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):  # Somebody does already.
                listener.bind(("127.0.0.1", int(port)))
                listener.listen()
        yield


def page(address: str) -> str:
    return httpx.get(address, timeout=30).raise_for_status().text


def shown(line: str, output: str, ports: Mapping[str, str]) -> bool:
    """True if a line of the output, or several of the log, have the words of a line of the page, in their order."""
    words = [re.escape(ports.get(word, word)) for word in re.split(r"[\s:]+", line)]
    return re.search(r".*?".join(words), output, re.DOTALL) is not None


def test_the_tutorial_is_as_it_is_typed(session: Session) -> None:
    ports = {API: str(free_port()), DAGSTER: str(free_port())}
    session.settings = {"MINI_PLATFORM_API_PORT": ports[API], "MINI_PLATFORM_DAGSTER_PORT": ports[DAGSTER]}
    for step in re.findall(r"^\$ (.*?)(?=^\$ |^```)", TUTORIAL.read_text(), re.DOTALL | re.MULTILINE):
        command, *lines = step.splitlines()
        if command.startswith("cd "):
            session.folder /= command.removeprefix("cd ")
            continue
        if command.startswith("dagster"):
            chart = page(f"http://127.0.0.1:{ports[API]}/readings")
            assert 'id="energy"' in chart
            assert "Mini Platform" in page(f"http://127.0.0.1:{ports[API]}/help/")
        session.type(command, lambda output, lines=lines: all(shown(line, output, ports) for line in lines))


def test_five_examples_run_where_the_ports_are_busy(session: Session, busy_ports: None) -> None:
    session.type("mini-platform init shop --example")
    session.folder /= "shop"
    lines = [f"{setting}={value}\n" for setting, (_, value) in SETTINGS_OF_EXTRAS.items()]
    (session.folder / ".env").write_text("".join(lines))
    started = session.type("mini-platform up --detach", lambda output: "busy" in output)
    assert [
        setting for setting, (extra, _) in SETTINGS_OF_EXTRAS.items() if to_install(setting, extra) not in started
    ] == []
    address = json.loads(session.type("mini-platform status --json"))["api_url"]
    samples = {"weather", "customers", "signals", "records", "sales"}
    session.type("mini-platform files --json", lambda output: samples <= loaded(output))
    rows = "station_id,date,temp_c,precip_mm\\nSEA,2026-01-01,8.9,0.0\\nSEA,2026-01-02,89.0,0.0\\n"
    session.type(f"printf '{rows}' > data/weather/mine.csv")
    session.type("mini-platform rejects weather", lambda output: "89.0" in output)
    session.type("mini-platform load weather data/weather/mine.csv")
    command = f"! {RAW_STORE}=s3://bucket/raw mini-platform load weather data/weather/mine.csv"
    session.type(command, lambda output: to_install(RAW_STORE, "s3") in output)
    for name in samples:
        assert name in page(f"{address}/{name}")
        assert name in page(f"{address}/api/datasets/")
    session.type("dagster asset materialize --select 'group:weather' -m shop.definitions")
    session.type("mini-platform down")


def loaded(output: str) -> set[str]:
    """Return the datasets of which a file was loaded."""
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {row["dataset"] for row in rows if row["status"] == "loaded"}


def test_the_projects_own_tests_pass(session: Session, tmp_path: Path) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--target", str(tmp_path / "pytest"), "pytest>=9"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options], check=True, timeout=200)
    session.type("mini-platform init acme")
    session.folder /= "acme"
    session.settings = {"PYTHONPATH": str(tmp_path / "pytest")}
    assert "passed" in session.type("python -m pytest")
