"""The container files without an engine: what they say is valid and closed, and what they start runs.

No image is built and no container started here, as no engine is at hand: the compose file is held to the compose specification,
the Dockerfiles to hadolint, and each command of ours is started by hand where all but state and data is read-only (as root, in
a mount namespace of its own), with its health check, and a file goes through them. That the image can be built is not tested.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from compose_spec import PyCompose
from sqlalchemy import Engine, select

from mini_platform.cli.service import SERVICES
from mini_platform.operations import lock
from mini_platform.operations.doctor import LOCK
from mini_platform.operations.scaffold import TEMPLATE
from mini_platform.warehouse.tables import files
from mini_platform_tests.support.command import cli
from mini_platform_tests.support.ports import free_port
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.uploads import GOOD, URL

VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<words>[^}]*))?\}")
READY_SECONDS = 120.0
SENSOR = {"repositoryName": "__repository__", "repositoryLocationName": "mini_platform", "sensorName": "weather_files"}
STATE = "query($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor { sensorState { id } } } }"
STOP = "mutation($id: String!) { stopSensor(id: $id) { __typename } }"
RUNS = "{ runsOrError { ... on Runs { results { jobName status tags { key value } } } } }"
TICK_SECONDS = 6.0
"""A tick that has begun may still see a file, though its sensor was stopped."""
IN_BACKGROUND = ("sh", "-c", 'trap "" INT TERM; exec "$@"', "sh")
"""Starts a command as a script does in its background: with SIGINT ignored, and so does Dagster then with SIGTERM."""

WRITABLE = 'mount --bind "$PWD" "$PWD" && cd "$PWD" && mount -o remount,bind,ro / && exec "$@"'
READ_ONLY = ("unshare", "--mount", "sh", "-c", WRITABLE, "sh")
"""Starts a command where only the current folder can be written to, as `read_only`, volumes and tmpfs make a container."""


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
    return loaded


def interpolated(value: Any) -> Any:
    """Return a value as the engine interpolates it, every variable set or defaulted."""
    if isinstance(value, dict):
        return {name: interpolated(item) for name, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item) for item in value]
    if isinstance(value, str):
        return VARIABLE.sub(lambda m: m["words"] if m["kind"] == "-" else "secret", value).replace("$$", "$")
    return value


def validated(document: dict[str, Any]) -> None:
    PyCompose.from_json(json.dumps(document)).to_spec()


def test_the_compose_file_is_what_the_specification_says() -> None:
    document = interpolated(compose())
    validated(document)
    document["services"]["api"]["helthcheck"] = document["services"]["api"].pop("healthcheck")
    with pytest.raises(Exception, match="helthcheck"):
        validated(document)


@pytest.mark.parametrize("name", compose()["services"])
def test_every_service_is_closed(name: str) -> None:
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    if "user" in service and service["user"] == "root":  # gives a volume away, and ends
        assert (service["network_mode"], service["cap_add"], service["restart"]) == ("none", ["CHOWN"], "no")
    else:
        assert not service["user"].startswith("0")
        assert "cap_add" not in service
    if service["restart"] != "no":
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["image"] == "mini-platform" or re.search(r":[\w.-]*\d+\.\d+|:RELEASE\.\d{4}", service["image"])
    for port in service.get("ports", ()):
        assert port.startswith("${API_BIND:-127.0.0.1}:" if name == "api" else "127.0.0.1:")
    for source in (
        v.split(":")[0] for v in service.get("volumes", ()) if v.startswith("./") and not v.startswith("./data")
    ):
        assert (PROJECT / source).exists()


def test_no_password_has_a_default() -> None:
    text = (PROJECT / "docker-compose.yml").read_text()
    defaults = {m["name"]: m["words"] for m in VARIABLE.finditer(text) if m["kind"] != "?"}
    assert defaults == {"API_BIND": "127.0.0.1", "DAEMON_MEMORY": "4g"}
    for service in compose()["services"].values():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASS|SECRET|TOKEN|KEY|URL", variable) and value:
                assert value.startswith("/run/secrets/"), variable
        for secret in service.get("secrets", ()):
            assert compose()["secrets"][secret]["file"].startswith(".secrets/")
    assert "/.secrets/" in (PROJECT / ".gitignore").read_text().splitlines()


def test_the_dockerfile_is_lint_free() -> None:
    result = subprocess.run(
        ["hadolint", PROJECT / "Dockerfile"], capture_output=True, text=True, check=False, env=_bin()
    )
    assert (result.stdout, result.returncode) == ("", 0)


@pytest.mark.parametrize("folder", [PROJECT, TEMPLATE], ids=["ours", "a project's"])
def test_the_image_installs_by_hash_and_is_not_root(folder: Path) -> None:
    text_ = re.sub(r"\\\n\s*|^#.*\n", "", (folder / "Dockerfile").read_text(), flags=re.MULTILINE)
    *builds, image = re.split(r"^FROM ", text_, flags=re.MULTILINE)[1:]
    installs = re.findall(r"pip install (.*?)(?: &&|$)", text_, re.MULTILINE)
    assert installs
    for options in installs:
        assert "--no-deps" in options
        assert "--require-hashes" in options or "--no-index" in options, "nothing of an index is taken without its hash"
    for stage in (*builds, image):
        assert re.match(r"python:\d+\.\d+\.\d+-slim-bookworm", stage)
    assert re.findall(r"^USER (.+)$", image, re.MULTILINE) == ["1000:1000"]
    assert not re.search(r"^(ADD|ARG)|curl|chmod|sudo", text_, re.MULTILINE)


def test_the_sbom_has_every_locked_package(tmp_path: Path) -> None:
    """With its hashes; and the licence, if it is installed. `.ci/sbom` validates it against the schema."""
    subprocess.run([sys.executable, PROJECT / ".ci" / "sbom", tmp_path / "sbom.json"], check=True, capture_output=True)
    document = json.loads((tmp_path / "sbom.json").read_text())
    components = {(one["name"], one["version"]): one for one in document["components"]}
    packages = {(package.name, package.version): package for package in lock.read((PROJECT / LOCK).read_text())}
    assert components.keys() == packages.keys()
    for key, package in packages.items():
        hashes = {f"sha256:{each['content']}" for each in components[key]["hashes"]}
        assert hashes == set(re.findall(r"sha256:\w+", package.block))
    assert components["sqlalchemy", version("sqlalchemy")]["licenses"] == [{"license": {"id": "MIT"}}]
    of = {each["ref"]: each.get("dependsOn", []) for each in document["dependencies"]}
    assert f"pandera=={version('pandera')}" in of["mini-platform"]
    running = {name for (name, _), one in components.items() if one["scope"] == "required"}
    assert ("ruff" in running, "polars" in running) == (False, True)


def test_continuous_integration_runs_the_gate() -> None:
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    (gate,) = (step["run"] for step in steps if "run" in step)
    path = PROJECT / gate
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)
    targets = set(re.findall(r"^part \w+ make (\w+)", path.read_text(), re.MULTILINE))
    assert targets >= {"lint", "audit", "sbom", "docs", "test", "faults"}
    for target in targets:
        subprocess.run(["make", "--dry-run", target], cwd=PROJECT, check=True, capture_output=True)


def _bin() -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
def environment(home: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Ports of this test in place of those of the containers."""
    ports = {"3000": "DAGSTER_PORT", "4000": "CODE_SERVER_PORT", "8000": "API_PORT"}
    free = {number: str(free_port()) for number in ports}
    for number, name in ports.items():
        monkeypatch.setenv(f"MINI_PLATFORM_{name}", free[number])
    return free


