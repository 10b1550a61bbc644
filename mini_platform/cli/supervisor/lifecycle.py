"""The lifecycle of the platform: the order in which everything starts and stops, and restarts in between."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from mini_platform.cli.supervisor.child import end, marked
from mini_platform.cli.supervisor.log_files import output_log, rotate_appended, rotate_output
from mini_platform.cli.supervisor.preflight import (
    api_refusal,
    choose_ports,
    create_schemas,
    drop_samples,
    fail_dead_runs,
    wake_sensors,
)
from mini_platform.cli.supervisor.processes import WATCHDOG, Processes
from mini_platform.cli.supervisor.readiness import addresses, wait_until_ready
from mini_platform.cli.supervisor.state import PlatformError, remove_state, write_ports, write_state
from mini_platform.config import extras
from mini_platform.config.running import read_state
from mini_platform.config.settings import Settings
from mini_platform.dagster.instance import prepare_instance
from mini_platform.dagster.upgrade import upgrade
from mini_platform.declare.registry import RegistryError, registry_of
from mini_platform.warehouse import embedded

FULL_DISK_PAUSE = 30.0
"""Seconds between attempts to start Postgres on a full disk."""

CLOCK_STEP = 5.0
"""Seconds by which a clock is set back, rather than corrected bit by bit."""


class Supervisor:
    """The platform's processes, from one `up` to its stop."""

    def __init__(self, settings: Settings, console: Console) -> None:
        """Create a supervisor that has not started anything yet."""
        self._settings = settings
        self._console = console
        self._processes = Processes(settings, self._log)
        self._declarations: dict[Path, int] = {}
        self._ready = False
        self._reservations: list[socket.socket] = []
        self._owns_postgres = False
        self._postgres_due = 0.0
        self._clock = time.time() - time.monotonic()
        self._printing = threading.Lock()
        self._started_at = time.monotonic()
        self._state: dict[str, Any] = {"since": dt.datetime.now().astimezone().isoformat(timespec="seconds")}

    def start(self) -> None:
        """Start everything in order, and wait until it is ready.

        Raises:
            PlatformError: it cannot start.
        """
        from mini_platform.platform import Platform

        # Orphans first: they may hold the ports. The tables must exist before Dagster and the API start, and Postgres before
        # the tables. Dead runs are failed while the processes start, as that needs Dagster's import of several seconds. Only
        # when everything answers is the state file written as ready, for which `up --detach` waits.
        settings = self._settings
        self._end_orphans()
        settings, self._reservations = choose_ports(settings, self._log)
        write_ports(settings)
        self._settings, self._processes = settings, Processes(settings, self._log)
        self._announce_postgres()
        platform = Platform()
        invalid = create_schemas(platform, self._log)
        upgrade(settings, lambda message: self._log("INFO", message))
        if refusal := api_refusal(settings):
            raise PlatformError(refusal)
        drop_samples(platform, self._log)
        platform.engine.dispose()
        self._log("INFO", "starting Dagster and the API…")
        prepare_instance(settings)
        self._declarations = self._declaration_times()
        self._processes.launch_all()
        fail_dead_runs(settings, self._log)
        wait_until_ready(settings, self._processes)
        self._ready = True
        seconds = time.monotonic() - self._started_at
        self._log("INFO", f"ready after {seconds:.0f} s: {addresses(settings)}, drop files in {settings.data}")
        for warning in (settings.in_clear, *extras.refusals(settings), *invalid):
            if warning:
                self._log("WARNING", warning)
        self._write_state(ready=os.getpid(), parts=self._processes.facts())

    def watch(self) -> None:
        """Restart processes that end, until a signal arrives. One that keeps ending is left alone ever longer.

        Raises:
            PlatformError: every process keeps ending.
            EmbeddedPostgresError: Postgres cannot be started, though there is room for it.
        """
        while True:
            time.sleep(1)
            self._restart_postgres()
            self._notice_clock_step()
            self._restart_ended()
            self._reload_declarations()
            with contextlib.suppress(OSError):  # a full disk is no reason to stop
                self._write_state(parts=self._processes.facts())
                rotate_output(output_log(self._settings.home), self._settings)
                rotate_appended(embedded.log_file(self._settings.home), self._settings)

    def stop(self) -> None:
        """Stop Dagster, then Postgres: without its database Dagster does not end by itself.

        Raises:
            PlatformError: a process cannot be ended.
        """
        self._log("INFO", "stopping…")
        self._ready = False
        had_processes = bool(self._processes)
        self._processes.end(("webserver", "api", "daemon", WATCHDOG))
        remaining = end(marked(self._settings.home))
        if had_processes:
            with contextlib.suppress(OSError):  # perhaps the database is unreachable
                fail_dead_runs(self._settings, self._log)
        if self._owns_postgres:
            embedded.stop(self._settings.home, lambda message: self._log("WARNING", message))
        remove_state(self._settings.home)
        for reservation in self._reservations:
            reservation.close()
        if remaining:
            raise PlatformError(f"These processes cannot be ended: {remaining}")
        self._log("INFO", "stopped")

    def _log(self, level: str, message: str) -> None:
        """Print time, level and message.

        Warnings and errors are left out before everything is ready and while it stops: the processes complain of each other.
        """
        if not self._ready and level in {"WARNING", "ERROR"}:
            return
        style = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}.get(level, "")
        now = dt.datetime.now().astimezone().strftime("%H:%M:%S")
        with self._printing, contextlib.suppress(OSError):  # the disk of the log may be full
            self._console.print(f"{now} {level:<7} {message}", style=style or None, markup=False)

    def _end_orphans(self) -> None:
        if orphans := marked(self._settings.home):
            self._log("INFO", f"ending {len(orphans)} processes that an earlier, killed supervisor left behind")
            end(orphans)

    def _announce_postgres(self) -> None:
        """Log which server is used. One that was not running, or that a killed supervisor had started, is ours to stop."""
        home = self._settings.home
        if self._settings.database_url:
            self._log("INFO", "using the Postgres of DATABASE_URL…")
            return
        self._owns_postgres = bool(read_state(home).get("owns_postgres")) or not embedded.is_running(home)
        self._write_state(owns_postgres=self._owns_postgres)
        self._log("INFO", "starting Postgres…")

    def _write_state(self, **changes: Any) -> None:
        """Write the state file if the state has changed."""
        if (state := self._state | changes) != self._state:
            self._state = state
            write_state(self._settings.home, **state)

    def _restart_postgres(self) -> None:
        """Start the embedded Postgres if it has ended; if the disk is full, again and again, as room may be made."""
        if self._settings.database_url or embedded.is_running(self._settings.home):
            return
        if time.monotonic() < self._postgres_due:
            return
        self._log("WARNING", "Postgres was not running and is restarted")
        try:
            embedded.ensure_running(self._settings.home)
        except embedded.DiskFullError as error:
            self._postgres_due = time.monotonic() + FULL_DISK_PAUSE
            self._log("ERROR", f"{error} It is tried again in {FULL_DISK_PAUSE:.0f} s")

    def _notice_clock_step(self) -> None:
        """Restart the daemon if the clock was set back: it sleeps, and its sensors wait, until the clock has caught up."""
        before, self._clock = self._clock, time.time() - time.monotonic()
        if (seconds := before - self._clock) < CLOCK_STEP:
            return
        self._log("WARNING", f"the clock was set back by {seconds:.0f} s, and the daemon is restarted")
        if self._processes.end(["daemon"]):
            try:
                wake_sensors(self._settings)
            except Exception as error:  # such as a database that is away: they wake later by themselves
                self._log("WARNING", f"the sensors wait until the clock has caught up: {type(error).__name__}")
            self._processes.launch(["daemon"])

    def _restart_ended(self) -> None:
        """Note which processes have ended, and start those again whose pause is over."""
        for part in self._processes.pop_ended():
            often = f", {part.deaths} times in a row," if part.deaths > 1 else ""
            self._log("WARNING", f"{part.name} ended ({part.why}){often} and is restarted in {part.pause:.0f} s")
        for part in self._processes.due():
            if part.name == "api" and (refusal := self._api_refusal()):
                part.fail(refusal)
                self._log("ERROR", f"the API is not restarted, but tried again in {part.pause:.0f} s: {refusal}")
            else:
                self._processes.launch([part.name])

    def _api_refusal(self) -> str | None:
        """Return why the API would refuse to start; None if it would not, or if the database cannot say that now."""
        from sqlalchemy.exc import SQLAlchemyError

        from mini_platform.warehouse.connection import DatabaseAwayError

        try:
            return api_refusal(self._settings)
        except (DatabaseAwayError, SQLAlchemyError):
            return None

    def _declaration_times(self) -> dict[Path, int]:
        """Return the files that declare datasets, with the times at which their contents or permissions last changed."""
        times = {}
        with contextlib.suppress(RegistryError):  # The folder is gone.
            for path in registry_of(self._settings.datasets).files():
                with contextlib.suppress(FileNotFoundError):  # It was just removed, or is a link to nothing.
                    times[path] = path.stat().st_ctime_ns
        return times

    def _reload_declarations(self) -> None:
        """Restart the processes that load the datasets if one was added or changed. Runs are not below them and go on.

        They change the tables, and log declarations that are invalid now: this process has the modules of its own start.
        """
        times = self._declaration_times()
        if times == self._declarations:
            return
        self._log("INFO", "the datasets changed: reloading them")
        self._declarations = times
        self._processes.launch(self._processes.end(("code_server", "api", WATCHDOG)))
