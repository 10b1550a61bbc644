"""The overview: what needs attention first, then each dataset."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup
from sqlalchemy import Connection, RowMapping

from mini_platform.api.guard import allowed, may
from mini_platform.api.site import TheSite
from mini_platform.dashboard import reads
from mini_platform.dashboard.rendering import duration, link, page_of, percent, plural, render
from mini_platform.dashboard.svg import share_bars
from mini_platform.dataset import Dataset
from mini_platform.warehouse.tables import dataset_tables

router = APIRouter(include_in_schema=False, dependencies=[Depends(allowed("read"))])
LOADS = 30
"""Loads of which the share of rejects is drawn."""
WAITS = dt.timedelta(minutes=5)
"""A file that waits longer needs somebody to look whether anything takes it."""
TROUBLED = 20

Level = Literal["bad", "warn"]


@dataclass(frozen=True)
class Concern:
    """Something that needs attention: a sentence, and where to see what it is about."""

    level: Level
    dataset: str
    sentence: str
    link: str


@dataclass(frozen=True)
class Card:
    """What the overview shows of a dataset."""

    dataset: Dataset
    rows: reads.Rows
    totals: RowMapping | None
    last: list[RowMapping]
    late_by: dt.timedelta | None

    @property
    def state(self) -> str:
        """In a word, as a badge."""
        if self.totals is None:
            return "empty"
        if self.totals["pending"]:
            return "loading"
        if self.last and self.last[0]["status"] != "loaded":
            return str(self.last[0]["status"])
        return "late" if self.late_by else "current"

    @property
    def broken(self) -> list[tuple[str, int]]:
        """The rules that rows of the last loaded file broke, with how many."""
        loaded = next((file for file in self.last if file["status"] == "loaded"), None)
        counts: dict[str, int] = (loaded["rule_counts"] if loaded else None) or {}
        return sorted(counts.items(), key=lambda item: -item[1])

    @property
    def shares(self) -> Markup:
        """The share of rejects over the last loads."""
        loads = [file for file in reversed(self.last) if file["rows_read"]]
        values = [(file["rows_rejected"] or 0) / file["rows_read"] for file in loads]
        labels = [f"{file['name']}: {percent(value)} rejected" for file, value in zip(loads, values, strict=True)]
        return share_bars(values, labels, f"Share of rejected rows over {plural(len(loads), 'file')}")

    @property
    def last_share(self) -> float | None:
        """The share of rejects in the last file that had rows."""
        return next((f["rows_rejected"] / f["rows_read"] for f in self.last if f["rows_read"]), None)


@router.get("/")
def overview(request: Request, site: TheSite) -> HTMLResponse:
    """What needs attention, and a card per dataset."""
    now = dt.datetime.now(dt.UTC)
    with site.read() as conn:
        readable = {name: one for name, one in site.datasets.items() if may(request, "read", one)}
        totals = {name: row for name, row in reads.totals(conn).items() if name in readable}
        cards = [_card(conn, dataset, totals.get(name), now) for name, dataset in readable.items()]
        concerns = sorted(_concerns(conn, cards, now), key=lambda concern: concern.level)
        state = reads.state(conn)
    return render(request, "overview.html", cards=cards, concerns=concerns, totals=totals, state=state)


def _card(conn: Connection, dataset: Dataset, totals: RowMapping | None, now: dt.datetime) -> Card:
    rows = reads.rows_of(conn, dataset_tables(dataset).production)
    loaded_at = totals["loaded_at"] if totals else None
    overdue = now - loaded_at - dataset.freshness if dataset.freshness and loaded_at else None
    late_by = overdue if overdue and overdue > dt.timedelta() else None
    return Card(dataset, rows, totals, reads.last_files(conn, dataset, LOADS), late_by)


def _concerns(conn: Connection, cards: list[Card], now: dt.datetime) -> Iterator[Concern]:
    shown = [card.dataset.name for card in cards]
    for file in reads.troubled(conn, shown, TROUBLED):
        name, error = file["dataset"], file["error"] or "see the log of its run"
        yield Concern("bad", name, f"{file['name']} was {file['status']}: {error}", f"/files/{file['file_id']}")
    for (name, source), pulled in reads.pulls(conn).items():
        if pulled["last_error"] and name in shown:
            yield Concern("bad", name, f"Pulling {source} fails: {pulled['last_error']}", page_of(name))
    for card in cards:
        yield from _concerns_of(card, now)


def _concerns_of(card: Card, now: dt.datetime) -> Iterator[Concern]:
    dataset, totals = card.dataset, card.totals
    if totals and totals["pending"] and now - totals["waiting_since"] > WAITS:
        waiting = duration(now - totals["waiting_since"])
        said = f"{plural(totals['pending'], 'file waits', 'files wait')} since {waiting}: is Dagster running?"
        yield Concern(
            "bad", dataset.name, said, link("/files", [("dataset", dataset.name), ("status__in", "landed,staged")])
        )
    if card.late_by and dataset.freshness:
        said = f"Nothing was loaded for longer than {duration(dataset.freshness)}: it is {duration(card.late_by)} late."
        yield Concern("warn", dataset.name, said, page_of(dataset.name))
    last = card.last[0] if card.last else None
    if last and last["status"] == "loaded" and dataset.warn_above.exceeded(last["rows_rejected"], last["rows_read"]):
        share = percent(last["rows_rejected"] / last["rows_read"])
        said = f"{plural(last['rows_rejected'], 'row')} of {last['name']} ({share}) were rejected."
        yield Concern("warn", dataset.name, said, f"/files/{last['file_id']}")
