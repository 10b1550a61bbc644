"""Listings: a table of a relation, page by page, filtered and sorted by the URL as in the API, to which it links."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request
from sqlalchemy import ColumnElement, Connection

from mini_platform.declare.reserved import FORM_WORDS, PERSONAL
from mini_platform.web.api import query
from mini_platform.web.api.query import ListQuery
from mini_platform.web.api.relations import Relation, RelationColumn
from mini_platform.web.api.values import read
from mini_platform.web.pages.rendering import TWIN, URLBuilder, link
from mini_platform.web.secret import cipher

ROWS = 50
WORDS = {
    "eq": "is", "ne": "is not", "gte": "from", "lte": "to", "gt": "above", "lt": "below", "contains": "contains",
    "in": "is one of", "isnull": "is empty",
}  # fmt: skip
NOT_FILTERS = ("limit", "ordering", "cursor", "fields", PERSONAL)
"""Parameters that do not filter rows."""


@dataclass(frozen=True)
class Listing:
    """A page of rows, and the URLs around it.

    Attributes:
        relation: relation that is listed.
        columns: columns that are shown.
        results: rows as column -> value.
        params: parameters of the request for the relation.
        next: URL of the next page, or None.
        previous: URL of the previous page, or None.
        api: path of the listing in the API, without `/` or `.csv`.
        here: URLs of the page.
        fixed: parameters that the page sets, and not the user.
        reveal: URL that shows masked columns in clear, or None.
        mask: URL that masks what is shown in clear, or None.
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
    reveal: str | None = None
    mask: str | None = None

    @property
    def csv(self) -> str:
        """Return the URL of all rows as CSV."""
        return link(f"{self.api}.csv", [(n, v) for n, v in self.params if n not in ("cursor", "limit")])

    @property
    def json(self) -> str:
        """Return the URL of all rows as JSON, in pages."""
        return link(f"{self.api}/", [(n, v) for n, v in self.params if n not in ("cursor", "limit")])

    def conditions(self, *without: str) -> tuple[ColumnElement[bool], ...]:
        """Return the filter conditions, without those of the given parameters."""
        filters = [(name, value) for name, value in self.params if name not in (*NOT_FILTERS, *without)]
        return ListQuery.parse(self.relation, filters).where

    @property
    def chosen(self) -> list[tuple[str, str]]:
        """Return the parameters that a user chose: filters, ordering and fields, without the position of the page."""
        return [(n, v) for n, v in self.params if n not in ("cursor", "limit", *self.fixed)]

    @property
    def chips(self) -> Iterator[tuple[str, str]]:
        """Yield each filter as text, and the URL without it."""
        for name, value in self.params:
            if name in (*NOT_FILTERS, *self.fixed):
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
    def search(self) -> str:
        """Return the search text."""
        return dict(self.params).get("search", "")

    def sorted_by(self, column: RelationColumn) -> tuple[str, str | None]:
        """Return the URL that sorts by a column, reversed if it is already sorted by it, and the current direction."""
        first = dict(self.params).get("ordering", ",".join(self.relation.order)).split(",")[0]
        if first == column.name:
            return self.here(ordering=f"-{column.name}"), "ascending"
        return self.here(ordering=column.name), "descending" if first == f"-{column.name}" else None


def filtered(request: Request) -> str | None:
    """Return the URL with the filter of the submitted form; None if no filter was submitted."""
    column, by, value = (request.query_params.get(name, "") for name in FORM_WORDS)
    if not column:
        return None
    here = URLBuilder(request)
    here.params = [(name, old) for name, old in here.params if name not in FORM_WORDS]
    if by == "isnull" or (not value and by in ("eq", "ne")):
        return here(**{f"{column}__isnull": "false" if by == "ne" else "true"})
    if not value:  # There is no value to compare with.
        return here()
    return here(**{column if by not in WORDS or by == "eq" else f"{column}__{by}": value})


def listing(
    request: Request,
    conn: Connection,
    relation: Relation,
    api: str,
    fixed: Mapping[str, str] | None = None,
    own: Sequence[str] = (),
    hidden: Sequence[str] = (),
) -> Listing:
    """Return the rows of a relation that a request asks for.

    Args:
        request: request with the API's parameters.
        conn: connection to the database.
        relation: relation that is listed.
        api: path of the listing in the API, without `/` or `.csv`.
        fixed: parameters that the page sets, which a user cannot remove. What a caller may read is a condition of the relation,
            not one of these, as a further value of an `in` widens it.
        own: parameters of the page, and not of the listing.
        hidden: columns that are not shown.

    Raises:
        ProblemError: a parameter is unknown or its value is invalid.
    """
    own = (*own, TWIN, *([PERSONAL] if relation.remedy else []))
    params = [(name, value) for name, value in request.query_params.multi_items() if value and name not in own]
    all_params = [*params, *(fixed or {}).items()]
    if "limit" not in dict(all_params):
        all_params.append(("limit", str(ROWS)))
    parsed = ListQuery.parse(relation, all_params, cipher=partial(cipher, request.app.state.site.settings))
    result = query.page(conn, relation, parsed)
    here = URLBuilder(request)
    if relation.is_clear:  # The links on the page go on to ask for it.
        params.append((PERSONAL, "true"))
    return Listing(
        relation,
        [relation.columns[name] for name in parsed.fields if name not in hidden],
        result.results,
        [*params, *(fixed or {}).items()] if fixed else params,
        here(cursor=result.next) if result.next else None,
        here(cursor=result.previous) if result.previous else None,
        api,
        here,
        tuple(fixed or ()),
        here(**{PERSONAL: "true"}) if relation.remedy and relation.masked else None,
        _masking(relation, here) if relation.is_clear else None,
    )


def _masking(relation: Relation, here: URLBuilder) -> str:
    """Return the URL of the page with personal data masked: without it, and without what it chooses or sorts."""

    def tells(name: str, value: str) -> bool:
        if name == "ordering":
            columns = [column.strip().removeprefix("-") for column in value.split(",")]
        else:
            columns = [] if name in NOT_FILTERS or name == "search" else [query.condition(relation, name)[0]]
        return any(relation.columns[column].personal for column in columns)

    return link(here.path, [(n, v) for n, v in here.params if n not in (PERSONAL, "cursor") and not tells(n, v)])
