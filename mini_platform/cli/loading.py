"""Commands that load files, load them again, and take over the rows of a replaced system."""

import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mini_platform.cli.completion import DatasetName
from mini_platform.cli.context import dataset_named, open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.listing import ledger_row
from mini_platform.cli.output import doing, print_json, print_message, print_table, progress_bar, utc
from mini_platform.cli.runs import RunResult, process

if TYPE_CHECKING:
    from sqlalchemy import Row

    from mini_platform.declare.dataset import Dataset
    from mini_platform.landing.folder import DroppedFile
    from mini_platform.operations.adopt import Adoption
    from mini_platform.platform import Platform

COLUMNS = {
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
CHANGING = "it changed while it was read; load it again when it is complete"

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show Dagster's log.")]


def load(
    dataset: DatasetName,
    paths: Annotated[list[Path], typer.Argument(metavar="FILE", help="Files to load, in this order.")],
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Load files in this process, and show the counts of their rows.

    A file whose bytes are already the current version of its name is unchanged, and needs no run.
    Exit code 1 if a file was refused or failed.

    Example: mini-platform load stations june.csv july.csv
    """
    chosen = dataset_named(dataset)
    with doing("Looking at the files"):
        from mini_platform.operations.landing import FileError, land_files, named_file
    try:
        dropped = [named_file(path) for path in paths]
    except FileError as error:
        raise MistakeError(str(error)) from error
    platform = open_platform(chosen)
    label = dropped[0].name if len(dropped) == 1 else f"{len(dropped)} files"
    with progress_bar(f"Storing {label}", sum(path.stat().st_size for path in paths)) as advance:
        landed_files = []
        for file, row in land_files(platform, chosen, dropped):
            landed_files.append((file, row))
            advance(row.bytes if row else 0, None)
    run = process(platform, chosen, [row.same_as or row.file_id for _, row in landed_files if row], verbose=verbose)
    rows = _rows(platform, {row.file_id for _, row in landed_files if row})
    results = [
        _file_result(platform, rows[row.file_id], run) if row else _never_landed(file) for file, row in landed_files
    ]
    _show(platform, chosen, results, run, as_json=as_json)


def reprocess(
    dataset: DatasetName,
    file: Annotated[int | None, typer.Option(help="Only the file with this id.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Validate and load files again with the current rules, from their raw files; also refused and failed ones.

    Running it twice changes nothing more. Exit code 1 if a file was refused or failed.

    Example: mini-platform reprocess stations --file 12
    """
    from mini_platform.operations.reprocessing import reprocess

    chosen = dataset_named(dataset)
    platform = open_platform(chosen)
    if file is not None:
        ledger_row(platform, chosen, file)
    queued = reprocess(platform, chosen, file)
    for row in queued.without_raw:
        message = f"{row.name} (file {row.file_id}) cannot be validated again: its raw file was dropped on"
        print_message(f"{message} {row.raw_dropped_at:%Y-%m-%d}. Its loaded rows stay.")
    if not queued.file_ids:
        print_message(f"{chosen.name} has no file that can be loaded again.")
        return
    run = process(platform, chosen, queued.file_ids, verbose=verbose)
    rows = _rows(platform, run.file_ids)
    _show(platform, chosen, [_file_result(platform, row, run) for row in rows.values()], run, as_json=as_json)


def adopt(
    dataset: DatasetName,
    url: Annotated[
        str, typer.Option("--from", metavar="URL", help="Database of the replaced system; - reads the URL from stdin.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Take over the rows of the system that a dataset replaces, with their ids and times, from its database.

    What would be loaded and rejected is shown before anything is written; the other database is only read. Its rows become raw
    files, and are loaded as any others; rows that have not changed since the last time are unchanged.
    Exit code 1 if a file was refused or failed.

    Example: mini-platform adopt records --from postgresql://reader@old.example.com/records
    """
    from mini_platform.declare.sources import ADOPT_CHANNEL
    from mini_platform.operations.adopt import AdoptionError, adoption
    from mini_platform.operations.landing import land_files

    chosen = dataset_named(dataset)
    platform = open_platform(chosen)
    try:
        with ExitStack() as stack:
            source = sys.stdin.readline().strip() if url == "-" else url
            with doing("Reading and validating the table of the replaced system"):
                table = stack.enter_context(adoption(platform, chosen, source))
            _show_adoption(chosen, table)
            if not table.files:
                return
            if not yes:
                typer.confirm(f"Load these rows into {chosen.name}?", abort=True, err=True)
            with doing("Storing its rows"):
                landed_files = list(land_files(platform, chosen, table.files, ADOPT_CHANNEL))
    except AdoptionError as error:
        raise MistakeError(str(error)) from error
    run = process(platform, chosen, [row.same_as or row.file_id for _, row in landed_files if row], verbose=verbose)
    rows = _rows(platform, {row.file_id for _, row in landed_files if row})
    results = [
        _file_result(platform, rows[row.file_id], run) if row else _never_landed(file) for file, row in landed_files
    ]
    _show(platform, chosen, results, run, as_json=as_json)


def _show_adoption(dataset: "Dataset", adoption: "Adoption") -> None:
    """Show what would be taken over, to stderr."""
    sources = ", ".join(f"{source} {rows:,}" for source, rows in adoption.sources.items())
    print_message(f"{adoption.table} has {adoption.rows:,} rows" + (f" ({sources})." if sources else "."))
    if adoption.first and adoption.last:
        print_message(f"The first is of {utc(adoption.first)}, the last change of {utc(adoption.last)}.")
    print_message(f"{adoption.rejected:,} of them would be rejected" + (":" if adoption.reasons else "."))
    for reason, rows in adoption.reasons.items():
        print_message(f"  {rows:,}: {reason}")
    for name, reason in adoption.refused.items():
        print_message(f"The file {name} would be refused: {reason}.")
    if adoption.present:
        print_message(
            f"{dataset.name} has {adoption.present:,} rows already: a row with the same key gets the values of this table, and "
            "keeps its number and the time at which it was first loaded."
        )


def _rows(platform: "Platform", file_ids: Iterable[int]) -> dict[int, "Row[Any]"]:
    """Return ledger rows by id, in the order of the ids."""
    from sqlalchemy import func, select

    from mini_platform.warehouse.tables import files

    statement = select(files).where(files.c.file_id == func.any(list(file_ids))).order_by(files.c.file_id)
    with platform.engine.connect() as conn:
        return {row.file_id: row for row in conn.execute(statement)}


def _file_result(platform: "Platform", row: "Row[Any]", run: RunResult) -> dict[str, Any]:
    """Return the status and the row counts of a file; counts that were not recorded are 0, unless the file is still pending."""
    from mini_platform.warehouse import ledger

    counts = ledger.accounting(row)
    if row.status in ledger.PENDING:
        return counts | {"error": run.failure or "it waits for the next run"}
    counts = {name: 0 if value is None and name.startswith("rows_") else value for name, value in counts.items()}
    if row.same_as is not None:
        original = _rows(platform, [row.same_as])[row.same_as]
        if original.status != "loaded":
            reason = original.error or run.failure
            counts["error"] = f"it repeats file {original.file_id}, which is {original.status}: {reason}"
    return counts


def _never_landed(file: "DroppedFile") -> dict[str, Any]:
    error = file.skip_reason if file.blocked else CHANGING
    return {**dict.fromkeys(COLUMNS, 0), "file_id": None, "name": file.name, "status": "failed", "error": error}


def _show(
    platform: "Platform", dataset: "Dataset", results: Sequence[dict[str, Any]], run: RunResult, *, as_json: bool
) -> None:
    if as_json:
        print_json(results)
    else:
        print_table(COLUMNS, results, "No files.")
        for file in results:
            if file["status"] in ("landed", "staged"):
                print_message(f"{file['name']} (file {file['file_id']}) waits for the next run.")
            elif file["error"]:
                print_message(f"{file['name']} is {file['status']}: {file['error']}")
            elif file["rows_rejected"]:
                rejected = f"{file['rows_rejected']:,} of {file['rows_read']:,} rows were rejected"
                print_message(
                    f"{file['name']}: {rejected}, see {platform.settings.links_url}/files/{file['file_id']} or: "
                    f"mini-platform rejects {dataset.name} --file {file['file_id']}"
                )
    if run.failure:
        print_message(f"The run did not finish: {run.failure}")
    if run.failure or any(file["error"] for file in results):
        raise typer.Exit(1)
