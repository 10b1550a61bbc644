"""Errors of the database as phrases without any value: a server's own messages quote rows, and end in logs and answers.

Here: the phrase for an error of the driver. `connection.py` puts it into each error of an engine, so that everything that shows
or logs an error (commands, ledger, Dagster, API, incidents) shows this; `upsert.copy_in` puts it into those of COPY.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import psycopg2

VIOLATIONS: Mapping[str, str] = {
    "23502": "a value is missing in a column that may not be empty",
    "23503": "a row refers to a row that does not exist, or others refer to it",
    "23505": "two rows have the same values in columns that must be unique",
    "23514": "a row is not allowed by a check constraint",
    "23P01": "two rows exclude each other",
}
"""SQLSTATE -> phrase, where the name of the state alone is not enough."""
NEVER_QUOTING = (
    "08",
    "0A",
    "23001",
    "25",
    "26",
    "28",
    "2B",
    "3D",
    "3F",
    "40",
    "42",
    "53",
    "54",
    "55",
    "57",
    "58",
    "F0",
    "XX",
)
"""Classes and codes of SQLSTATE whose primary messages name objects and resources, never values of rows."""
WORDS_ONLY = re.compile(r"[A-Za-z /]+(\(\d+(,\d+)?\))?(?=:|$)")
"""Beginning of a message of the server about a value, such as `integer out of range`; values are quoted, or follow a colon."""
IN_FUNCTION = re.compile(r"""^PL/\w+ function "?(?!ops\.)([\w.]+)""", re.MULTILINE)
"""Context of an error in a function of somebody else's, which may say anything, with any SQLSTATE."""
FURTHER_PARTS = re.compile(r"\n(?:DETAIL|HINT|CONTEXT|LINE|QUERY|STATEMENT)\b")
READ_ERROR = "COPY from stdin failed"
"""Beginning of a message that also quotes the error of Python that ended a COPY."""


def explain(error: psycopg2.Error) -> str:
    """Return what the database refuses, in words: constraint, table, column and place, but no value, row or statement."""
    diag: Any = error.diag
    code = error.pgcode
    if code is None:  # By the driver, such as a lost connection.
        return " ".join(FURTHER_PARTS.split(str(error))[0].split())
    message = str(diag.message_primary)
    if message.startswith(READ_ERROR):
        return READ_ERROR
    in_function = IN_FUNCTION.search(str(diag.context)) or diag.internal_query
    if code.startswith(NEVER_QUOTING) and not in_function:
        return message
    words = re.sub("(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    if code in VIOLATIONS:
        words = VIOLATIONS[code]
    elif not in_function and (without_value := WORDS_ONLY.match(message)):
        words = without_value[0]
    return f"{words}{_place(diag)}"


def _place(diag: Any) -> str:
    """Return constraint, column, table and line, as far as the server names them, and the function that refuses a row."""
    context = str(diag.context)
    parts = []
    if diag.constraint_name:
        parts.append(f"constraint {diag.constraint_name}")
    if diag.column_name:
        parts.append(f"column {diag.column_name}")
    if diag.table_name:
        parts.append(f"table {diag.schema_name}.{diag.table_name}")
    if function := IN_FUNCTION.search(context):
        parts.append(f"function {function[1]}")
    if copied := re.search(r"^COPY ([^\n,]+), line (\d+)(?:, column ([^\n:]+):)?", context, re.MULTILINE):
        parts.append(f"line {copied[2]}{f', column {copied[3]}' if copied[3] else ''} of what is copied to {copied[1]}")
    return f": {', '.join(parts)}" if parts else ""


def without_values(error: psycopg2.Error) -> psycopg2.Error:
    """Replace the message of an error by its phrase, and return it: tracebacks and logs show the message."""
    error.args = (explain(error),)
    return error
