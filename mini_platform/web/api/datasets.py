"""Routes of datasets, `/api/datasets/…`: their declarations and their listings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, get_args

from fastapi import APIRouter, Depends, Path, Request, Response
from sqlalchemy import select

from mini_platform.declare.dataset import Dataset
from mini_platform.declare.reserved import PERSONAL
from mini_platform.warehouse.tables import dataset_tables
from mini_platform.warehouse.tables import files as ledger
from mini_platform.web.api import relations
from mini_platform.web.api.answers import NOT_MODIFIED, answer, listing
from mini_platform.web.api.declarations import DETAIL, Briefs, Detail, brief, detail
from mini_platform.web.api.export import Form
from mini_platform.web.api.parameters import refuse_undeclared
from mini_platform.web.api.personal import InClear, reveals
from mini_platform.web.api.relations import Relation
from mini_platform.web.auth.guard import allowed, readable
from mini_platform.web.problems import NotFoundError, documented
from mini_platform.web.site import DatasetName, Site, SiteDep

router = APIRouter(
    prefix="/api/datasets",
    tags=["datasets"],
    dependencies=[Depends(allowed("read", several=True))],
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
        items = [brief(conn, request, one) for one in readable(request).values()]
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
    return _analytics(request, site, name, analytics, "csv")


@router.get("/{dataset}/analytics/{analytics}/", summary="Analytics", response_model=None)
def analytics(request: Request, site: SiteDep, name: DatasetName, analytics: str) -> Response:
    """List the rows of an aggregate or a view; as CSV if `Accept` is `text/csv`."""
    return _analytics(request, site, name, analytics)


def _analytics(request: Request, site: SiteDep, name: str, analytics: str, form: Form | None = None) -> Response:
    chosen = site.dataset(name)
    relation = relations.computed(chosen, analytics)
    # A view may ask for the time of the day; an aggregate changes with its dataset.
    stored_for = chosen if analytics in dataset_tables(chosen).aggregates else None
    return listing(request, site, relation, form=form, stored_for=stored_for)


def _rows(request: Request, site: Site, name: str, personal: bool | None, form: Form | None = None) -> Response:
    chosen = site.dataset(name)
    relation = relations.rows(chosen, clear=reveals(request, chosen, personal))
    params = [(name, value) for name, value in request.query_params.multi_items() if name != PERSONAL]
    return listing(request, site, relation, form=form, stored_for=chosen, params=params)


@router.get("/{dataset}/rows/", summary="Rows", response_model=None)
def rows(request: Request, site: SiteDep, name: DatasetName, personal: InClear = None) -> Response:
    """List the rows of production with their files; export them as CSV if `Accept` is `text/csv`.

    Personal data is masked, and rows cannot be filtered or sorted by it; `search` leaves it out. The header `Masked-Columns`
    names these columns.
    """
    return _rows(request, site, name, personal)


def _export_rows(form: Form) -> None:
    """Make the route of the rows of a dataset in a format that can be loaded again."""

    def export(request: Request, site: SiteDep, name: DatasetName, personal: InClear = None) -> Response:
        return _rows(request, site, name, personal, form)

    about = (
        "Download the rows of production in a file that can be loaded again. Columns of personal data are left out, and a "
        "column `_withheld` names them; such a file cannot be loaded."
    )
    path, summary = f"/{{dataset}}/rows.{form}", f"Rows as {form.upper()}"
    router.add_api_route(path, export, name=f"rows_as_{form}", summary=summary, description=about, response_model=None)


for one in get_args(Form):
    _export_rows(one)


def _list(kind: str, relation_of: Callable[[Dataset], Relation], about: str) -> None:
    """Make the routes of something that every dataset has, as JSON and as CSV."""

    def as_page(request: Request, site: SiteDep, name: DatasetName) -> Response:
        return listing(request, site, relation_of(site.dataset(name)))

    def as_csv(request: Request, site: SiteDep, name: DatasetName) -> Response:
        return listing(request, site, relation_of(site.dataset(name)), form="csv")

    for path, route, summary, more in (
        (f"/{{dataset}}/{kind}/", as_page, kind.capitalize(), "; as CSV if `Accept` is `text/csv`."),
        (f"/{{dataset}}/{kind}.csv", as_csv, f"{kind.capitalize()} as CSV", ", as a CSV file without pages."),
    ):
        router.add_api_route(
            path, route, name=f"{kind}_{route.__name__}", summary=summary, description=about + more, response_model=None
        )


_list("files", relations.files, "The ledger: every file received, with its status and the results of its rows")
_list(
    "rejects",
    relations.rejects,
    "Rejected rows, one item per failed rule: file, line, record (the element of a JSON list), column, value, rule, reason",
)
_list("quality", relations.quality, "The quality report: one row per run, table and column, newest first")
