"""Detection of incidents from the ledger and the other tables; used by the overview, the alerts and the doctor.

Not here: how incidents are stored (`incidents.py`), failed runs and checks, which only Dagster knows (`dagster/alerting.py`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from sqlalchemy import ColumnElement, Connection, Row, Subquery, and_, exists, func, literal, not_, or_, select, true
from sqlalchemy.dialects.postgresql import aggregate_order_by

from mini_platform.config.settings import Settings
from mini_platform.declare.dataset import Dataset
from mini_platform.landing.upload import PAYLOADS
from mini_platform.operations.incidents import (
    DAGSTER_KINDS,
    KINDS,
    STOPS_ALL,
    WATCHDOG_KINDS,
    Incident,
    Subject,
    is_open,
    open_of,
    open_subjects,
    reconcile,
    stored,
    unacknowledged,
)
from mini_platform.operations.sources import inbox_states
from mini_platform.rows.wording import duration, number, percent, plural
from mini_platform.warehouse import anomalies
from mini_platform.warehouse.ledger import IN_PRODUCTION, PENDING
from mini_platform.warehouse.tables import checkpoints, files, incidents

if TYPE_CHECKING:
    from mini_platform.declare.registry import InvalidDeclaration
    from mini_platform.platform import Platform

ADVICE = {
    "refused": "Correct it and drop it again under its name, or",
    "failed": "Read the log of its run, then",
}
"""Advice by file status; the command that validates the file again follows it."""
BAD = tuple(ADVICE)
ALONE = 10
"""Number of refused, and of failed, files of a dataset that are incidents of their own: more are one for each reason."""
FILES = "files"
"""Word for such a crowd of files in the subject of its incident; that of posted payloads is their channel."""
SAMPLES = 3
"""Files of a crowd that its message names."""
RULES = 3
"""Maximum number of failed rules in a message."""
WAITS = dt.timedelta(minutes=5)
"""Age from which pending files are an incident, if none of their dataset has been taken or loaded meanwhile."""
WAITS_FOR_OTHERS = dt.timedelta(hours=1)
"""The same while runs work on other files: these may be their turn."""
RECENT = dt.timedelta(days=30)
"""Age up to which a file with rejected rows is an incident; older ones are taken as accepted."""

_first, _later = files.alias("first"), files.alias("later")
corrected = exists().where(
    _later.c.dataset == files.c.dataset,
    _later.c.name == files.c.name,
    _later.c.file_id > files.c.file_id,
    _later.c.same_as.is_(None),
    _later.c.status == "loaded",
)
"""Condition that a later version of the same file was loaded, so that this one needs no attention."""
_named = files.join(
    _first,
    and_(
        _first.c.dataset == files.c.dataset,
        _first.c.name == files.c.name,
        _first.c.version == 1,
        _first.c.same_as.is_(None),
    ),
)
"""Files joined with the first version of the same name."""


def current(conn: Connection, platform: Platform, datasets: Mapping[str, Dataset]) -> list[Incident]:
    """Return the incidents of these datasets that were not closed by hand, the most severe first.

    Incidents that the database shows are detected now. Those that only Dagster knows, and those of files that are being
    validated again, are as the last tick of the alerts sensor stored them; those of the watchdog likewise.
    """
    detected, undecided = detect(conn, platform, datasets)
    known = {(incident.kind, incident.subject) for incident in detected}
    from_sensor = [
        incident
        for incident, seen_at in stored(conn, DAGSTER_KINDS + WATCHDOG_KINDS, undecided - known)
        if incident.dataset is None or incident.dataset in datasets
        if incident.kind != "run_failed" or not _has_loaded(conn, incident.dataset, seen_at)
    ]
    open_incidents = [*unacknowledged(conn, detected), *from_sensor]
    return sorted(
        open_incidents, key=lambda incident: (KINDS.index(incident.kind), incident.dataset or "", incident.alike)
    )


def _has_loaded(conn: Connection, dataset: str | None, since: dt.datetime) -> bool:
    """Return True if a dataset has loaded a file since a run failed: runs work again, even before the sensor has noticed."""
    later = exists().where(files.c.dataset == dataset, files.c.loaded_at > since)
    return bool(conn.scalar(select(later)))


def update_incidents(conn: Connection, platform: Platform, datasets: Mapping[str, Dataset]) -> None:
    """Update `ops.incidents` with what the database shows now; incidents that others detect stay as they are."""
    detected, undecided = detect(conn, platform, datasets)
    reconcile(conn, detected, undecided, [kind for kind in KINDS if kind not in DAGSTER_KINDS + WATCHDOG_KINDS])


def detect(
    conn: Connection, platform: Platform, datasets: Mapping[str, Dataset]
) -> tuple[list[Incident], set[Subject]]:
    """Return the incidents that the database shows now, closed by hand or not, and the subjects that are undecided.

    Nothing is known of a dataset whose declaration is invalid: that is an incident itself, and its others are undecided.
    """
    settings, invalid = platform.settings, platform.invalid
    usable = {name: dataset for name, dataset in datasets.items() if name not in platform.refused}
    detected, undecided = detect_in_ledger(conn, usable, settings)
    states = inbox_states(platform, conn, usable.values())
    detected += [_inbox(row, settings) for row in states if row.last_error is not None]
    declarations = [_invalid(declaration, settings) for declaration in invalid]
    unknown = open_of(conn, {declaration.name for declaration in invalid} - usable.keys())
    undecided |= {subject for subject in unknown if subject[0] != "declaration_invalid"}
    return [*declarations, *detected], undecided


def _invalid(declaration: InvalidDeclaration, settings: Settings) -> Incident:
    """Return the incident of a declaration that cannot be used, which began when its file was changed."""
    since = dt.datetime.now(dt.UTC)
    with suppress(OSError):
        since = dt.datetime.fromtimestamp(declaration.file.stat().st_mtime, dt.UTC) if declaration.file else since
    return Incident(
        "declaration_invalid",
        "/".join([declaration.name, *([declaration.file.name] if declaration.file else [])]),
        declaration.name,
        hashlib.sha256(declaration.message.encode()).hexdigest()[:16],
        f"{declaration.name}: {declaration.message}",
        "Correct it; the other datasets are not affected. `mini-platform doctor` checks it.",
        f"{settings.links_url}/datasets/{quote(declaration.name)}",
        since,
    )


def detect_in_ledger(
    conn: Connection, datasets: Mapping[str, Dataset], settings: Settings
) -> tuple[list[Incident], set[Subject]]:
    """Return incidents of files, rows, sources and late datasets in the ledger, and the subjects that are undecided."""
    has_loaded = func.bool_or(files.c.status == "loaded").label("has_loaded")
    newest = func.max(files.c.loaded_at).filter(IN_PRODUCTION).label("newest")
    loads = conn.execute(select(files.c.dataset, has_loaded, newest, func.now().label("now")).group_by(files.c.dataset))
    declared_loads = [row for row in loads if row.dataset in datasets]
    loaded = [datasets[row.dataset] for row in declared_loads if row.has_loaded]
    bad = _bad(datasets)
    detected = [
        *_waiting(conn, datasets, settings),
        *_crowds(conn, bad, datasets, settings),
        *_files(conn, bad, datasets, settings),
        *_sources(conn, datasets, settings),
        *_late(declared_loads, datasets, settings),
        *(incident for dataset in loaded for incident in _unusual(conn, dataset, settings)),
        *(incident for dataset in loaded for incident in _rejects(conn, dataset, settings)),
    ]
    pending = select(_first.c.file_id, files.c.dataset, files.c.channel).select_from(_named)
    waiting = conn.execute(pending.where(files.c.status.in_(PENDING))).all()
    decided = {incident.subject for incident in detected if incident.kind == "file_refused"}
    subjects = {str(row.file_id) for row in waiting if row.channel != PAYLOADS}
    if crowds := {f"{row.dataset}/{PAYLOADS if row.channel == PAYLOADS else FILES}/" for row in waiting}:
        subjects |= {subject for subject in open_subjects(conn, "file_refused") if subject.startswith(tuple(crowds))}
    return detected, {("file_refused", subject) for subject in subjects - decided}


def pending_datasets(conn: Connection) -> set[str]:
    """Return the names of datasets with pending files: results of their checks are about to change."""
    return set(conn.scalars(select(files.c.dataset).distinct().where(files.c.status.in_(PENDING))))


def _waiting(conn: Connection, datasets: Mapping[str, Dataset], settings: Settings) -> Iterator[Incident]:
    """Yield an incident per dataset with files that no run takes, unless another incident is the cause."""
    stopped = _stopped(conn, datasets)
    working = exists().where(files.c.leased_until > func.clock_timestamp())
    since, moved = func.min(files.c.arrived_at), func.max(func.greatest(files.c.staged_at, files.c.leased_until))
    loaded = files.alias("loaded")
    last_load = (
        select(func.max(loaded.c.loaded_at))
        .where(loaded.c.dataset == files.c.dataset)
        .correlate(files)
        .scalar_subquery()
    )
    pending = (
        select(
            files.c.dataset,
            func.count().label("files"),
            since.label("since"),
            func.min(files.c.file_id).label("first"),
            func.max(files.c.queued_at).label("queued_at"),
            func.now().label("now"),
            func.greatest(since, func.max(files.c.queued_at), moved, last_load).label("moved"),
            select(working).scalar_subquery().label("others_work"),
        )
        .where(files.c.status.in_(PENDING), files.c.same_as.is_(None), files.c.dataset.in_(list(datasets)))
        .group_by(files.c.dataset)
    )
    for row in conn.execute(pending):
        if row.dataset in stopped or row.moved > row.now - (WAITS_FOR_OTHERS if row.others_work else WAITS):
            continue
        waits = plural(row.files, "file waits", "files wait")
        yield Incident(
            "files_waiting",
            row.dataset,
            row.dataset,
            f"{row.first} {row.queued_at}",
            f"{row.dataset}: {waits} since {row.since.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC.",
            "Start Dagster with mini-platform up, or see in its UI why no run starts.",
            _page(settings, "/files", dataset=row.dataset, status__in="landed,staged"),
            row.since,
            f"{waits} since {duration(row.now - row.since)}.",
        )


def _stopped(conn: Connection, datasets: Mapping[str, Dataset]) -> set[str]:
    """Return the datasets whose files wait because of an open incident: of a part, of the queue, of their sensor or runs."""
    stopped = set()
    causes = incidents.c.kind.in_(("part_down", "queue_stalled", "automation_silent", "run_failed"))
    for row in conn.execute(select(incidents).where(is_open(), causes)):
        if row.kind == "queue_stalled" or (row.kind == "part_down" and row.subject in STOPS_ALL):
            return set(datasets)
        if row.dataset in datasets and row.subject in (row.dataset, datasets[row.dataset].files_sensor):
            stopped.add(row.dataset)
    return stopped


def _bad(datasets: Mapping[str, Dataset]) -> Subquery:
    """Return the files but payloads whose last validated version was refused or failed, numbered by dataset and status."""
    same_name = and_(_later.c.dataset == files.c.dataset, _later.c.name == files.c.name, _later.c.same_as.is_(None))
    validated_later = exists().where(
        same_name, _later.c.version > files.c.version, _later.c.status.in_(("loaded", *BAD))
    )
    nth = func.row_number().over(partition_by=(files.c.dataset, files.c.status), order_by=_first.c.file_id)
    bad = select(files, _first.c.file_id.label("first"), nth.label("nth")).select_from(_named)
    return bad.where(*_is_bad(datasets), files.c.channel != PAYLOADS, ~validated_later).subquery()


def _is_bad(datasets: Mapping[str, Dataset]) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that a file was refused or failed."""
    return files.c.status.in_(BAD), files.c.same_as.is_(None), files.c.dataset.in_(list(datasets))


