"""Forgetting a person."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mini_platform.cli.context import dataset_named, open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import print_json, print_table, progress_bar, say
from mini_platform.cli.runs import process

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset
    from mini_platform.operations.forget import Forgotten


def forget(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its name.")],
    value: Annotated[
        str,
        typer.Argument(
            metavar="VALUE", help="What a hashed column has of the person, such as an e-mail address; - reads it."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Erase a person: from tables, quarantine, raw files and the drop folder. Doing it twice changes nothing more.

    Raw files are rewritten without the person's records, or dropped where that cannot be; the ledger says so. Somebody who
    has the value must give it as it was, but case and space do not matter. Exit code 1 if a file could not be searched.
    """
    from sqlalchemy import func, select

    from mini_platform.operations.forget import forget as forget_person
    from mini_platform.warehouse.tables import files

    chosen = dataset_named(dataset)
    platform = open_platform()
    text = sys.stdin.readline().strip() if value == "-" else value
    kept = select(func.coalesce(func.sum(files.c.bytes), 0)).where(
        files.c.dataset == chosen.name, files.c.same_as.is_(None), files.c.raw_dropped_at.is_(None)
    )
    with platform.engine.connect() as conn:
        total = int(conn.scalar(kept) or 0)
    with progress_bar("Searching raw files", total) as advance:
        try:
            done = forget_person(
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
    again = process(platform, chosen, done.queued) if done.queued else None
    if as_json:
        print_json([{"dataset": chosen.name, **done.as_dict()}])
    else:
        _show(chosen, done)
    for sentence in done.unread:
        say(sentence)
    if again and again.failure:
        say(f"The files that hold what was there before could not be loaded again: {again.failure}")
    if done.unread or (again and again.failure):
        raise typer.Exit(1)


def _show(dataset: "Dataset", done: "Forgotten") -> None:
    if done.nothing:
        say(f"Nothing of this person was found in {dataset.name}.")
        return
    deleted = [{"table": table, "rows": rows} for table, rows in done.rows.items()]
    print_table({"table": "deleted from", "rows": "rows"}, deleted, "")
    where = [{"where": f"raw file {item['file_id']}", **item} for item in done.files]
    where += [{"where": f"data/{dataset.name}/", **item} for item in done.dropped_files]
    if where:
        typer.echo()
        columns = {"where": "where", "name": "name", "records": "records", "outcome": "outcome"}
        print_table(columns, where, "")
    if done.queued:
        say(f"Loaded again, as they hold what deleted rows were before: files {', '.join(map(str, done.queued))}.")
