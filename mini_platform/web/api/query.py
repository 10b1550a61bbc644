"""Queries: what a request asks of a relation (filters, search, ordering, fields, page), and the rows that answer it.

    col=  col__eq=  col__ne=  col__gt=  col__gte=  col__lt=  col__lte=  col__in=a,b  col__contains=  col__isnull=
    search=  ordering=-a,b  fields=a,b  cursor=  limit=

A column that is called as one of the words of the second line is filtered by `__eq`. `in` given several times takes each of its
values as a whole, commas within. `ne` holds of empty values, too. `contains` and `search` take upper for lower case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from mini_platform.declare.dataset import FILTERS
from mini_platform.web.api.keyset import OPPOSITE, Cursor, Sort
from mini_platform.web.api.relations import Relation, RelationColumn
from mini_platform.web.api.values import read
from mini_platform.web.problems import ProblemError

WORDS = ("search", "ordering", "fields", "cursor", "limit")
FORM = ("filter_column", "filter_by", "filter_value")
"""Parameters of the form by which pages are filtered."""
RESERVED = (*WORDS, *FORM)
"""Names that mean something else as parameters, of the API or of a page."""
PAGE_ROWS, MOST_ROWS = 100, 1000
MOST_VALUES = 1000
"""That one `in` may name, and words of a search times columns."""
CHUNK = 2000
"""Rows of an export that are fetched together: each fetch has the whole time limit of a statement."""

COMPARISONS: Mapping[str, Callable[[ColumnElement[Any], Any], ColumnElement[bool]]] = {
    "eq": lambda element, value: element == value,
    "ne": lambda element, value: element.is_distinct_from(value),
    "gt": lambda element, value: element > value,
    "gte": lambda element, value: element >= value,
    "lt": lambda element, value: element < value,
    "lte": lambda element, value: element <= value,
}


def operators(column: RelationColumn) -> tuple[str, ...]:
    """What a column can be filtered by."""
    if column.masked:
        return ()
    if column.type is dict or get_args(column.type):
        return ("isnull",)
    if column.type is bool:
        return ("eq", "ne", "isnull")
    return (*COMPARISONS, "in", *(["contains"] if column.type is str else []), "isnull")


@dataclass(frozen=True)
class ListQuery:
    """What was asked.

    Attributes:
        where: what holds of the rows.
        sorts: their ordering, in which no two rows are at the same place.
        fields: names of the columns that are shown.
        cursor: where the page begins; None at the beginning.
        limit: rows of a page, or of an export; None if nothing was said.
        mark: stands for what is listed in which order; a cursor has it, too.
    """

    where: tuple[ColumnElement[bool], ...]
    sorts: tuple[Sort, ...]
    fields: tuple[str, ...]
    cursor: Cursor | None
    limit: int | None
    mark: str

    @classmethod
    def parse(cls, relation: Relation, params: Iterable[tuple[str, str]], *, export: bool = False) -> ListQuery:
        """Read the parameters of a request.

        Args:
            relation: what they are asked of.
            params: names and values; a name may come several times.
            export: it is not answered in pages: there is no cursor, and any limit.

        Raises:
            ProblemError: a parameter is not known, or its value cannot be read; it says what is allowed.
        """
        given: dict[str, list[str]] = {}
        for name, value in params:
            given.setdefault(name, []).append(_read(name, str, value))
        single = {word: _once(word, given.pop(word)) for word in WORDS if word in given}
        filters = [condition for name in given for condition in _filters(relation, name, given[name])]
        if "search" in single:
            filters += _search(relation, single["search"])
        sorts = _sorts(relation, single.get("ordering"))
        order = [("-" if sort.descends else "") + sort.column.name for sort in sorts]
        asked = (relation.name, list(relation.columns), order, sorted(given.items()), single.get("search"))
        mark = hashlib.sha256(repr(asked).encode()).hexdigest()[:12]
        fields = tuple(relation.columns)
        if "fields" in single:
            fields = tuple(_names("fields", single["fields"], relation.columns))
        cursor = _cursor(single["cursor"], mark, sorts, export=export) if "cursor" in single else None
        limit = _limit(single["limit"], export=export) if "limit" in single else None
        return cls(tuple(filters), sorts, fields, cursor, limit, mark)

    def rows(self, relation: Relation) -> Select[Any]:
        """Selects the fields, in no order."""
        elements = [relation.columns[name].element.label(name) for name in self.fields]
        return select(*elements).select_from(relation.source).where(*self.where)


@dataclass(frozen=True)
class ResultPage:
    """Some rows, and the cursors of the pages around them; None where there is no such page."""

    results: list[dict[str, Any]]
    next: str | None
    previous: str | None


def page(conn: Connection, relation: Relation, query: ListQuery) -> ResultPage:
    """The rows of a page, and where the pages around it begin."""
    limit, cursor, sorts = query.limit or PAGE_ROWS, query.cursor, query.sorts
    back = cursor is not None and cursor.is_back
    directed = [sort.reversed for sort in sorts] if back else sorts
    # Labels that no column has: declared names do not begin with an underscore.
    places = [sort.column.sorted_by.label(f"_{number}") for number, sort in enumerate(sorts)]
    statement = query.rows(relation).add_columns(*places).order_by(*(sort.element for sort in directed))
    if cursor is not None:
        statement = statement.where(cursor.holds(sorts))
    found = conn.execute(statement.limit(limit + 1)).all()
    more, rows = len(found) > limit, found[:limit]
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
        None if after is None else after.text(query.mark),
        None if before is None else before.text(query.mark),
    )


def stream(conn: Connection, relation: Relation, query: ListQuery) -> Iterator[tuple[Any, ...]]:
    """All rows, or as many as the limit says, fetched bit by bit; the columns are the fields."""
    statement = query.rows(relation).order_by(*(sort.element for sort in query.sorts)).limit(query.limit)
    for rows in conn.execute(statement, execution_options={"yield_per": CHUNK}).partitions():
        yield from map(tuple, rows)


def count(conn: Connection, relation: Relation, query: ListQuery) -> int:
    """How many rows there are, whatever page is asked for."""
    counted = select(func.count()).select_from(relation.source).where(*query.where)
    return int(conn.scalar(counted) or 0)


# Parameters


def is_value(column: str) -> str:
    """The parameter by which a column has a value, whatever it is called."""
    return f"{column}__eq" if column in RESERVED else column


def any_of(column: str, values: Sequence[str]) -> list[tuple[str, str]]:
    """The parameters by which a column has one of these values, commas within: a single `in` would be split at them."""
    if len(values) == 1:
        return [(is_value(column), values[0])]
    return [(f"{column}__in", value) for value in values]


def condition(relation: Relation, name: str) -> tuple[str, str]:
    """The name of the column that a parameter filters, and the operator.

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
        raise ProblemError(f"{name} is given {len(values)} times; give it once.", parameter=name)
    return values[0]


