"""Routes of datasets, `/api/datasets/…`: their declarations and their listings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from sqlalchemy import select

from mini_platform.declare.dataset import Dataset
from mini_platform.warehouse.tables import dataset_tables
from mini_platform.warehouse.tables import files as ledger
from mini_platform.web.api import relations
from mini_platform.web.api.answers import NOT_MODIFIED, answer, listing
from mini_platform.web.api.declarations import DETAIL, Briefs, Detail, brief, detail
from mini_platform.web.api.parameters import refuse_undeclared
from mini_platform.web.api.relations import Relation
from mini_platform.web.auth.guard import allowed, may
from mini_platform.web.problems import NotFoundError, documented
from mini_platform.web.site import DatasetName, SiteDep

router = APIRouter(
    prefix="/api/datasets",
    tags=["datasets"],
    dependencies=[Depends(allowed("read"))],
    responses=NOT_MODIFIED | documented(400, 404, 422),
)
declared_parameters = [Depends(refuse_undeclared)]
"""Dependencies of the routes that are no listings."""
FileId = Annotated[int, Path(ge=1, lt=2**63, description="Id of the file in the ledger", examples=[1])]


@router.get(
    "/", summary="Datasets", responses={200: {"model": Briefs}}, response_model=None, dependencies=declared_parameters
)
def datasets(request: Request, site: SiteDep) -> Response:
    """List the datasets that the caller may read, with their number of rows and freshness."""
    with site.read() as conn:
        items = [brief(conn, request, one) for one in site.datasets.values() if may(request, "read", one)]
    return answer(request, Briefs(results=items))


@router.get(
    "/{dataset}/",
    summary="A dataset",
    name=DETAIL,
    responses={200: {"model": Detail}},
    response_model=None,
    dependencies=declared_parameters,
)
def dataset(request: Request, site: SiteDep, name: DatasetName) -> Response:
    """Return the declaration of a dataset (columns with units, rules, key, sources, analytics) and its freshness."""
    chosen = site.dataset(name)
    with site.read() as conn:
        return answer(request, detail(conn, request, chosen))


@router.get("/{dataset}/files/{file_id}/", summary="A file", response_model=None, dependencies=declared_parameters)
def file(request: Request, site: SiteDep, name: DatasetName, file_id: FileId) -> Response:
    """Return the ledger entry of a file: its status, and how many of its rows were inserted, updated or rejected."""
    chosen = site.dataset(name)
    columns = [ledger.c[column] for column in relations.FILES]
    entry = select(*columns).where(ledger.c.dataset == chosen.name, ledger.c.file_id == file_id)
    with site.read() as conn:
        row = conn.execute(entry).mappings().first()
    if row is None:
        raise NotFoundError(f"{chosen.name} has no file {file_id}.")
    return answer(request, dict(row))


@router.get("/{dataset}/analytics/{analytics}.csv", summary="Analytics as CSV", response_model=None)
def analytics_as_csv(request: Request, site: SiteDep, name: DatasetName, analytics: str) -> Response:
    """Download an aggregate or a view as a CSV file, restricted by filters and `limit`."""
    return _analytics(request, site, name, analytics, as_csv=True)


@router.get("/{dataset}/analytics/{analytics}/", summary="Analytics", response_model=None)
def analytics(request: Request, site: SiteDep, name: DatasetName, analytics: str) -> Response:
    """List the rows of an aggregate or a view; as CSV if `Accept` is `text/csv`."""
    return _analytics(request, site, name, analytics)


def _analytics(request: Request, site: SiteDep, name: str, analytics: str, *, as_csv: bool = False) -> Response:
    chosen = site.dataset(name)
    relation = relations.computed(chosen, analytics)
    # A view may ask for the time of the day; an aggregate changes with its dataset.
    stored_for = chosen if analytics in dataset_tables(chosen).aggregates else None
    return listing(request, site, relation, as_csv=as_csv, stored_for=stored_for)


def _list(kind: str, relation_of: Callable[[Dataset], Relation], about: str, *, stored: bool = False) -> None:
    """Make the routes of something that every dataset has, as JSON and as CSV."""

    def as_page(request: Request, site: SiteDep, name: DatasetName) -> Response:
        chosen = site.dataset(name)
        return listing(request, site, relation_of(chosen), stored_for=chosen if stored else None)

    def as_csv(request: Request, site: SiteDep, name: DatasetName) -> Response:
        chosen = site.dataset(name)
        return listing(request, site, relation_of(chosen), as_csv=True, stored_for=chosen if stored else None)

    for path, route, summary, more in (
        (f"/{{dataset}}/{kind}/", as_page, kind.capitalize(), "; as CSV if `Accept` is `text/csv`."),
        (f"/{{dataset}}/{kind}.csv", as_csv, f"{kind.capitalize()} as CSV", ", as a CSV file without pages."),
    ):
        router.add_api_route(
            path, route, name=f"{kind}_{route.__name__}", summary=summary, description=about + more, response_model=None
        )


_list(
    "rows",
    relations.rows,
    "Rows of production, personal data masked, each with the file that it was loaded from",
    stored=True,
)
_list("files", relations.files, "The ledger: every file received, with its status and the results of its rows")
_list(
    "rejects",
    relations.rejects,
    "Rejected rows, one item per failed rule: file, line, record (the element of a JSON list), column, value, rule, reason",
)
_list("quality", relations.quality, "The quality report: one row per run, table and column, newest first")
