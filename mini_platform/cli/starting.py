"""The command that makes a project."""

from pathlib import Path
from typing import Annotated

import typer

from mini_platform.cli.errors import MistakeError
from mini_platform.cli.output import print_message


def init(
    folder: Annotated[Path, typer.Argument(metavar="NAME", help="Folder to make; its name is that of the project.")],
    example: Annotated[
        bool, typer.Option("--example", help="Bring the five datasets that come with the platform, and their samples.")
    ] = False,
) -> None:
    """Make a project: a folder with an example dataset, its sample and test, and what Dagster, Docker and CI need.

    Example: mini-platform init acme
    """
    from mini_platform.operations.scaffold import ScaffoldError, scaffold

    try:
        created = scaffold(folder, examples=example)
    except ScaffoldError as error:
        raise MistakeError(str(error)) from error
    print_message(f"{created.folder}: a project with the datasets {', '.join(created.datasets)}.")
    if created.wheel is None:
        print_message(
            "It depends on the clone that is installed here; install a wheel for a project that can be moved."
        )
    print_message(f"Next: cd {folder} && mini-platform up")
