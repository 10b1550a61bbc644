"""Response models of datasets: their freshness and their declaration."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import Request
from pydantic import BaseModel, Field
from sqlalchemy import Connection, func, literal, select, text

from mini_platform.declare.columns import Column
from mini_platform.declare.computed import Aggregate, View
from mini_platform.declare.dataset import Dataset
from mini_platform.declare.sources import Json
from mini_platform.warehouse.ledger import IN_PRODUCTION
from mini_platform.warehouse.tables import dataset_tables
from mini_platform.warehouse.tables import files as ledger
from mini_platform.web.api import relations

DETAIL = "api_dataset"
"""Name of the route of a dataset, for links to it."""
COUNTED = 10_000
"""Tables with fewer rows are counted; for others the planner's estimate is returned."""
Type = Literal["text", "integer", "number", "decimal", "boolean", "date", "timestamp", "json", "list"]
TYPES: Mapping[str, Type] = {
    "str": "text", "int": "integer", "float": "number", "Decimal": "decimal", "bool": "boolean",
    "date": "date", "datetime": "timestamp", "dict": "json", "list": "list",
}  # fmt: skip
"""Python type -> name of the type in the API."""


class Load(BaseModel):
    """The last load of a dataset."""

    file_id: int
    name: str = Field(description="Name of the file")
    loaded_at: dt.datetime
    rows_read: int
    run_id: str | None


class NamedDataset(BaseModel):
    """Name and URL of a dataset."""

    name: str
    description: str
    url: str


class State(BaseModel):
    """Size and freshness of a dataset."""

    rows_estimate: int = Field(description=f"Exact below {COUNTED:,}")
    freshness_seconds: float | None = Field(description="Maximum age of the last load, in seconds; null: no schedule")
    is_late: bool | None
    last_load: Load | None = Field(description="The last load of a file whose rows are in the dataset")


class Brief(State, NamedDataset):
    """A dataset in a list."""


class Briefs(BaseModel):
    """All datasets, in one page."""

    next: None = None
    previous: None = None
    results: list[Brief]


class ListedColumn(BaseModel):
    """A column of a listing."""

    name: str
    type: Type
    unit: str | None
    description: str
    personal: Any = Field(description="Protection of personal data, or true; null or false: not personal")


class DeclaredColumn(ListedColumn):
    """A declared column."""

    source: str | None = Field(description="Where the limits of its values come from")
    in_key: bool
    nullable: bool
    stored: bool
    system: str | None = Field(description="What the platform fills it with, such as `file` or `line`")
    derived: bool
    aliases: list[str] = Field(description="Alternative names in files")


class DeclaredRule(BaseModel):
    """A validation rule."""

    name: str
    column: str | None = Field(description="null: a rule about the whole row")
    sentence: str
    severity: Literal["error", "warn"]


class Source(BaseModel):
    """A file format of a dataset."""

    name: str
    format: Literal["csv", "json"]
    suffixes: list[str]


class Analytics(BaseModel):
    """An aggregate or a view of a dataset."""

    name: str
    kind: Literal["aggregate", "view"]
    description: str
    key: list[str]
    columns: list[ListedColumn]
    url: str


class Declaration(BaseModel):
    """The declaration of a dataset."""

    table: str
    owners: list[str]
    key: list[str]
    indexes: list[Any]
    search: list[str] = Field(description="Columns searched by `search=`")
    columns: list[DeclaredColumn]
    rules: list[DeclaredRule]
    sources: list[Source]
    api_sources: list[str] = Field(description="Names of the API sources that it is synced from")
    unexpected_columns: str
    duplicates: str
    warn_limit: str
    reject_limit: str
    analytics: list[Analytics]
    listings: dict[str, str] = Field(description="Listings of the dataset -> their URLs")


class Detail(State, Declaration, NamedDataset):
    """A dataset with its declaration."""


def brief(conn: Connection, request: Request, dataset: Dataset) -> Brief:
    """Return the size and freshness of a dataset."""
    last = select(ledger.c.file_id, ledger.c.name, ledger.c.loaded_at, ledger.c.rows_read, ledger.c.run_id)
    last = last.where(ledger.c.dataset == dataset.name, IN_PRODUCTION)
    loaded = conn.execute(last.order_by(ledger.c.loaded_at.desc(), ledger.c.file_id.desc()).limit(1)).mappings().first()
    late = None
    if dataset.freshness is not None:
        late = loaded is None or dt.datetime.now(dt.UTC) - loaded["loaded_at"] > dataset.freshness
    return Brief(
        name=dataset.name,
        description=dataset.description,
        url=str(request.url_for(DETAIL, dataset=dataset.name)),
        rows_estimate=_rows_estimate(conn, dataset),
        last_load=None if loaded is None else Load(**loaded),
        freshness_seconds=None if dataset.freshness is None else dataset.freshness.total_seconds(),
        is_late=late,
    )


def detail(conn: Connection, request: Request, dataset: Dataset) -> Detail:
    """Return the size, freshness and declaration of a dataset."""
    known = brief(conn, request, dataset)
    return Detail(
        **dict(known),
        table=dataset.table,
        owners=list(dataset.owners),
        key=list(dataset.key),
        indexes=list(dataset.indexes),
        search=list(relations.rows(dataset).search),
        columns=[_declared(dataset, column) for column in dataset.columns],
        rules=[
            DeclaredRule(name=rule.name, column=rule.column, sentence=rule.message, severity=rule.severity)
            for rule in dataset.rules
        ],
        sources=[
            Source(name=one.name, format="json" if isinstance(one, Json) else "csv", suffixes=list(one.suffixes))
            for one in dataset.sources
        ],
        api_sources=[source.name for source in dataset.api_sources],
        unexpected_columns=dataset.unexpected_columns,
        duplicates=str(dataset.duplicates),
        warn_limit=str(dataset.warn_limit),
        reject_limit=str(dataset.reject_limit),
        analytics=[_analytics(dataset, item, known.url) for item in dataset.computed],
        listings={kind: f"{known.url}{kind}/" for kind in ("rows", "files", "rejects", "quality")},
    )


def _rows_estimate(conn: Connection, dataset: Dataset) -> int:
    table = dataset_tables(dataset).production
    limited = select(literal(1)).select_from(table).limit(COUNTED).subquery()
    counted = conn.scalar(select(func.count()).select_from(limited)) or 0
    if counted < COUNTED:
        return counted
    name = conn.dialect.identifier_preparer.format_table(table)
    estimate = conn.scalar(text("SELECT reltuples FROM pg_class WHERE oid = to_regclass(:name)"), {"name": name})
    return max(counted, int(estimate or 0))


def _declared(dataset: Dataset, column: Column) -> DeclaredColumn:
    fields = {name: getattr(column, name) for name in ("name", "unit", "description", "personal", "source", "nullable")}
    return DeclaredColumn(
        **fields,
        type=TYPES[column.type.__name__],
        in_key=column.name in dataset.key,
        stored=column.stored,
        system=column.system,
        derived=column.derived is not None,
        aliases=list(column.aliases),
    )


def _analytics(dataset: Dataset, item: Aggregate | View, here: str) -> Analytics:
    columns = relations.computed(dataset, item.name).columns.values()
    return Analytics(
        name=item.name,
        kind="aggregate" if isinstance(item, Aggregate) else "view",
        description=item.description,
        key=list(item.key) if isinstance(item, Aggregate) else [],
        columns=[
            ListedColumn(
                name=c.name, type=TYPES[c.type.__name__], unit=c.unit, description=c.description, personal=c.personal
            )
            for c in columns
        ],
        url=f"{here}analytics/{item.name}/",
    )
