"""Keyset pages: a page begins behind the row at which another one ended, however many rows came or went in between.

An ordering is that of Postgres: empty values are last where it ascends, first where it descends. To walk back is to walk
forward in the opposite ordering.

https://use-the-index-luke.com/no-offset
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, false, literal, or_, true, tuple_
from sqlalchemy import cast as sql_cast

from mini_platform.warehouse.known_sql import plain_column
from mini_platform.web.api.relations import RelationColumn
from mini_platform.web.api.values import packed, unpacked

Where = Literal["after", "from", "before", "until"]
"""Where a page begins: after the row of a cursor or with it, or, walking back, before that row or with it."""
OPPOSITE: dict[Where, Where] = {"after": "until", "before": "from"}
"""Where the way back begins from a page that had no rows."""
LONGEST = 2**15
"""Characters of a cursor; none that was given is as long."""


@dataclass(frozen=True)
class Sort:
    """A column that rows are sorted by."""

    column: RelationColumn
    descends: bool

    @property
    def element(self) -> ColumnElement[Any]:
        """As `ORDER BY` takes it."""
        element = self.column.sorted_by
        return element.desc() if self.descends else element.asc()

    @property
    def reversed(self) -> Sort:
        """The other way round."""
        return replace(self, descends=not self.descends)

    def beyond(self, value: Any) -> ColumnElement[bool]:
        """Whether a row comes after this value."""
        element = self.column.sorted_by
        if value is None:
            return element.is_not(None) if self.descends else false()
        if self.descends:
            return element < _bound(element, value)
        further = element > _bound(element, value)
        return or_(further, element.is_(None)) if self.column.nullable else further

    def not_before(self, value: Any) -> ColumnElement[bool]:
        """Whether a row comes after this value or has it."""
        element = self.column.sorted_by
        if value is None:
            return true() if self.descends else element.is_(None)
        if self.descends:
            return element <= _bound(element, value)
        further = element >= _bound(element, value)
        return or_(further, element.is_(None)) if self.column.nullable else further


def _bound(element: ColumnElement[Any], value: Any) -> ColumnElement[Any]:
    """A value as one of the element's type; a list says its type, as that of its items would be guessed."""
    bound = literal(value, element.type)
    return sql_cast(bound, element.type) if isinstance(value, list) else bound


def beyond(sorts: Sequence[Sort], values: Sequence[Any], *, inclusive: bool) -> ColumnElement[bool]:
    """Whether a row comes after the one that has these values, in this ordering; `inclusive`: or is it.

    Columns that are never empty and all go in one direction are compared as a row, which an index over them serves. Else the
    first column is compared by itself, too, so that an index over it serves.
    """
    (first, *rest), (value, *others) = sorts, values
    if not any(sort.column.nullable or sort.descends != first.descends for sort in sorts):
        return _row_beyond(sorts, values, inclusive=inclusive)
    if not rest:
        return first.not_before(value) if inclusive else first.beyond(value)
    return and_(first.not_before(value), or_(first.beyond(value), beyond(rest, others, inclusive=inclusive)))


def _row_beyond(sorts: Sequence[Sort], values: Sequence[Any], *, inclusive: bool) -> ColumnElement[bool]:
    elements = [sort.column.sorted_by for sort in sorts]
    ours, theirs = tuple_(*elements), tuple_(*map(_bound, elements, values))
    if sorts[0].descends:
        result = ours <= theirs if inclusive else ours < theirs
    else:
        result = ours >= theirs if inclusive else ours > theirs
    # Where other tables have the last columns, an index of the first one can serve what concerns it alone.
    of_table = sum(1 for _ in takewhile(lambda element: plain_column(element) is not None, elements))
    if 0 < of_table < len(sorts):
        return and_(_row_beyond(sorts[:of_table], values[:of_table], inclusive=True), result)
    return result


@dataclass(frozen=True)
class Cursor:
    """Where a page begins: the values of a row, in the columns of the ordering."""

    where: Where
    values: tuple[Any, ...]

    @property
    def is_back(self) -> bool:
        """Whether it walks back."""
        return self.where in ("before", "until")

    def holds(self, sorts: Sequence[Sort]) -> ColumnElement[bool]:
        """Whether a row is on its side."""
        chosen = [sort.reversed for sort in sorts] if self.is_back else sorts
        return beyond(chosen, self.values, inclusive=self.where in ("from", "until"))

    def text(self, mark: str) -> str:
        """As it is handed out; `mark` stands for what is listed and in which order."""
        content = [mark, self.where, *map(packed, self.values)]
        whole = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(whole).decode().rstrip("=")

    @classmethod
    def read(cls, text: str, mark: str, sorts: Sequence[Sort]) -> Cursor:
        """Read what `text` gave.

        Raises:
            LookupError: it belongs to another listing or order.
            ValueError: nobody gave it.
        """
        try:
            if len(text) > LONGEST or not text.isascii():
                raise ValueError(text)
            content = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
            theirs, where, *values = content
            if where not in ("after", "from", "before", "until"):
                raise ValueError(where)
            if theirs == mark:
                kinds = [sort.column.type for sort in sorts]
                return cls(where, tuple(unpacked(kind, value) for kind, value in zip(kinds, values, strict=True)))
        except (binascii.Error, UnicodeDecodeError, RecursionError, TypeError, KeyError) as error:
            raise ValueError(text) from error
        raise LookupError(text)
