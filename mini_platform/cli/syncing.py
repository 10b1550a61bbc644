"""Commands that sync API sources and list their progress."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mini_platform.cli.completion import DatasetName, DatasetNameOrAll
from mini_platform.cli.context import dataset_named, open_datasets, open_platform
from mini_platform.cli.errors import FAILED, MistakeError
from mini_platform.cli.output import doing, print_json, print_message, print_table
from mini_platform.cli.runs import process

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset
    from mini_platform.declare.sources import ApiSource
    from mini_platform.landing.sync import SyncResult
    from mini_platform.platform import Platform

RESULTS = {
    "source": "source",
    "state": "state",
    "sync": "sync",
    "pages": "pages",
    "unchanged": "unchanged",
    "rows": "rows",
    "why": "reason",
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
    "last_error": "last error",
}
"""Fields of a checkpoint that are shown in the table, with headings."""
MORE = ("pages_landed", "last_failed", "not_before", "position", "since", "whole")
"""Further columns that are only in the JSON."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]


def sync(
    dataset: DatasetName,
    source: Annotated[
        str | None, typer.Argument(metavar="SOURCE", help="Name of the source; by default all of them.")
    ] = None,
    as_json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show tries and waits, and Dagster's log.")] = False,
) -> None:
    """Sync the API sources of a dataset in this process, and load the new pages.

    Exit code 1 if a source failed, or a page was not loaded.

    Example: mini-platform sync records
    """
    chosen = dataset_named(dataset)
    api_sources = _api_sources(chosen, source)
    platform = open_platform(chosen)
    results = [_sync_source(platform, chosen, item, verbose=verbose) for item in api_sources]
    file_ids = [file_id for item in results for file_id in item.file_ids]
    failure = process(platform, chosen, file_ids, verbose=verbose).failure if file_ids else None
    failure = failure or _not_loaded(platform, file_ids)
    if as_json:
        print_json(item.as_dict() for item in results)
    else:
        print_table(RESULTS, [item.as_dict() for item in results], f"{chosen.name} has no API sources.")
    if failure:
        print_message(failure)
    if failure or not all(item.ok for item in results):
        raise typer.Exit(FAILED)


def _api_sources(dataset: "Dataset", source: str | None) -> list["ApiSource"]:
    selected = [one for one in dataset.api_sources if source in (None, one.name)]
    if source is not None and not selected:
        names = ", ".join(one.name for one in dataset.api_sources) or "none"
        raise MistakeError(f"{dataset.name} has no source {source!r}. Its sources are: {names}.")
    return selected


def _sync_source(platform: "Platform", dataset: "Dataset", source: "ApiSource", *, verbose: bool) -> "SyncResult":
    from mini_platform.operations.landing import sync

    def log(sentence: str) -> None:
        if verbose:
            print_message(f"{source.name}: {sentence}")

    # With --verbose, each try is a line of its own.
    with nullcontext() if verbose else doing(f"Syncing {source.name}"):
        return sync(platform, dataset, source, log)


def _not_loaded(platform: "Platform", file_ids: list[int]) -> str | None:
    """Return a sentence about pages that were not loaded; None if all were."""
    from sqlalchemy import func, select

    from mini_platform.warehouse.tables import files

    statement = select(files.c.name, files.c.status, files.c.error)
    with platform.engine.connect() as conn:
        rows = conn.execute(
            statement.where(files.c.file_id == func.any(file_ids), files.c.status != "loaded").order_by(files.c.file_id)
        ).all()
    if not rows:
        return None
    more = f" And {len(rows) - 1} more pages." if len(rows) > 1 else ""
    return f"{rows[0].name} is {rows[0].status}: {rows[0].error or 'it waits for the next run'}.{more}"


def sources(
    dataset: DatasetNameOrAll = None,
    as_json: Json = False,
) -> None:
    """List the API sources with their progress, their last sync and its error.

    Example: mini-platform sources records
    """
    from mini_platform.landing.checkpoint import load_checkpoints
    from mini_platform.operations.sources import is_configured

    platform, chosen = open_datasets(dataset)
    with platform.engine.connect() as conn:
        known = {(row.dataset, row.source): row._asdict() for row in load_checkpoints(conn)}
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
        print_table(SOURCES, rows, "No dataset declares an API source.")
