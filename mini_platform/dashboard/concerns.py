"""Concerns: what needs somebody's attention, the worst first; each says what to do, and leads to what it is about."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from sqlalchemy import Connection, Row, RowMapping

from mini_platform.dashboard import reads
from mini_platform.dashboard.rendering import duration, link
from mini_platform.dataset import Dataset
from mini_platform.warehouse import anomalies
from mini_platform.wording import number, percent, plural

RECENT = dt.timedelta(days=30)
"""Files that arrived before are history: who wanted to correct them has done so."""
WAITS = dt.timedelta(minutes=5)
"""A file that waits longer needs somebody to look whether anything takes it."""

Kind = Literal["waiting", "failed", "refused", "inbox", "pull", "late", "unusual", "rejects"]
SEVERITY: Mapping[Kind, tuple[Literal["bad", "warn"], str]] = {
    "waiting": ("bad", "Start Dagster by mini-platform up, or see in its UI why nothing runs."),
    "failed": ("bad", "Read the log of its run, then judge the file again."),
    "refused": ("bad", "Correct it and upload it again by the same name."),
    "inbox": ("bad", "See its server and settings; mini-platform doctor tries it, and it is asked again by itself."),
    "pull": ("bad", "Check its address and credentials; it is tried again by itself."),
    "late": ("warn", "Ask whoever sends it."),
    "unusual": ("warn", "Compare it with earlier files."),
    "rejects": ("warn", "Correct these rows and load the file again."),
}
"""Kind of concern -> how bad it is, and what to do; the worst first: what stops all, then a whole file."""


@dataclass(frozen=True)
class Concern:
    """Something that needs attention: a sentence, what to do, and where to see what it is about."""

    kind: Kind
    dataset: str
    sentence: str
    link: str

    @property
    def level(self) -> str:
        """How bad it is: bad or warn."""
        return SEVERITY[self.kind][0]

    @property
    def advice(self) -> str:
        """What to do."""
        return SEVERITY[self.kind][1]


def concerns(
    conn: Connection,
    datasets: Mapping[str, Dataset],
    totals: Mapping[str, RowMapping],
    inboxes: Sequence[Row[Any]],
    now: dt.datetime,
) -> list[Concern]:
    """What needs attention of these datasets, the worst first.

    Args:
        conn: where the ledger is.
        datasets: by name.
        totals: what the ledger says of each, as `reads.totals` has it.
        inboxes: how the remote ones of these datasets are.
        now: what is late is late by then.
    """
    found = [concern for name, row in totals.items() for concern in _overdue(datasets[name], row, now)]
    for (name, source), pulled in reads.pulls(conn).items():
        if pulled["last_error"] and name in datasets:
            found.append(Concern("pull", name, f"Pulling {source} fails: {pulled['last_error']}", _files(name)))
    for row in inboxes:
        if row.last_error:
            said = f"The inbox {row.inbox} fails: {row.last_error}"
            found.append(Concern("inbox", row.dataset, said, _files(row.dataset)))
    of_dataset = groupby(
        sorted(reads.troubled(conn, list(datasets), now - RECENT), key=lambda file: file["dataset"]),
        key=lambda file: str(file["dataset"]),
    )
    for name, files in of_dataset:
        found += _troubled(datasets[name], list(files))
    for name in totals:
        found += _unusual(conn, datasets[name])
    return sorted(found, key=lambda concern: list(SEVERITY).index(concern.kind))


def is_late(dataset: Dataset, loaded_at: dt.datetime | None, now: dt.datetime) -> bool:
    """Whether the newest load is older than it may be."""
    return bool(dataset.freshness and loaded_at and now - loaded_at > dataset.freshness)


def _files(dataset: str, **params: str) -> str:
    return link("/files", [("dataset", dataset), *params.items()])


def _overdue(dataset: Dataset, row: RowMapping, now: dt.datetime) -> Iterator[Concern]:
    """Files that nobody takes, and files that should have come."""
    if row["pending"] and now - row["waiting_since"] > WAITS:
        said = f"{plural(row['pending'], 'file waits', 'files wait')} since {duration(now - row['waiting_since'])}."
        yield Concern("waiting", dataset.name, said, _files(dataset.name, status__in="landed,staged"))
    if dataset.freshness and is_late(dataset, row["loaded_at"], now):
        late = duration(now - row["loaded_at"] - dataset.freshness)
        said = f"Nothing was loaded for longer than {duration(dataset.freshness)}: it is {late} late."
        yield Concern("late", dataset.name, said, _files(dataset.name))


def _troubled(dataset: Dataset, files: Sequence[RowMapping]) -> Iterator[Concern]:
    """One concern for all files of a kind: of those that were stopped the newest is named, of rejects the worst."""

    def concern(kind: Kind, chosen: Sequence[RowMapping], named: RowMapping, sentence: str, **params: str) -> Concern:
        more = len(chosen) - 1
        # The ledger's own sentences end without a point.
        sentence = sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
        words = f"{sentence} And {plural(more, 'file')} more." if more else sentence
        return Concern(
            kind, dataset.name, words, _files(dataset.name, **params) if more else f"/files/{named['file_id']}"
        )

    stopped: tuple[Kind, Kind] = ("failed", "refused")
    for kind in stopped:
        if chosen := [file for file in files if file["status"] == kind]:
            first = chosen[0]
            stopped_how = "failed" if kind == "failed" else "was refused"
            said = f"{first['name']} {stopped_how}: {first['error'] or 'its run says no reason.'}"
            yield concern(kind, chosen, first, said, status=kind)
    rejecting = [
        file for file in files
        if file["status"] == "loaded" and dataset.warn_above.exceeded(file["rows_rejected"], file["rows_read"])
    ]  # fmt: skip
    if rejecting:
        worst = max(rejecting, key=lambda file: file["rows_rejected"] / file["rows_read"])
        share = percent(worst["rows_rejected"] / worst["rows_read"])
        said = f"{worst['name']}: {number(worst['rows_rejected'])} of {plural(worst['rows_read'], 'row')} ({share}) rejected."
        yield concern("rejects", rejecting, worst, said, rows_rejected__gt="0", ordering="-rows_rejected")


def _unusual(conn: Connection, dataset: Dataset) -> Iterator[Concern]:
    """Figures of the newest load that are far from those of the loads before it."""
    for figure in anomalies.figures(conn, dataset):
        if figure.is_unusual and figure.value is not None and figure.usual:
            write = number if figure.kind in ("rows", "means") else percent
            low, high = (write(max(bound, 0.0) if figure.kind != "means" else bound) for bound in figure.usual)
            what = {
                "rows": "Rows of the last load", "rejects": "Rejected rows of the last load",
                "nulls": f"Empty cells of {figure.name}", "means": f"Mean of {figure.name}",
            }[figure.kind]  # fmt: skip
            said = f"{what}: {write(figure.value)}; usual is {low} to {high}."
            column = figure.name if figure.kind in ("nulls", "means") else None
            yield Concern(
                "unusual", dataset.name, said, link("/quality", [("dataset", dataset.name), ("column", column)])
            )
