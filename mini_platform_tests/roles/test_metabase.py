"""Setting Metabase up, against a small server that speaks the calls that its documentation describes; no Metabase runs here.

That a real one takes the same words cannot be shown that way. What the questions ask is asked of a real Postgres, as the login
that Metabase is given.
"""

from __future__ import annotations

import copy
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from fastapi import Body, Depends, FastAPI, Header, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text

from mini_platform.datasets import all_datasets
from mini_platform.declare.registry import configured
from mini_platform.operations.metabase import dashboards_of
from mini_platform.warehouse.connection import engine as engine_of
from mini_platform_tests.support.command import here
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.roles import RolesPlatform
from mini_platform_tests.support.web import listening

DASHBOARDS = dashboards_of(configured(), all_datasets())
EMAIL, PASSWORD, TOKEN, SESSION = "me@example.com", "a long enough password", "setup-token", "session-id"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Login(Strict):
    username: str
    password: str


class User(Strict):
    email: str
    password: str
    first_name: str
    last_name: str


class Prefs(Strict):
    site_name: str


class Setup(Strict):
    token: str
    user: User
    prefs: Prefs


class Details(Strict):
    host: str
    port: int
    dbname: str
    user: str
    password: str
    ssl: bool
    ssl_mode: str | None = Field(None, alias="ssl-mode")
    filters: Literal["inclusion", "exclusion", "all"] = Field(alias="schema-filters-type")
    patterns: str = Field(alias="schema-filters-patterns")


class Database(Strict):
    engine: Literal["postgres"]
    name: str
    details: Details


class Native(Strict):
    query: str


class DatasetQuery(Strict):
    type: Literal["native"]
    database: int
    native: Native


class Card(Strict):
    name: str
    display: Literal["table", "bar", "line", "area", "row", "pie", "scalar"]
    collection_id: int
    dataset_query: DatasetQuery
    visualization_settings: dict[str, Any]


class Collection(Strict):
    name: str
    description: str


class NewDashboard(Strict):
    name: str
    collection_id: int


class Dashcard(BaseModel):
    id: int
    card_id: int | None
    row: int = Field(ge=0)
    col: int = Field(ge=0, le=23)
    size_x: int = Field(ge=1, le=24)
    size_y: int = Field(ge=1)


class Dashcards(Strict):
    dashcards: list[Dashcard]


