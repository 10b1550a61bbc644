"""Queries: filters, search, ordering, fields and pages of a relation, and the rows that match.

    col=  col__eq=  col__ne=  col__gt=  col__gte=  col__lt=  col__lte=  col__in=a,b  col__contains=  col__isnull=
    search=  ordering=-a,b  fields=a,b  cursor=  limit=

No column has the name of a word of the second line. If `in` is repeated, each occurrence is one value, which
may contain commas. `ne` also matches nulls. `contains` and `search` ignore case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from mini_platform.declare.reserved import FILTERS, LIST_WORDS
from mini_platform.warehouse.filters import contains, filter_condition, operators_of
from mini_platform.web.api.keyset import OPPOSITE, Cipher, Cursor, Sort
from mini_platform.web.api.relations import Relation, RelationColumn
from mini_platform.web.api.values import read
from mini_platform.web.problems import ProblemError

PAGE_ROWS, MOST_ROWS = 100, 1000
MOST_VALUES = 1000
"""Maximum values of an `in`, and maximum of search words times columns."""
MOST_FILTERS = 500
"""Maximum filters of a request; the values of an `in` are one."""
MOST_CHARACTERS = 2000
"""Maximum length of a search."""
CHUNK = 2000
"""Rows of an export per fetch; each fetch has the whole time limit of a statement."""


def operators(column: RelationColumn) -> tuple[str, ...]:
    """Return the operators by which a column can be filtered."""
    return () if column.masked else operators_of(column.type)


@dataclass(frozen=True)
class ListQuery:
    """A parsed request for rows of a relation.

    Attributes:
        where: filter conditions.
        sorts: unique ordering of the rows.
        fields: names of the columns to return.
        cursor: start of the page; None for the first page.
        limit: maximum rows of a page or of an export; None for the default.
        mark: hash of the listing and its ordering, which cursors contain.
        cipher: cipher of cursors; None if rows are not sorted by personal data.
    """

    where: tuple[ColumnElement[bool], ...]
    sorts: tuple[Sort, ...]
    fields: tuple[str, ...]
    cursor: Cursor | None
    limit: int | None
    mark: str
    cipher: Cipher | None = None

    @classmethod
    def parse(
        cls,
        relation: Relation,
        params: Iterable[tuple[str, str]],
        *,
        export: bool = False,
        cipher: Cipher | None = None,
    ) -> ListQuery:
        """Read the parameters of a request.

        Args:
            relation: relation that is listed.
            params: names and values; a name may come several times.
            export: True for an export: no cursor, and any limit.
            cipher: cipher of cursors (`secret.cipher`), for pages of a relation that shows personal data.

        Raises:
            ProblemError: a parameter is unknown or its value is invalid; the message names what is allowed.
        """
        filter_params: dict[str, list[str]] = {}
        for name, value in params:
            filter_params.setdefault(name, []).append(_read(name, str, value))
        single = {word: _once(word, filter_params.pop(word)) for word in LIST_WORDS if word in filter_params}
        count = sum(1 if name.endswith("__in") else len(values) for name, values in filter_params.items())
        if count > MOST_FILTERS:
            raise ProblemError(f"There are {count:,} filters: the limit is {MOST_FILTERS}.")
        filters = [condition for name in filter_params for condition in _filters(relation, name, filter_params[name])]
        if "search" in single:
            filters += _search(relation, single["search"])
        sorts = _sorts(relation, single.get("ordering"))
        order = [("-" if sort.descends else "") + sort.column.name for sort in sorts]
        identity = (relation.name, list(relation.columns), order, sorted(filter_params.items()), single.get("search"))
        mark = hashlib.sha256(repr(identity).encode()).hexdigest()[:12]
        fields = tuple(relation.columns)
        if "fields" in single:
            fields = tuple(_names("fields", single["fields"], relation.columns))
        if export and "cursor" in single:
            raise ProblemError("cursor: an export has no pages; omit it.", parameter="cursor")
        cursor = _cursor(single["cursor"], mark, sorts, cipher) if "cursor" in single else None
        limit = _limit(single["limit"], export=export) if "limit" in single else None
        return cls(tuple(filters), sorts, fields, cursor, limit, mark, cipher)

    def rows(self, relation: Relation) -> Select[Any]:
        """Return a select of the fields, without an order."""
        elements = [relation.columns[name].element.label(name) for name in self.fields]
        return select(*elements).select_from(relation.source).where(*self.where)


@dataclass(frozen=True)
class ResultPage:
    """Rows of a page, and the cursors of the next and previous page; None if there is no such page."""

    results: list[dict[str, Any]]
    next: str | None
    previous: str | None


def page(conn: Connection, relation: Relation, query: ListQuery) -> ResultPage:
    """Return the rows of a page, and the cursors of the pages around it."""
    limit, cursor, sorts = query.limit or PAGE_ROWS, query.cursor, query.sorts
    back = cursor is not None and cursor.is_back
    directed = [sort.reversed for sort in sorts] if back else sorts
    # Labels that no column has: declared names do not begin with an underscore.
    places = [sort.column.sorted_by.label(f"_{number}") for number, sort in enumerate(sorts)]
    statement = query.rows(relation).add_columns(*places).order_by(*(sort.element for sort in directed))
    if cursor is not None:
        statement = statement.where(cursor.holds(sorts))
    # One row more than the limit tells whether another page follows in this direction. Paging backwards reads in the opposite
    # ordering, and reverses the rows. A page without rows (they were deleted since) leads back to the row of its cursor.
    fetched = conn.execute(statement.limit(limit + 1)).all()
    more, rows = len(fetched) > limit, fetched[:limit]
    if back:
        rows = rows[::-1]
    width = len(query.fields)
    before = after = None
    if rows:
        first, last = Cursor("before", tuple(rows[0][width:])), Cursor("after", tuple(rows[-1][width:]))
        before = first if (more if back else cursor) else None
        after = last if back or more else None
    elif cursor is not None:
        opposite = Cursor(OPPOSITE.get(cursor.where, cursor.where), cursor.values)
        before, after = (None, opposite) if back else (opposite, None)
    return ResultPage(
        [dict(zip(query.fields, row, strict=False)) for row in rows],
        *(None if place is None else place.text(query.mark, sorts, query.cipher) for place in (after, before)),
    )


def stream(conn: Connection, relation: Relation, query: ListQuery) -> Iterator[tuple[Any, ...]]:
    """Yield all rows, up to the limit, fetched in chunks; the columns are the fields."""
    statement = query.rows(relation).order_by(*(sort.element for sort in query.sorts)).limit(query.limit)
    for rows in conn.execute(statement, execution_options={"yield_per": CHUNK}).partitions():
        yield from map(tuple, rows)


def count(conn: Connection, relation: Relation, query: ListQuery) -> int:
    """Return the number of matching rows on all pages."""
    counted = select(func.count()).select_from(relation.source).where(*query.where)
    return int(conn.scalar(counted) or 0)


# Parameters


def any_of(column: str, values: Sequence[str]) -> list[tuple[str, str]]:
    """Return parameters that filter a column by any of these values; a single `in` would be split at commas."""
    if len(values) == 1:
        return [(column, values[0])]
    return [(f"{column}__in", value) for value in values]


def condition(relation: Relation, name: str) -> tuple[str, str]:
    """Return the column that a parameter filters, and the operator.

    Raises:
        ProblemError: there is no such parameter.
    """
    column, operator = _column(relation, name)
    return column.name, operator


def _read(name: str, kind: Any, value: str) -> Any:
    try:
        return read(kind, value)
    except ValueError as error:
        raise ProblemError(f"{name}: {_short(value)} {error}.", parameter=name) from error


def _short(value: str) -> str:
    return ascii(value) if len(value) <= 100 else f"{value[:100]!a}…"


def _once(name: str, values: list[str]) -> str:
    if len(values) > 1:
        raise ProblemError(f"{name} is given {len(values)} times; it may be given once.", parameter=name)
    return values[0]


def _names(parameter: str, value: str, known: Mapping[str, Any]) -> list[str]:
    names = [name.strip() for name in value.split(",")]
    plain = [name.removeprefix("-") if parameter == "ordering" else name for name in names]
    to_sort = " to sort by" if parameter == "ordering" else ""
    for name in plain:
        if name not in known:
            raise ProblemError(
                f"{parameter}: there is no column {_short(name)}{to_sort}. The columns are: {', '.join(known)}.",
                parameter=parameter,
                allowed=list(known),
            )
    if len(set(plain)) < len(plain):
        raise ProblemError(f"{parameter}: a column is named twice.", parameter=parameter)
    return names


def _hidden(relation: Relation, parameter: str, *columns: str) -> ProblemError:
    """Return the refusal of a parameter that would tell masked values: by which rows it chooses, or by their order."""
    has = "has" if len(columns) == 1 else "have"
    return ProblemError(
        f"{_short(parameter)}: {', '.join(columns)} {has} personal data, which is masked: rows cannot be searched, filtered or "
        f"sorted by it. {relation.remedy}".rstrip(),
        HTTPStatus.FORBIDDEN,
        parameter=parameter,
    )


def _sorts(relation: Relation, ordering: str | None) -> tuple[Sort, ...]:
    known = {name: column for name, column in relation.columns.items() if column.can_sort}
    words = [name.strip().removeprefix("-") for name in (ordering or "").split(",")]
    if hidden := [name for name in relation.masked if name in words]:
        raise _hidden(relation, "ordering", *hidden)
    names = relation.order if ordering is None else _names("ordering", ordering, known)
    sorts = [Sort(known[name.removeprefix("-")], name.startswith("-")) for name in names]
    # In the direction of the last one, so that an index over both serves.
    direction = sorts[-1].descends if sorts else False
    named = {sort.column.name for sort in sorts}
    return (*sorts, *(Sort(column, direction) for column in relation.ties if column.name not in named))


def _cursor(text: str, mark: str, sorts: Sequence[Sort], cipher: Cipher | None) -> Cursor:
    try:
        return Cursor.read(text, mark, sorts, cipher)
    except LookupError as error:
        raise ProblemError(
            "cursor: it belongs to another listing, ordering or filter; omit it to start from the first page.",
            parameter="cursor",
        ) from error
    except ValueError as error:
        raise ProblemError(
            "cursor: not a valid `next` or `previous` of a page; omit it to start from the first page.",
            parameter="cursor",
        ) from error


def _limit(value: str, *, export: bool) -> int:
    limit: int = _read("limit", int, value)
    if limit < 1 or (limit > MOST_ROWS and not export):
        allowed = "1 or more" if export else f"1 to {MOST_ROWS}"
        raise ProblemError(f"limit: {limit} is not {allowed}.", parameter="limit")
    return limit


def _filters(relation: Relation, name: str, values: list[str]) -> Iterator[ColumnElement[bool]]:
    column, operator = _column(relation, name)
    if operator == "in":
        texts = values[0].split(",") if len(values) == 1 else values
        if len(texts) > MOST_VALUES:
            raise ProblemError(f"{name} has more than {MOST_VALUES} values.", parameter=name)
        yield filter_condition(column.element, operator, [_read(name, column.type, text) for text in texts])
        return
    kind = bool if operator == "isnull" else column.type
    yield from (filter_condition(column.element, operator, _read(name, kind, value)) for value in values)


def _column(relation: Relation, name: str) -> tuple[RelationColumn, str]:
    """Return the column that a parameter filters, and the operator."""
    column, operator = name, "eq"
    if name not in relation.columns:
        column, _, operator = name.rpartition("__")
    allowed = {item.name: operators(item) for item in relation.columns.values()}
    if operator in allowed.get(column, ()):
        return relation.columns[column], operator
    if column in allowed:
        item = relation.columns[column]
        if item.masked:
            raise _hidden(relation, name, column)
        can = ", ".join(f"{column}__{one}" for one in allowed[column])
        raise ProblemError(f"{_short(name)}: {item.name} can be filtered by {can}.", parameter=name)
    raise ProblemError(
        f"There is no parameter {_short(name)}. Use {', '.join(LIST_WORDS)}, or a column, alone or followed by one of "
        f"__{', __'.join(FILTERS)}. The columns are: {', '.join(relation.columns)}.",
        parameter=name,
        allowed=[*LIST_WORDS, *relation.columns],
    )


def _search(relation: Relation, text: str) -> Iterator[ColumnElement[bool]]:
    """Yield a condition per word: it must occur in one of the columns that are not masked."""
    words = text.split()
    columns = [relation.columns[name].element for name in relation.search]
    if words and not columns and relation.masked:
        raise _hidden(relation, "search", *relation.masked)
    if words and not columns:
        raise ProblemError(f"search: {relation.name} has no text columns to search.", parameter="search")
    if len(text) > MOST_CHARACTERS:
        raise ProblemError(f"search: it is too long: the limit is {MOST_CHARACTERS:,} characters.", parameter="search")
    if len(words) * len(columns) > MOST_VALUES:
        raise ProblemError(f"search: {len(words)} words are too many.", parameter="search")
    for word in words:
        yield or_(*(contains(column, word) for column in columns))
