"""Every route, with every kind of key and every dataset: no answer has a text of a dataset that the key may not read.

Nor has any answer a personal value, to a key that may read it or on loopback without one, unless the request asks for it.

The routes are those of the app, so that a new one is walked, too; one that never answers with a success fails, as nothing was
looked at. The texts stand in rows, names of files, rejects, errors, extra columns, runs, syncs, quality figures and incidents.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert

from mini_platform.datasets import all_datasets
from mini_platform.operations.incidents import DAGSTER_KINDS, Incident, reconcile
from mini_platform.operations.processing import process
from mini_platform.platform import Platform
from mini_platform.warehouse.tables import checkpoints
from mini_platform.web.api import relations
from mini_platform.web.app import create_app
from mini_platform.web.auth import keys
from mini_platform.web.site import Site
from mini_platform_tests.declarations.model import KEY_ID, SECRET
from mini_platform_tests.support.databases import copied, set_environment
from mini_platform_tests.support.pages import measure
from mini_platform_tests.support.trial import Trial
from mini_platform_tests.support.web import endpoints_of
from mini_platform_tests.support.world import as_csv

CANARY = {name: f"zq{name}zq" for name in all_datasets()}
PRIVATE, PLATFORM = "zqprivatezq", "zqplatformzq"
"""Canaries of personal values of customers, and of an incident of no dataset."""
PERSONAL = {"customers", "sales"}
LOOPBACK = ("no key is required",)
KEYS: Sequence[tuple[str, ...]] = (
    *((), ("read",), ("write",), ("write:weather",), ("admin",)),
    *((f"read:{name}",) for name in CANARY),
)
"""Scopes of the keys; no key first."""
REVEAL = "personal=true"
NOW = dt.datetime.now(dt.UTC)
FAILED_SYNC = {"target": "", "whole": True, "begun_at": NOW, "last_started": NOW, "last_failed": NOW} | dict.fromkeys(
    ("step", "sync", "pages", "pages_landed", "rows"), 0
)
PLAIN = (
    *(
        "/api/health/",
        "/login",
        "/static/",
        "/api/swagger/",
        "/help/",
        "/api/docs",
        "/api/reference.js",
        "/openapi.json",
    ),
    *("/docs", "/redoc", "/api/redoc/", "/api/schema/", "/metrics", "/health", "/state", "/stats"),
)
"""Beginnings of the paths that take no parameters: queries change nothing."""


def files_of(name: str) -> Iterator[tuple[str, str]]:
    """Yield a file with a row that is loaded and one that is rejected, and a file that is refused."""
    canary = CANARY[name]
    if name == "weather":
        yield (
            f"{canary}.csv",
            as_csv(
                ("station_id", "date", "temp_c", "precip_mm", f"{canary}_more"),
                [(canary, "2026-01-01", 1, 2, canary), (canary, canary, 1, 2, canary)],
            ),
        )
    elif name == "sales":
        order = dict(all_datasets()[name].realistic(random.Random(1), 1, dt.date(2026, 1, 1)))  # type: ignore[misc]  # noqa: S311
        order["product_title"] = canary
        order |= {"customer_name": PRIVATE, "customer_email": f"{PRIVATE}@example.org", "customer_address": PRIVATE}
        orders = [order, {**order, "order_id": "another", "quantity": canary}]
        yield f"{canary}.csv", as_csv(list(order), [list(one.values()) for one in orders])
    else:
        person = dict.fromkeys(("first_name", "last_name", "phone_1"), PRIVATE) | {"email": f"{PRIVATE}@example.org"}
        rows: Mapping[str, dict[str, Any]] = {
            "records": {"id": canary, "title": canary, "value": 1.5, "body": canary},
            "signals": {"time_stamp": "2026-01-01T00:00:00Z", "data": [1, 2], canary: canary},
            "customers": {"customer_id": canary, "company": canary, "city": canary, "country": canary}
            | person
            | {"subscription_date": "2026-01-01"},
        }
        wrong = {"records": "value", "signals": "time_stamp", "customers": "subscription_date"}[name]
        yield f"{canary}.json", json.dumps([rows[name], rows[name] | {wrong: canary}])
    suffix = all_datasets()[name].suffixes[0]
    yield f"{canary} refused{suffix}", json.dumps([{canary: canary}]) if "json" in suffix else f"{canary}\n{canary}\n"


@dataclass
class Walked:
    """The app, its client, its addresses, and what it answered.

    Attributes:
        ask: client without a key.
        local: client of the same platform as it is on loopback, where no key is required.
        key: headers of each key, by its scopes.
        addresses: method and path of each route -> its addresses -> the dataset of each.
        wrong: sentences on what is wrong.
    """

    ask: TestClient
    local: TestClient
    key: Mapping[tuple[str, ...], dict[str, str]]
    addresses: Mapping[tuple[str, str], Mapping[str, str]]
    wrong: list[str] = field(default_factory=list)

    def get(self, scopes: tuple[str, ...], address: str, accept: str = "text/html") -> httpx.Response:
        return self.look(scopes, "GET", address, headers={"Accept": accept})

    def look(self, scopes: tuple[str, ...], method: str, address: str, **sent: Any) -> httpx.Response:
        """Send a request with a key, and note each canary that the key may not see."""
        sent["headers"] = {**sent.get("headers", {}), **self.key[scopes]}
        client = self.local if scopes == LOOPBACK else self.ask
        answer: httpx.Response = client.request(method, address, **sent)
        hidden = {canary for name, canary in CANARY.items() if not reads(scopes, name)}
        if address.startswith("/api/customers/") and "read" in scopes:
            hidden -= {CANARY["customers"]}  # It masks, and shows the rest.
        if method != "GET":
            hidden -= {canary for name, canary in CANARY.items() if reads(scopes, name, "write")}
        made_for_it = address.startswith("/api/customers/") and "read:customers" in scopes
        hidden |= set() if made_for_it or (REVEAL in address and reads(scopes, "customers")) else {PRIVATE}
        hidden |= set() if {"read", "admin", *LOOPBACK} & {*scopes} else {PLATFORM}
        text = answer.text + str(answer.headers)
        if shown := sorted(canary for canary in hidden if canary in text):
            self.wrong.append(f"{scopes}: {method} {address}: {answer.status_code} shows {', '.join(shown)}")
        if answer.status_code >= 500:
            self.wrong.append(f"{scopes}: {method} {address}: {answer.status_code}")
        return answer


def reads(scopes: Sequence[str], dataset: str, scope: str = "read") -> bool:
    """Return True if a key with these scopes may read a dataset."""
    return bool({"admin", *LOOPBACK, f"{scope}:{dataset}", *([] if dataset in PERSONAL else [scope])} & {*scopes})


@pytest.fixture(scope="module")
def walked(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    folder = tmp_path_factory.mktemp("scopes")
    with pytest.MonkeyPatch.context() as patch, copied(server, template) as url:
        set_environment(patch, url, folder)
        patch.setenv("MINI_PLATFORM_PII_KEYS", f"{KEY_ID}:{SECRET}")
        patch.setenv("MINI_PLATFORM_API_AUTH", "always")
        (folder / "home").mkdir()
        platform = Platform()
        platform.settings.api_reads = platform.settings.api_writes = 1_000_000
        file_ids = {name: list(fill(platform, name)) for name in CANARY}
        failed = [
            Incident("run_failed", canary, name, canary, f"A run: {canary}", "Look.", f"/{canary}", NOW)
            for name, canary in [*CANARY.items(), (None, PLATFORM)]
        ]  # fmt: skip
        with platform.engine.begin() as conn:
            reconcile(conn, failed, kinds=DAGSTER_KINDS)
            for name, dataset in all_datasets().items():
                for source in dataset.api_sources:
                    conn.execute(
                        insert(checkpoints).values(
                            **FAILED_SYNC, dataset=name, source=source.name, last_error=CANARY[name]
                        )
                    )
            key = {scopes: {"x-api-key": keys.create(conn, "test", scopes)} for scopes in KEYS if scopes}
        patch.delenv("MINI_PLATFORM_API_AUTH")
        site, local = Site(platform), Site(Platform())
        local.settings.api_reads = 1_000_000
        app = create_app(site)
        addresses: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for method, path in endpoints_of(app.routes):
            for name in CANARY:
                addresses[method, path] |= dict.fromkeys(filled(path, name, file_ids[name]), name)
        here: dict[str, Any] = {"base_url": "http://127.0.0.1:8000", "follow_redirects": False}
        with TestClient(app, **here) as client, TestClient(create_app(local), **here) as without:
            yield Walked(client, without, {(): {}, LOOPBACK: {}, **key}, addresses)
        for one in (site, local):
            one.close()
            one.platform.engine.dispose()


def fill(platform: Platform, name: str) -> Iterator[int]:
    """Load the files of a dataset; yield their ids."""
    dataset = all_datasets()[name]
    trial = Trial(platform, dataset)
    for file_name, text in files_of(name):
        file_id = trial.land(file_name, text)
        process(platform, dataset, run_id=f"run-{CANARY[name]}")
        yield file_id
    measure(trial)


def filled(path: str, name: str, file_ids: Sequence[int]) -> Iterator[str]:
    """Yield the addresses of a path for a dataset; a parameter that is not known here fails."""
    computed = all_datasets()[name].computed
    values = {
        "dataset": [name],
        "file_id": file_ids,
        "analytics": list(dict.fromkeys(one.name for one in (*computed[:1], *computed[-1:]))),
        "name": ["app.css"],
        "path": ["runs"],
    }
    parameters = re.findall(r"{(\w+)", path)
    if not parameters:
        yield path
        return
    first = parameters[0]
    for value in values[first]:
        rest = re.sub(rf"{{{first}[^}}]*}}", str(value), path)
        yield from filled(rest, name, file_ids)


def hostile(hidden: Sequence[str], own: str) -> Iterator[str]:
    """Yield queries that ask for hidden datasets, and for whatever there is."""
    yield from (urlencode({"dataset": name}) for name in hidden)
    for params in (
        {"dataset__in": ",".join(hidden)},
        {"dataset": own, "dataset__in": ",".join(hidden), "_twin": "runs.json"},
        {"dataset__ne": own, "search": "zq", "limit": "1000"},
        {"dataset__isnull": "false", "ordering": "-dataset", "fields": "dataset,name,error"},
        {"name__contains": "zq", "status": "refused"},
        {"rule": "x", "personal": "true", "fields": "line,rule"},
        {"_twin": "runs.csv"},
        {"_twin": "rules.json"},
    ):
        yield urlencode(params)


def test_no_answer_has_a_text_of_a_dataset_that_the_key_may_not_read(walked: Walked) -> None:
    got = [(path, at) for (method, path), all_at in walked.addresses.items() if method == "GET" for at in all_at]
    reached, cursors = set(), set()
    for path, address in got:
        reached |= {path} if walked.get(("admin",), address).status_code < 400 else set()
        first = "" if address.startswith(PLAIN) else walked.get(("admin",), f"{address}?limit=1").text
        cursors |= {(address, cursor) for cursor in re.findall(r"cursor=([\w%.~-]+)", first)}
    assert {path for path, _ in got} - reached <= {"/help/", "/api/swagger/"}, "routes that never succeed"
    assert {"/files", "/api/datasets/weather/files/"} <= {address for address, _ in cursors}
    for scopes in KEYS:
        hidden = [name for name in CANARY if not reads(scopes, name)]
        own = next((name for name in CANARY if name not in hidden), "")
        for _, address in got if hidden else ():
            if walked.get(scopes, address).status_code in (401, 403) or address.startswith(PLAIN):
                continue
            is_of_one = any(f"/{name}" in address for name in CANARY)
            queries = [f"dataset__in={hidden[0]}"] if is_of_one else hostile(hidden, own)
            for query in (*queries, *(f"cursor={cursor}" for at, cursor in cursors if at == address)):
                walked.get(scopes, f"{address}?{query}")
            if address.startswith("/api/"):
                walked.get(scopes, address, "text/csv")
    for scopes in KEYS:  # At last, as they change what is there.
        for (method, _), all_at in walked.addresses.items():
            for address in all_at if method != "GET" else ():
                walked.look(scopes, method, f"{address}?wait=0", content=b"a,b\n1,2\n")
    assert not walked.wrong, f"{len(walked.wrong)}:\n" + "\n".join(walked.wrong[:100])


@pytest.mark.parametrize("scopes", [LOOPBACK, ("read:customers",)], ids=str)
def test_personal_data_is_in_no_answer_unless_the_request_asks(walked: Walked, scopes: tuple[str, ...]) -> None:
    walked.wrong.clear()
    masked = {name: relations.rows(all_datasets()[name]).masked for name in PERSONAL}
    revealed = set()
    for (method, path), all_at in walked.addresses.items():
        for address in all_at if method == "GET" else ():
            if address.startswith(PLAIN):
                continue
            about = next((name for name in PERSONAL if f"/{name}" in address), None)
            walked.get(scopes, address)
            walked.get(scopes, address, "text/csv")
            for query in ("search=zqpri", "limit=1", *(REVEAL,) * (about == "customers")):
                answer = walked.get(scopes, f"{address}?{query}")
                revealed |= {path} if query == REVEAL and PRIVATE in answer.text else set()
            for column in (
                masked[about][:2] if about and (scopes, path) != (("read:customers",), "/api/customers/") else ()
            ):
                for query in (f"ordering={column}", f"{column}__contains=zqpri"):
                    if walked.get(scopes, f"{address}?{query}").status_code == 200 and "/rows" in address:
                        walked.wrong.append(f"{scopes}: {address}?{query} is answered")
    assert not walked.wrong, f"{len(walked.wrong)}:\n" + "\n".join(walked.wrong[:100])
    rows = {f"/api/datasets/{{dataset}}/rows{end}" for end in ("/", ".csv", ".json", ".ndjson")}
    assert revealed == {"/customers", "/datasets/{dataset}", "/api/customers/", *rows}


@pytest.mark.parametrize("name", CANARY)
def test_a_key_of_one_dataset_uses_the_platform_for_it(walked: Walked, name: str) -> None:
    scopes, canary = (f"read:{name}",), CANARY[name]
    file = next(at for at, of in walked.addresses["GET", "/files/{file_id}"].items() if of == name)
    shown = (
        "/", "/files", f"/files?dataset={name}", file, "/runs", f"/runs?dataset={name}",
        f"/api/datasets/{name}/rows/", f"/api/datasets/{name}/files.csv", f"/api/datasets/{name}/rejects/",
    )  # fmt: skip
    for address in shown:
        answer = walked.get(scopes, address)
        assert answer.status_code == 200, address
        assert canary in answer.text, address
    for address in (
        "/quality",
        f"/quality?dataset={name}",
        f"/datasets/{name}",
        f"/{name}",
        "/state",
        f"/api/datasets/{name}/",
    ):
        assert walked.get(scopes, address).status_code == 200, address
    assert [one["name"] for one in walked.get(scopes, "/api/datasets/").json()["results"]] == [name]
    others = CANARY.keys() - {name}
    assert not [one for one in others if f'href="/{one}"' in walked.get(scopes, "/").text], (
        "links to what it may not see"
    )
