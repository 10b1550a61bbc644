"""Datasets: what is declared of them, and everything that can be listed of each: `/api/datasets/…`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from sqlalchemy import Connection, func, literal, select, text

from mini_platform.api import relations
from mini_platform.api.answers import NOT_MODIFIED, answer, listing
from mini_platform.api.guard import allowed, may
from mini_platform.api.problems import NotFoundError, documented
from mini_platform.api.relations import Relation
from mini_platform.api.site import DatasetName, TheSite
from mini_platform.dataset import Aggregate, Column, Dataset, Json
from mini_platform.warehouse.tables import dataset_tables
from mini_platform.warehouse.tables import files as ledger

router = APIRouter(
    prefix="/api/datasets",
    tags=["datasets"],
    dependencies=[Depends(allowed("read"))],
    responses=NOT_MODIFIED | documented(400, 404, 422),
)
DETAIL = "api_dataset"
"""Name of the route of a dataset, by which links to it are made."""
COUNTED = 10_000
"""Tables of fewer rows are counted; of others the planner's estimate is told."""

FileId = Annotated[int, Path(ge=1, lt=2**63, description="Its number in the ledger", examples=[1])]


@router.get("/", summary="Datasets", response_model=None)
def datasets(request: Request, site: TheSite) -> Response:
    """List the datasets that whoever asks may read, with how much they hold and how fresh they are."""
    with site.read() as conn:
        items = [_brief(conn, request, one) for one in site.datasets.values() if may(request, "read", one)]
    return answer(request, {"next": None, "previous": None, "results": items})


@router.get("/{dataset}/", summary="A dataset", name=DETAIL, response_model=None)
def dataset(request: Request, site: TheSite, name: DatasetName) -> Response:
    """Give a dataset's declaration: columns with their units, rules, key, sources, analytics; and how fresh it is."""
    chosen = site.dataset(name)
    with site.read() as conn:
        return answer(request, _brief(conn, request, chosen) | _declared(request, chosen))


@router.get("/{dataset}/files/{file_id}/", summary="A file", response_model=None)
def file(request: Request, site: TheSite, name: DatasetName, file_id: FileId) -> Response:
    """Give the ledger's row of a file: what became of it, and of each of its rows."""
    chosen = site.dataset(name)
    columns = [ledger.c[column] for column in relations.FILES]
    found = select(*columns).where(ledger.c.dataset == chosen.name, ledger.c.file_id == file_id)
    with site.read() as conn:
        row = conn.execute(found).mappings().first()
    if row is None:
        raise NotFoundError(f"{chosen.name} has no file {file_id}.")
    return answer(request, dict(row))


@router.get("/{dataset}/analytics/{analytics}.csv", summary="Analytics as CSV", response_model=None)
def analytics_as_csv(request: Request, site: TheSite, name: DatasetName, analytics: str) -> Response:
    """Give an aggregate or a view as a CSV file, whole or as far as filters and `limit` say."""
    return _analytics(request, site, name, analytics, as_csv=True)


@router.get("/{dataset}/analytics/{analytics}/", summary="Analytics", response_model=None)
def analytics(request: Request, site: TheSite, name: DatasetName, analytics: str) -> Response:
    """List the rows of an aggregate or a view; CSV where `Accept` says `text/csv`."""
    return _analytics(request, site, name, analytics)


def _analytics(request: Request, site: TheSite, name: str, analytics: str, *, as_csv: bool = False) -> Response:
    chosen = site.dataset(name)
    relation = relations.computed(chosen, analytics)
    # A view may ask for the time of the day; an aggregate changes with its dataset.
    stored_for = chosen if analytics in dataset_tables(chosen).aggregates else None
    return listing(request, site, relation, as_csv=as_csv, stored_for=stored_for)


def _list(kind: str, of: Callable[[Dataset], Relation], about: str, *, stored: bool = False) -> None:
    """Make the routes of something that every dataset has, as JSON and as CSV."""

    def as_page(request: Request, site: TheSite, name: DatasetName) -> Response:
        chosen = site.dataset(name)
        return listing(request, site, of(chosen), stored_for=chosen if stored else None)

    def as_csv(request: Request, site: TheSite, name: DatasetName) -> Response:
        chosen = site.dataset(name)
        return listing(request, site, of(chosen), as_csv=True, stored_for=chosen if stored else None)

    for path, route, summary, more in (
        (f"/{{dataset}}/{kind}/", as_page, kind.capitalize(), "; CSV where `Accept` says `text/csv`."),
        (f"/{{dataset}}/{kind}.csv", as_csv, f"{kind.capitalize()} as CSV", ", as a CSV file without pages."),
    ):
        router.add_api_route(
            path, route, name=f"{kind}_{route.__name__}", summary=summary, description=about + more, response_model=None
        )