class Documented:
    """Documents of the small server, and the app that serves them."""

    def __init__(self) -> None:
        self.user: User | None = None
        self.stored: dict[str, dict[int, dict[str, Any]]] = {
            k: {} for k in ("database", "collection", "card", "dashboard")
        }
        self.writes: list[str] = []
        self._ids = itertools.count(1)
        self.app = FastAPI()
        self._routes()

    def _make(self, kind: str, body: BaseModel, **more: Any) -> dict[str, Any]:
        self.writes.append(f"POST {kind}")
        item = body.model_dump(by_alias=True, exclude_none=True) | more | {"id": next(self._ids)}
        self.stored[kind][item["id"]] = item
        return item

    def _shown(self, database: dict[str, Any]) -> dict[str, Any]:
        shown = copy.deepcopy(database)
        shown["details"]["password"] = "**MetabasePass**"
        return shown

    def _routes(self) -> None:
        app = self.app

        @app.get("/api/session/properties")
        def properties() -> dict[str, Any]:
            return {"has-user-setup": self.user is not None, "setup-token": None if self.user else TOKEN}

        @app.post("/api/setup")
        def setup(body: Setup) -> dict[str, str]:
            if body.token != TOKEN or self.user:
                raise HTTPException(403, "Token does not match the setup token.")
            self.user = body.user
            return {"id": SESSION}

        @app.post("/api/session")
        def login(body: Login) -> dict[str, str]:
            if not self.user or (body.username, body.password) != (self.user.email, self.user.password):
                raise HTTPException(401, f"did not match stored password: {body.password}")
            return {"id": SESSION}

        def signed_in(session: Annotated[str, Header(alias="X-Metabase-Session")] = "") -> None:
            if session != SESSION:
                raise HTTPException(401, "Unauthenticated")

        guarded = [Depends(signed_in)]

        @app.get("/api/database", dependencies=guarded)
        def databases() -> dict[str, Any]:
            listed = [self._shown(one) for one in self.stored["database"].values()]
            return {"data": listed, "total": len(listed)}

        @app.post("/api/database", dependencies=guarded)
        def make_database(body: Database) -> dict[str, Any]:
            return self._shown(self._make("database", body))

        @app.put("/api/database/{id_}", dependencies=guarded)
        def change_database(id_: int, body: Database) -> dict[str, Any]:
            self.stored["database"][id_] |= body.model_dump(by_alias=True, exclude_none=True)
            return self._shown(self.stored["database"][id_])

        @app.get("/api/collection", dependencies=guarded)
        def collections() -> list[dict[str, Any]]:
            return [{"id": "root", "name": "Our analytics"}, *self.stored["collection"].values()]

        @app.post("/api/collection", dependencies=guarded)
        def make_collection(body: Collection) -> dict[str, Any]:
            return self._make("collection", body)

        @app.get("/api/collection/{id_}/items", dependencies=guarded)
        def items(id_: int, models: Annotated[list[str], Query()]) -> dict[str, Any]:
            listed = [
                {"id": one["id"], "name": one["name"], "model": kind}
                for kind in models
                for one in self.stored[kind].values()
                if one["collection_id"] == id_
            ]
            return {"data": listed, "total": len(listed), "models": models}

        @app.post("/api/card", dependencies=guarded)
        def make_card(body: Card) -> dict[str, Any]:
            return self._make("card", body, description=None, archived=False)

        @app.get("/api/card/{id_}", dependencies=guarded)
        def card(id_: int) -> dict[str, Any]:
            return self.stored["card"][id_]

        @app.put("/api/card/{id_}", dependencies=guarded)
        def change_card(id_: int, body: Card) -> dict[str, Any]:
            self.writes.append("PUT card")
            self.stored["card"][id_] |= body.model_dump()
            return self.stored["card"][id_]

        @app.post("/api/dashboard", dependencies=guarded)
        def make_dashboard(body: NewDashboard) -> dict[str, Any]:
            return self._make("dashboard", body, dashcards=[])

        @app.get("/api/dashboard/{id_}", dependencies=guarded)
        def dashboard(id_: int) -> dict[str, Any]:
            return self.stored["dashboard"][id_]

        @app.put("/api/dashboard/{id_}", dependencies=guarded)
        def change_dashboard(id_: int, body: Annotated[Dashcards, Body()]) -> dict[str, Any]:
            self.writes.append("PUT dashboard")
            one = self.stored["dashboard"][id_]
            known = {item["id"] for item in one["dashcards"]}
            sent = [item.model_dump() for item in body.dashcards]
            assert len({item["id"] for item in sent}) == len(sent)
            one["dashcards"] = [item if item["id"] in known else item | {"id": next(self._ids)} for item in sent]
            return one


@pytest.fixture
def server() -> Iterator[tuple[str, Documented]]:
    documented = Documented()
    with listening(documented.app, log_level="warning") as address:
        yield f"http://{address}", documented


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    (tmp_path / "metabase").write_text(f"{PASSWORD}\n")
    (tmp_path / "bi").write_text("the login's own password\n")
    return [
        *("--email", EMAIL, "--password-file", str(tmp_path / "metabase")),
        *("--database", "postgresql://metabase_reader@postgres/mini_platform?sslmode=require"),
        *("--database-password-file", str(tmp_path / "bi")),
    ]


def test_an_empty_metabase_gets_its_dashboards_once(
    server: tuple[str, Documented], arguments: list[str], tmp_path: Path
) -> None:
    url, metabase = server
    result = here("metabase", url, *arguments)
    assert result.exit_code == 0, result.stderr
    assert len(metabase.stored["database"]) == len(metabase.stored["collection"]) == 1
    details = next(iter(metabase.stored["database"].values()))["details"]
    assert details == {
        "host": "postgres", "port": 5432, "dbname": "mini_platform", "user": "metabase_reader",
        "password": "the login's own password", "ssl": True, "ssl-mode": "require",
        "schema-filters-type": "inclusion", "schema-filters-patterns": "analytics, production",
    }  # fmt: skip
    names = {card["id"]: card["name"] for card in metabase.stored["card"].values()}
    shown = {
        board["name"]: [names[item["card_id"]] for item in board["dashcards"]]
        for board in metabase.stored["dashboard"].values()
    }
    assert shown == {name: [question.name for question in questions] for name, questions in DASHBOARDS.items()}
    for board in metabase.stored["dashboard"].values():
        ends = [item["row"] + item["size_y"] for item in board["dashcards"]]
        assert [item["row"] for item in board["dashcards"]] == [0, *ends[:-1]]  # none upon another
    stored, metabase.writes = copy.deepcopy(metabase.stored), []
    (tmp_path / "bi").write_text("another password, rotated\n")
    again = here("metabase", url, *arguments)
    assert (again.exit_code, again.stdout) == (0, "Everything is up to date.\n")
    assert metabase.writes == []
    next(iter(stored["database"].values()))["details"]["password"] = "another password, rotated"
    assert metabase.stored == stored