def _crowds(conn: Connection, bad: Subquery, datasets: Mapping[str, Dataset], settings: Settings) -> Iterator[Incident]:
    """Yield an incident per dataset and reason for posted payloads, and for many files: what is broken sends many a second."""
    payloads = select(files).where(*_is_bad(datasets), files.c.channel == PAYLOADS).subquery()
    for channel, of, condition in ((PAYLOADS, payloads, true()), (FILES, bad, bad.c.nth > ALONE)):
        yield from _crowd(conn, channel, select(of).where(condition).subquery(), settings)


def _crowd(conn: Connection, channel: str, bad: Subquery, settings: Settings) -> Iterator[Incident]:
    rule = func.jsonb_object_keys(bad.c.rule_counts).column_valued("rule")
    rules = select(func.string_agg(rule, aggregate_order_by(literal(", "), rule))).scalar_subquery()
    crowd = select(bad, func.coalesce(rules, "").label("rules")).subquery()
    by = (crowd.c.dataset, crowd.c.status, crowd.c.rules)
    reasons = select(
        *by,
        func.count().label("files"),
        func.min(crowd.c.arrived_at).label("since"),
        func.array_agg(aggregate_order_by(crowd.c.file_id, crowd.c.file_id.desc()))[1:SAMPLES].label("newest"),
        func.max(crowd.c.run_id).label("run_id"),
    )
    for row in conn.execute(reasons.group_by(*by).order_by(*by)):
        newest, more = row.newest[0], row.files - len(row.newest)
        what = f"{plural(row.files, 'payload' if channel == PAYLOADS else 'more file')} {row.status}"
        what += f"{f': {row.rules}' if row.rules else ''}. See file {', '.join(map(str, row.newest))}"
        what += f" and {number(more)} more." if more else "."
        yield Incident(
            "file_refused",
            f"{row.dataset}/{channel}/{row.status}/{row.rules}",
            row.dataset,
            f"{newest} {row.run_id}",
            f"{row.dataset}: {what}",
            f"Correct what sends them; `mini-platform rejects {row.dataset} --file {newest}` shows the newest.",
            f"{settings.links_url}/files/{newest}",
            row.since,
            what,
        )


