"""A process under the supervisor, and the search for all its descendants.

Here: start, log filter and stop of one child; finding and ending every process of a home by a mark in its environment.
Not here: the list of processes (`processes.py`) and when they start (`lifecycle.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil

from mini_platform.cli.supervisor.log_files import LogFile
from mini_platform.config.project import project

MARK = "MINI_PLATFORM_SUPERVISED"
"""Environment variable of every supervised process and, by inheritance, of its descendants; its value is the home."""
SHOWN_EVENTS = ("RUN_START", "RUN_SUCCESS", "RUN_FAILURE", "RUN_CANCELED")
LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\S* [+-]\d{4} - (?P<logger>\S+) - (?P<level>[A-Z]+) - (?P<message>.*)"
)
"""A line of Dagster's log: time, logger, level, message."""
SHOWN_LEVELS = {"WARNING", "ERROR", "CRITICAL"}
RUN_EVENT = re.compile(r"(?P<job>\S+) - (?P<run>[0-9a-f-]{36}) - \d+ - (?:\S+ - )?(?P<event>[A-Z_]+) - (?P<message>.*)")
"""The message of a line about a run: job, run, process, perhaps a step, event, sentence."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
KILL_SECONDS = 15.0
"""Time that a process has to end on SIGTERM. The web server and the daemon need about one second."""

Log = Callable[[str, str], None]
"""A function that shows one line of the log: level, message."""


def worth_showing(line: str) -> tuple[str, str] | None:
    """Return the level and message of a log line if it is of interest to a user: start or end of a run, warning, error.

    Returns:
        Level and message; None for other lines, and for stack traces, which are in the log file.
    """
    if line.startswith("{"):
        return _parse_api_line(line)
    match = LINE.match(COLOUR.sub("", line.rstrip()))
    if not match:
        return None
    level, message = match["level"], match["message"]
    if event := RUN_EVENT.match(message):
        message = f"{event['event'].lower().replace('_', ' ')} {event['run'][:8]}: {event['message']}"
        if event["event"] in SHOWN_EVENTS:
            return ("INFO" if level == "DEBUG" else level), message
    return (level, message) if level in SHOWN_LEVELS else None


def _parse_api_line(line: str) -> tuple[str, str] | None:
    """Return the level and message of a line of the API's log, which is JSON, if it is a warning or an error."""
    try:
        record = json.loads(line)
        level = str(record["level"]).upper()
        return (level, str(record["event"])) if level in SHOWN_LEVELS else None
    except (ValueError, KeyError):
        return None


class ChildProcess:
    """A process in a session of its own, so that Ctrl-C reaches only the supervisor, which then ends it in order."""

    def __init__(self, name: str, arguments: Sequence[str], home: Path, log: Log, file: LogFile) -> None:
        self.name = name
        self.started = time.monotonic()
        environment = os.environ | {"DAGSTER_HOME": str(home / "dagster"), "PYTHONUNBUFFERED": "1", MARK: str(home)}
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=project().folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self._file = file
        self._log = log
        threading.Thread(target=self._read, name=f"log of {name}", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while the process runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        """True if the process runs."""
        return self.exit_code is None

    def _read(self) -> None:
        """Write all output to the log file, and show the lines that pass the filter."""
        with self._process.stdout or contextlib.nullcontext(()) as output:
            for line in output:
                self._file.write(line)
                if shown := worth_showing(line):
                    self._log(*shown)


def marked(home: Path) -> list[psutil.Process]:
    """Return every process that descends from a supervisor of this home, even if its parent is gone; never Postgres."""
    processes = []
    for process in psutil.process_iter(["name"]):
        try:
            is_candidate = process.pid != os.getpid() and process.info["name"] != "postgres"
            if is_candidate and process.environ().get(MARK) == str(home):
                processes.append(process)
        except psutil.Error:
            continue
    return processes


def end(processes: Iterable[psutil.Process], seconds: float = KILL_SECONDS) -> list[int]:
    """Send SIGTERM, then SIGKILL to processes that do not end in time.

    Returns:
        The ids of the processes that still exist (none, unless the kernel holds one).
    """
    alive = list(processes)
    for send_signal in (psutil.Process.terminate, psutil.Process.kill):
        for process in alive:
            try:
                send_signal(process)
            except psutil.NoSuchProcess:
                continue
        _, alive = psutil.wait_procs(alive, timeout=seconds)
        alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    return [process.pid for process in alive]
