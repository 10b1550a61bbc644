"""Listings: a table of a relation, a page at a time, filtered and sorted by the URL as in the API, which it links to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from sqlalchemy import ColumnElement, Connection

from mini_platform.web.api import query
from mini_platform.web.api.query import ListQuery
from mini_platform.web.api.relations import Relation, RelationColumn
from mini_platform.web.api.values import read
from mini_platform.web.pages.rendering import TWIN, URLBuilder, link

ROWS = 50
WORDS = {
    "eq": "is", "ne": "is not", "gte": "from", "lte": "to", "gt": "above", "lt": "below", "contains": "contains",
    "in": "is one of", "isnull": "is empty",
}  # fmt: skip
KEPT = ("limit", "ordering", "cursor", "fields")
"""Parameters that choose no rows."""


@dataclass(frozen=True)
class Listing:
    """A page of rows, and the addresses of what lies around it.

    Attributes:
        relation: that is listed.
        columns: that are shown.
        results: the rows, by column.
        params: of the request, as far as they are for the relation.
        next: address of the next page, if there is one.
        previous: the same before it.
        api: address of the listing in the API, without `/` or `.csv`.
        here: address of the page.
        fixed: parameters that the page is about, and that nobody chose.
    """

    relation: Relation
    columns: Sequence[RelationColumn]
    results: list[dict[str, Any]]
    params: Sequence[tuple[str, str]]
    next: str | None
    previous: str | None
    api: str
    here: URLBuilder
    fixed: Sequence[str] = ()

    @property
    def csv(self) -> str:
        """All of it as CSV."""
        return link(f"{self.api}.csv", [(n, v) for n, v in self.params if n not in ("cursor", "limit")])

    @property
    def json(self) -> str:
        """All of it as JSON, in pages."""
        return link(f"{self.api}/", [(n, v) for n, v in self.params if n not in ("cursor", "limit")])

    @property
    def chosen(self) -> list[tuple[str, str]]:
        """By what somebody chose the rows, and how they are shown, wherever the page begins."""
        return [(n, v) for n, v in self.params if n not in ("cursor", "limit", *self.fixed)]

    def conditions(self, *without: str) -> tuple[ColumnElement[bool], ...]:
        """What holds of the rows; without what these parameters say, for what counts beside them."""
        asked = [(name, value) for name, value in self.params if name not in (*KEPT, *without)]
        return ListQuery.parse(self.relation, asked).where

    @property
    def chips(self) -> Iterator[tuple[str, str]]:
        """What the rows were chosen by, in words, and the address without it."""
        for name, value in self.params:
            if name in (*KEPT, *self.fixed):
                continue
            others = [other for known, other in self.params if known == name and other != value]
            if name == "search":
                yield f"“{value}”", self.here.without(name, value)
                continue
            column, operator = query.condition(self.relation, name)
            words = f"{column} {WORDS[operator]} {value}"
            if operator == "isnull":
                words = f"{column} is {'empty' if read(bool, value) else 'not empty'}"
            if operator == "in" and len(others) == 1:  # Alone, it would be split at its commas.
                yield words, self.here(**{name: None, **dict(query.any_of(column, others))})
            else:
                yield words, self.here.without(name, value)

    @property
    def named(self) -> Iterator[str]:
        """The columns by which somebody chose or sorted the rows."""
        for name, value in self.chosen:
            if name == "search":
                yield from self.relation.search
            elif name == "ordering":
                yield from (column.strip().removeprefix("-") for column in value.split(","))
            elif name not in KEPT:
                yield query.condition(self.relation, name)[0]

    @property
    def search(self) -> str:
        """What is searched for."""
        return dict(self.params).get("search", "")

    def sorted_by(self, column: RelationColumn) -> tuple[str, str | None]:
        """Address where it is sorted by a column, the other way round if it is already, and how it is: up, down or not."""
        first = dict(self.params).get("ordering", ",".join(self.relation.order)).split(",")[0]
        if first == column.name:
            return self.here(ordering=f"-{column.name}"), "ascending"
        return self.here(ordering=column.name), "descending" if first == f"-{column.name}" else None


def filtered(request: Request) -> str | None:
    """The address with the filter that somebody chose in the form of a listing; None if nobody did."""
    column, by, value = (request.query_params.get(name, "") for name in query.FORM)
    if not column:
        return None
    here = URLBuilder(request)
    here.params = [(name, old) for name, old in here.params if name not in query.FORM]
    if by == "isnull" or (not value and by in ("eq", "ne")):
        return here(**{f"{column}__isnull": "false" if by == "ne" else "true"})
    if not value:  # Nothing was said that could be compared with.
        return here()
    return here(**{query.is_value(column) if by not in WORDS or by == "eq" else f"{column}__{by}": value})


def listing(
    request: Request,
    conn: Connection,
    relation: Relation,
    api: str,
    fixed: Mapping[str, str] | None = None,
    own: Sequence[str] = (),
    hidden: Sequence[str] = (),
) -> Listing:
    """What a request asks of a relation.

    Args:
        request: its parameters are the API's.
        conn: where the rows are.
        relation: that is listed.
        api: address of the listing in the API, without `/` or `.csv`.
        fixed: parameters that the page is about, which nobody may leave out.
        own: parameters that are the page's, and not the listing's.
        hidden: columns that are not shown.

    Raises:
        ProblemError: a parameter is not known, or its value cannot be read.
    """
    given = [(name, value) for name, value in request.query_params.multi_items() if value and name not in (*own, TWIN)]
    asked = [*given, *(fixed or {}).items()]
    if "limit" not in dict(asked):
        asked.append(("limit", str(ROWS)))
    parsed = ListQuery.parse(relation, asked)
    found = query.page(conn, relation, parsed)
    here = URLBuilder(request)
    return Listing(
        relation,
        [relation.columns[name] for name in parsed.fields if name not in hidden],
        found.results,
        [*given, *(fixed or {}).items()] if fixed else given,
        here(cursor=found.next) if found.next else None,
        here(cursor=found.previous) if found.previous else None,
        api,
        here,
        tuple(fixed or ()),
    )
