"""Names that the platform or Postgres uses: no dataset, table or column can have them.

What serves them imports them from here, so that it has no other ones.
"""

from __future__ import annotations

NAME_BYTES = 63
"""Most bytes of a name in Postgres, which truncates longer ones."""
SYSTEM_COLUMNS = frozenset(("cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"))
"""Names of the columns that every table of Postgres has: https://www.postgresql.org/docs/current/ddl-system-columns.html"""
SYSTEM_TABLES = "pg_"
"""Beginning of the names of Postgres's own tables, which are found before others of the same name."""
LIST_WORDS = ("search", "ordering", "fields", "cursor", "limit")
"""Parameters of every list of the API."""
FORM_WORDS = ("filter_column", "filter_by", "filter_value")
"""Parameters of the filter form of pages."""
PERSONAL = "personal"
"""Parameter of exports of rows: true to include personal data."""
PARAMETERS = frozenset((*LIST_WORDS, *FORM_WORDS, PERSONAL))
"""Parameters of lists and pages, beside which every column is one: its filter."""
FILTERS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "contains", "isnull")
"""Operators of the API's filters: a parameter is the name of a column, `__` and an operator."""
PLATFORM_PATHS = frozenset(
    (
        *("api", "dagster", "datasets", "docs", "files", "health", "help", "login", "logout", "metrics", "openapi"),
        *("quality", "redoc", "runs", "state", "static", "stats"),
    )
)
"""Addresses of the platform: a dataset's page has its name as its address."""
DATASETS = PLATFORM_PATHS | {"ops", "samples"}
"""Names that no dataset can have: `ops` stands for the platform's own tables in `ops.fingerprints`, and `samples` is a folder
beside the drop folders."""
CHECK_NAMES = frozenset(("columns_as_declared", "files_accepted", "files_not_empty"))
"""Names of the checks that every staging asset has besides its rules."""
