"""A user's mistake, or a database that is away, is a sentence and an exit code, never a traceback."""

from __future__ import annotations

import errno
from typing import Any

import typer
from typer.core import TyperGroup

FAILED, USAGE = 1, 2
"""Exit codes: something is wrong with the data or the platform; something is wrong with what was typed or set."""


class MistakeError(Exception):
    """The user asked for something that does not exist or make sense; the message is a sentence. Exit code 2.

    Unlike Typer's own `BadParameter` it is shown on one line, whatever the terminal's width: it can be searched for.
    """


class Sentences(TyperGroup):
    """The group of all commands; says in a sentence what went wrong outside of the program."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error of a known kind ends it with its exit code. Others are bugs, and propagate."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            known = _sentence(error)
            if known is None:
                raise
            sentence, code = known
        typer.echo(sentence, err=True)
        raise typer.Exit(code)


def _sentence(error: Exception) -> tuple[str, int] | None:
    """What to say about an error, and the exit code; None for one that is nobody's mistake but ours."""
    if isinstance(error, MistakeError):
        return str(error), USAGE
    # An error of a library was raised by it, so importing its class now costs nothing that was not paid already.
    kinds = {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if kinds & {
        "mini_platform.BackupError",
        "mini_platform.DatabaseAwayError",
        "mini_platform.EmbeddedPostgresError",
        "mini_platform.MetabaseError",
        "mini_platform.MismatchError",
        "mini_platform.NewerDatabaseError",
        "mini_platform.PlatformError",
        "mini_platform.RawStoreAwayError",
        "mini_platform.RolesError",
        "mini_platform.VaultError",
    }:
        return str(error), FAILED
    if kinds & {"mini_platform.DeclarationError", "mini_platform.SourceError", "mini_platform.YamlError"}:
        return str(error), USAGE
    if "pydantic_core.ValidationError" in kinds:
        from mini_platform.config.settings import invalid

        return "\n".join(f"{name} is not valid: {why}." for name, why in invalid(error)), USAGE  # type: ignore[arg-type]
    if "sqlalchemy.OperationalError" in kinds:
        said = " ".join(str(getattr(error, "orig", error)).split())
        return f"The database failed: {said}", FAILED
    if isinstance(error, OSError) and error.errno != errno.EPIPE:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", FAILED
    return None