def _files(conn: Connection, bad: Subquery, datasets: Mapping[str, Dataset], settings: Settings) -> Iterator[Incident]:
    """Yield an incident per file name whose last validated version was refused or failed, the newest last."""
    for row in conn.execute(select(bad).where(bad.c.nth <= ALONE).order_by(bad.c.file_id)):
        dataset = datasets[row.dataset]
        name = "" if dataset.is_personal else f"{row.name}, "
        yield Incident(
            "file_refused",
            str(row.first),
            dataset.name,
            f"{row.file_id} {row.run_id}",
            f"{dataset.name}: {name}file {row.file_id}: {row.status}. {_why(row)}",
            f"{ADVICE[row.status]} `mini-platform reprocess {dataset.name} --file {row.file_id}`.",
            f"{settings.links_url}/files/{row.file_id}",
            row.arrived_at,
            f"{row.name} {'failed' if row.status == 'failed' else 'was refused'}: {_sentence(row.error)}",
            row.status,
        )


def _why(row: Row[Any]) -> str:
    """Return why a file was stopped, without its content: a refusal may quote a header that is in fact a row."""
    if not row.rule_counts or not row.rows_rejected:
        return "See its page for the reason."
    worst = sorted(row.rule_counts.items(), key=lambda item: -item[1])[:RULES]
    rules = ", ".join(f"{rule} ({count:,})" for rule, count in worst)
    return f"{row.rows_rejected:,} of {row.rows_read:,} rows are rejected: {rules}."


