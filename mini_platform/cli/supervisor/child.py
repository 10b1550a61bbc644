"""One process under the supervisor, and the finding of all that descend from it.

Here: start, log filter, stop of one child; finding and ending every process of a home by the mark in its environment.
Not here: which processes there are (`processes.py`) and when they start (`lifecycle.py`).
"""

from __future__ import annotations

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

from mini_platform.config.settings import PROJECT

MARK = "MINI_PLATFORM_SUPERVISED"
"""Environment variable of every supervised process and, by inheritance, of its descendants; its value is the home."""
SHOWN_EVENTS = ("RUN_START", "RUN_SUCCESS", "RUN_FAILURE", "RUN_CANCELED")
LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\S* [+-]\d{4} - (?P<logger>\S+) - (?P<level>[A-Z]+) - (?P<message>.*)"
)
"""A line of Dagster's log: time, logger, level, message."""
SERIOUS = {"WARNING", "ERROR", "CRITICAL"}
RUN_EVENT = re.compile(r"(?P<job>\S+) - (?P<run>[0-9a-f-]{36}) - \d+ - (?:\S+ - )?(?P<event>[A-Z_]+) - (?P<message>.*)")
"""The message of a line about a run: job, run, process, perhaps a step, event, sentence."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
KILL_SECONDS = 15.0
"""How long a process may take to end on SIGTERM. The web server and the daemon need about one second."""

LOG_BYTES = 10 * 2**20
"""A log that is longer is put aside as `.log.1`."""

Say = Callable[[str, str], None]
"""Shows one line of the log: level, message."""


def worth_showing(line: str) -> tuple[str, str] | None:
    """Pick from a log what a user wants to see: starts and ends of runs, warnings and errors.

    Returns:
        Level and message; None for noise, and for stack traces, which are in the file of the log.
    """
    if line.startswith("{"):
        return _of_the_api(line)
    found = LINE.match(COLOUR.sub("", line.rstrip()))
    if not found:
        return None
    level, message = found["level"], found["message"]
    if run := RUN_EVENT.match(message):
        message = f"{run['event'].lower().replace('_', ' ')} {run['run'][:8]}: {run['message']}"
        if run["event"] in SHOWN_EVENTS:
            return ("INFO" if level == "DEBUG" else level), message
    return (level, message) if level in SERIOUS else None


def _of_the_api(line: str) -> tuple[str, str] | None:
    """The same of a line of the API's log, which is JSON."""
    try:
        said = json.loads(line)
        level = str(said["level"]).upper()
        return (level, str(said["event"])) if level in SERIOUS else None
    except (ValueError, KeyError):
        return None


class ChildProcess:
    """A process in a session of its own, so that Ctrl-C reaches only the supervisor, which then ends it in order."""

    def __init__(self, name: str, arguments: Sequence[str], home: Path, say: Say) -> None:
        self.name = name
        self.started = time.monotonic()
        environment = os.environ | {"DAGSTER_HOME": str(home / "dagster"), "PYTHONUNBUFFERED": "1", MARK: str(home)}
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self._log = home / f"{name}.log"
        self._say = say
        threading.Thread(target=self._read, name=f"log of {name}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.exit_code is None

    def _read(self) -> None:
        """Write all that it says to its file, and show what passes the filter."""
        file = self._log.open("a")
        for line in self._process.stdout or ():
            if file.tell() > LOG_BYTES:
                file.close()
                self._log.replace(self._log.with_suffix(".log.1"))
                file = self._log.open("a")
            file.write(line)
            file.flush()
            if found := worth_showing(line):
                self._say(*found)
        file.close()


def marked(home: Path) -> list[psutil.Process]:
    """Every process that descends from a supervisor of this home, even if its parent is gone; never Postgres."""
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            ours = process.pid != os.getpid() and process.info["name"] != "postgres"
            if ours and process.environ().get(MARK) == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def end(processes: Iterable[psutil.Process], seconds: float = KILL_SECONDS) -> list[int]:
    """SIGTERM, then SIGKILL to what is left after a while.

    Returns:
        The ids of the processes that exist still (none, unless the kernel holds one).
    """
    alive = list(processes)
    for signalled in (psutil.Process.terminate, psutil.Process.kill):
        for process in alive:
            try:
                signalled(process)
            except psutil.NoSuchProcess:
                continue
        _, alive = psutil.wait_procs(alive, timeout=seconds)
        alive = [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    return [process.pid for process in alive]
