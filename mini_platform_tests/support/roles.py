"""A server with separate roles: passwords, an administrator who is not a superuser, a login for each group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psycopg2
from sqlalchemy import URL, make_url

GROUPS = ("owner", "loader", "reader", "personal", "bi")


SAMPLES = {
    "weather": "seattle.csv",
    "customers": "customers.csv",
    "signals": "signals.jsonl",
    "records": "records.csv",
    "sales": "shop.csv",
}


PATIENCE = 600.0
"""Time limit of a command, in seconds, on a busy machine."""


@dataclass(frozen=True)
class Server:
    """A server, its superuser and the path of its log."""

    superuser: str
    home: Path

    def execute(self, statement: str, database: str = "mini_platform") -> None:
        conn = psycopg2.connect(**parts_of(make_url(self.superuser).set(database=database)))
        conn.autocommit = True
        with conn.cursor() as cursor:
            cursor.execute(statement)
        conn.close()

    def url(self, user: str, password: str, database: str) -> str:
        url = make_url(self.superuser).set(username=user, password=password, database=database)
        return url.render_as_string(hide_password=False)


def parts_of(url: URL) -> dict[str, str]:
    return {"dbname": str(url.database), "user": str(url.username), **{k: str(v) for k, v in url.query.items()}}


@dataclass(frozen=True)
class RolesPlatform:
    """A database with all roles; URLs for the logins of each role and of the administrator."""

    server: Server
    urls: dict[str, str]
    passwords: dict[str, str]
    folder: Path
    output: str
