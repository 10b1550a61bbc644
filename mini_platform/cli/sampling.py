"""The command that writes sample files."""

import sys
from pathlib import Path
from typing import IO, Annotated

import typer

from mini_platform.cli.completion import DatasetName
from mini_platform.cli.context import dataset_named
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import print_json, print_message, progress_bar


def sample(
    dataset: DatasetName,
    out: Annotated[Path, typer.Option(help="File to write; - writes to stdout.")],
    rows: Annotated[int, typer.Option(min=0, help="Number of rows, without the header.")] = 1000,
    dirty: Annotated[float, typer.Option(min=0, max=1, help="Fraction of invalid rows.")] = 0.0,
    seed: Annotated[
        int, typer.Option(help="Seed of the random values; a day's files of the same seed are the same.")
    ] = 0,
    form: Annotated[
        str | None,
        typer.Option("--format", help="csv, jsonl (lines) or json (a list); by default derived from the file's name."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON.")] = False,
) -> None:
    """Write a realistic sample file of a dataset; --dirty spoils a fraction of its rows by each kind of error in turn.

    Example: mini-platform sample stations --out june.csv --rows 100 --dirty 0.1
    """
    from mini_platform.operations.sampling import FORMS, form_of, write_sample

    chosen = dataset_named(dataset)
    known_form = next((known_form for known_form in FORMS if known_form == form), None)
    if form and not known_form:
        raise MistakeError(f"{form!r} is not a format. The formats are: {', '.join(FORMS)}.")
    if not out.parent.is_dir():
        raise MistakeError(f"{out.parent} is not a folder.")
    target: Path | IO[bytes] = sys.stdout.buffer if str(out) == "-" else out
    written_rows = 0
    with progress_bar(f"Writing {out.name}", rows, in_bytes=False) as advance:

        def report(written: int) -> None:
            nonlocal written_rows
            advance(written - written_rows, None)
            written_rows = written

        try:
            summary = write_sample(chosen, target, rows, dirty, seed, report, known_form or form_of(chosen, out.name))
        except ValueError as error:
            raise MistakeError(str(error)) from error
    if as_json and target is out:
        print_json([{"file": str(out), "rows": summary.rows, "dirty": summary.dirty}])
    elif target is out:
        kinds = f" in {len(summary.dirty)} kinds" if summary.dirty else ""
        print_message(f"{out}: {summary.rows:,} rows, {sum(summary.dirty.values()):,} of them invalid{kinds}.")
