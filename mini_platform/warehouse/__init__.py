"""Postgres: the connection, the tables, COPY, upsert, the ledger. Nothing here depends on Dagster."""
