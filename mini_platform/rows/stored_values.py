"""Values of an export that are stored ones: they cannot be validated as the text that they were made of, nor computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from mini_platform.rows.own_rows import build_expression
from mini_platform.rows.protection import Keyring, is_stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mini_platform.declare.dataset import Dataset


def stored_values(dataset: Dataset, rows: pl.DataFrame, keyring: Keyring | None) -> Mapping[str, pl.Series]:
    """Return which values of an export are stored ones.

    Args:
        dataset: dataset of the rows.
        rows: n rows of an export as text, with the derived columns.
        keyring: keys that hash personal data; None if the dataset has none to protect.

    Returns:
        n booleans by column: of protected columns, True for the stored form; of columns that are not stored, True where the
        value is missing; of derived columns, True where they depend on one of these values, and have one.
    """
    masks: dict[str, pl.Series] = {}
    for column in dataset.read_columns:
        if column.is_protected and keyring is not None:
            masks[column.name] = is_stored(column, rows[column.name], keyring)
        elif not column.stored:
            masks[column.name] = rows[column.name] == ""
    for column in dataset.columns:
        if column.derived and (roots := masks.keys() & build_expression(column.derived).meta.root_names()):
            masks[column.name] = pl.DataFrame([masks[name] for name in roots]).select(
                pl.any_horizontal(pl.all()).alias(column.name)
            )[column.name] & (rows[column.name] != "")
    return masks
