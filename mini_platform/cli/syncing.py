"""Syncing sources, and how far they are synced."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mini_platform.cli.context import dataset_named, datasets_named, open_platform
from mini_platform.cli.errors import FAILED, MistakeError
from mini_platform.cli.output import print_json, print_table, say
from mini_platform.cli.runs import process

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset
    from mini_platform.declare.sources import ApiSource
    from mini_platform.landing.sync import SyncResult
    from mini_platform.platform import Platform

SYNCED = {
    "source": "source",
    "state": "state",
    "sync": "sync",
    "pages": "pages",
    "unchanged": "unchanged",
    "rows": "rows",
    "why": "why",
}
SOURCES = {
    "dataset": "dataset",
    "source": "source",
    "configured": "configured",
    "sync": "sync",
    "pages": "pages",
    "rows": "rows",
    "last_started": "last started",
    "last_succeeded": "last succeeded",
    "last_error": "why it failed",
}
"""What people are shown of a checkpoint, with headings."""
MORE = ("pages_landed", "last_failed", "not_before", "position", "since", "whole")
"""Further columns that are only in the JSON."""

Json = Annotated[bool, typer.Option("--json", help="One JSON object per source and line.")]


def sync(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its name.")],
    source: Annotated[str | None, typer.Argument(metavar="SOURCE", help="Its name; without one, all of them.")] = None,
    as_json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show tries and waits, and Dagster's log.")] = False,
) -> None:
    """ApiSource the sources of a dataset now, in this process, and load what they brought.

    Exit code 1 if a source failed, or a page was not loaded.
    """
    chosen = dataset_named(dataset)
    api_sources = _api_sources(chosen, source)
    platform = open_platform()
    done = [_synced(platform, chosen, one, verbose=verbose) for one in api_sources]
    landed = [file_id for one in done for file_id in one.file_ids]
    failure = process(platform, chosen, landed, verbose=verbose).failure if landed else None
    failure = failure or _not_loaded(platform, landed)
    if as_json:
        print_json(one.as_dict() for one in done)
    else:
        print_table(SYNCED, [one.as_dict() for one in done], f"{chosen.name} has no sources that are synced.")
    if failure:
        say(failure)
    if failure or not all(one.ok for one in done):
        raise typer.Exit(FAILED)


def _api_sources(dataset: "Dataset", source: str | None) -> list["ApiSource"]:
    found = [one for one in dataset.api_sources if source in (None, one.name)]
    if source is not None and not found:
        names = ", ".join(one.name for one in dataset.api_sources) or "none"
        raise MistakeError(f"{dataset.name} has no source {source!r}. Its sources are: {names}.")
    return found


def _synced(platform: "Platform", dataset: "Dataset", source: "ApiSource", *, verbose: bool) -> "SyncResult":
    from mini_platform.operations.landing import sync

    def tell(sentence: str) -> None:
        if verbose:
            say(f"{source.name}: {sentence}")

    return sync(platform, dataset, source, tell)


def _not_loaded(platform: "Platform", file_ids: list[int]) -> str | None:
    """A sentence about pages that were not loaded; None if all were."""
    from sqlalchemy import func, select

    from mini_platform.warehouse.tables import files

    left = select(files.c.name, files.c.status, files.c.error)
    with platform.engine.connect() as conn:
        rows = conn.execute(
            left.where(files.c.file_id == func.any(file_ids), files.c.status != "loaded").order_by(files.c.file_id)
        ).all()
    if not rows:
        return None
    more = f" And {len(rows) - 1} more pages." if len(rows) > 1 else ""
    return f"{rows[0].name} is {rows[0].status}: {rows[0].error or 'it waits for the next run'}.{more}"


def sources(
    dataset: Annotated[
        str | None, typer.Argument(metavar="DATASET", help="Its name; without one, all of them.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the sources that are synced: how far, when, and what went wrong."""
    from mini_platform.landing.checkpoint import stored
    from mini_platform.operations.sources import is_configured

    chosen = datasets_named(dataset)
    platform = open_platform()
    with platform.engine.connect() as conn:
        known = {(row.dataset, row.source): row._asdict() for row in stored(conn)}
    rows: list[dict[str, Any]] = [
        {
            **dict.fromkeys((*SOURCES, *MORE)),
            **{n: v for n, v in known.get((one.name, source.name), {}).items() if n in (*SOURCES, *MORE)},
            "dataset": one.name,
            "source": source.name,
            "configured": is_configured(platform, one, source),
        }
        for one in chosen
        for source in one.api_sources
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(SOURCES, rows, "No dataset declares a source that is synced.")
