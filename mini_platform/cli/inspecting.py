"""Looking into what is stored: does it agree with itself, and where does a row come from?"""

from typing import TYPE_CHECKING, Annotated

import typer

from mini_platform.cli.context import dataset_named, datasets_named, open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import print_facts, print_json, print_table, progress_bar, say, text, utc

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset
    from mini_platform.operations.explain import Explanation


def verify(
    dataset: Annotated[
        str | None, typer.Argument(metavar="DATASET", help="Its name; without one, all of them.")
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read every raw file and compare its bytes with its hash.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per check and line.")] = False,
) -> None:
    """Compute every aggregate anew from production and compare; look for every raw file. Nothing is written.

    Exit code 1 if there is a difference.
    """
    from mini_platform.operations import verify as operation

    chosen = datasets_named(dataset)
    platform = open_platform()
    with progress_bar("Reading raw files", operation.raw_bytes(platform, chosen) if deep else None) as advance:
        found = [
            comparison
            for one in chosen
            for comparison in operation.verify(platform, one, lambda size: advance(size, None), deep=deep)
        ]
    for comparison in found:
        if comparison.dropped:
            say(
                f"{comparison.dataset}: of {comparison.dropped} files the raw file was dropped, as the ledger says; "
                "they cannot be validated again."
            )
    checks = [comparison.as_dict() for comparison in found]
    if as_json:
        print_json(checks)
    else:
        shown = [
            {**check, "result": "agrees" if check["ok"] else f"{len(check['differences'])} differences"}
            for check in checks
        ]
        print_table(
            {"dataset": "dataset", "check": "check", "compared": "compared", "result": "result"}, shown, "No datasets."
        )
        for check in checks:
            for difference in check["differences"]:
                say(f"{check['dataset']} {check['check']}: {text(difference)}")
    if not all(comparison.ok for comparison in found):
        raise typer.Exit(1)


def explain(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its name.")],
    key: Annotated[list[str], typer.Argument(metavar="KEY", help="The row's key values, in the order of the key.")],
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Show where a production row comes from, and everything that raw files ever said of its key.

    Exit code 1 if there is no such row; what files said of it, and why it was rejected, is shown even then.
    """
    from sqlalchemy import func, select

    from mini_platform.operations.explain import KeyTextError, explain_row, parse_key
    from mini_platform.warehouse.tables import files

    chosen = dataset_named(dataset)
    try:
        values = parse_key(chosen, key)
    except KeyTextError as error:
        raise MistakeError(str(error)) from error
    platform = open_platform()
    mine = select(func.coalesce(func.sum(files.c.bytes), 0)).where(
        files.c.dataset == chosen.name, files.c.same_as.is_(None)
    )
    with platform.engine.connect() as conn:
        total = int(conn.scalar(mine) or 0)
        with progress_bar("Reading raw files", total) as advance:
            found = explain_row(conn, chosen, values, platform.raw_files(chosen), lambda size: advance(size, None))
    if as_json:
        print_json([found.as_dict()])
    else:
        _show(chosen, found)
    if found.row is None:
        say(f"No row of production.{chosen.table} has the key {text(found.key)}.")
        raise typer.Exit(1)


def _show(dataset: "Dataset", found: "Explanation") -> None:
    if found.row is not None:
        print_facts(found.row)
        origin = {
            "file": f"{found.file_name} (file {found.file_id}, version {found.version})",
            "line": found.line,
            "loaded at": utc(found.loaded_at) if found.loaded_at else None,
            "run": found.run_id,
            "rules passed": ", ".join(found.rules),
        }
        typer.echo()
        print_facts(origin)
        typer.echo()
    place = ["file", "version", "line", *(["record"] if any(o.record > 1 for o in found.occurrences) else [])]
    columns = {f"_{name}": name for name in place} | {c.name: c.name for c in dataset.staged_columns}
    occurrences = [
        {**o.values, **{f"_{name}": getattr(o, name) for name in place}, "_verdict": o.verdict, "_why": o.reasons}
        for o in found.occurrences
    ]
    print_table(columns | {"_verdict": "verdict", "_why": "why"}, occurrences, "No raw file has a row with this key.")
    for problem in found.unread:
        say(problem)
