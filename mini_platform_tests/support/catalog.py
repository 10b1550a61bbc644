"""The catalog of the platform's tables on a server, as text that can be compared."""

from __future__ import annotations

from sqlalchemy import Engine, text

QUERIES = (
    "SELECT table_schema, table_name, column_name, data_type, is_nullable, collation_name FROM information_schema.columns",
    "SELECT table_schema, table_name, column_name, column_default, is_identity FROM information_schema.columns",
    "SELECT schemaname, tablename, indexdef FROM pg_indexes WHERE schemaname !~ '^(pg_|information|dagster)'",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype <> 'n'",
    "SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "SELECT objoid::regclass::text, objsubid > 0, description FROM pg_description WHERE classoid = 'pg_class'::regclass",
    "SELECT schemaname, sequencename FROM pg_sequences WHERE schemaname <> 'dagster'",
    "SELECT viewname, definition FROM pg_views WHERE schemaname = 'analytics'",
)


def catalog(engine: Engine) -> list[tuple[str, ...]]:
    """Return every column, index, constraint, trigger, comment, sequence and view of the platform's schemas."""
    with engine.connect() as conn:
        return sorted((str(n), *map(str, row)) for n, query in enumerate(QUERIES) for row in conn.execute(text(query)))
