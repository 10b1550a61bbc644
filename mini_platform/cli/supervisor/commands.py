"""The commands `up`, in the foreground or the background, `down` and `status`."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from types import FrameType
from typing import Any

import psutil
from rich.console import Console

from mini_platform.cli.errors import sentence
from mini_platform.cli.supervisor.child import end, marked
from mini_platform.cli.supervisor.lifecycle import Supervisor
from mini_platform.cli.supervisor.log_files import LogFile, output_log
from mini_platform.cli.supervisor.readiness import addresses
from mini_platform.cli.supervisor.state import pid_file_lock, remove_state, supervisor_pid
from mini_platform.config.home import make_home
from mini_platform.config.project import project
from mini_platform.config.running import read_state
from mini_platform.config.settings import Settings, load_settings
from mini_platform.operations.answering import api_answers, dagster_answers
from mini_platform.rows.wording import plural
from mini_platform.warehouse import embedded

STOP_SECONDS = 90.0
"""Time that a supervisor has to stop everything: three times `KILL_SECONDS`, and Postgres's last checkpoint."""


class _Stop(Exception):  # noqa: N818 - a request, not an error
    """SIGINT, SIGTERM or SIGHUP was received."""


def up(detach: bool = False) -> int:
    """Start everything and run until Ctrl-C or SIGTERM; or start it in the background and return when it is ready.

    Returns:
        The exit code: 0 after a normal end (or if it runs already), 1 if it could not start.
    """
    settings = load_settings()
    make_home(settings.home)
    if running := supervisor_pid(settings.home):
        _console().print(f"Already running (process {running}): {addresses(settings)}")
        return 0
    return _up_in_background(settings, _console()) if detach else run_in_foreground()


def run_in_foreground() -> int:
    """Start everything and run until a signal arrives; nothing of this home may run yet.

    Returns:
        The exit code, as of `up`.
    """
    settings, console = load_settings(), _console()
    _stop_on_signals()
    supervisor = Supervisor(settings, console)
    try:
        # The lock on the pid file is held as long as this process lives, so that a second `up` fails and `down` finds it.
        # A signal raises `_Stop` wherever the start or the watch is; `stop` runs in any case, also after a start that failed
        # halfway, and ends whatever was started until then.
        with pid_file_lock(settings.home):
            try:
                supervisor.start()
                supervisor.watch()
            except _Stop:
                pass
            finally:
                supervisor.stop()
    except Exception as error:
        report = sentence(error)
        if report is None:
            raise
        message, code = report
        console.print(message, style="red", markup=False)
        return code
    return 0


def down() -> int:
    """Stop the platform of this home, however it was started, and check that every process is gone.

    Returns:
        The exit code: 0 if nothing runs any more, 1 if a process cannot be ended.
    """
    settings, console = load_settings(), _console()
    running, had_postgres = supervisor_pid(settings.home), embedded.pid(settings.home) is not None
    processes, ended = marked(settings.home), []
    if running:
        console.print("Stopping…")
        with contextlib.suppress(psutil.NoSuchProcess):
            end([psutil.Process(running)], seconds=STOP_SECONDS)
        ended.append(f"The platform (process {running}) and its {plural(len(processes), 'process', 'processes')}")
    elif processes:
        ended.append(f"{plural(len(processes), 'process', 'processes')} that a killed platform left behind")
    remaining = end(marked(settings.home))
    embedded.stop(settings.home, console.print)
    remove_state(settings.home)
    if remaining:
        console.print(f"[red]These processes cannot be ended: {remaining}[/red]")
        return 1
    for what in [*ended, *(["Postgres"] if had_postgres else [])]:
        console.print(f"{what} stopped.")
    if not ended and not had_postgres:
        console.print("Nothing was running.")
    return 0


def status() -> dict[str, Any]:
    """Return the facts for `mini-platform status`: primitive values only, no password."""
    settings = load_settings()
    running, state = supervisor_pid(settings.home), read_state(settings.home)
    answers = running is not None and api_answers(settings)  # otherwise it may be another project's
    return {
        "running": running is not None,
        "pid": running,
        "since": state.get("since") if running else None,
        "api_url": settings.api_url,
        "api_answers": answers,
        "dagster_url": settings.dagster_url,
        "dagster_answers": running is not None and dagster_answers(settings),
        "parts": state.get("parts", {}) if running else {},
        "processes": {process.pid: _command_words(process) for process in marked(settings.home)},
        "postgres": "DATABASE_URL" if settings.database_url else "embedded",
        "postgres_pid": None if settings.database_url else embedded.pid(settings.home),
        "home": str(settings.home),
        "data": str(settings.data),
        "invalid_declarations": _invalid_declarations(settings),
    }


def describe(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the parts of `status` for people: since when each runs or is down, and how often it ended."""
    sentences = []
    for name, part in parts.items():
        sentence = f"{name} {'runs' if part['running'] else 'is down'} since {part['since']}"
        if part["deaths"]:
            sentence += (
                f" (ended {plural(part['deaths'], 'time')} in a row since {part['failing_since']}: {part['why']}"
            )
            sentence += f"; starts again at {part['next_start']})" if part["next_start"] else ")"
        sentences.append(sentence)
    return "; ".join(sentences)


def _invalid_declarations(settings: Settings) -> list[str]:
    """Return a sentence for each declaration that cannot be used; those that the database refuses only if it answers."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    from mini_platform.declare.columns import DeclarationError
    from mini_platform.platform import Platform
    from mini_platform.warehouse.connection import DatabaseAwayError, database_url, engine

    platform = Platform()
    try:
        if settings.database_url or embedded.is_running(settings.home):
            with contextlib.suppress(DatabaseAwayError, SQLAlchemyError):
                url = database_url(settings)
                if make_url(url).get_backend_name() == "postgresql":
                    database = engine(url)
                    platform.examine(database)
                    database.dispose()
        return [declaration.message for declaration in platform.invalid]
    except DeclarationError as error:
        return [str(error)]


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _command_words(process: psutil.Process) -> str:
    """Return the characteristic words of a process's command line."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()[1:4])[:60]
    return ""


def _stop_on_signals() -> None:
    def on_signal(number: int, _frame: FrameType | None) -> None:
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)  # ignore further signals: the stop must not be interrupted
        raise _Stop(signal.Signals(number).name)

    # Set even if SIGINT was inherited as ignored, as in a script's background: Dagster's processes would inherit that,
    # and with SIGINT ignored they do not end on SIGTERM either.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)


def _up_in_background(settings: Settings, console: Console) -> int:
    """Start a supervisor that outlives this process, and show its log until it is ready or has ended."""
    log = output_log(settings.home)
    if log.exists():
        LogFile(log, settings).doRollover()
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mini_platform.cli.supervisor"],
            cwd=project().folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    shown_lines = 0
    while True:
        ended, ready = process.poll() is not None, read_state(settings.home).get("ready") == process.pid
        lines = log.read_text(errors="replace").splitlines()
        for line in lines[shown_lines:]:
            console.print(line, markup=False)
        shown_lines = len(lines)
        if ready:
            console.print(f"Running in the background; log: {log}; stop it with: mini-platform down", markup=False)
            return 0
        if ended:
            return process.returncode or 1
        time.sleep(0.1)
