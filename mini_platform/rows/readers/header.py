"""The header of a CSV file, matched with the declared columns.

Here: the mapping of fields to columns, and the refusal of a header. Not here: the records (`records.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mini_platform.declare.columns import normalized
from mini_platform.rows.readers import RefusedFileError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mini_platform.declare.columns import Column

_SHOWN = 20
"""Most column names shown in a sentence; the others are counted."""


@dataclass(frozen=True)
class Header:
    """A matched header.

    Attributes:
        names: column name of each field of a record, in the order of the file.
        ordered: the same names: the declared ones in their declared order, then the extra ones.
        texts: fields of the header as in the file; without a header, the column names.
        in_file: True if the file has a header.
    """

    names: tuple[str, ...]
    ordered: tuple[str, ...]
    texts: tuple[str, ...]
    in_file: bool = True


def join_names(names: Sequence[str]) -> str:
    """Return column names for a sentence; only the first ones if there are many."""
    shown = ", ".join(name[:100] or "(empty)" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")


@dataclass(frozen=True)
class ExpectedColumns:
    """The columns that a header is expected to have.

    Attributes:
        names: names of the columns.
        aliases: pairs of another name and the name of its column.
        optional: names of the columns that a file may lack.
    """

    names: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...] = ()
    optional: frozenset[str] = frozenset()

    @classmethod
    def of(cls, columns: Sequence[Column]) -> ExpectedColumns:
        """Return the expectation of the declared columns."""
        return cls(
            tuple(column.name for column in columns),
            tuple((alias, column.name) for column in columns for alias in column.aliases),
            frozenset(column.name for column in columns if column.optional),
        )

    @cached_property
    def by_key(self) -> Mapping[str, str]:
        """Return normalized names and aliases, each with the name of its column.

        Raises:
            ValueError: two columns have the same normalized name.
        """
        column_names: dict[str, str] = {}
        for text, name in (*zip(self.names, self.names, strict=True), *self.aliases):
            if column_names.setdefault(normalized(text), name) != name:
                raise ValueError("two declared columns cannot be told apart in a header: " + ", ".join(self.names))
        return column_names

    def missing_from(self, fields: Sequence[str]) -> list[str]:
        """Return the required columns that are not among the header's fields."""
        present = {self.by_key.get(normalized(text)) for text in fields}
        return [name for name in self.names if name not in present and name not in self.optional]


def columns_of_refused(sentence: str) -> list[str]:
    """Return the columns of a header that lacks declared ones, from the message of its refusal; none for other messages."""
    match = re.match(
        r"The header lacks .*?; found (.*?)(?: and [0-9,]+ more)?\.(?: Is another delimiter in use\?)?\Z",
        sentence,
        re.S,
    )
    return match[1].split(", ") if match else []


def _refuse_duplicates(texts: Sequence[str], expected: ExpectedColumns) -> None:
    text_by_name: dict[str, str] = {}
    for text in texts:
        name = expected.by_key.get(normalized(text), normalized(text))
        if name and name in text_by_name:
            both = text if text == text_by_name[name] else f"{text_by_name[name]} and {text}"
            raise RefusedFileError("The header names a column twice", f": {both[:200]}. It has {join_names(texts)}.")
        text_by_name[name] = text


def by_position(columns: Sequence[str]) -> Header:
    """Return the header of a file without one: the declared columns, in their order."""
    return Header(tuple(columns), tuple(columns), tuple(columns), in_file=False)


def match_header(fields: Sequence[str], expected: ExpectedColumns) -> Header:
    """Match the header's fields with the declared columns; other fields are extra columns and keep their names.

    An extra column without a name is named after its position, such as `column_5`.

    Args:
        fields: the header's fields, quotes removed.
        expected: the declared columns; missing optional ones are not in the result.

    Raises:
        RefusedFileError: a declared column is missing, or a name occurs twice.
        ValueError: two declared columns have the same normalized name.
    """
    texts = [text.strip() for text in fields]
    if missing := expected.missing_from(texts):
        hint = ". Is another delimiter in use?" if len(texts) == 1 and re.search(r"[,;\t|]", texts[0]) else "."
        raise RefusedFileError(
            f"The header lacks {join_names(missing)}. Expected {join_names(expected.names)}",
            f"; found {join_names(texts)}",
            hint,
        )
    _refuse_duplicates(texts, expected)
    names: list[str] = []
    used_names = {*expected.names, *texts}
    for position, text in enumerate(texts, start=1):
        name = expected.by_key.get(normalized(text), text)
        if not name:
            name = f"column_{position}"
            while name in used_names:
                name += "_"
            used_names.add(name)
        names.append(name)
    present, declared_names = set(names), set(expected.names)
    declared = [name for name in expected.names if name in present]
    return Header(tuple(names), (*declared, *(name for name in names if name not in declared_names)), tuple(fields))
