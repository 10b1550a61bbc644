"""Commands that inspect declarations and stored data: their consistency, and the origin of a row."""

from typing import TYPE_CHECKING, Annotated

import typer

from mini_platform.cli.completion import DatasetName, DatasetNameOrAll
from mini_platform.cli.context import dataset_named, open_datasets, open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import doing, print_facts, print_json, print_message, print_table, progress_bar, text, utc
from mini_platform.rows.wording import plural

if TYPE_CHECKING:
    from mini_platform.declare.dataset import Dataset
    from mini_platform.operations.explain import Explanation


def check(
    dataset: DatasetNameOrAll = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")] = False,
) -> None:
    """Try the declarations: derived columns and rules on drawn rows, aggregates, views, pages. It needs no database.

    Exit code 1 if something is wrong; each sentence begins with file and line.

    Example: mini-platform check stations
    """
    from mini_platform.declare.registry import configured

    datasets = configured().datasets if dataset is None else {dataset: dataset_named(dataset)}
    with doing("Trying the declarations"):
        from mini_platform.operations.checking import check as faults_of
        from mini_platform.operations.checking import check_all

        faults = check_all(configured()) if dataset is None else {dataset: faults_of(datasets[dataset])}
    if as_json:
        print_json({"dataset": name, "ok": not sentences, "faults": sentences} for name, sentences in faults.items())
    else:
        for name, sentences in faults.items():
            typer.echo("\n".join(sentences) or f"{name}: {_parts(datasets[name])} are fine")
    if any(faults.values()):
        raise typer.Exit(1)


def _parts(dataset: "Dataset") -> str:
    counts = {"column": dataset.columns, "rule": dataset.rules, "computed table": dataset.computed}
    return ", ".join(plural(len(parts), kind) for kind, parts in counts.items() if parts)


def verify(
    dataset: DatasetNameOrAll = None,
    deep: Annotated[bool, typer.Option("--deep", help="Also read every raw file and compare its hash.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")] = False,
) -> None:
    """Compute every aggregate again from production and compare; check that every raw file exists. Nothing is written.

    Exit code 1 if there is a difference.

    Example: mini-platform verify stations --deep
    """
    from mini_platform.operations import verify as operation

    platform, chosen = open_datasets(dataset)
    with progress_bar(
        "Comparing raw files and tables", operation.raw_bytes(platform, chosen) if deep else None
    ) as advance:
        comparisons = [
            comparison
            for one in chosen
            for comparison in operation.verify(platform, one, lambda size: advance(size, None), deep=deep)
        ]
    for comparison in comparisons:
        if comparison.dropped:
            print_message(
                f"{comparison.dataset}: the raw files of {comparison.dropped} files were dropped, as recorded in the ledger; "
                "they cannot be validated again."
            )
    checks = [comparison.as_dict() for comparison in comparisons]
    if as_json:
        print_json(checks)
    else:
        rows = [
            {**check, "result": "agrees" if check["ok"] else f"{len(check['differences'])} differences"}
            for check in checks
        ]
        print_table(
            {"dataset": "dataset", "check": "check", "compared": "compared", "result": "result"}, rows, "No datasets."
        )
        for check in checks:
            for difference in check["differences"]:
                print_message(f"{check['dataset']} {check['check']}: {text(difference)}")
    if not all(comparison.ok for comparison in comparisons):
        raise typer.Exit(1)


def explain(
    dataset: DatasetName,
    key: Annotated[
        list[str], typer.Argument(metavar="KEY", help="Values of the row's key, in the order of its columns.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the origin of a production row, and every occurrence of its key in the raw files.

    Exit code 1 if there is no such row; occurrences in files, and why they were rejected, are shown even then.

    Example: mini-platform explain stations S1 2026-06-01
    """
    from sqlalchemy import func, select

    from mini_platform.operations.explain import KeyTextError, explain_row, parse_key
    from mini_platform.warehouse.tables import files

    chosen = dataset_named(dataset)
    try:
        values = parse_key(chosen, key)
    except KeyTextError as error:
        raise MistakeError(str(error)) from error
    platform = open_platform(chosen)
    raw_bytes = select(func.coalesce(func.sum(files.c.bytes), 0)).where(
        files.c.dataset == chosen.name, files.c.same_as.is_(None)
    )
    with platform.engine.connect() as conn:
        total = int(conn.scalar(raw_bytes) or 0)
        with progress_bar("Reading raw files", total) as advance:
            explanation = explain_row(
                conn, chosen, values, platform.raw_files(chosen), lambda size: advance(size, None)
            )
    if as_json:
        print_json([explanation.as_dict()])
    else:
        _show(chosen, explanation)
    if explanation.row is None:
        print_message(f"No row of production.{chosen.table} has the key {text(explanation.key)}.")
        raise typer.Exit(1)


def _show(dataset: "Dataset", explanation: "Explanation") -> None:
    if explanation.row is not None:
        print_facts(explanation.row)
        origin = {
            "file": f"{explanation.file_name} (file {explanation.file_id}, version {explanation.version})",
            "line": explanation.line,
            "loaded at": utc(explanation.loaded_at) if explanation.loaded_at else None,
            "run": explanation.run_id,
            "rules passed": ", ".join(explanation.rules),
        }
        typer.echo()
        print_facts(origin)
        typer.echo()
    position = ["file", "version", "line", *(["record"] if any(o.record > 1 for o in explanation.occurrences) else [])]
    columns = {f"_{name}": name for name in position} | {c.name: c.name for c in dataset.staged_columns}
    occurrences = [
        {**o.values, **{f"_{name}": getattr(o, name) for name in position}, "_verdict": o.verdict, "_why": o.reasons}
        for o in explanation.occurrences
    ]
    print_table(columns | {"_verdict": "verdict", "_why": "why"}, occurrences, "No raw file has a row with this key.")
    for problem in explanation.unread:
        print_message(problem)