def _sentence(error: str | None) -> str:
    """Return an error of the ledger, which has no full stop, as a sentence."""
    sentence = error or "no reason is recorded"
    return sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."


def _sources(conn: Connection, datasets: Mapping[str, Dataset], settings: Settings) -> Iterator[Incident]:
    """Yield an incident per API source whose last sync failed after all retries."""
    declared = {(dataset.name, source.name) for dataset in datasets.values() for source in dataset.api_sources}
    down = select(checkpoints).where(checkpoints.c.last_error.is_not(None))
    for row in conn.execute(down):
        if (row.dataset, row.source) in declared:
            yield Incident(
                "source_down",
                f"{row.dataset}/{row.source}",
                row.dataset,
                row.last_failed.isoformat(),
                f"{row.dataset}: the source {row.source} cannot be synced. {row.last_error}",
                "Check that it answers and its credentials are valid; the schedule keeps trying. See `mini-platform sources`.",
                f"{settings.links_url}/datasets/{quote(row.dataset)}",
                row.last_failed,
                f"Syncing {row.source} fails: {row.last_error}",
            )


def inboxes_down(conn: Connection, platform: Platform, dataset: Dataset) -> list[Row[Any]]:
    """Return the remote inboxes of a dataset that cannot be used, except those whose incident was closed by hand."""
    down = [row for row in inbox_states(platform, conn, [dataset]) if row.last_error is not None]
    open_incidents = unacknowledged(conn, [_inbox(row, platform.settings) for row in down])
    return [row for row in down if any(incident.subject == f"{row.dataset}/{row.inbox}" for incident in open_incidents)]


def _inbox(row: Row[Any], settings: Settings) -> Incident:
    """Return the incident of a remote inbox (a row of `ops.inboxes`) whose last visit failed after all retries."""
    return Incident(
        "source_down",
        f"{row.dataset}/{row.inbox}",
        row.dataset,
        row.failing_since.isoformat(),
        f"{row.dataset}: the inbox {row.inbox} cannot be used. {row.last_error}",
        "`mini-platform doctor` tests it and says what to do; it is retried automatically.",
        f"{settings.links_url}/datasets/{quote(row.dataset)}",
        row.failing_since,
        f"The inbox {row.inbox} fails: {row.last_error}",
    )


def _late(loads: Iterable[Row[Any]], datasets: Mapping[str, Dataset], settings: Settings) -> Iterator[Incident]:
    """Yield an incident per dataset whose newest load is older than its declared freshness."""
    for row in loads:
        declared = datasets[row.dataset]
        if declared.freshness and row.newest is not None and row.now - row.newest > declared.freshness:
            yield Incident(
                "freshness_missed",
                row.dataset,
                row.dataset,
                row.newest.isoformat(),
                f"{row.dataset}: the newest load is from {row.newest.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC, but should not be "
                f"older than {declared.freshness}.",
                "Check whether files still arrive and whether the Dagster daemon runs.",
                f"{settings.links_url}/datasets/{quote(row.dataset)}",
                row.newest + declared.freshness,
                f"No file loaded within {duration(declared.freshness)}: "
                f"{duration(row.now - row.newest - declared.freshness)} late.",
            )


