"""The running platform of a home: the process of `mini-platform up`, and the ports of its servers.

They are in `up.pid`, which that process holds locked as long as it lives, so that what a killed one left behind counts no more.
Here: reading the file. Not here: writing it (`cli/supervisor/state.py`).
"""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Running(NamedTuple):
    """A running `mini-platform up`: its process id, and the variables of the ports that it uses."""

    pid: int
    ports: Mapping[str, str]


def pid_file(home: Path) -> Path:
    """Return the file of the running platform: a line with the process id, then one for each port, `VARIABLE=port`."""
    return home / "up.pid"


def running(home: Path) -> Running | None:
    """Return the running platform of a home; None if none runs."""
    try:
        with pid_file(home).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pid, *ports = file.read().splitlines() or ["0"]
                return Running(int(pid), dict(line.split("=", 1) for line in ports)) if int(pid) else None
    except OSError:
        pass
    return None
