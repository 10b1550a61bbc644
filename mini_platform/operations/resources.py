"""Resources that run out or drift while the platform runs: disk space, connections of the database, clocks, logs.

Here: measuring them, for the doctor and the watchdog, and the incidents of those that are short. Not here: how long one must be
short (`watchdog.py`), whether a database has enough connections at all (`warehouse/usable.py`).
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text

from mini_platform.config.settings import Settings
from mini_platform.operations.incidents import Incident, Kind
from mini_platform.rows.wording import plural
from mini_platform.warehouse import embedded
from mini_platform.warehouse.usable import connection_use

FREE_BYTES = (10 * 2**30, 2**30)
FREE_INODES = (100_000, 10_000)
"""Free space below which there is a warning, and a problem: a load needs about three times the size of its file."""
FREE_SHARES = (0.2, 0.05)
"""The same for small disks, as shares of the whole: the smaller amount counts."""
FREE_CONNECTIONS, FREE_CONNECTIONS_SHARE = 3, 0.05
"""Free connections below which there is a problem; the larger amount counts."""
SKEW_SECONDS = (2.0, 60.0)
"""Clock skew above which there is a warning, and a problem: ages and leases use the database's clock, names and times of
files the host's."""
FREE_SPACE = "Free some space: mini-platform purge --dry-run shows what can be removed."
LOG_TOLERANCE = 2
"""How many times the size that its rotation allows a log may have: one line may be longer than a whole log."""


@dataclass(frozen=True)
class Disk:
    """The file system of a folder: its device, and what is free of its bytes and inodes."""

    folder: Path
    device: int
    free: int
    size: int
    inodes: int
    all_inodes: int

    @property
    def level(self) -> int:
        """Return 0 if enough is free, 1 for a warning, 2 for a problem."""
        by_kind = ((self.free, self.size, FREE_BYTES), (self.inodes, self.all_inodes, FREE_INODES))
        return max(
            sum(free < min(bound, share * whole) for bound, share in zip(bounds, FREE_SHARES, strict=True))
            for free, whole, bounds in by_kind
        )

    def __str__(self) -> str:
        """Return how much is free, as a phrase."""
        return f"{self.free / 2**30:.1f} GiB and {self.inodes:,} inodes are free for {self.folder}"


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def disk(folder: Path) -> Disk:
    """Return the file system that a folder is on, or will be."""
    there = existing(folder)
    of = os.statvfs(there)
    free, size = of.f_bavail * of.f_frsize, of.f_blocks * of.f_frsize
    return Disk(folder, there.stat().st_dev, free, size, of.f_favail, of.f_files)


def disks(settings: Settings) -> list[Disk]:
    """Return the file systems of the home, of the drop folders and of the embedded database, each once."""
    folders = [settings.home, settings.data]
    if settings.database_url is None:
        folders.append(embedded.data_folder(settings.home))
    return list({each.device: each for each in map(disk, reversed(folders))}.values())


def skew(conn: Connection) -> float:
    """Return by how many seconds at least the clocks of this host and of the database differ."""
    before = dt.datetime.now(dt.UTC)
    theirs: dt.datetime = conn.execute(text("SELECT clock_timestamp()")).scalar_one()
    after = dt.datetime.now(dt.UTC)
    return max((before - theirs).total_seconds(), (theirs - after).total_seconds(), 0.0)


@dataclass(frozen=True)
class Reading:
    """The clock of this host at one moment, and one that nobody can set."""

    wall: float
    monotonic: float

    def stepped_back(self, earlier: Reading) -> float:
        """Return by how many seconds the clock was set back since an earlier reading; it runs on while a host sleeps."""
        return max((self.monotonic - earlier.monotonic) - (self.wall - earlier.wall), 0.0)


def reading() -> Reading:
    """Return what the clocks of this host show."""
    return Reading(time.time(), time.monotonic())


def log_sizes(settings: Settings) -> Counter[str]:
    """Return the bytes of each log in the home, together with the older ones that its rotation keeps."""
    sizes: Counter[str] = Counter()
    for path in settings.home.glob("*.log*"):
        try:
            sizes[f"{path.name.partition('.log')[0]}.log"] += path.stat().st_size
        except FileNotFoundError:  # It was just rotated.
            continue
    return sizes


def shortages(conn: Connection, settings: Settings) -> Iterator[Incident]:
    """Yield an incident for each resource that is short now: a disk, a limit of connections, a clock that is off, a log."""
    for each in disks(settings):
        if each.level == 2:
            yield _incident(settings, "disk_low", str(each.folder), f"disk: only {each}.", FREE_SPACE)
    for limit in connection_use(conn):
        if limit.amount - limit.used < max(FREE_CONNECTIONS, FREE_CONNECTIONS_SHARE * limit.amount):
            advice = f"See pg_stat_activity for who has them, or raise {limit.name}."
            message = f"database: {limit.used} of {plural(limit.amount, 'connection')} are in use."
            yield _incident(settings, "connections_low", limit.subject, message, advice)
    if (seconds := skew(conn)) > SKEW_SECONDS[1]:
        message = f"clock: this host and the database differ by {seconds:.0f} s."
        yield _incident(settings, "clock_off", "database", message, "Synchronize both clocks by NTP.")
    allowed = LOG_TOLERANCE * settings.log_bytes * (settings.log_files + 1)
    for name, size in log_sizes(settings).items():
        if size > allowed:
            message = f"{name}: {size / 2**20:.0f} MiB of logs, more than its rotation keeps."
            advice = (
                "See what it is full of; remove old ones, or raise MINI_PLATFORM_LOG_BYTES or MINI_PLATFORM_LOG_FILES."
            )
            yield _incident(settings, "logs_growing", name, message, advice)


def clock_stepped(settings: Settings, seconds: float) -> Incident:
    """Return the incident of a clock that was set back."""
    message = f"clock: that of this host was set back by {seconds:.0f} s."
    advice = "Let NTP slew it. Times in ledger and history may be in the wrong order; what is loaded is not affected."
    return _incident(settings, "clock_off", "host", message, advice)


def _incident(settings: Settings, kind: Kind, subject: str, message: str, advice: str) -> Incident:
    return Incident(kind, subject, None, "", message, advice, settings.links_url, dt.datetime.now(dt.UTC))
