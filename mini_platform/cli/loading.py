"""Loading files, and loading them again."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mini_platform.cli.context import dataset_named, open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.listing import ledger_row
from mini_platform.cli.output import print_json, print_table, progress_bar, say
from mini_platform.cli.runs import RunResult, process

if TYPE_CHECKING:
    from sqlalchemy import Row

    from mini_platform.declare.dataset import Dataset
    from mini_platform.landing.folder import DroppedFile
    from mini_platform.platform import Platform

ACCOUNTING = {
    "file_id": "file",
    "name": "name",
    "status": "status",
    "rows_read": "read",
    "rows_inserted": "inserted",
    "rows_updated": "updated",
    "rows_unchanged": "unchanged",
    "rows_superseded": "superseded",
    "rows_rejected": "rejected",
}
CHANGING = "it changes while it is read; load it again when it is complete"

Json = Annotated[bool, typer.Option("--json", help="One JSON object per file and line.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Dagster's log.")]


def load(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its name.")],
    paths: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files to load, in this order.")],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Load files now, in this process, and show what became of each of their rows.

    A file whose bytes are the current version of its name already is unchanged, and costs no run.
    Exit code 1 if a file was refused or failed.
    """
    from mini_platform.operations.landing import FileError, land_files, named_file

    chosen = dataset_named(dataset)
    try:
        found = [named_file(path) for path in paths]
    except FileError as error:
        raise MistakeError(str(error)) from error
    platform = open_platform()
    what = found[0].name if len(found) == 1 else f"{len(found)} files"
    with progress_bar(f"Storing {what}", sum(path.stat().st_size for path in paths)) as advance:
        landed = []
        for file, row in land_files(platform, chosen, found):
            landed.append((file, row))
            advance(row.bytes if row else 0, None)
    done = process(platform, chosen, [row.same_as or row.file_id for _, row in landed if row], verbose=verbose)
    rows = _rows(platform, {row.file_id for _, row in landed if row})
    outcomes = [_outcome(platform, rows[row.file_id], done) if row else _never_landed(file) for file, row in landed]
    _show(chosen, outcomes, done, as_json=as_json)


def reprocess(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its name.")],
    file: Annotated[int | None, typer.Option(help="Only the file with this id.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Judge and load files again, by today's rules, from the bytes that were kept; also refused and failed ones.

    Doing it twice changes nothing more. Exit code 1 if a file was refused or failed.
    """
    from mini_platform.operations.reprocessing import reprocess

    chosen = dataset_named(dataset)
    platform = open_platform()
    if file is not None:
        ledger_row(platform, chosen, file)
    queued = reprocess(platform, chosen, file)
    for row in queued.without_raw:
        said = f"{row.name} (file {row.file_id}) cannot be validated again: its raw file was dropped on"
        say(f"{said} {row.raw_dropped_at:%Y-%m-%d}. What is loaded of it stays.")
    if not queued.file_ids:
        say(f"{chosen.name} has no file that can be loaded again.")
        return
    done = process(platform, chosen, queued.file_ids, verbose=verbose)
    rows = _rows(platform, done.file_ids)
    _show(chosen, [_outcome(platform, row, done) for row in rows.values()], done, as_json=as_json)


def _rows(platform: "Platform", file_ids: Iterable[int]) -> dict[int, "Row[Any]"]:
    """Ledger rows by id, in the order of the ids."""
    from sqlalchemy import func, select

    from mini_platform.warehouse.tables import files

    statement = select(files).where(files.c.file_id == func.any(list(file_ids))).order_by(files.c.file_id)
    with platform.engine.connect() as conn:
        return {row.file_id: row for row in conn.execute(statement)}


def _outcome(platform: "Platform", row: "Row[Any]", done: RunResult) -> dict[str, Any]:
    """The accounting of a file. Of one that is done every figure is known: what did not happen is 0."""
    from mini_platform.warehouse import ledger

    figures = ledger.accounting(row)
    if row.status in ledger.PENDING:
        return figures | {"error": done.failure or "it waits for the next run"}
    figures = {name: 0 if value is None and name.startswith("rows_") else value for name, value in figures.items()}
    if row.same_as is not None:
        repeated = _rows(platform, [row.same_as])[row.same_as]
        if repeated.status != "loaded":
            why = repeated.error or done.failure
            figures["error"] = f"it repeats file {repeated.file_id}, which is {repeated.status}: {why}"
    return figures


def _never_landed(file: "DroppedFile") -> dict[str, Any]:
    error = file.skip_reason if file.blocked else CHANGING
    return {**dict.fromkeys(ACCOUNTING, 0), "file_id": None, "name": file.name, "status": "failed", "error": error}


def _show(dataset: "Dataset", outcomes: Sequence[dict[str, Any]], done: RunResult, *, as_json: bool) -> None:
    if as_json:
        print_json(outcomes)
    else:
        print_table(ACCOUNTING, outcomes, "No files.")
        for outcome in outcomes:
            if outcome["status"] in ("landed", "staged"):
                say(f"{outcome['name']} (file {outcome['file_id']}) waits for the next run.")
            elif outcome["error"]:
                say(f"{outcome['name']} is {outcome['status']}: {outcome['error']}")
            elif outcome["rows_rejected"]:
                share = f"{outcome['rows_rejected']:,} of {outcome['rows_read']:,} rows were rejected"
                say(
                    f"{outcome['name']}: {share}, see: mini-platform rejects {dataset.name} --file {outcome['file_id']}"
                )
    if done.failure:
        say(f"The run did not finish: {done.failure}")
    if done.failure or any(outcome["error"] for outcome in outcomes):
        raise typer.Exit(1)
