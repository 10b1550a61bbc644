"""Dagster's web server behind our guard: what a page of another site can send, and who may use it where keys are required."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import trustme
from sqlalchemy import text
from starlette.types import ASGIApp
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from mini_platform.datasets import all_datasets
from mini_platform.operations.answering import dagster_answers
from mini_platform.platform import Platform
from mini_platform.web.app import create_app
from mini_platform.web.auth import gate as gate_module
from mini_platform.web.auth import keys
from mini_platform.web.runs import Runs
from mini_platform.web.secret import own_headers
from mini_platform.web.site import Site
from mini_platform_tests.support.dagster_ui import DELETE, dagster_app, new_run, runs_of, serving_dagster
from mini_platform_tests.support.databases import open_platform
from mini_platform_tests.support.uploads import until
from mini_platform_tests.support.web import serving

ELSEWHERE = "http://elsewhere.example"
SUBRESOURCE = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture(scope="module")
def platform(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with open_platform(server, template, tmp_path_factory.mktemp("gate"), lasting=True) as shared:
        yield shared


@pytest.fixture(scope="module")
def app(platform: Platform) -> Iterator[ASGIApp]:
    with dagster_app(platform) as app:
        yield app


@contextmanager
def gate(app: ASGIApp, platform: Platform, **settings: object) -> Iterator[httpx.Client]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setattr(platform.settings, name, value)
        with (
            serving_dagster(app, platform) as address,
            httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=30) as client,
        ):
            yield client


@pytest.fixture
def open_gate(app: ASGIApp, platform: Platform) -> Iterator[httpx.Client]:
    with gate(app, platform) as client:
        yield client


@pytest.fixture
def closed(app: ASGIApp, platform: Platform) -> Iterator[httpx.Client]:
    with gate(app, platform, api_auth="always", api_failed_keys=1000) as client:
        yield client


@pytest.fixture
def make(platform: Platform) -> Callable[..., str]:
    def make(*scopes: str) -> str:
        with platform.engine.begin() as conn:
            return keys.create(conn, "test", scopes)

    return make


def websocket(client: httpx.Client, **headers: str) -> int:
    """Return the status of a WebSocket's handshake; one that is accepted must work."""
    address = client.base_url.netloc.decode()
    uri = f"ws://{headers.pop('Host', address)}/graphql"
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as sock:
        try:
            with connect(
                uri, sock=sock, subprotocols=[Subprotocol("graphql-ws")], additional_headers=headers, proxy=None
            ) as opened:
                opened.send(json.dumps({"type": "connection_init"}))
                assert json.loads(opened.recv(10)) == {"type": "connection_ack"}
                return 101
        except InvalidStatus as error:
            return error.response.status_code


def delete(client: httpx.Client, run_id: str, **headers: str) -> httpx.Response:
    return client.post("/graphql", json={"query": DELETE, "variables": {"id": run_id}}, headers=headers)


PATHS = {
    "GET": (
        "/",
        "/runs/1",
        "/graphql",
        "/logs/a/compute_logs/b.out",
        "/download_debug/{run}",
        "/server_info",
        "/notebook",
    ),
    "POST": ("/graphql", "/report_asset_materialization/a", "/report_asset_check/a", "/report_asset_observation/a"),
}


