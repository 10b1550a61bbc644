"""A new dataset, drafted from a sample."""

import keyword
import re
from pathlib import Path
from typing import Annotated

import typer

from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import say

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
TAKEN_TABLES = ("quality_report", "raw_csv", "raw_json", "raw_files")
"""Names of other assets of every dataset."""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the dataset: small letters, digits and _.")],
    sample: Annotated[Path, typer.Option("--from", metavar="FILE", help="A CSV or JSON file to learn from.")],
    table: Annotated[str | None, typer.Option(help="Name of its table; otherwise that of the dataset.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write instead of the one beside the other datasets.")
    ] = None,
) -> None:
    """Draft a dataset from a sample: types, keys, empty values, how the file is written. Read it, then load the sample.

    The draft is a file to be edited. It runs as it is, and takes every well-formed row of its sample.
    """
    from mini_platform.operations.drafting import infer
    from mini_platform.platform import Platform
    from mini_platform.rows.readers import RefusedFileError

    table = name if table is None else table
    _refuse_name("dataset", name)
    _refuse_name("table", table)
    platform = Platform()
    known = platform.datasets
    if name in known:
        raise MistakeError(f"There is a dataset {name!r} already.")
    if other := next((d.name for d in known.values() if d.table == table), None):
        raise MistakeError(f"The dataset {other} has a table {table!r} already; choose another one with --table.")
    target = out or platform.registry.folder / f"{name}.py"
    if target.exists():
        raise MistakeError(f"{target} exists already; nothing was written.")
    if not target.parent.is_dir():
        raise MistakeError(f"{target.parent} is not a folder.")
    if not sample.is_file():
        raise MistakeError(f"{sample} is not a file.")
    try:
        found = infer(sample, name, table, platform.read_limits)
    except RefusedFileError as refusal:
        raise MistakeError(f"{sample.name}: {refusal}") from refusal
    with target.open("x", encoding="utf-8") as file:
        file.write(found.text)
    for sentence in found.told:
        say(sentence)
    columns = found.drafted.columns
    key = ", ".join(found.drafted.key) or "file and line, as no columns tell the rows apart"
    say(f"{target}: {len(columns)} columns from {found.drafted.rows:,} rows; key: {key}.")
    if people := [column.name for column in columns if column.personal]:
        say(f"About people, it seems, and masked: {', '.join(people)}.")
    if out is None:
        folder = platform.settings.data / name
        folder.mkdir(parents=True, exist_ok=True)
        say(f"Next: read {target.name}, then `mini-platform load {name} {sample}`.")
        say(f"Or reload Dagster, and drop files into {folder}/.")


def _refuse_name(what: str, name: str) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise MistakeError(
            f"{name!r} cannot name a {what}: it begins with a small letter, then up to 39 small letters, digits and _."
        )
    if what == "table" and (name in TAKEN_TABLES or name.startswith("staging_")):
        raise MistakeError(f"The table cannot be called {name!r}: another asset is. Choose another one with --table.")
