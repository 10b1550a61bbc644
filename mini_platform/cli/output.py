"""Output of commands: tables for people, JSON lines and CSV for programs, progress on the terminal.

Results go to stdout, messages about them to stderr, so that a pipe receives nothing but data.
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
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import typer

from mini_platform.rows.spreadsheets import escape_formula
from mini_platform.rows.wording import plain

if TYPE_CHECKING:
    from rich.console import Console

CHUNK_ROWS = 500
"""The number of rows that are laid out together: a table of any length needs bounded memory and starts at once."""
SHORT, FOLDED, GAP = 20, 12, 2
"""On a terminal: the widest column that is never folded, the minimum width of a folded one, the space between columns."""
WIDE = 100_000
"""Width of a table in a pipe or on a terminal that is too narrow for it: nothing is cut off."""

STARTED = time.monotonic()
SILENT_SECONDS, BRIEF_SECONDS = 0.7, 0.2
"""A command says what it is doing from this age on, but nothing about a step that ends sooner than the second."""
ERASE = "\r\x1b[2K"
"""Erases the line of a terminal."""

Row = Mapping[str, Any]


def print_message(sentence: str) -> None:
    """Print a message that is not part of the result, to stderr."""
    end_step()
    typer.echo(printable(sentence), err=True)


def text(value: Any) -> str:
    """Return a value as text for people: times in UTC, an empty text for None."""
    if value is None:
        return ""
    if isinstance(value, dt.datetime):
        return utc(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    return printable(str(plain(value)))


def printable(value: str) -> str:
    """Escape control characters: the content or name of a file must not control the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in value)


def utc(moment: dt.datetime) -> str:
    """Return a moment as text in UTC, to the second."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def print_json(rows: Iterable[Row]) -> None:
    """Print one JSON object per line; times to the microsecond, decimals in plain digits."""

    def encode(value: Any) -> Any:
        if isinstance(value, dt.datetime):
            return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
        return str(plain(value))

    for row in rows:
        end_step()
        typer.echo(json.dumps(row, default=encode))


def print_csv(columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Print CSV with formulas escaped, so that a spreadsheet program does not run them."""
    end_step()
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(escape_formula(plain(row[name])) for name in columns)
        typer.echo(buffer.getvalue(), nl=False)
        buffer.seek(0)
        buffer.truncate()
    typer.echo(buffer.getvalue(), nl=False)


def print_table(columns: Mapping[str, str], rows: Iterable[Row], empty_message: str) -> None:
    """Print a table for people, complete on a terminal of any width and in a pipe.

    Args:
        columns: names in the rows -> headings.
        rows: rows of the table; they are printed as they come.
        empty_message: message if there are no rows.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    end_step()
    terminal = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    widths: dict[str, int] = {}
    incoming = iter(rows)
    for number in itertools.count():
        chunk = [{name: text(row[name]) for name in columns} for row in itertools.islice(incoming, CHUNK_ROWS)]
        if not chunk:
            if number == 0:
                print_message(empty_message)
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
        # A console of that width: rich never prints wider than its console, and drops columns that do not fit.
        console = (
            terminal if folds else Console(file=sys.stdout, width=WIDE, highlight=False, markup=False, emoji=False)
        )
        with console.capture() as capture:
            console.print(table, crop=False)
        typer.echo("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()), nl=False)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values, one pair per line."""
    end_step()
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        typer.echo(f"{name:<{width}}  {text(value)}".rstrip())


def _ignore_progress(_amount: int, _description: str | None = None) -> None:
    """Ignore progress."""


def isatty(stream: Any) -> bool:
    """Return True if the stream is a terminal."""
    return bool(stream is not None and stream.isatty())


def _stderr() -> TextIO:
    """Return a copy of stderr: Dagster turns the process's own into a file while steps run. Without a descriptor, stderr."""
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w")
    except (OSError, ValueError):
        return sys.stderr


class _Step:
    """A step of the command, shown by a line on stderr if it takes longer than a moment."""

    current: _Step | None = None

    def __init__(self, what: str) -> None:
        self._what = what
        self._stream = _stderr()
        self._is_copy = self._stream is not sys.stderr
        self._is_transient = isatty(self._stream) and os.environ.get("TERM") != "dumb"
        self._is_shown = False
        self._timer = threading.Timer(max(BRIEF_SECONDS, STARTED + SILENT_SECONDS - time.monotonic()), self._show)
        self._timer.daemon = True
        _Step.current = self
        self._timer.start()

    def _show(self) -> None:
        self._is_shown = True
        self._write(f"{self._what}…" if self._is_transient else f"{self._what}…\n")

    def end(self) -> None:
        """Show nothing any more, and erase the line on a terminal."""
        _Step.current = None
        self._timer.cancel()
        self._timer.join()
        if self._is_shown and self._is_transient:
            self._write(ERASE)
        if self._is_copy:
            self._stream.close()

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a closed pipe is no reason to fail
            self._stream.write(text)
            self._stream.flush()


def end_step() -> None:
    """End what the command is doing, if anything, so that something else can be printed."""
    if _Step.current:
        _Step.current.end()


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Say on stderr what the command is doing, if that takes longer than a moment, until the next step or output.

    On a terminal the line is erased at the end; in a pipe or a log it stays.
    """
    end_step()
    step = _Step(what)
    try:
        yield
    finally:
        if _Step.current is step:
            step.end()


@contextmanager
def progress_bar(what: str, total: int | None, *, in_bytes: bool = True) -> Iterator[Callable[[int, str | None], None]]:
    """Show a progress bar on stderr if that is a terminal, else what the command is doing.

    Args:
        what: description of the work.
        total: total amount of work; None if it is not known.
        in_bytes: True to count bytes, False to count rows.

    Yields:
        A function that takes the additional amount of work done, and optionally a new description.
    """
    if not isatty(sys.stderr):
        with doing(what):
            yield _ignore_progress
        return
    from rich.console import Console

    end_step()
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with _stderr() as terminal:
        console: Console = Console(file=terminal, highlight=False)
        counted = DownloadColumn() if in_bytes else MofNCompleteColumn()
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), counted, TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
            task = bar.add_task(what, total=total)

            def advance(more: int, words: str | None = None) -> None:
                bar.update(task, advance=more, description=words)

            yield advance
