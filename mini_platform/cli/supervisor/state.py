"""The state of a home's supervisor, for `down`, `status` and the next `up`: the pid file and `up.json`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mini_platform.config.running import pid_file, running, state_file
from mini_platform.config.settings import PREFIX, Settings

PORTS = {"api_port": "the dashboard", "dagster_port": "Dagster's UI"}
"""Settings of the ports that the supervisor's servers listen on, and the names of these servers."""


class PlatformError(RuntimeError):
    """The platform cannot start; the message says why and what to do."""


def write_state(home: Path, **state: Any) -> None:
    """Write the state of this process, for `read_state`."""
    new = state_file(home).with_suffix(".new")
    new.write_text(json.dumps(state))
    new.replace(state_file(home))


def remove_state(home: Path) -> None:
    """Remove the state: nothing runs any more."""
    state_file(home).unlink(missing_ok=True)


def supervisor_pid(home: Path) -> int | None:
    """Return the process id of the running supervisor; None if none runs."""
    platform = running(home)
    return platform.pid if platform else None


@contextlib.contextmanager
def pid_file_lock(home: Path) -> Iterator[None]:
    """Hold the pid file. The operating system frees it when this process ends, in whatever way.

    Raises:
        PlatformError: another process holds it.
    """
    with pid_file(home).open("a+") as file:
        deadline = time.monotonic() + 1
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # perhaps only a process that reads it, and holds the lock for a moment
                if time.monotonic() > deadline:
                    raise PlatformError("Another `mini-platform up` is starting.") from None
                time.sleep(0.02)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def write_ports(settings: Settings) -> None:
    """Add the ports of the servers to the pid file, from which the settings of other processes have them."""
    lines = (f"{PREFIX}{name.upper()}={getattr(settings, name)}\n" for name in PORTS)
    with pid_file(settings.home).open("a") as file:
        file.write("".join(lines))  # in one piece, as others may be reading
