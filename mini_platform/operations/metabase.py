"""Metabase: connected to the database as the BI role, with the dashboards that datasets have, by its REST API.

A dataset that is a folder hands its dashboards in, as `DASHBOARDS` of its `metabase.py`: questions by name of a dashboard.

Everything is found by its name in one collection and made where it is missing, so that it can be run again; questions are
brought to what is declared here, and what people arranged on the dashboards, or added to them, stays. Written after the
documentation of version 0.54 (https://www.metabase.com/docs/v0.54/api); the API is not versioned, so that another version may
want other words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import URL

from mini_platform.declare.registry import Registry, own_value

NAME = "Mini Platform"
"""Of the collection, and of the database as people see it in Metabase."""
SCHEMAS = "analytics, production"
WIDTH, HEIGHT = 24, 8
"""Of a question on a dashboard: the whole width of the grid."""
SECONDS = 60.0


class MetabaseError(Exception):
    """Metabase cannot be set up; the message is a sentence without passwords."""


@dataclass(frozen=True)
class Question:
    """A question: a select of the BI role, and how it is drawn.

    Attributes:
        name: of it; told apart by it.
        display: `line`, `bar`, `row`, `area` or `table`.
        sql: the select.
        dimensions: its columns on the x-axis, and those that break it up.
        metrics: its columns on the y-axis.
    """

    name: str
    display: str
    sql: str
    dimensions: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()

    def body(self, database: int, collection: int) -> dict[str, Any]:
        """As Metabase takes it."""
        drawn = {"graph.dimensions": list(self.dimensions), "graph.metrics": list(self.metrics)} if self.metrics else {}
        return {
            "name": self.name,
            "display": self.display,
            "collection_id": collection,
            "dataset_query": {"type": "native", "database": database, "native": {"query": self.sql}},
            "visualization_settings": drawn,
        }


def dashboards_of(registry: Registry, datasets: Iterable[str]) -> dict[str, Sequence[Question]]:
    """Return the dashboards that these datasets have, by name.

    Raises:
        RegistryError: a file has none.
    """
    found: dict[str, Sequence[Question]] = {}
    for module in registry.own_modules("metabase", datasets):
        found |= own_value(module, "DASHBOARDS", dict)
    return found


class Metabase:
    """A session with a Metabase; close it by `with`."""

    def __init__(self, url: str, email: str, password: str) -> None:
        """Nothing is asked yet."""
        self._client = httpx.Client(base_url=url, timeout=SECONDS, trust_env=False)
        self._email, self._password = email, password
        self._done: list[str] = []

    def __enter__(self) -> Metabase:
        """Log in; a Metabase that nobody set up yet is set up with this person as its administrator.

        Raises:
            MetabaseError: it cannot be reached, or does not let us in.
        """
        try:
            self._client.headers["X-Metabase-Session"] = self._session()
        except MetabaseError:
            self._client.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection; the session ends by itself."""
        self._client.close()

    def _session(self) -> str:
        properties = self._ask("GET", "/api/session/properties")
        if properties["has-user-setup"]:
            login = {"username": self._email, "password": self._password}
            return str(self._ask("POST", "/api/session", login)["id"])
        user = {"email": self._email, "password": self._password, "first_name": "Mini", "last_name": "Platform"}
        setup = {"token": properties["setup-token"], "user": user, "prefs": {"site_name": NAME}}
        return str(self._ask("POST", "/api/setup", setup)["id"])

    def set_up(self, database: URL, dashboards: Mapping[str, Sequence[Question]]) -> list[str]:
        """Connect the database and make what is missing.

        Args:
            database: as Metabase reaches it, with the login of the BI role.
            dashboards: the questions of each, by its name.

        Returns:
            What was made or changed, a phrase each; none where all was there.

        Raises:
            MetabaseError: Metabase refused something.
        """
        database_id = self._connect(database)
        collections = {item["name"]: item["id"] for item in self._ask("GET", "/api/collection")}
        collection = collections.get(NAME) or self._make(
            "collection", {"name": NAME, "description": "Made by a command."}
        )
        for name, questions in dashboards.items():
            there = self._items(collection)
            cards = [self._question(there, question.body(database_id, collection)) for question in questions]
            dashboard = there.get(("dashboard", name)) or self._make(
                "dashboard", {"name": name, "collection_id": collection}
            )
            self._arrange(dashboard, name, cards)
        return self._done

    def _connect(self, url: URL) -> int:
        """The database by its name; its details are told again each time, as the password may be another one."""
        mode = url.query.get("sslmode")
        details = {
            "host": url.host,
            "port": url.port or 5432,
            "dbname": url.database,
            "user": url.username,
            "password": url.password,
            "schema-filters-type": "inclusion",
            "schema-filters-patterns": SCHEMAS,
            **({"ssl": True, "ssl-mode": mode} if mode not in (None, "disable") else {"ssl": False}),
        }
        body = {"engine": "postgres", "name": NAME, "details": details}
        for known in self._ask("GET", "/api/database")["data"]:
            if known["name"] == NAME:
                self._ask("PUT", f"/api/database/{known['id']}", body)
                return int(known["id"])
        return self._make("database", body)

    def _items(self, collection: int) -> dict[tuple[str, str], int]:
        """Ids of the questions and dashboards of a collection, by kind and name."""
        found = self._ask("GET", f"/api/collection/{collection}/items?models=card&models=dashboard")
        return {(item["model"], item["name"]): item["id"] for item in found["data"]}

    def _question(self, there: dict[tuple[str, str], int], body: dict[str, Any]) -> int:
        found = there.get(("card", body["name"]))
        if found is None:
            return self._make("card", body)
        card = self._ask("GET", f"/api/card/{found}")
        if {name: card.get(name) for name in body} != body:
            self._ask("PUT", f"/api/card/{found}", body)
            self._done.append(f"card {body['name']} changed")
        return found

    def _arrange(self, dashboard: int, name: str, cards: Sequence[int]) -> None:
        """Put the questions that a dashboard lacks below what is on it."""
        kept = self._ask("GET", f"/api/dashboard/{dashboard}")["dashcards"]
        missing = [card for card in cards if card not in {item["card_id"] for item in kept}]
        if not missing:
            return
        bottom = max((item["row"] + item["size_y"] for item in kept), default=0)
        # Ids below zero are new ones; what is not sent would be taken off.
        new = [
            {
                "id": -place,
                "card_id": card,
                "col": 0,
                "row": bottom + (place - 1) * HEIGHT,
                "size_x": WIDTH,
                "size_y": HEIGHT,
            }
            for place, card in enumerate(missing, 1)
        ]
        self._ask("PUT", f"/api/dashboard/{dashboard}", {"dashcards": [*kept, *new]})
        self._done.append(f"dashboard {name} filled")

    def _make(self, kind: str, body: dict[str, Any]) -> int:
        made = self._ask("POST", f"/api/{kind}", body)
        self._done.append(f"{kind} {body['name']} made")
        return int(made["id"])

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            answer = self._client.request(method, path, json=body)
            answer.raise_for_status()
            return answer.json() if answer.content else None
        except httpx.HTTPStatusError as error:
            said = " ".join(error.response.text.split())[:300]
            raise MetabaseError(
                f"Metabase answered {error.response.status_code} to {method} {path}: {_without_secrets(said, body)}"
            ) from None
        except (httpx.HTTPError, ValueError) as error:
            raise MetabaseError(f"Metabase at {self._client.base_url} does not answer as it should: {error}") from None


def _without_secrets(said: str, body: dict[str, Any] | None) -> str:
    """An answer may repeat what it was sent."""
    parts = [body or {}, (body or {}).get("details", {}), (body or {}).get("user", {})]
    for part in parts:
        if password := part.get("password"):
            said = said.replace(password, "***")
    return said
