"""Exports that come back: a listing of rows, as the API and the pages give it, read as the rows that it was made of.

It is known by two columns of the platform's own, which no declaration and no other file has. What the platform gives and
derives is made anew, `_extra` is what was unknown in the row, and text that was made harmless to spreadsheet programs is what
it was.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from mini_platform.rows.readers import Block, RefusedFileError
from mini_platform.rows.spreadsheets import restored

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from mini_platform.declare.dataset import Dataset

MARKS = frozenset(("_file_id", "_loaded_at"))
EXTRA = "_extra"


def as_exported(dataset: Dataset, block: Block, extra: Sequence[str]) -> tuple[Block, list[str]]:
    """A block and the names of its unknown columns, without those of an export if it is of one.

    Raises:
        RefusedFileError: it is an export of personal data, which is hidden in it.
    """
    if not set(extra) >= MARKS:
        return block, list(extra)
    if dataset.is_personal:
        raise RefusedFileError("The file is an export of this platform, in which personal data is hidden")
    own = MARKS | {column.name for column in dataset.columns if not column.is_read}
    kept = [name for name in extra if name not in own]
    rows = block.rows.drop(set(extra) - set(kept))
    if block.extra_as_json is None:  # As CSV, of which spreadsheet programs take text for formulas.
        rows = rows.with_columns(restored(pl.col(pl.String)))
    unknown = block.extra_as_json or (lambda: rows.select(pl.struct(kept).struct.json_encode()).to_series())

    def extra_as_json() -> pl.Series:
        return unknown().map_elements(lambda text: _unknown(text, own), return_dtype=pl.String)

    return replace(block, rows=rows, extra_as_json=extra_as_json if kept else None), kept


def _unknown(text: str, own: Set[str]) -> str | None:
    """What was unknown in a row, as JSON: the members of `_extra`, which are flat in rows of JSON, and what else is new."""
    members: dict[str, Any] = {}
    for name, value in json.loads(text).items():
        if name == EXTRA:
            members |= _members(value)
        elif name not in own:
            members[name.removeprefix(f"{EXTRA}_")] = value
    return json.dumps(members, ensure_ascii=False) if members else None


def _members(value: Any) -> dict[str, Any]:
    if not value:
        return {}
    try:
        found = json.loads(value)
    except (TypeError, ValueError):
        found = None
    return found if isinstance(found, dict) else {EXTRA: value}
