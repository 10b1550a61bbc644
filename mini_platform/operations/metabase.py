"""Set up Metabase by its REST API: the connection to the database as the BI role, and the dashboards of datasets.

A dataset that is a folder defines its dashboards as `DASHBOARDS` in its `metabase.py`: questions by name of a dashboard.

Every item is looked up by its name in one collection and created if missing, so that the setup can be repeated. Questions are
updated to their declaration; what people arranged on the dashboards, or added to them, stays. Written after the documentation
of version 0.54 (https://www.metabase.com/docs/v0.54/api); the API is not versioned, so other versions may need changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import URL

from mini_platform.declare.registry import Registry

NAME = "Mini Platform"
"""Name of the collection, and of the database as people see it in Metabase."""
SCHEMAS = "analytics, production"
WIDTH, HEIGHT = 24, 8
"""Size of a question on a dashboard, in cells: the whole width of the grid."""
SECONDS = 60.0


class MetabaseError(Exception):
    """Metabase cannot be set up; the message is a sentence without passwords."""


@dataclass(frozen=True)
class Question:
    """A question: a select for the BI role, with its visualization.

    Attributes:
        name: name that identifies the question.
        display: `line`, `bar`, `row`, `area` or `table`.
        sql: the select.
        dimensions: columns on the x-axis, and columns that split it into series.
        metrics: columns on the y-axis.
    """

    name: str
    display: str
    sql: str
    dimensions: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()

    def body(self, database: int, collection: int) -> dict[str, Any]:
        """Return the request body for Metabase."""
        settings = (
            {"graph.dimensions": list(self.dimensions), "graph.metrics": list(self.metrics)} if self.metrics else {}
        )
        return {
            "name": self.name,
            "display": self.display,
            "collection_id": collection,
            "dataset_query": {"type": "native", "database": database, "native": {"query": self.sql}},
            "visualization_settings": settings,
        }


def dashboards_of(registry: Registry, datasets: Iterable[str]) -> dict[str, Sequence[Question]]:
    """Return the dashboards that these datasets have, by name."""
    dashboards: dict[str, Sequence[Question]] = {}
    for declared in registry.own_values("metabase", "DASHBOARDS", dict, datasets):
        dashboards |= declared
    return dashboards


class Metabase:
    """A session with Metabase, as a context manager."""

    def __init__(self, url: str, email: str, password: str) -> None:
        """Create a client; no request is sent yet."""
        self._client = httpx.Client(base_url=url, timeout=SECONDS, trust_env=False)
        self._email, self._password = email, password
        self._changes: list[str] = []

    def __enter__(self) -> Metabase:
        """Log in; a new Metabase is set up first, with this user as its administrator.

        Raises:
            MetabaseError: it cannot be reached, or refuses the login.
        """
        try:
            self._client.headers["X-Metabase-Session"] = self._session()
        except MetabaseError:
            self._client.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection; the session expires by itself."""
        self._client.close()

    def _session(self) -> str:
        properties = self._request("GET", "/api/session/properties")
        if properties["has-user-setup"]:
            login = {"username": self._email, "password": self._password}
            return str(self._request("POST", "/api/session", login)["id"])
        user = {"email": self._email, "password": self._password, "first_name": "Mini", "last_name": "Platform"}
        setup = {"token": properties["setup-token"], "user": user, "prefs": {"site_name": NAME}}
        return str(self._request("POST", "/api/setup", setup)["id"])

    def set_up(self, database: URL, dashboards: Mapping[str, Sequence[Question]]) -> list[str]:
        """Connect the database, and create missing dashboards and questions.

        Args:
            database: URL by which Metabase reaches the database, with the login of the BI role.
            dashboards: questions by name of their dashboard.

        Returns:
            A phrase per created or changed item; empty if nothing was missing.

        Raises:
            MetabaseError: Metabase refused something.
        """
        database_id = self._connect(database)
        collections = {item["name"]: item["id"] for item in self._request("GET", "/api/collection")}
        collection = collections.get(NAME) or self._create(
            "collection", {"name": NAME, "description": "Made by a command."}
        )
        for name, questions in dashboards.items():
            existing = self._items(collection)
            cards = [self._question(existing, question.body(database_id, collection)) for question in questions]
            dashboard = existing.get(("dashboard", name)) or self._create(
                "dashboard", {"name": name, "collection_id": collection}
            )
            self._arrange(dashboard, name, cards)
        return self._changes

    def _connect(self, url: URL) -> int:
        """Create or update the database and return its id; its details are sent each time, as the password may have changed."""
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
        for known in self._request("GET", "/api/database")["data"]:
            if known["name"] == NAME:
                self._request("PUT", f"/api/database/{known['id']}", body)
                return int(known["id"])
        return self._create("database", body)

    def _items(self, collection: int) -> dict[tuple[str, str], int]:
        """Return ids of the questions and dashboards of a collection, by kind and name."""
        items = self._request("GET", f"/api/collection/{collection}/items?models=card&models=dashboard")
        return {(item["model"], item["name"]): item["id"] for item in items["data"]}

    def _question(self, existing: dict[tuple[str, str], int], body: dict[str, Any]) -> int:
        card_id = existing.get(("card", body["name"]))
        if card_id is None:
            return self._create("card", body)
        card = self._request("GET", f"/api/card/{card_id}")
        if {name: card.get(name) for name in body} != body:
            self._request("PUT", f"/api/card/{card_id}", body)
            self._changes.append(f"card {body['name']} changed")
        return card_id

    def _arrange(self, dashboard: int, name: str, cards: Sequence[int]) -> None:
        """Add missing questions to a dashboard, below its content."""
        existing = self._request("GET", f"/api/dashboard/{dashboard}")["dashcards"]
        missing = [card for card in cards if card not in {item["card_id"] for item in existing}]
        if not missing:
            return
        bottom = max((item["row"] + item["size_y"] for item in existing), default=0)
        # Negative ids are new cards; cards that are not sent would be removed.
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
        self._request("PUT", f"/api/dashboard/{dashboard}", {"dashcards": [*existing, *new]})
        self._changes.append(f"dashboard {name} filled")

    def _create(self, kind: str, body: dict[str, Any]) -> int:
        created = self._request("POST", f"/api/{kind}", body)
        self._changes.append(f"{kind} {body['name']} made")
        return int(created["id"])

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            response = self._client.request(method, path, json=body)
            response.raise_for_status()
            return response.json() if response.content else None
        except httpx.HTTPStatusError as error:
            message = " ".join(error.response.text.split())[:300]
            raise MetabaseError(
                f"Metabase answered {error.response.status_code} to {method} {path}: {_without_secrets(message, body)}"
            ) from None
        except (httpx.HTTPError, ValueError) as error:
            raise MetabaseError(f"Metabase at {self._client.base_url} does not answer as it should: {error}") from None


def _without_secrets(message: str, body: dict[str, Any] | None) -> str:
    """Return a response text without passwords: a response may repeat the request."""
    parts = [body or {}, (body or {}).get("details", {}), (body or {}).get("user", {})]
    for part in parts:
        if password := part.get("password"):
            message = message.replace(password, "***")
    return message
