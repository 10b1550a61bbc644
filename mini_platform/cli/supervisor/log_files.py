"""Log files of the supervisor and its children: a full `api.log` becomes `api.log.1`, and the oldest one is removed.

https://docs.python.org/3/library/logging.handlers.html#rotatingfilehandler
"""

from __future__ import annotations

import logging
import os
import shutil
from logging.handlers import RotatingFileHandler
from pathlib import Path

from mini_platform.config.settings import Settings


class LogFile(RotatingFileHandler):
    """A log file of lines that any number of threads write; it rotates between two lines."""

    def __init__(self, path: Path, settings: Settings) -> None:
        super().__init__(path, maxBytes=settings.log_bytes, backupCount=settings.log_files, encoding="utf-8")

    def write(self, line: str) -> None:
        """Append a line."""
        self.handle(logging.makeLogRecord({"msg": line.removesuffix("\n")}))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - overrides
        """Drop the line, as on a full disk: a reader that stopped would block the process that writes."""


def output_log(home: Path) -> Path:
    """Return the log of the supervisor itself, if it runs in the background."""
    return home / "up.log"


def rotate_output(path: Path, settings: Settings) -> None:
    """Rotate the file that is the standard output of this process, if it is full; other outputs are left alone."""
    output = os.fstat(1)
    if not path.exists() or not os.path.samestat(path.stat(), output) or output.st_size < settings.log_bytes:
        return
    # What other threads write meanwhile goes to the old file, then to the new one: the descriptor is replaced at once.
    log = LogFile(path, settings)
    log.doRollover()
    log.close()
    with path.open("a") as new:
        for descriptor in (1, 2):
            os.dup2(new.fileno(), descriptor)


def rotate_appended(path: Path, settings: Settings) -> None:
    """Rotate a log that other processes append to, such as Postgres's, if it is full: copy it, and empty it.

    A line that is written between the two is lost; the processes cannot be told to open another file.
    """
    if not path.exists() or path.stat().st_size < settings.log_bytes:
        return
    log = LogFile(path, settings)
    log.rotator = _copy_and_empty
    log.doRollover()
    log.close()


def _copy_and_empty(source: str, target: str) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError:  # A full disk: the part would push older logs out, again at each attempt.
        Path(target).unlink(missing_ok=True)
        raise
    os.truncate(source, 0)