_list(
    "rows", relations.rows, "The rows of production, personal data masked, with the file that brought each", stored=True
)
_list("files", relations.files, "The ledger: every file that ever arrived, and what became of it and of its rows")
_list("rejects", relations.rejects, "Rejected rows, an item per broken rule: file, line, column, value, rule, sentence")
_list("quality", relations.quality, "The quality report: a row per run, table and column, the last measurements first")


# What is declared


def _brief(conn: Connection, request: Request, dataset: Dataset) -> dict[str, Any]:
    last = select(ledger.c.file_id, ledger.c.name, ledger.c.loaded_at, ledger.c.rows_read, ledger.c.run_id)
    last = last.where(ledger.c.dataset == dataset.name, ledger.c.loaded_at.is_not(None))
    loaded = conn.execute(last.order_by(ledger.c.loaded_at.desc(), ledger.c.file_id.desc()).limit(1)).mappings().first()
    late = None
    if dataset.freshness is not None:
        late = loaded is None or dt.datetime.now(dt.UTC) - loaded["loaded_at"] > dataset.freshness
    return {
        "name": dataset.name,
        "description": dataset.description,
        "url": str(request.url_for(DETAIL, dataset=dataset.name)),
        "rows_estimate": _rows_estimate(conn, dataset),
        "last_load": None if loaded is None else dict(loaded),
        "freshness_seconds": None if dataset.freshness is None else dataset.freshness.total_seconds(),
        "is_late": late,
    }


def _rows_estimate(conn: Connection, dataset: Dataset) -> int:
    table = dataset_tables(dataset).production
    some = select(literal(1)).select_from(table).limit(COUNTED).subquery()
    counted = conn.scalar(select(func.count()).select_from(some)) or 0
    if counted < COUNTED:
        return counted
    name = conn.dialect.identifier_preparer.format_table(table)
    estimate = conn.scalar(text("SELECT reltuples FROM pg_class WHERE oid = to_regclass(:name)"), {"name": name})
    return max(counted, int(estimate or 0))


def _declared(request: Request, dataset: Dataset) -> dict[str, Any]:
    here = str(request.url_for(DETAIL, dataset=dataset.name))
    return {
        "table": dataset.table,
        "owners": list(dataset.owners),
        "key": list(dataset.key),
        "indexes": list(dataset.indexes),
        "search": list(relations.rows(dataset).search),
        "columns": [_column(dataset, column) for column in dataset.columns],
        "rules": [
            {"name": rule.name, "column": rule.column, "sentence": rule.message, "severity": rule.severity}
            for rule in dataset.rules
        ],
        "sources": [
            {
                "name": source.name,
                "format": "json" if isinstance(source, Json) else "csv",
                "suffixes": list(source.suffixes),
            }
            for source in dataset.sources
        ],
        "pulls": [pull.name for pull in dataset.pulls],
        "drift": dataset.drift,
        "duplicates": dataset.duplicates if isinstance(dataset.duplicates, str) else str(dataset.duplicates),
        "warn_above": str(dataset.warn_above),
        "refuse_above": str(dataset.refuse_above),
        "analytics": [
            {
                "name": item.name,
                "kind": "aggregate" if isinstance(item, Aggregate) else "view",
                "description": item.description,
                "key": list(item.key) if isinstance(item, Aggregate) else [],
                "columns": [_seen(column) for column in relations.computed(dataset, item.name).columns.values()],
                "url": f"{here}analytics/{item.name}/",
            }
            for item in dataset.computed
        ],
        "listings": {kind: f"{here}{kind}/" for kind in ("rows", "files", "rejects", "quality")},
    }


def _column(dataset: Dataset, column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": type_name(column.type),
        "unit": column.unit,
        "description": column.description,
        "source": column.source,
        "in_key": column.name in dataset.key,
        "nullable": column.nullable,
        "personal": column.personal,
        "stored": column.stored,
        "given": column.given,
        "derived": column.derived is not None,
        "aliases": list(column.aliases),
    }


def _seen(column: relations.Listed) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": type_name(column.type),
        "unit": column.unit,
        "description": column.description,
        "personal": column.personal,
    }


NAMES: Mapping[str, str] = {
    "str": "text", "int": "integer", "float": "number", "Decimal": "decimal", "bool": "boolean",
    "date": "date", "datetime": "timestamp", "dict": "json", "list": "list",
}  # fmt: skip


def type_name(kind: Any) -> str:
    """A type of values as it is called in the API."""
    return NAMES[kind.__name__]
