"""Exports that are delivered again: a list of rows, as exported by the API and the pages, is read as the original rows.

An export is recognized by two columns of the platform, which no declaration and no other file has. Columns that the platform
fills in or derives are computed again, `_extra` holds the undeclared columns of the row, and text that was escaped for
spreadsheet programs is unescaped.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from mini_platform.rows.readers import Block, RefusedFileError
from mini_platform.rows.spreadsheets import unescape_formula

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from mini_platform.declare.dataset import Dataset

MARKS = frozenset(("_file_id", "_loaded_at"))
EXTRA = "_extra"


def strip_export_columns(dataset: Dataset, block: Block, extra: Sequence[str]) -> tuple[Block, list[str]]:
    """Return a block and the names of its undeclared columns, without the columns that an export adds if it is one.

    Raises:
        RefusedFileError: the file is an export of personal data, which is masked in it.
    """
    if not set(extra) >= MARKS:
        return block, list(extra)
    if dataset.is_personal:
        raise RefusedFileError("The file is an export of this platform, in which personal data is hidden")
    platform_columns = MARKS | {column.name for column in dataset.columns if not column.is_read}
    remaining = [name for name in extra if name not in platform_columns]
    rows = block.rows.drop(set(extra) - set(remaining))
    if block.extra_as_json is None:  # It is CSV, where text was escaped for spreadsheet programs.
        rows = rows.with_columns(unescape_formula(pl.col(pl.String)))
    undeclared_as_json = block.extra_as_json or (
        lambda: rows.select(pl.struct(remaining).struct.json_encode()).to_series()
    )

    def extra_as_json() -> pl.Series:
        return undeclared_as_json().map_elements(
            lambda text: _undeclared(text, platform_columns), return_dtype=pl.String
        )

    return replace(block, rows=rows, extra_as_json=extra_as_json if remaining else None), remaining


def _undeclared(text: str, platform_columns: Set[str]) -> str | None:
    """Return the undeclared columns of a row as JSON: the members of `_extra`, which are flat in JSON rows, and new columns."""
    members: dict[str, Any] = {}
    for name, value in json.loads(text).items():
        if name == EXTRA:
            members |= _members(value)
        elif name not in platform_columns:
            members[name.removeprefix(f"{EXTRA}_")] = value
    return json.dumps(members, ensure_ascii=False) if members else None


def _members(value: Any) -> dict[str, Any]:
    if not value:
        return {}
    try:
        parsed = json.loads(value)
    except (TypeError, ValueError):
        parsed = None
    return parsed if isinstance(parsed, dict) else {EXTRA: value}