@pytest.mark.parametrize(
    ("methods", "headers"),
    [
        pytest.param(("GET", "POST"), {"Host": "elsewhere.example"}, id="DNS rebinding"),
        pytest.param(("POST",), {"Origin": ELSEWHERE}, id="a form"),
        pytest.param(("POST",), {"Origin": "null"}, id="a form of a sandbox"),
        pytest.param(("POST",), {"Sec-Fetch-Site": "same-site"}, id="a page on another port"),
        pytest.param(("GET", "POST"), SUBRESOURCE, id="an image"),
        pytest.param(("GET", "POST"), LINK | {"Sec-Fetch-Dest": "iframe"}, id="a frame"),
        pytest.param(("POST",), LINK, id="a form that opens a page"),
    ],
)
def test_what_other_sites_send_is_refused_with_a_sentence(
    open_gate: httpx.Client, platform: Platform, methods: tuple[str, ...], headers: dict[str, str]
) -> None:
    run_id = new_run(platform)
    body = {"query": DELETE, "variables": {"id": run_id}}
    for method in methods:
        for path in PATHS[method]:
            answer = open_gate.request(
                method, path.format(run=run_id), headers=headers, json=body if method == "POST" else None
            )
            assert (answer.status_code, answer.json()["detail"][-1]) == (403, "."), (method, path)
    assert websocket(open_gate, **headers) == 403
    assert run_id in runs_of(platform)


@pytest.mark.parametrize("headers", [{}, LINK, {"Sec-Fetch-Site": "none"}, {"Accept": "application/json"}])
def test_a_query_in_an_address_is_not_executed(
    open_gate: httpx.Client, platform: Platform, headers: dict[str, str]
) -> None:
    run_id = new_run(platform)
    params = {"query": DELETE, "variables": json.dumps({"id": run_id})}
    for method in ("GET", "HEAD", "OPTIONS"):
        assert open_gate.request(method, "/graphql", params=params, headers=headers).status_code == 403
    assert run_id in runs_of(platform)


def test_own_pages_and_programs_work_as_before(open_gate: httpx.Client, platform: Platform) -> None:
    origin = str(open_gate.base_url).rstrip("/")
    for headers in ({}, {"Origin": origin}, {"Origin": origin, "Sec-Fetch-Site": "same-origin"}):
        run_id = new_run(platform)
        assert "DeletePipelineRunSuccess" in delete(open_gate, run_id, **headers).text
        assert run_id not in runs_of(platform)
        assert websocket(open_gate, **headers) == 101
    page = open_gate.get("/", headers=LINK)
    assert (page.status_code, page.headers["x-frame-options"]) == (200, "SAMEORIGIN")
    assert "nonce-" in page.headers["content-security-policy"], "Dagster's own"
    with platform.engine.connect() as conn:
        last = "SELECT actor, action, subject FROM ops.audit ORDER BY audit_id DESC LIMIT 1"
        assert tuple(conn.execute(text(last)).one()) == ("anybody on this machine", "changed Dagster", "deleteRun")


def test_where_keys_are_required_only_admins_and_our_own_processes_enter(
    closed: httpx.Client, platform: Platform, make: Callable[..., str]
) -> None:
    run_id, admin = new_run(platform), make("admin")
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer nonsense"}, 401),
        ({"x-mini-platform-process": "0" * 64}, 401),
        ({"Host": "localhost/server_info?"}, 401),
        ({"Authorization": f"Bearer {make('read', 'write')}"}, 403),
    ):
        for path in PATHS["GET"]:
            expected = 200 if path == "/server_info" else status
            assert closed.get(path.format(run=run_id), headers=headers).status_code == expected, path
        for path in PATHS["POST"]:
            assert closed.post(path, headers=headers).status_code == status, path
        assert websocket(closed, **headers) == 403
    assert run_id in runs_of(platform)
    for header in ({"Authorization": f"Bearer {admin}"}, dict(own_headers(platform.settings))):
        assert "DeletePipelineRunSuccess" in delete(closed, new_run(platform), **header).text
        assert websocket(closed, **header) == 101
    with platform.engine.connect() as conn:
        actors = conn.scalars(text("SELECT actor FROM ops.audit WHERE action = 'changed Dagster'")).all()
    assert actors.count(f"key {admin[:11]}") == 1
    assert set(actors) <= {f"key {admin[:11]}", "anybody on this machine"}, "our own processes are no persons"


