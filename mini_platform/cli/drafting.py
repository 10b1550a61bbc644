"""The command that drafts a new dataset from a sample."""

import keyword
import re
from pathlib import Path
from typing import Annotated

import typer

from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import doing, print_message

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
TAKEN_TABLES = ("quality_report", "raw_csv", "raw_json", "raw_files")
"""Names of other assets of every dataset."""


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the dataset: lower-case letters, digits and _.")],
    sample: Annotated[Path, typer.Option("--from", metavar="FILE", help="CSV or JSON file to use as the sample.")],
    table: Annotated[str | None, typer.Option(help="Name of the table; by default that of the dataset.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; by default beside the other datasets.")] = None,
) -> None:
    """Draft a dataset from a sample: types, keys, empty values, file format. Review it, then load the sample.

    The draft is a file to be edited. It runs as it is, and accepts every well-formed row of its sample.

    Example: mini-platform new stations --from stations.csv
    """
    from mini_platform.operations.drafting import infer
    from mini_platform.platform import Platform
    from mini_platform.rows.readers import RefusedFileError

    table = name if table is None else table
    _refuse_name("dataset", name)
    _refuse_name("table", table)
    platform = Platform()
    datasets = platform.datasets
    if name in datasets:
        raise MistakeError(f"There is a dataset {name!r} already.")
    if owner := next((d.name for d in datasets.values() if d.table == table), None):
        raise MistakeError(f"The dataset {owner} has a table {table!r} already; choose another name with --table.")
    target = out or platform.registry.folder / f"{name}.py"
    if target.exists():
        raise MistakeError(f"{target} exists already; nothing was written.")
    if not target.parent.is_dir() and out is not None:
        raise MistakeError(f"{target.parent} is not a folder.")
    if not sample.is_file():
        raise MistakeError(f"{sample} is not a file.")
    try:
        with doing(f"Reading {sample.name}"):
            draft = infer(sample, name, table, platform.read_limits)
    except RefusedFileError as refusal:
        raise MistakeError(f"{sample.name}: {refusal}") from refusal
    if not target.parent.is_dir():
        target.parent.mkdir()
        (target.parent / "__init__.py").write_text('"""The datasets of this project: each file declares one."""\n')
    with target.open("x", encoding="utf-8") as file:
        file.write(draft.text)
    for sentence in draft.notes:
        print_message(sentence)
    columns = draft.drafted.columns
    key = ", ".join(draft.drafted.key) or "file and line, as no columns identify a row"
    print_message(f"{target}: {len(columns)} columns from {draft.drafted.rows:,} rows; key: {key}.")
    if personal := [column.name for column in columns if column.personal]:
        print_message(f"Probably personal data, and therefore masked: {', '.join(personal)}.")
    if out is None:
        folder = platform.settings.data / name
        folder.mkdir(parents=True, exist_ok=True)
        print_message(f"Next: read {target.name}, then `mini-platform load {name} {sample}`.")
        print_message(f"Or reload Dagster, and drop files into {folder}/.")


def _refuse_name(kind: str, name: str) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise MistakeError(
            f"{name!r} cannot name a {kind}: use a lower-case letter, then up to 39 lower-case letters, digits and _."
        )
    if kind == "table" and (name in TAKEN_TABLES or name.startswith("staging_")):
        raise MistakeError(
            f"The table cannot be named {name!r}: another asset has this name. Choose another one with --table."
        )
