"""Files: the list of files, the page of a file with its rejects, uploads and re-validation."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import Connection, RowMapping, func, select

from mini_platform.declare.dataset import Dataset
from mini_platform.operations import reprocessing, sample_data
from mini_platform.warehouse import ledger
from mini_platform.warehouse.tables import STATUSES
from mini_platform.warehouse.tables import files as ledger_files
from mini_platform.web.api import relations, uploads
from mini_platform.web.auth.guard import allowed, may, readable, require
from mini_platform.web.pages import reads
from mini_platform.web.pages.listing import Listing, listing
from mini_platform.web.pages.rendering import TableData, render
from mini_platform.web.problems import NotFoundError, ProblemError
from mini_platform.web.runs import nudge
from mini_platform.web.site import Site, SiteDep

router = APIRouter(include_in_schema=False, dependencies=[Depends(allowed("read", several=True))])
FileId = Annotated[int, Path(ge=1, lt=2**63)]


@router.get("/files")
def files(request: Request, site: SiteDep, dataset: str | None = None) -> Response:
    """Return the list of files, and the upload form."""
    shown = readable(request, dataset)
    relation, base = relations.files(*shown.values()), f"/api/datasets/{next(iter(shown), '')}/files"
    with site.read() as conn:
        page = listing(request, conn, relation, base, own=("dataset", "fields"))
        counts = _counts(conn, page)
        state = reads.state(conn)
    return render(
        request, "files.html",
        listing=page, dataset=shown[dataset] if dataset else None, counts=counts, state=state,
        takers=[one for one in readable(request).values() if may(request, "write", one)],
    )  # fmt: skip


@router.get("/files/{file_id}")
def file(request: Request, site: SiteDep, file_id: FileId) -> Response:
    """Return the page of a file: its status, and the results of its rows."""
    with site.read() as conn:
        row, dataset = _file(request, conn, site, file_id)
    with site.read(personal=dataset.is_personal) as conn:
        rejects = listing(
            request, conn, relations.rejects(dataset), f"/api/datasets/{dataset.name}/rejects",
            {"file_id": str(row["same_as"] or file_id)}, own=("fields",), hidden=("file_id", "file", "record"),
        )  # fmt: skip
        state = reads.state(conn)
    rules = {rule.name: rule for rule in dataset.rules}
    counted = sorted(((row["rule_counts"] or {}).items()), key=lambda item: -item[1])
    broken = [(name, rules.get(name), count) for name, count in counted if count]
    failed_rules = [(name, rule and rule.message, rule and rule.severity, count) for name, rule, count in broken]
    return render(
        request, "file.html",
        tables={"rules": TableData(("rule", "broken_if", "severity", "rows"), failed_rules)},
        file=row, dataset=dataset, rejects=rejects, state=state, broken=broken,
        can_reprocess=row["same_as"] is None and row["status"] in ledger.REPROCESSED and row["raw_dropped_at"] is None
        and may(request, "write", dataset),
    )  # fmt: skip


@router.post("/datasets/{dataset}/files", dependencies=[Depends(allowed("write"))])
async def upload(request: Request, site: SiteDep, dataset: str) -> RedirectResponse:
    """Receive a file from the form of a browser without scripts, and redirect to its page."""
    landed = await uploads.send(request, Response(), site, dataset)
    return RedirectResponse(f"/files/{landed.file_id}", HTTPStatus.SEE_OTHER)


@router.post("/datasets/{dataset}/bad-rows", dependencies=[Depends(allowed("write"))])
def load_bad_rows(request: Request, site: SiteDep, dataset: str) -> RedirectResponse:
    """Land a sample file with invalid rows, and redirect to its page."""
    chosen = site.dataset(dataset)
    try:
        row = sample_data.land_dirty(site.platform, chosen)
    except ValueError as error:
        raise ProblemError(f"{error}.", HTTPStatus.CONFLICT) from error
    nudge(request, chosen)
    return RedirectResponse(f"/files/{row.same_as or row.file_id}", HTTPStatus.SEE_OTHER)


@router.post("/files/{file_id}/reprocess", dependencies=[Depends(allowed("write", several=True))])
def reprocess(request: Request, site: SiteDep, file_id: FileId) -> RedirectResponse:
    """Queue a file for validation with the current rules, and request a run; otherwise the sensor requests one."""
    with site.read() as conn:
        row, dataset = _file(request, conn, site, file_id)
    require(request, "write", dataset)
    if not reprocessing.reprocess(site.platform, dataset, file_id).file_ids:
        raise ProblemError(
            f"{row['name']} cannot be validated again: its raw file is no longer stored.", HTTPStatus.CONFLICT
        )
    nudge(request, dataset)
    return RedirectResponse(f"/files/{file_id}", HTTPStatus.SEE_OTHER)


def _file(request: Request, conn: Connection, site: Site, file_id: int) -> tuple[RowMapping, Dataset]:
    row = conn.execute(select(ledger_files).where(ledger_files.c.file_id == file_id)).mappings().first()
    if row is None or row["dataset"] not in site.datasets:
        raise NotFoundError(f"There is no file {file_id}.")
    dataset = site.datasets[row["dataset"]]
    require(request, "read", dataset)
    return row, dataset


def _counts(conn: Connection, page: Listing) -> list[tuple[str, Any]]:
    """Return the number of files by status, in the order of processing, among those that other filters choose."""
    status = page.relation.columns["status"].element
    chosen = select(status, func.count()).select_from(page.relation.source)
    rows = conn.execute(chosen.where(*page.conditions("status", "status__eq")).group_by(status))
    counts = dict(rows.tuples().all())
    return [(status, counts[status]) for status in STATUSES if status in counts]