def test_a_session_of_the_dashboard_opens_dagster(
    app: ASGIApp, platform: Platform, make: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform.settings, "api_auth", "always")
    site = Site(platform)
    with serving(create_app(site)) as dashboard, gate(app, platform) as client:
        monkeypatch.setattr(platform.settings, "api_port", urlsplit(dashboard).port)
        monkeypatch.setattr(platform.settings, "dagster_port", client.base_url.port)
        sent = client.get("/runs/1?a=b", headers={"Accept": "text/html"})
        assert sent.status_code == 303
        location = sent.headers["location"]
        assert location.startswith(f"{dashboard}/login?")
        (then,) = parse_qs(urlsplit(location).query)["then"]
        form = client.post(f"{dashboard}/login", data={"key": make("admin"), "then": then})
        back = client.get(dashboard + form.headers["location"])
        assert back.headers["location"] == f"{client.base_url}/runs/1?a=b".replace("//runs", "/runs")
        assert client.get(back.headers["location"]).status_code == 200
        cookie = {"Cookie": "; ".join(f"{one.name}={one.value}" for one in client.cookies.jar)}
        origin = str(client.base_url).rstrip("/")
        assert websocket(client, **cookie, Origin=origin) == 101
        assert websocket(client, **cookie, Origin=dashboard) == 403
        assert websocket(client, **cookie) == 403, "nothing says that it comes from a page of Dagster's"
        assert delete(client, "1", Origin=dashboard).status_code == 403
        assert delete(client, "1", Origin=origin).status_code == 200
        client.post(f"{dashboard}/logout", headers={"Origin": dashboard})
        client.post(f"{dashboard}/login", data={"key": make("read")})
        assert client.get("/", headers={"Accept": "text/html"}).status_code == 403
    site.close()


def test_a_websocket_ends_with_its_key(
    closed: httpx.Client, platform: Platform, make: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "CHECK_SECONDS", 0)
    key = make("admin")
    headers, subprotocols = {"Authorization": f"Bearer {key}"}, [Subprotocol("graphql-ws")]
    uri = f"ws://{closed.base_url.netloc.decode()}/graphql"
    with connect(uri, subprotocols=subprotocols, additional_headers=headers, proxy=None) as opened:
        opened.send(json.dumps({"type": "connection_init"}))
        assert json.loads(opened.recv(10)) == {"type": "connection_ack"}
        with platform.engine.begin() as conn:
            keys.revoke(conn, key[:11])
        opened.send(json.dumps({"type": "connection_init"}))
        with pytest.raises(ConnectionClosedError, match="1008"):
            opened.recv(10)


@pytest.mark.parametrize(
    "path", ["//elsewhere.example", "/elsewhere.example", "@elsewhere.example", "\\elsewhere.example"]
)
def test_the_way_to_dagster_leads_nowhere_else(platform: Platform, path: str) -> None:
    site = Site(platform)
    with serving(create_app(site)) as dashboard, httpx.Client(trust_env=False) as client:
        target = urlsplit(client.get(f"{dashboard}/dagster/{path}").headers["location"])
    site.close()
    assert target.netloc == f"127.0.0.1:{platform.settings.dagster_port}"


def test_the_api_reaches_dagster_by_https_and_where_keys_are_required(
    app: ASGIApp, platform: Platform, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leaf = trustme.CA().issue_cert("127.0.0.1")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    tls = {"api_tls_cert": tmp_path / "both.pem", "api_tls_key": tmp_path / "both.pem"}
    with gate(app, platform, api_auth="always", **tls) as client, pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform.settings, "dagster_port", client.base_url.port)
        assert platform.settings.dagster_url == str(client.base_url).rstrip("/").replace("http:", "https:")
        assert dagster_answers(platform.settings)
        patch.setattr("mini_platform.web.runs.ANSWER_SECONDS", 60)
        runs = Runs(platform.settings)
        with caplog.at_level(logging.WARNING, "mini_platform.web.runs"):
            runs.nudge(all_datasets()["weather"])
            until(lambda: bool(caplog.records))
        runs.close()
    assert "it has no job load_weather" in caplog.text, "which only Dagster knows"