@pytest.fixture
def running(environment: dict[str, str], home: Path, tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Every service of ours, started by the words of the compose file."""
    processes = {}
    read_only = READ_ONLY if os.geteuid() == 0 else ()
    (tmp_path / "tmp").mkdir()
    env = _bin() | {"PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(tmp_path / "tmp")}
    for name, service in compose()["services"].items():
        if service["image"] == "mini-platform" and service["restart"] != "no":  # the others: roles/test_metabase.py
            program, *arguments = service["command"]
            assert program == "mini-platform"
            with (tmp_path / f"{name}.log").open("wb") as log:
                processes[name] = subprocess.Popen(
                    [*read_only, *IN_BACKGROUND, sys.executable, "-m", "mini_platform.cli", *arguments],
                    cwd=tmp_path, stdout=log, stderr=log, env=env,
                )  # fmt: skip
    family = []
    try:
        yield processes
        family = [child for p in processes.values() for child in psutil.Process(p.pid).children(recursive=True)]
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait(timeout=60)
    finally:
        for process in processes.values():
            process.kill()
        _, alive = psutil.wait_procs(family, timeout=20)
        for child in alive:
            child.kill()
    assert alive == []


def logs_of(home: Path, folder: Path) -> list[Path]:
    """Return the log of the daemon and those of the last runs."""
    runs = sorted((home / "dagster" / "logs").rglob("compute_logs/*.err"), key=lambda path: path.stat().st_mtime)
    return [folder / "daemon.log", *runs[-2:]]


def healthy(service: str, environment: dict[str, str], home: Path) -> bool:
    kind, program, *arguments = compose()["services"][service]["healthcheck"]["test"]
    assert kind == "CMD"
    for inside, outside in environment.items():
        arguments = [re.sub(rf"\b{inside}\b", outside, argument) for argument in arguments]
    env = _bin() | {"DAGSTER_HOME": str(home / "dagster")}
    result = subprocess.run([program, *arguments], capture_output=True, check=False, env=env, timeout=60)
    return result.returncode == 0


@pytest.mark.faults
@pytest.mark.timeout(500)
def test_every_process_starts_by_its_command_gets_healthy_and_loads_a_file_together(
    running: dict[str, subprocess.Popen[bytes]],
    environment: dict[str, str],
    home: Path,
    data: Path,
    engine: Engine,
    tmp_path: Path,
) -> None:
    assert set(running) == set(SERVICES)
    give_up = time.monotonic() + READY_SECONDS
    ports, waiting = set(environment.values()), list(running)
    while waiting:
        time.sleep(0.5)
        assert time.monotonic() < give_up, {name: (tmp_path / f"{name}.log").read_text()[-2000:] for name in waiting}
        assert [name for name, process in running.items() if process.poll() is not None] == []
        ports = {port for port in ports if not listens(port)}
        if not ports:  # Before that no health check can say yes, and each takes seconds.
            waiting = [name for name in waiting if not healthy(name, environment, home)]
    assert not speaks_http(environment["4000"]), "no page of a browser can talk to the code server"
    (data / "weather" / "a.csv").write_text("station_id,date,temp_c,precip_mm\nOSL,2026-01-01,1,0\n")
    give_up = time.monotonic() + READY_SECONDS
    while True:
        with engine.connect() as conn:
            if conn.scalars(select(files.c.status)).all() == ["loaded"]:
                break
        assert time.monotonic() < give_up, "\n".join(path.read_text()[-2000:] for path in logs_of(home, tmp_path))
        time.sleep(0.5)
    an_upload_is_loaded_by_a_run_of_its_own(f"http://127.0.0.1:{environment['8000']}", environment["3000"])


def listens(port: str) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", int(port))) == 0


def speaks_http(port: str) -> bool:
    """Return True if a server answers a request as a browser sends it: gRPC is HTTP/2, which browsers speak only over TLS."""
    with socket.create_connection(("127.0.0.1", int(port)), 10) as client:
        client.sendall(b"POST /api.DagsterApi/Ping HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        return client.makefile("rb").read().startswith(b"HTTP/1")


def an_upload_is_loaded_by_a_run_of_its_own(api: str, dagster_port: str) -> None:
    """Dagster launches a run for an upload, while no sensor would."""
    with httpx.Client(base_url=f"http://127.0.0.1:{dagster_port}", timeout=30) as dagster:
        state = graphql(dagster, STATE, s=SENSOR)["sensorOrError"]["sensorState"]["id"]
        assert graphql(dagster, STOP, id=state)["stopSensor"]["__typename"] == "StopSensorMutationResult"
        time.sleep(TICK_SECONDS)
        body = {"file": ("oslo.csv", GOOD)}
        answer = httpx.post(f"{api}{URL}", params={"wait": 60}, files=body, headers={"X-Request-ID": "r-1"}, timeout=90)
        assert (answer.status_code, answer.json()["status"]) == (200, "loaded"), answer.text
        assert answer.headers["X-Request-ID"] == "r-1"
        run, _ = graphql(dagster, RUNS)["runsOrError"]["results"]  # the other is the sensor's
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        assert run["jobName"] == "load_weather"
        assert tags["mini_platform/dataset"] == "weather"
        assert tags["mini_platform/request_id"] == "r-1"


def graphql(dagster: httpx.Client, query: str, **variables: Any) -> dict[str, Any]:
    answer: dict[str, Any] = dagster.post("/graphql", json={"query": query, "variables": variables}).json()["data"]
    return answer


def test_a_service_that_is_none_is_a_sentence() -> None:
    result = cli("serve", "postgres")
    assert (result.returncode, "The services are: code-server, webserver, daemon, api, watchdog." in result.stderr) == (
        2,
        True,
    )
