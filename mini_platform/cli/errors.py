"""Expected errors, such as a user's mistake or an unreachable database, end as a sentence and an exit code, not a traceback."""

from __future__ import annotations

import errno
from typing import Any

import typer
from typer.core import TyperGroup

from mini_platform.cli.examples import end_with_example
from mini_platform.cli.output import doing

FAILED, USAGE = 1, 2
"""Exit codes: an error in the data or the platform; an error in the arguments or the settings."""


class MistakeError(Exception):
    """The user requested something that does not exist or make sense; the message is a sentence. Exit code 2.

    Unlike Typer's own `BadParameter` it is shown on one line, at any width of the terminal, so that it can be searched for.
    """


class ErrorReportingGroup(TyperGroup):
    """The group of all commands; reports expected errors as sentences."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        end_with_example(self)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an expected error ends it with its exit code. Others are bugs, and propagate."""
        try:
            with doing("Starting"):
                return super().invoke(ctx)
        except Exception as error:
            report = sentence(error)
            if report is None:
                raise
            message, code = report
        typer.echo(message, err=True)
        raise typer.Exit(code)


def sentence(error: Exception) -> tuple[str, int] | None:
    """Return the message and the exit code of an expected error; None for a bug."""
    if isinstance(error, MistakeError):
        return str(error), USAGE
    # Compared by name: importing the classes of libraries that were not needed so far would be slow.
    kinds = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if kinds & {
        "mini_platform.BackupError",
        "mini_platform.DatabaseAwayError",
        "mini_platform.EmbeddedPostgresError",
        "mini_platform.HistoryError",
        "mini_platform.MetabaseError",
        "mini_platform.MismatchError",
        "mini_platform.NewerDatabaseError",
        "mini_platform.PlatformError",
        "mini_platform.RawStoreAwayError",
        "mini_platform.RolesError",
        "mini_platform.SocketFolderError",
        "mini_platform.VaultError",
    }:
        return str(error), FAILED
    if kinds & {
        "mini_platform.DeclarationError",
        "mini_platform.ProjectError",
        "mini_platform.SourceError",
        "mini_platform.YamlError",
    }:
        return str(error), USAGE
    if "pydantic_core.ValidationError" in kinds:
        from mini_platform.config.settings import invalid

        return "\n".join(f"{name} is not valid: {why}." for name, why in invalid(error)), USAGE  # type: ignore[arg-type]
    if kinds & {f"sqlalchemy.{kind}" for kind in ("OperationalError", "IntegrityError", "DataError", "InternalError")}:
        message = " ".join(str(getattr(error, "orig", error)).split())
        return f"The database failed: {message}", FAILED
    if isinstance(error, OSError) and error.errno != errno.EPIPE:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", FAILED
    return None
