"""Keyset pagination: a page starts after the last row of another page, even if rows were inserted or deleted in between.

The ordering is that of Postgres: nulls are last if it ascends, first if it descends. Paging backwards is paging forwards in the
opposite ordering.

https://use-the-index-luke.com/no-offset
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import ColumnElement, and_, false, literal, or_, true, tuple_
from sqlalchemy import cast as sql_cast

from mini_platform.warehouse.known_sql import plain_column
from mini_platform.web.api.relations import RelationColumn
from mini_platform.web.api.values import packed, unpacked

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

Where = Literal["after", "from", "before", "until"]
"""Where a page begins: after the row of a cursor or with it, or, walking back, before that row or with it."""
OPPOSITE: dict[Where, Where] = {"after": "until", "before": "from"}
"""Where to page in the opposite direction from a page without rows."""
LONGEST = 2**15
"""Maximum number of characters of a cursor; valid ones are shorter."""
Cipher = Callable[[], "Fernet"]
"""Returns the cipher of cursors with personal data: URLs are logged by proxies and remembered by browsers."""


@dataclass(frozen=True)
class Sort:
    """A column that rows are sorted by."""

    column: RelationColumn
    descends: bool

    @property
    def element(self) -> ColumnElement[Any]:
        """Return the expression for `ORDER BY`."""
        element = self.column.sorted_by
        return element.desc() if self.descends else element.asc()

    @property
    def reversed(self) -> Sort:
        """Return the sort in the opposite direction."""
        return replace(self, descends=not self.descends)

    def beyond(self, value: Any) -> ColumnElement[bool]:
        """Return a condition: the row comes after this value."""
        element = self.column.sorted_by
        if value is None:
            return element.is_not(None) if self.descends else false()
        if self.descends:
            return element < _bound(element, value)
        further = element > _bound(element, value)
        return or_(further, element.is_(None)) if self.column.nullable else further

    def not_before(self, value: Any) -> ColumnElement[bool]:
        """Return a condition: the row comes after this value or has it."""
        element = self.column.sorted_by
        if value is None:
            return true() if self.descends else element.is_(None)
        if self.descends:
            return element <= _bound(element, value)
        further = element >= _bound(element, value)
        return or_(further, element.is_(None)) if self.column.nullable else further


def _bound(element: ColumnElement[Any], value: Any) -> ColumnElement[Any]:
    """Return a value with the type of the element; that of a list is explicit, as Postgres would guess its items' type."""
    bound = literal(value, element.type)
    return sql_cast(bound, element.type) if isinstance(value, list) else bound


def beyond(sorts: Sequence[Sort], values: Sequence[Any], *, inclusive: bool) -> ColumnElement[bool]:
    """Return a condition: the row comes after the one with these values in this ordering; or is it, if `inclusive`.

    Columns that are not null and all in one direction are compared as a row, for which an index over them is used. Otherwise
    the first column is also compared by itself, so that an index over it is used.
    """
    # Mixed directions or nulls: the comparison is built column by column, (a, b) > (x, y) as
    # a >= x AND (a > x OR b > y). The first half is redundant, but lets Postgres use an index
    # over `a`, which it cannot for the OR.
    (first, *rest), (value, *others) = sorts, values
    if not any(sort.column.nullable or sort.descends != first.descends for sort in sorts):
        return _row_beyond(sorts, values, inclusive=inclusive)
    if not rest:
        return first.not_before(value) if inclusive else first.beyond(value)
    return and_(first.not_before(value), or_(first.beyond(value), beyond(rest, others, inclusive=inclusive)))


def _row_beyond(sorts: Sequence[Sort], values: Sequence[Any], *, inclusive: bool) -> ColumnElement[bool]:
    elements = [sort.column.sorted_by for sort in sorts]
    row, bounds = tuple_(*elements), tuple_(*map(_bound, elements, values))
    if sorts[0].descends:
        result = row <= bounds if inclusive else row < bounds
    else:
        result = row >= bounds if inclusive else row > bounds
    # Where other tables have the last columns, an index of the first one can serve what concerns it alone.
    of_table = sum(1 for _ in takewhile(lambda element: plain_column(element) is not None, elements))
    if 0 < of_table < len(sorts):
        return and_(_row_beyond(sorts[:of_table], values[:of_table], inclusive=True), result)
    return result


@dataclass(frozen=True)
class Cursor:
    """The start of a page: the values of a row in the columns of the ordering."""

    where: Where
    values: tuple[Any, ...]

    @property
    def is_back(self) -> bool:
        """True if the cursor pages backwards."""
        return self.where in ("before", "until")

    def holds(self, sorts: Sequence[Sort]) -> ColumnElement[bool]:
        """Return a condition: the row is on the cursor's side."""
        chosen = [sort.reversed for sort in sorts] if self.is_back else sorts
        return beyond(chosen, self.values, inclusive=self.where in ("from", "until"))

    def text(self, mark: str, sorts: Sequence[Sort], cipher: Cipher | None) -> str:
        """Return the cursor as text for a response; `mark` identifies the listing and its ordering."""
        content = [mark, self.where, *map(packed, self.values)]
        whole = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        fernet = _fernet(sorts, cipher)
        encoded = fernet.encrypt(whole) if fernet else base64.urlsafe_b64encode(whole)
        return encoded.decode().rstrip("=")

    @classmethod
    def read(cls, text: str, mark: str, sorts: Sequence[Sort], cipher: Cipher | None) -> Cursor:
        """Return the cursor that `text` wrote.

        Raises:
            LookupError: the cursor belongs to another listing or ordering.
            ValueError: the cursor is invalid.
        """
        try:
            if len(text) > LONGEST or not text.isascii():
                raise ValueError(text)
            padded = text + "=" * (-len(text) % 4)
            fernet = _fernet(sorts, cipher)
            whole = _decrypted(fernet, padded) if fernet else base64.b64decode(padded, b"-_", validate=True)
            content = json.loads(whole)
            cursor_mark, where, *values = content
            if where not in ("after", "from", "before", "until"):
                raise ValueError(where)
            if cursor_mark == mark:
                kinds = [sort.column.type for sort in sorts]
                return cls(where, tuple(unpacked(kind, value) for kind, value in zip(kinds, values, strict=True)))
        except (binascii.Error, UnicodeDecodeError, RecursionError, TypeError, KeyError) as error:
            raise ValueError(text) from error
        raise LookupError(text)


def _fernet(sorts: Sequence[Sort], cipher: Cipher | None) -> Fernet | None:
    """Return the cipher of a cursor over these columns; None if its values are no personal data."""
    if not any(sort.column.personal for sort in sorts):
        return None
    if cipher is None:
        raise TypeError("A cursor with personal data needs a cipher.")
    return cipher()


def _decrypted(fernet: Fernet, text: str) -> bytes:
    from cryptography.fernet import InvalidToken

    try:
        return fernet.decrypt(text)
    except InvalidToken as error:
        raise ValueError(text) from error
