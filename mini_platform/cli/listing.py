"""Commands that list the files of the ledger and the rejected rows."""

import itertools
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mini_platform.cli.completion import DatasetName, DatasetNameOrAll
from mini_platform.cli.context import dataset_named, open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import print_csv, print_json, print_table

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset
    from mini_platform.platform import Platform


class Status(StrEnum):
    """The status of a file in the ledger."""

    landed = "landed"
    staged = "staged"
    loaded = "loaded"
    refused = "refused"
    failed = "failed"
    unchanged = "unchanged"


LEDGER = {
    "file_id": "file",
    "name": "name",
    "version": "version",
    "status": "status",
    "arrived_at": "arrived",
    "rows_read": "read",
    "rows_rejected": "rejected",
    "error": "reason",
}
"""Columns of the ledger that are shown in the table, with their headings."""
COUNTERS = ("rows_inserted", "rows_updated", "rows_unchanged", "rows_superseded")
ERASED = ("raw_dropped_at", "erased_at", "rows_erased")
MORE = ("dataset", *COUNTERS, "sha256", "bytes", "channel", "loaded_at", "run_id", "same_as", *ERASED)
"""Further columns that are only in the JSON."""
REJECTS = ("file", "line", "record", "column", "value", "rule", "sentence", "file_id")
"""Columns of rejects; `record` only if several records may be on one line."""


def files(
    dataset: DatasetNameOrAll = None,
    status: Annotated[Status | None, typer.Option(help="Only files with this status.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")] = False,
) -> None:
    """List the files of the ledger: every file that ever arrived, its status, and the counts of its rows.

    Example: mini-platform files stations --status refused
    """
    from sqlalchemy import select

    from mini_platform.rows.wording import file_status
    from mini_platform.warehouse.tables import files as ledger

    chosen = dataset_named(dataset) if dataset is not None else None
    names = (*LEDGER, *MORE)
    statement = select(*(ledger.c[name] for name in names)).order_by(ledger.c.file_id)
    if chosen is not None:
        statement = statement.where(ledger.c.dataset == chosen.name)
    if status is not None:
        statement = statement.where(ledger.c.status == status.value)
    with open_platform(chosen).engine.connect() as conn:
        rows = (dict(row) for row in conn.execution_options(yield_per=500).execute(statement).mappings())
        if as_json:
            print_json(rows)
        else:
            columns = LEDGER if chosen else {"dataset": "dataset", **LEDGER}
            rows = (row | {"status": file_status(row["status"], row["rows_rejected"])} for row in rows)
            print_table(columns, rows, "No matching files." if dataset or status else "No file has arrived yet.")


def rejects(
    dataset: DatasetName,
    file: Annotated[int | None, typer.Option(help="Only rows of the file with this id.")] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, with formulas escaped for spreadsheet programs.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")] = False,
    limit: Annotated[int | None, typer.Option(min=0, help="Maximum number of lines.")] = None,
) -> None:
    """List rejected rows, one line per broken rule: file, line, column, value, rule, and the rule as a sentence.

    Example: mini-platform rejects stations --file 12 --csv
    """
    if as_csv and as_json:
        raise MistakeError("Use either --csv or --json.")
    chosen = dataset_named(dataset)
    platform = open_platform(chosen)
    if file is not None:
        ledger_row(platform, chosen, file)
    names = [name for name in REJECTS if name != "record" or chosen.may_share_lines]
    rows = itertools.islice(_rejects(platform, chosen, file, names), limit)
    if as_csv:
        print_csv(names, rows)
    elif as_json:
        print_json(rows)
    else:
        headings = {"file_id": "id"} | {name: name for name in names if name != "file_id"}
        headings |= {"record": "element"} if "record" in names else {}
        print_table(headings, rows, f"{chosen.name} has no rejected rows{'' if file is None else f' of file {file}'}.")


def _rejects(
    platform: "Platform", dataset: "Dataset", file_id: int | None, names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    from mini_platform.warehouse import quarantine

    with platform.engine.connect() as conn:
        for row in quarantine.rejects(conn, dataset, file_id=file_id):
            yield {**{name: row[name] for name in names if name != "sentence"}, "sentence": row["reason"]}


def ledger_row(platform: "Platform", dataset: "Dataset", file_id: int) -> Any:
    """Return the ledger row of a file by its id.

    Raises:
        MistakeError: the dataset has no such file.
    """
    from sqlalchemy import select

    from mini_platform.warehouse.tables import files as ledger

    with platform.engine.connect() as conn:
        row = conn.execute(select(ledger).where(ledger.c.dataset == dataset.name, ledger.c.file_id == file_id)).first()
    if row is None:
        raise MistakeError(f"{dataset.name} has no file {file_id}. See: mini-platform files {dataset.name}")
    return row
