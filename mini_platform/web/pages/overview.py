"""The overview: incidents first, then each dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Depends, Request, Response
from markupsafe import Markup
from sqlalchemy import RowMapping

from mini_platform.declare.dataset import Dataset
from mini_platform.operations.detection import current
from mini_platform.rows.wording import percent, plural
from mini_platform.warehouse.tables import dataset_tables
from mini_platform.web.auth.guard import allowed, may, readable
from mini_platform.web.pages import reads
from mini_platform.web.pages.incidents import Line, lines
from mini_platform.web.pages.rendering import render
from mini_platform.web.pages.svg import share_bars
from mini_platform.web.site import SiteDep

router = APIRouter(include_in_schema=False, dependencies=[Depends(allowed("read", several=True))])


@dataclass(frozen=True)
class Card:
    """A dataset on the overview."""

    dataset: Dataset
    rows: reads.Rows
    totals: RowMapping | None
    last: list[RowMapping]
    broken: Counter[str]
    incidents: Sequence[Line]

    @property
    def state(self) -> str:
        """Return the badge of the dataset: its worst state."""
        if self.totals is None:
            return "empty"
        levels = {incident.level for incident in self.incidents}
        if "bad" in levels:
            return "problem"
        if self.totals["pending"]:
            return "pending"
        if "freshness_missed" in {incident.kind for incident in self.incidents}:
            return "late"
        return "warning" if levels else "current"

    @property
    def read(self) -> list[RowMapping]:
        """Return the last files with rows, oldest first."""
        return [file for file in reversed(self.last) if file["rows_read"]]

    @property
    def shares(self) -> Markup:
        """Return a bar chart of the fraction of rejected rows in the last files."""
        values = [(file["rows_rejected"] or 0) / file["rows_read"] for file in self.read]
        labels = [f"{file['name']}: {percent(value)} rejected" for file, value in zip(self.read, values, strict=True)]
        return share_bars(values, labels, f"Share of rejected rows over {plural(len(values), 'file')}")

    @property
    def share(self) -> float | None:
        """Return the fraction of rejected rows in the last files together."""
        read = sum(file["rows_read"] for file in self.read)
        return sum(file["rows_rejected"] or 0 for file in self.read) / read if read else None


@router.get("/")
def overview(request: Request, site: SiteDep) -> Response:
    """Return the overview: open incidents, and a card per dataset."""
    shown = readable(request)
    with site.read() as conn:
        totals = {name: row for name, row in reads.totals(conn).items() if name in shown}
        # Others are of the platform, or of a declaration that cannot be used: no scope in a dataset is about those.
        open_incidents = [
            one for one in current(conn, site.platform, shown) if one.dataset in shown or may(request, "read")
        ]
        incidents = lines(open_incidents, site.settings.links_url)
        cards = [
            Card(
                dataset,
                reads.rows_of(conn, dataset_tables(dataset).production),
                totals.get(name),
                reads.last_files(conn, dataset) if name in totals else [],
                reads.broken(conn, dataset) if name in totals else Counter(),
                [incident for incident in incidents if incident.dataset == name],
            )
            for name, dataset in shown.items()
        ]
        state, sampled = reads.state(conn), reads.sampled(request, conn, shown.values())
    return render(
        request, "overview.html", cards=cards, sampled=sampled, incidents=incidents, totals=totals, state=state
    )
