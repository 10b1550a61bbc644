"""The command that forgets a person."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mini_platform.cli.completion import DatasetName
from mini_platform.cli.context import dataset_named, open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import print_json, print_message, print_table, progress_bar
from mini_platform.cli.runs import process

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset
    from mini_platform.operations.forget import Forgotten


def forget(
    dataset: DatasetName,
    value: Annotated[
        str,
        typer.Argument(
            metavar="VALUE", help="The person's value of a hashed column, such as an e-mail address; - reads stdin."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Erase a person from tables, quarantine, raw files and the drop folder. Running it twice changes nothing more.

    Raw files are rewritten without the person's records, or dropped if that is not possible; the ledger records it. The value
    must be the original one, except for case and spaces. Exit code 1 if a file could not be searched.

    Example: mini-platform forget customers jane@example.com
    """
    from sqlalchemy import func, select

    from mini_platform.operations.forget import forget as forget_person
    from mini_platform.warehouse.tables import files

    chosen = dataset_named(dataset)
    platform = open_platform(chosen)
    text = sys.stdin.readline().strip() if value == "-" else value
    stored_bytes = select(func.coalesce(func.sum(files.c.bytes), 0)).where(
        files.c.dataset == chosen.name, files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None)
    )
    with platform.engine.connect() as conn:
        total = int(conn.scalar(stored_bytes) or 0)
    with progress_bar("Searching raw files", total) as advance:
        try:
            result = forget_person(
                platform.engine,
                chosen,
                text,
                platform.raw_files(chosen),
                platform.store,
                platform.settings.data / chosen.name,
                lambda size: advance(size, None),
            )
        except ValueError as error:
            raise MistakeError(f"{error}.") from error
    reloaded = process(platform, chosen, result.queued) if result.queued else None
    if as_json:
        print_json([{"dataset": chosen.name, **result.as_dict()}])
    else:
        _show(chosen, result)
    for sentence in result.unread:
        print_message(sentence)
    if reloaded and reloaded.failure:
        print_message(f"Files with earlier versions of deleted rows could not be loaded again: {reloaded.failure}")
    if result.unread or (reloaded and reloaded.failure):
        raise typer.Exit(1)


def _show(dataset: "Dataset", result: "Forgotten") -> None:
    if result.is_empty:
        print_message(f"No data of this person was found in {dataset.name}.")
        return
    deleted = [{"table": table, "rows": rows} for table, rows in result.rows.items()]
    print_table({"table": "deleted from", "rows": "rows"}, deleted, "")
    places = [{"where": f"raw file {item['file_id']}", **item} for item in result.files]
    places += [{"where": f"data/{dataset.name}/", **item} for item in result.dropped_files]
    if places:
        typer.echo()
        columns = {"where": "where", "name": "name", "records": "records", "action": "action"}
        print_table(columns, places, "")
    if result.queued:
        print_message(
            f"Loaded again, as they contain earlier versions of deleted rows: files {', '.join(map(str, result.queued))}."
        )
