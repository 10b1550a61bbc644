"""Exports of rows that are loaded again: how they are recognized, and which columns they have.

An export is recognized by two columns of the platform, which no declaration and no other file has.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mini_platform.declare.columns import normalized
from mini_platform.rows.readers import RefusedFileError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mini_platform.declare.columns import Column

MARKS = frozenset(("_file_id", "_loaded_at"))
EXTRA = "_extra"
WITHHELD = "_withheld"
"""Column that names the withheld columns of an export, separated by spaces."""
HOW_TO_EXPORT = "Export the rows with personal data: with personal=true, by a key that has the scope for it"


def is_export(names: Collection[str], columns: Sequence[Column]) -> bool:
    """Return True if a file with these columns is an export.

    Args:
        names: names of the columns of the file.
        columns: the declared columns that are read.

    Raises:
        RefusedFileError: columns are withheld in the export, so that loading it would remove their values.
    """
    if WITHHELD in names:
        present = set(map(normalized, names))
        missing = [column.name for column in columns if column.stored and normalized(column.name) not in present]
        raise RefusedFileError(
            f"The file is an export in which columns are withheld ({', '.join(missing) or WITHHELD}), and loading it would "
            f"remove their values. {HOW_TO_EXPORT}"
        )
    return MARKS.issubset(names)


def exported_columns(columns: Sequence[Column]) -> list[Column]:
    """Return the declared columns as an export has them: without aliases, and perhaps without those that are not stored."""
    return [replace(column, aliases=(), optional=column.optional or not column.stored) for column in columns]
