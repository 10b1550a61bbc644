"""The state of a home's supervisor, for `down`, `status` and the next `up`: the pid file and `up.json`."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mini_platform.config.running import pid_file, running
from mini_platform.config.settings import Settings

PREFIX = "MINI_PLATFORM_"
PORTS = {"api_port": "the dashboard", "dagster_port": "Dagster's UI"}
"""Settings of the ports that the supervisor's servers listen on, and the names of these servers."""


class PlatformError(RuntimeError):
    """The platform cannot start; the message says why and what to do."""


def read_state(home: Path) -> dict[str, Any]:
    """Return the state of the last supervisor: `ready` (its pid), `since`, `owns_postgres`; empty if there is none."""
    try:
        state: dict[str, Any] = json.loads(_state_file(home).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return state


def write_state(home: Path, *, ready: bool, owns_postgres: bool) -> None:
    """Write the state of this process, for `read_state`."""
    state = {
        "ready": os.getpid() if ready else None,
        "since": dt.datetime.now().astimezone().isoformat(timespec="seconds"),
        "owns_postgres": owns_postgres,
    }
    new = _state_file(home).with_suffix(".new")
    new.write_text(json.dumps(state))
    new.replace(_state_file(home))


def remove_state(home: Path) -> None:
    """Remove the state: nothing runs any more."""
    _state_file(home).unlink(missing_ok=True)


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


def _state_file(home: Path) -> Path:
    return home / "up.json"
