"""The command that exports rows."""

import sys
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mini_platform.cli.completion import DatasetName
from mini_platform.cli.context import dataset_named, open_platform
from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import doing, print_message


class Form(StrEnum):
    """The format of an export."""

    csv = "csv"
    json = "json"
    ndjson = "ndjson"


def export(
    dataset: DatasetName,
    out: Annotated[Path, typer.Option(help="File to write; - writes to stdout.")] = Path("-"),
    form: Annotated[Form, typer.Option("--format", help="Format of the rows.")] = Form.csv,
    personal: Annotated[
        bool, typer.Option("--personal", help="Include personal data, whose columns are withheld otherwise.")
    ] = False,
) -> None:
    """Export all rows of a dataset, as the API does: loading the file again changes nothing.

    Without --personal, columns of personal data are left out, and a column `_withheld` names them: such a file is not loaded.
    With it, the audit trail says who exported.

    Example: mini-platform export stations --out stations.csv
    """
    from mini_platform.warehouse import audit
    from mini_platform.web.api import relations
    from mini_platform.web.api.export import exported
    from mini_platform.web.api.personal import ACTION
    from mini_platform.web.api.query import ListQuery

    chosen = dataset_named(dataset)
    if not out.parent.is_dir():
        raise MistakeError(f"{out.parent} is not a folder.")
    if out.is_dir():
        raise MistakeError(f"{out} is a folder; --out takes the name of a file.")
    platform = open_platform(chosen)
    relation = relations.rows(chosen, clear=personal)
    to_stdout = str(out) == "-"
    if personal and chosen.is_personal:
        with platform.engine.begin() as conn:
            audit.record(conn, ACTION, "export", dataset=chosen.name)
    with (
        platform.engine.connect() as conn,
        doing(f"Writing {'rows' if to_stdout else out.name}"),
        nullcontext(sys.stdout.buffer) if to_stdout else out.open("wb") as target,
    ):
        for chunk in exported(conn, relation, ListQuery.parse(relation, (), export=True), form.value):
            target.write(chunk)
    if withheld := [column.name for column in relation.columns.values() if column.masked]:
        print_message(f"Withheld: {', '.join(withheld)}. --personal includes them.")
