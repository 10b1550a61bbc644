"""The command `mini-platform`: one module per group of commands.

Here: the list of commands. In the modules: what a user types and what is shown for it. Not here: what the platform does.

Modules of commands import nothing heavy at their top (Dagster, polars, SQLAlchemy, pydantic), so that `--help` is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import typer

from mini_platform.cli.alerting import alerts
from mini_platform.cli.database import db, psql, url
from mini_platform.cli.drafting import new
from mini_platform.cli.errors import Sentences
from mini_platform.cli.forgetting import forget
from mini_platform.cli.inspecting import explain, verify
from mini_platform.cli.keys import key
from mini_platform.cli.listing import files, rejects
from mini_platform.cli.loading import load, reprocess
from mini_platform.cli.operating import backup, doctor, metabase, purge, restore
from mini_platform.cli.sampling import sample
from mini_platform.cli.server import down, serve, status, up
from mini_platform.cli.syncing import sources, sync

app = typer.Typer(
    name="mini-platform",
    cls=Sentences,
    help="Files in, trusted Postgres tables out. Exit codes: 0 done, 1 something is wrong with the data or the platform, "
    "2 wrong usage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

GROUPS: Mapping[str, tuple[Callable[..., None], ...]] = {
    "The platform": (up, down, status, serve),
    "Loading": (load, sync, reprocess, forget),
    "Looking": (files, sources, rejects, explain, verify),
    "Operating": (doctor, backup, restore, purge, metabase),
    "Tools": (new, sample, url),
}
for group, commands in GROUPS.items():
    for command in commands:
        app.command(rich_help_panel=group)(command)
app.add_typer(alerts, name="alerts", rich_help_panel="Operating")
app.add_typer(key, name="key", rich_help_panel="The platform")
app.add_typer(db, name="db", rich_help_panel="Operating")
# What follows `psql` is for psql: nothing of it is ours, not even -h.
app.command(
    rich_help_panel="Tools",
    context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]},
)(psql)
