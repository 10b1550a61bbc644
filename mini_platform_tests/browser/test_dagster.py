"""Dagster's UI in a browser: closed to pages of other sites, open to who has logged in at the dashboard."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Browser
from starlette.types import ASGIApp

from mini_platform.platform import Platform
from mini_platform.web.app import create_app
from mini_platform.web.auth import keys
from mini_platform.web.site import Site
from mini_platform_tests.support.dagster_ui import DELETE, LOGGED, dagster_app, new_run, runs_of, serving_dagster
from mini_platform_tests.support.databases import open_platform
from mini_platform_tests.support.web import serving

TRY = """
async ({url, id, query}) => {
    const body = JSON.stringify({query, variables: {id}});
    const get = `${url}/graphql?query=${encodeURIComponent(query)}&variables=${encodeURIComponent(JSON.stringify({id}))}`;
    const frame = name => {
        const made = document.createElement("iframe");
        made.name = name;
        return document.body.appendChild(made);
    };
    const form = (name, action, enctype) => new Promise(done => {
        frame(name).addEventListener("load", done);
        const made = document.createElement("form");
        Object.assign(made, {method: "POST", action, enctype, target: name});
        const [start, end] = [body.slice(0, -1) + ',"x":"', '"}'];
        const field = Object.assign(document.createElement("input"), {name: start, value: end});
        made.append(field);
        document.body.append(made);
        made.submit();
    });
    const element = (tag, attribute, address) => new Promise(done => {
        const made = document.createElement(tag);
        for (const event of ["load", "error"]) made.addEventListener(event, () => done(event));
        made[attribute] = address;
        document.body.append(made);
    });
    const socket = () => new Promise(done => {
        const made = new WebSocket(url.replace("http", "ws") + "/graphql", "graphql-ws");
        made.onopen = () => done("opened");
        made.onerror = () => done("refused");
    });
    const text = {"Content-Type": "text/plain"}, json = {"Content-Type": "application/json"};
    const tries = {
        image: element("img", "src", get),
        script: element("script", "src", get),
        frame: element("iframe", "src", get),
        form: form("a", get, "application/x-www-form-urlencoded"),
        "form of text": form("b", url + "/graphql", "text/plain"),
        "fetch of an address": fetch(get, {mode: "no-cors", credentials: "include"}),
        "fetch without CORS": fetch(get, {method: "POST", mode: "no-cors", credentials: "include", headers: text, body}),
        fetch: fetch(url + "/graphql", {method: "POST", credentials: "include", headers: json, body}).then(r => r.text()),
        beacon: navigator.sendBeacon(get, body),
        socket: socket(),
    };
    const results = {};
    for (const [name, promise] of Object.entries(tries))
        results[name] = await Promise.resolve(promise).then(String, error => "error");
    return results;
}
"""
"""Everything by which a page can send a mutation; returns what came of it, by name."""


@pytest.fixture(scope="module")
def platform(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with open_platform(server, template, tmp_path_factory.mktemp("dagster"), lasting=True) as shared:
        yield shared


@pytest.fixture(scope="module")
def app(platform: Platform) -> Iterator[ASGIApp]:
    with dagster_app(platform) as app:
        yield app


@contextmanager
def elsewhere() -> Iterator[int]:
    """Serve empty pages; yields the port."""

    class Empty(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><body>")

        def log_message(self, *_: object) -> None:
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    yield listener.server_port
    listener.shutdown()
    thread.join()
    listener.server_close()


def test_no_page_of_another_site_reaches_dagster(browser: Browser, app: ASGIApp, platform: Platform) -> None:
    run_id = new_run(platform)
    with serving_dagster(app, platform) as address, elsewhere() as port:
        url, page = f"http://{address}", browser.new_page()
        arguments = {"url": url, "id": run_id, "query": DELETE}
        for host in ("localhost", "127.0.0.1"):  # Another site, and another port of the same one.
            page.goto(f"http://{host}:{port}")
            results = page.evaluate(TRY, arguments)
            assert results["socket"] == "refused", results
            assert {results[name] for name in ("image", "script", "fetch")} == {"error"}, results
            page.goto(f"http://{host}:{port}")
            link = f"{url}/graphql?query={quote(DELETE)}&variables={quote(json.dumps({'id': run_id}))}"
            with page.expect_navigation(url=f"{url}/**"):
                page.evaluate("link => { location = link }", link)
            assert "by POST only" in page.content()
            assert run_id in runs_of(platform)
        answer = page.goto(
            url.replace("127.0.0.1", "elsewhere.localhost")
        )  # A name that leads here, as by DNS rebinding.
        assert answer is not None
        assert (answer.status, "elsewhere.localhost" in answer.json()["detail"]) == (403, True)
        page.goto(f"{url}/server_info")
        results = page.evaluate(TRY, arguments)
        assert results["socket"] == "opened"
        assert run_id not in runs_of(platform), "from a page of its own it is possible"
        page.close()


def test_who_logs_in_at_the_dashboard_uses_dagster(
    browser: Browser, app: ASGIApp, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform.settings, "api_auth", "always")
    with platform.engine.begin() as conn:
        key = keys.create(conn, "test", ["admin"])
    run_id, site, context = new_run(platform), Site(platform), browser.new_context()
    with serving(create_app(site)) as dashboard, serving_dagster(app, platform) as address, elsewhere() as port:
        monkeypatch.setattr(platform.settings, "api_port", urlsplit(dashboard).port)
        monkeypatch.setattr(platform.settings, "dagster_port", urlsplit(f"http://{address}").port)
        page = context.new_page()
        page.goto(f"http://{address}/runs/{run_id}")
        assert page.url.startswith(f"{dashboard}/login?")
        page.fill("#key", key)
        with page.expect_websocket() as opened:
            page.click("#login button")
            page.wait_for_url(f"http://{address}/runs/{run_id}")
        assert opened.value.url == f"ws://{address}/graphql"
        page.get_by_text(LOGGED).wait_for()  # Logs come by the WebSocket.
        foreign = context.new_page()
        foreign.goto(f"http://127.0.0.1:{port}")
        results = foreign.evaluate(TRY, {"url": f"http://{address}", "id": run_id, "query": DELETE})
        assert results["socket"] == "refused", results
        assert run_id in runs_of(platform)
        page.goto(dashboard)
        page.evaluate("fetch('/logout', {method: 'POST'})")
        page.goto(f"http://{address}/runs")
        assert page.url.startswith(f"{dashboard}/login?")
    context.close()
    site.close()
