"""The running platform of a home: the process of `mini-platform up`, the ports of its servers, and how its parts are.

Process and ports are in `up.pid`, which that process holds locked as long as it lives, so that what a killed one left behind
counts no more; the rest is in `up.json`.
Here: reading these files. Not here: writing them (`cli/supervisor/state.py`).
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

FAILING_DEATHS = 3
"""Number of ends in a row from which a part of the platform counts as failing."""


class Running(NamedTuple):
    """A running `mini-platform up`: its process id, and the variables of the ports that it uses."""

    pid: int
    ports: Mapping[str, str]


def pid_file(home: Path) -> Path:
    """Return the file of the running platform: a line with the process id, then one for each port, `VARIABLE=port`."""
    return home / "up.pid"


def state_file(home: Path) -> Path:
    """Return the file of the state of the last `mini-platform up`."""
    return home / "up.json"


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


def read_state(home: Path) -> dict[str, Any]:
    """Return the state of the last supervisor: `ready` (its pid), `since`, `owns_postgres`, `parts`; empty if there is none.

    The state of a part, by its name: `running`, its `pid`, and `since` when; `deaths` in a row, `failing_since` the first of
    them, `why` it ended last, and its `next_start`.
    """
    try:
        state: dict[str, Any] = json.loads(state_file(home).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return state
