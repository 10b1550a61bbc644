"""The role that reads: what the API and the dashboard are in the database.

It may select what is served, and nothing else: neither staging, nor the keys of the API, nor a single write.
"""

from __future__ import annotations

from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

READER = "mini_platform_reader"
"""Roles belong to the server, not to a database: those of several platforms on one server share it."""
SERVED = ("ops", "production", "quarantine", "analytics")
WITHHELD = ("ops.api_keys",)

GRANTS = f"""
DO $$ BEGIN
    CREATE ROLE {READER} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
GRANT {READER} TO CURRENT_USER;
GRANT USAGE ON SCHEMA {", ".join(SERVED)} TO {READER};
GRANT SELECT ON ALL TABLES IN SCHEMA {", ".join(SERVED)} TO {READER};
ALTER DEFAULT PRIVILEGES IN SCHEMA {", ".join(SERVED)} GRANT SELECT ON TABLES TO {READER};
REVOKE ALL ON {", ".join(WITHHELD)} FROM {READER};
"""  # noqa: S608 - constants


def grant_reader(conn: Connection) -> None:
    """Make the role, and let it read what is served, tables of later declarations too.

    Where the user of the database may not make roles, nothing is done: reads are then kept from writing by their
    transactions alone.
    """
    try:
        with conn.begin_nested():
            conn.execute(text(GRANTS))
    except ProgrammingError as error:
        if getattr(error.orig, "pgcode", None) != "42501":  # insufficient_privilege
            raise


def may_become_reader(conn: Connection) -> bool:
    """Whether the user of the database can take the role on."""
    known = conn.scalar(text("SELECT count(*) FROM pg_roles WHERE rolname = :name"), {"name": READER})
    return bool(known) and bool(conn.scalar(text("SELECT pg_has_role(:name, 'MEMBER')"), {"name": READER}))