def test_what_people_arranged_stays_and_what_a_question_asks_is_brought_back(
    server: tuple[str, Documented], arguments: list[str]
) -> None:
    url, metabase = server
    assert here("metabase", url, *arguments).exit_code == 0
    board = next(iter(metabase.stored["dashboard"].values()))
    moved = board["dashcards"].pop(0) | {"row": 40}
    gone = board["dashcards"].pop()
    note = {"id": 999, "card_id": None, "row": 0, "col": 0, "size_x": 4, "size_y": 2}
    board["dashcards"] = [note, moved]
    card = next(iter(metabase.stored["card"].values()))
    card["dataset_query"]["native"]["query"] = "SELECT 1"
    result = here("metabase", url, *arguments)
    assert set(result.stdout.splitlines()) == {f"card {card['name']} changed", f"dashboard {board['name']} filled"}
    assert board["dashcards"][:2] == [note, moved]
    assert [(item["card_id"], item["row"]) for item in board["dashcards"][2:]] == [
        (gone["card_id"], 40 + moved["size_y"])
    ]
    assert card["dataset_query"]["native"]["query"] == next(iter(DASHBOARDS.values()))[0].sql


def test_without_dashboards_it_is_connected_all_the_same(
    server: tuple[str, Documented], arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, metabase = server
    (tmp_path / "datasets").mkdir()
    monkeypatch.setenv("MINI_PLATFORM_DATASETS", str(tmp_path / "datasets"))
    result = here("metabase", url, *arguments)
    assert result.exit_code == 0
    assert "No dataset declares dashboards" in result.stderr
    assert len(metabase.stored["database"]) == 1
    assert not metabase.stored["dashboard"]


def test_a_metabase_that_refuses_or_is_not_there_is_a_sentence_without_the_password(
    server: tuple[str, Documented], arguments: list[str]
) -> None:
    url, metabase = server
    metabase.user = User(email=EMAIL, password="another password", first_name="A", last_name="B")
    result = here("metabase", url, *arguments)
    assert (result.exit_code, "answered 401 to POST /api/session" in result.stderr) == (1, True), result.stderr
    assert PASSWORD not in result.stdout + result.stderr
    result = here("metabase", "http://127.0.0.1:1", *arguments)
    assert (result.exit_code, "does not answer as it should" in result.stderr) == (1, True)


def test_the_services_of_the_compose_file_do_both(
    server: tuple[str, Documented], roles: RolesPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, metabase = server
    services = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())["services"]
    for name in ("metabase_reader", "metabase_admin"):
        (tmp_path / name).write_text(f"the password of {name}\n")

    def here_for(words: str) -> str:
        words = words.replace("/run/secrets", str(tmp_path)).replace("http://metabase:3000", url)
        return words.replace("mini-platform ", f"{sys.executable} -m mini_platform.cli ")

    monkeypatch.setenv("DATABASE_URL", roles.urls["admin"])
    shell, flags, script = services["metabase-role"]["command"]
    env = os.environ | {"PYTHONPATH": str(PROJECT)}
    result = subprocess.run([shell, flags, here_for(script)], capture_output=True, text=True, check=False, env=env)
    assert result.returncode == 0, result.stderr
    engine = engine_of(roles.server.url("metabase_reader", "the password of metabase_reader", "separated"))
    with engine.connect() as conn:
        assert conn.scalar(text("SELECT count(*) >= 0 FROM analytics.monthly_revenue"))
    engine.dispose()
    _, *arguments = map(here_for, services["metabase-dashboards"]["command"])
    assert here(*arguments).exit_code == 0
    details = next(iter(metabase.stored["database"].values()))["details"]
    assert (details["user"], details["password"]) == ("metabase_reader", "the password of metabase_reader")


@pytest.mark.parametrize("question", [q for questions in DASHBOARDS.values() for q in questions], ids=lambda q: q.name)
def test_every_question_is_answered_to_the_bi_role(loaded_samples: None, roles: RolesPlatform, question: Any) -> None:
    engine = engine_of(roles.urls["bi"])
    with engine.connect() as conn:
        result = conn.execute(text(question.sql))
        assert {*question.dimensions, *question.metrics} <= set(result.keys())
        rows = result.all()
        assert rows
        assert all(value is not None for row in rows for value in row)
    engine.dispose()
