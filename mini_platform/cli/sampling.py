"""Sample files."""

import sys
from pathlib import Path
from typing import IO, Annotated

import typer

from mini_platform.cli.context import dataset_named
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import print_json, progress_bar, say


def sample(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its name.")],
    out: Annotated[Path, typer.Option(help="File to write; - is the standard output.")],
    rows: Annotated[int, typer.Option(min=0, help="Rows, without the header.")] = 1000,
    dirty: Annotated[float, typer.Option(min=0, max=1, help="Share of the rows that break a rule.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same file.")] = 0,
    form: Annotated[
        str | None,
        typer.Option(
            "--format", help="csv, jsonl (lines) or json (a list); by default what the name of the file says."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say what was written as JSON.")] = False,
) -> None:
    """Write a realistic file of a dataset, a share of its rows spoiled by each kind of dirt in turn."""
    from mini_platform.operations.sampling import FORMS, form_of, write_sample

    chosen = dataset_named(dataset)
    known = next((known for known in FORMS if known == form), None)
    if form and not known:
        raise MistakeError(f"{form!r} is no format. There are: {', '.join(FORMS)}.")
    if not out.parent.is_dir():
        raise MistakeError(f"{out.parent} is not a folder.")
    target: Path | IO[bytes] = sys.stdout.buffer if str(out) == "-" else out
    done = 0
    with progress_bar(f"Writing {out.name}", rows, in_bytes=False) as advance:

        def report(written: int) -> None:
            nonlocal done
            advance(written - done, None)
            done = written

        try:
            summary = write_sample(chosen, target, rows, dirty, seed, report, known or form_of(chosen, out.name))
        except ValueError as error:
            raise MistakeError(str(error)) from error
    if as_json and target is out:
        print_json([{"file": str(out), "rows": summary.rows, "dirty": summary.dirty}])
    elif target is out:
        kinds = f" in {len(summary.dirty)} kinds" if summary.dirty else ""
        say(f"{out}: {summary.rows:,} rows, {sum(summary.dirty.values()):,} of them dirty{kinds}.")