def _rejects(conn: Connection, dataset: Dataset, settings: Settings) -> Iterator[Incident]:
    """Yield an incident of a dataset with recent, uncorrected files whose rejected rows exceed its warning limit."""
    limit, rejected = dataset.warn_limit, files.c.rows_rejected
    read = files.c.rows_read + func.coalesce(files.c.rows_erased, 0)  # As in the validation of the file.
    above = []
    if limit.share is not None:
        above.append(and_(read >= limit.min_rows, rejected > Decimal(str(limit.share)) * read))
    if limit.rows is not None:
        above.append(rejected > limit.rows)
    if not above:
        return
    of_dataset = (files.c.dataset == dataset.name, files.c.status == "loaded", files.c.same_as.is_(None))
    moments = (files.c.arrived_at, files.c.loaded_at)  # `loaded_at` is never before `arrived_at`, and has an index.
    rejecting = (
        select(
            *(files.c[name] for name in ("file_id", "name", "rows_read", "rows_rejected", "loaded_at")),
            func.count().over().label("files"),
            func.max(files.c.file_id).over().label("newest"),
        )
        .where(*of_dataset, or_(*above), *(moment >= func.now() - RECENT for moment in moments), not_(corrected))
        .order_by((rejected * 1.0 / files.c.rows_read).desc(), files.c.file_id.desc())
        .limit(1)
    )
    for worst in conn.execute(rejecting):
        name = "" if dataset.is_personal else f"{worst.name}, "
        more = f" And {plural(worst.files - 1, 'file')} more." if worst.files > 1 else ""
        share = f"{number(worst.rows_rejected)} of {plural(worst.rows_read, 'row')}"
        share += f" ({percent(worst.rows_rejected / worst.rows_read)}) rejected."
        by_rejects = {"rows_rejected__gt": "0", "ordering": "-rows_rejected"}
        link = _page(settings, "/files", dataset=dataset.name, **by_rejects) if more else None
        yield Incident(
            "rows_rejected",
            dataset.name,
            dataset.name,
            str(worst.newest),
            f"{dataset.name}: {name}file {worst.file_id}: {share}{more}",
            "Correct these rows and load the file again.",
            link or _page(settings, f"/files/{worst.file_id}"),
            worst.loaded_at,
            f"{worst.name}: {share}{more}",
        )


def _unusual(conn: Connection, dataset: Dataset, settings: Settings) -> Iterator[Incident]:
    """Yield an incident per figure of the newest load that is far from those of earlier loads."""
    unusual = [figure for figure in anomalies.figures(conn, dataset) if figure.is_unusual]
    if not unusual:
        return
    loads = select(files.c.run_id, files.c.loaded_at).where(files.c.dataset == dataset.name, files.c.status == "loaded")
    newest = conn.execute(loads.order_by(files.c.staged_at.desc()).limit(1)).one()
    for figure in unusual:
        sentence = _figure(figure)
        column = {"column": figure.name} if figure.kind in ("nulls", "means") else {}
        yield Incident(
            "figures_unusual",
            f"{dataset.name}/{figure.kind}/{figure.name}",
            dataset.name,
            newest.run_id,
            f"{dataset.name}: {sentence}",
            "Compare it with earlier files.",
            _page(settings, "/quality", dataset=dataset.name, **column),
            newest.loaded_at,
            sentence,
        )


def _figure(figure: anomalies.Figure) -> str:
    """Return an unusual figure as a sentence."""
    write = number if figure.kind in ("rows", "means") else percent
    lowest, highest = figure.usual or (0.0, 0.0)
    low, high = (write(bound if figure.kind == "means" else max(bound, 0.0)) for bound in (lowest, highest))
    label = {
        "rows": "Rows of the last load", "rejects": "Rejected rows of the last load",
        "nulls": f"Empty cells of {figure.name}", "means": f"Mean of {figure.name}",
    }[figure.kind]  # fmt: skip
    return f"{label}: {write(figure.value)}; usual range: {low} to {high}."


def _page(settings: Settings, path: str, **params: str) -> str:
    """Return the URL of a page of the dashboard."""
    return f"{settings.links_url}{path}" + (f"?{urlencode(params)}" if params else "")
