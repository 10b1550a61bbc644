"""How things are shown: tables for people, JSON lines and CSV for programs, progress on the terminal.

What is shown goes to stdout, what is said about it to stderr, so that a pipe gets nothing but data.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from mini_platform.rows.spreadsheets import escape_formula
from mini_platform.rows.wording import plain

if TYPE_CHECKING:
    from rich.console import Console

CHUNK_ROWS = 500
"""Rows of a table that are laid out together: a listing of any length needs bounded memory and begins at once."""
SHORT, FOLDED, GAP = 20, 12, 2
"""On a terminal: the widest column that is kept in one piece, the narrowest that others are folded to, the space between."""
WIDE = 100_000
"""Width of a table in a pipe or on a terminal that is too narrow for it: nothing of it is ever cut off."""

Row = Mapping[str, Any]


def say(sentence: str) -> None:
    """Tell the user something that is not part of what was asked for."""
    typer.echo(printable(sentence), err=True)


def text(value: Any) -> str:
    """A value as people read it: times in UTC, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return utc(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    return printable(str(plain(value)))


def printable(words: str) -> str:
    """Text without control characters: a file's content or name must not command the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in words)


def utc(moment: dt.datetime) -> str:
    """A moment in UTC, to the second."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def print_json(rows: Iterable[Row]) -> None:
    """One JSON object per line; moments to the microsecond, decimals in plain digits."""

    def other(value: Any) -> Any:
        if isinstance(value, dt.datetime):
            return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
        return str(plain(value))

    for row in rows:
        typer.echo(json.dumps(row, default=other))


def print_csv(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """CSV that a spreadsheet program can open without running any of it."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(escape_formula(plain(row[name])) for name in columns)
        typer.echo(buffer.getvalue(), nl=False)
        buffer.seek(0)
        buffer.truncate()
    typer.echo(buffer.getvalue(), nl=False)


def print_table(columns: Mapping[str, str], rows: Iterable[Row], nothing: str) -> None:
    """A table for people, whole on a terminal of any width and in a pipe.

    Args:
        columns: names in the rows -> headings.
        rows: as many as there are; they are shown as they come.
        nothing: said where there are none.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    widths: dict[str, int] = {}
    incoming = iter(rows)
    for number in itertools.count():
        chunk = [{name: text(row[name]) for name in columns} for row in itertools.islice(incoming, CHUNK_ROWS)]
        if not chunk:
            if number == 0:
                say(nothing)
            return
        for name, heading in columns.items():
            widths[name] = max(widths.get(name, len(heading)), *(len(row[name]) for row in chunk))
        needed = sum(width if width <= SHORT else FOLDED for width in widths.values()) + GAP * len(widths)
        folds = isatty(sys.stdout) and needed <= terminal.width
        table = Table(box=SIMPLE_HEAD, show_header=number == 0, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for name, heading in columns.items():
            numeric = all(re.fullmatch(r"[\d,]*", row[name]) for row in chunk)
            table.add_column(
                heading,
                overflow="fold",
                justify="right" if numeric else "left",
                no_wrap=widths[name] <= SHORT,
                min_width=None if folds else widths[name],
            )
        for row in chunk:
            table.add_row(*(Text(row[name]) for name in columns))
        # A console of that width: rich never prints wider than its console, and drops the columns that do not fit.
        console = (
            terminal if folds else Console(file=sys.stdout, width=WIDE, highlight=False, markup=False, emoji=False)
        )
        with console.capture() as shown:
            console.print(table, crop=False)
        typer.echo("".join(f"{line.rstrip()}\n" for line in shown.get().splitlines()), nl=False)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Names and values, one below the other."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}  {text(value)}".rstrip())


def _show_nothing(_more: int, _words: str | None = None) -> None:
    """Progress that nobody looks at."""


def isatty(stream: Any) -> bool:
    """Whether a person looks at this stream."""
    return bool(stream is not None and stream.isatty())


@contextmanager
def progress_bar(what: str, total: int | None, *, in_bytes: bool = True) -> Iterator[Callable[[int, str | None], None]]:
    """A bar on stderr where that is a terminal, nothing elsewhere.

    Args:
        what: is going on.
        total: at the end; None if it is not known.
        in_bytes: whether bytes are counted, else rows.

    Yields:
        To be called with how much more is done, and with other words where something else goes on.
    """
    if not isatty(sys.stderr):
        yield _show_nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    # A copy of the terminal's descriptor: Dagster turns the process's own stderr into a file while steps run.
    with os.fdopen(os.dup(sys.stderr.fileno()), "w") as terminal:
        console: Console = Console(file=terminal, highlight=False)
        counted = DownloadColumn() if in_bytes else MofNCompleteColumn()
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), counted, TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
            task = bar.add_task(what, total=total)

            def advance(more: int, words: str | None = None) -> None:
                bar.update(task, advance=more, description=words)

            yield advance
