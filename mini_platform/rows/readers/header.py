"""The header of a CSV file, matched with the declared columns.

Here: which field of a record is which column, and the sentences that refuse a header. Not here: the records (`records.py`).
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
"""Column names shown in a sentence before it says how many more there are."""


@dataclass(frozen=True)
class Header:
    """A matched header.

    Attributes:
        names: column name of each field of a record, in the order of the file.
        ordered: the same names, the declared ones first and in their declared order, then the extra ones.
        texts: the header's fields as they stood in the file; where it has none, as they would stand.
        stands: whether the file has a header.
    """

    names: tuple[str, ...]
    ordered: tuple[str, ...]
    texts: tuple[str, ...]
    stands: bool = True


def listed(names: Sequence[str]) -> str:
    """Column names for a sentence, the first of them if they are many."""
    shown = ", ".join(name[:100] or "(empty)" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")


@dataclass(frozen=True)
class Wanted:
    """The columns that a header is searched for.

    Attributes:
        names: of the columns.
        aliases: other names, each with that of its column.
        optional: names of the columns that a file may lack.
    """

    names: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...] = ()
    optional: frozenset[str] = frozenset()

    @classmethod
    def of(cls, columns: Sequence[Column]) -> Wanted:
        """What the declared columns ask for."""
        return cls(
            tuple(column.name for column in columns),
            tuple((alias, column.name) for column in columns for alias in column.aliases),
            frozenset(column.name for column in columns if column.optional),
        )

    @cached_property
    def by_key(self) -> Mapping[str, str]:
        """Normalized names, aliases too, each with the name of its column.

        Raises:
            ValueError: two columns differ only in what a header is forgiven.
        """
        found: dict[str, str] = {}
        for text, name in (*zip(self.names, self.names, strict=True), *self.aliases):
            if found.setdefault(normalized(text), name) != name:
                raise ValueError("two declared columns cannot be told apart in a header: " + ", ".join(self.names))
        return found

    def lacking(self, fields: Sequence[str]) -> list[str]:
        """The columns that must be and are not among the header's fields."""
        found = {self.by_key.get(normalized(text)) for text in fields}
        return [name for name in self.names if name not in found and name not in self.optional]


def _refuse_doubled(texts: Sequence[str], wanted: Wanted) -> None:
    seen: dict[str, str] = {}
    for text in texts:
        name = wanted.by_key.get(normalized(text), normalized(text))
        if name and name in seen:
            both = text if text == seen[name] else f"{seen[name]} and {text}"
            raise RefusedFileError("The header names a column twice", f": {both[:200]}. It has {listed(texts)}.")
        seen[name] = text


def by_position(columns: Sequence[str]) -> Header:
    """The header that stands for none: the declared columns, in their order."""
    return Header(tuple(columns), tuple(columns), tuple(columns), stands=False)


def match_header(fields: Sequence[str], wanted: Wanted) -> Header:
    """Find the declared columns among the header's fields; the others are extra and keep their own names.

    An extra column without a name is called by its position, such as `column_5`.

    Args:
        fields: the header's fields, quotes removed.
        wanted: the declared columns; those that are optional and not there are not in the result.

    Raises:
        RefusedFileError: a declared column is missing, or a name stands twice.
        ValueError: two declared columns differ only in what a header is forgiven.
    """
    texts = [text.strip() for text in fields]
    if missing := wanted.lacking(texts):
        hint = ". Is another delimiter in use?" if len(texts) == 1 and re.search(r"[,;\t|]", texts[0]) else "."
        raise RefusedFileError(
            f"The header lacks {listed(missing)}. Expected {listed(wanted.names)}",
            f"; found {listed(texts)}",
            hint,
        )
    _refuse_doubled(texts, wanted)
    names: list[str] = []
    taken = {*wanted.names, *texts}
    for position, text in enumerate(texts, start=1):
        name = wanted.by_key.get(normalized(text), text)
        if not name:
            name = f"column_{position}"
            while name in taken:
                name += "_"
            taken.add(name)
        names.append(name)
    here, known = set(names), set(wanted.names)
    declared = [name for name in wanted.names if name in here]
    return Header(tuple(names), (*declared, *(name for name in names if name not in known)), tuple(fields))