def _names(parameter: str, value: str, known: Mapping[str, Any]) -> list[str]:
    names = [name.strip() for name in value.split(",")]
    plain = [name.removeprefix("-") if parameter == "ordering" else name for name in names]
    for name in plain:
        if name not in known:
            raise ProblemError(
                f"{parameter}: there is no column {_short(name)} to name here. The columns are: {', '.join(known)}.",
                parameter=parameter,
                allowed=list(known),
            )
    if len(set(plain)) < len(plain):
        raise ProblemError(f"{parameter}: a column is named twice.", parameter=parameter)
    return names


def _sorts(relation: Relation, ordering: str | None) -> tuple[Sort, ...]:
    known = {name: column for name, column in relation.columns.items() if column.can_sort}
    names = relation.order if ordering is None else _names("ordering", ordering, known)
    sorts = [Sort(known[name.removeprefix("-")], name.startswith("-")) for name in names]
    # In the direction of the last one, so that an index over both serves.
    direction = sorts[-1].descends if sorts else False
    named = {sort.column.name for sort in sorts}
    return (*sorts, *(Sort(column, direction) for column in relation.ties if column.name not in named))


def _cursor(text: str, mark: str, sorts: Sequence[Sort], *, export: bool) -> Cursor:
    if export:
        raise ProblemError("cursor: an export has no pages; leave it out.", parameter="cursor")
    try:
        return Cursor.read(text, mark, sorts)
    except LookupError as error:
        raise ProblemError(
            "cursor: it belongs to another listing, another ordering or other filters; leave it out to begin anew.",
            parameter="cursor",
        ) from error
    except ValueError as error:
        raise ProblemError(
            "cursor: it is none that a page gave as its next or previous; leave it out to begin anew.",
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
    element = column.element
    if operator == "isnull":
        for value in values:
            yield element.is_(None) if _read(name, bool, value) else element.is_not(None)
    elif operator == "contains":
        yield from (_contains(element, value) for value in values)
    elif operator == "in":
        texts = values[0].split(",") if len(values) == 1 else values
        if len(texts) > MOST_VALUES:
            raise ProblemError(f"{name} names more than {MOST_VALUES} values.", parameter=name)
        yield element.in_([_read(name, column.type, text) for text in texts])
    else:
        yield from (COMPARISONS[operator](element, _read(name, column.type, value)) for value in values)


def _column(relation: Relation, name: str) -> tuple[RelationColumn, str]:
    """The column that a parameter filters, and by which operator."""
    column, operator = name, "eq"
    if name not in relation.columns:
        column, _, operator = name.rpartition("__")
    allowed = {item.name: operators(item) for item in relation.columns.values()}
    if operator in allowed.get(column, ()):
        return relation.columns[column], operator
    if column in allowed:
        item = relation.columns[column]
        can = ", ".join(f"{column}__{one}" for one in allowed[column]) or "nothing, as its values are hidden"
        raise ProblemError(f"{_short(name)}: {item.name} can be filtered by {can}.", parameter=name)
    raise ProblemError(
        f"There is no parameter {_short(name)}. It can be {', '.join(WORDS)}, or a column, as it is or followed by one of "
        f"__{', __'.join(FILTERS)}. The columns are: {', '.join(relation.columns)}.",
        parameter=name,
        allowed=[*WORDS, *relation.columns],
    )


def _contains(element: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    # By the collation of the database: that of the columns, C, knows no case but ASCII's.
    return element.collate("default").icontains(text, autoescape=True)


def _search(relation: Relation, text: str) -> Iterator[ColumnElement[bool]]:
    """Each word must stand in one of the columns."""
    words = text.split()
    columns = [relation.columns[name].element for name in relation.search]
    if words and not columns:
        raise ProblemError(f"search: {relation.name} has no text to search in.", parameter="search")
    if len(words) * len(columns) > MOST_VALUES:
        raise ProblemError(f"search: these are {len(words)} words, which are too many.", parameter="search")
    for word in words:
        yield or_(*(_contains(column, word) for column in columns))
