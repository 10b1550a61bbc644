"""A soak: load over every door, a part of the platform killed again and again, and at the end the whole account.

    make soak                                       # ten minutes
    make soak ARGS="--minutes 25 --seed 7 --rate 9"

The platform runs as `mini-platform up` starts it, in folders of its own. Clients drop files, upload them, post payloads, load
files with the CLI, read pages, lists and exports; about one row in ten is bad, by a seed. Every 30 s a SIGKILL hits the next
victim of a shuffled list: each part of the supervisor, a run, Postgres or one of its backends, the supervisor itself.

The account: what was acknowledged is in the ledger; an oracle that shares no code with the platform says what is in production
and quarantine, row for row; the identity of each file; `mini-platform verify`; no answer over 499 and no refused connection
but while a killed part was down; after `down` no process. It also shows memory and file descriptors of each part, disk and
incidents. The exit code is 1 if anything of the account does not hold.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from mini_platform.cli.supervisor.child import end, marked
from mini_platform.config.running import read_state
from mini_platform.warehouse import connection, embedded
from mini_platform.warehouse.connection import DatabaseAwayError
from mini_platform_tests.support.oracle import COLUMNS, Oracle, differences
from mini_platform_tests.support.ports import free_port
from mini_platform_tests.support.repository import PROJECT
from mini_platform_tests.support.supervised import Supervised

CONSOLE = Console(stderr=True, width=150, log_path=False)
KILL_SECONDS, SAMPLE_SECONDS, CLI_SECONDS, READ_SECONDS = 30.0, 10.0, 45.0, 1.0
"""From one kill to the next, of the measures, of loads by the CLI, of reads."""
RECOVERY_SECONDS, DRAIN_SECONDS, WATCHDOG_SECONDS = 180.0, 600.0, 150.0
"""Longest waits: for a killed part, for the last file, for incidents of parts to be closed."""
GRACE_SECONDS = 2.0
"""After the recovery: a request that began before may end badly."""
SHARES = {"drop": 0.5, "post": 0.35, "upload": 0.15}
"""Shares of the doors in the rate."""
BAD_ROWS = (
    "S1,2024-02-30,1,1",
    "S1,2024-01-05,abc,1",
    "S2,2024-01-06,99,1",
    ",2024-01-05,1,1",
    "S3,2024-01-07",
    "S3,2024-01-08,,",
)
BAD_PAYLOADS = (
    {"data": [1, 2]},
    {"time_stamp": "yesterday", "data": [1]},
    {"time_stamp": "2024-01-01T00:00:00Z", "data": ["x"]},
)
FIRST_DAY, FIRST_TIME = dt.date(2001, 1, 1), dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
PAGES = ("/", "/files", "/quality", "/runs", "/datasets/weather", "/datasets/signals")
LISTS = ("weather/rows/", "weather/files/", "weather/rejects/", "signals/rows/", "weather/analytics/summary/")
EXPORTS = ("weather/rows.csv", "signals/rows.ndjson", "weather/files.csv")

STATUSES = "SELECT status, count(*) FROM ops.files GROUP BY 1 ORDER BY 1"
LEDGER = "SELECT * FROM ops.files ORDER BY file_id"
WAITING = """
    SELECT (SELECT count(*) FROM ops.files WHERE status IN ('landed', 'staged')) + (SELECT count(*) FROM ops.dirty_groups)"""
IDENTITY = """
    SELECT count(*) FROM ops.files WHERE status = 'loaded' AND rows_read IS DISTINCT FROM
        rows_inserted + rows_updated + rows_unchanged + rows_superseded + rows_rejected"""
INCIDENTS = "SELECT kind, count(*), sum(times) FROM ops.incidents WHERE closed_at IS NULL GROUP BY 1 ORDER BY 1"
SILENT_PARTS = """
    SELECT message FROM ops.incidents
    WHERE closed_at IS NULL AND kind IN ('part_down', 'automation_silent', 'files_unseen')"""
RUNS = "SELECT status, count(*) FROM dagster.runs GROUP BY 1 ORDER BY 1"
SIGNALS = "SELECT timestamp_utc, n, min, max FROM production.signal_stats"
COUNTED = ("rows_read", "rows_inserted", "rows_updated", "rows_unchanged", "rows_superseded", "rows_rejected")
REJECTED_SIGNALS = "SELECT _file_id FROM quarantine.signal_stats"


@dataclass
class Sent:
    """Everything that the clients sent. Bytes by SHA-256; what was acknowledged, by name or file id."""

    content: dict[str, bytes] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """Name of an acknowledged upload or load -> SHA-256."""
    payloads: dict[int, str] = field(default_factory=dict)
    """File id of an acknowledged payload -> SHA-256."""
    standing: dict[str, str] = field(default_factory=dict)
    """Name in the drop folder -> SHA-256 of what stands there."""
    series: dict[str, tuple[dt.datetime, list[float]] | None] = field(default_factory=dict)
    """SHA-256 of a payload -> its row; None if it is bad."""

    def record(self, data: bytes) -> str:
        """Keep bytes before they are sent; return their SHA-256."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.content[sha256] = data
        return sha256


@dataclass(frozen=True)
class Answer:
    """A request: when it began and ended, and its status; 0 if there was no answer."""

    began: float
    ended: float
    path: str
    status: int


@dataclass
class Kill:
    """A kill, until everything answers again."""

    victim: str
    at: float
    recovered: float | None = None


class Rows:
    """Files and payloads by a seed; good rows have keys of their own, but for one in ten, which changes an earlier row."""

    def __init__(self, seed: str) -> None:
        self._rng, self._seed = random.Random(seed), seed  # noqa: S311
        self._key = self._time = 0

    def file(self) -> bytes:
        """Return a file of weather; one in fifty lacks a column, and is refused."""
        rng, lines = self._rng, list[str]()
        for _ in range(rng.randrange(20, 80)):
            if rng.random() < 0.1:
                lines.append(rng.choice(BAD_ROWS))
                continue
            number = self._key
            if self._key and rng.random() < 0.1:
                number = rng.randrange(self._key)
            else:
                self._key += 1
            day = FIRST_DAY + dt.timedelta(days=number % 1000)
            lines.append(f"{self._seed} {number // 1000},{day},{rng.gauss(10, 8):.1f},{rng.expovariate(0.3):.1f}")
        header = ",".join(COLUMNS if rng.random() > 0.02 else COLUMNS[:-1])
        return "\n".join([header, *lines, ""]).encode()

    def payload(self) -> tuple[bytes, tuple[dt.datetime, list[float]] | None]:
        """Return a payload of signals and its row; one in ten is bad."""
        self._time += 1
        if self._rng.random() < 0.1:
            return json.dumps(self._rng.choice(BAD_PAYLOADS) | {"number": self._time}).encode(), None
        time_stamp = FIRST_TIME + dt.timedelta(seconds=self._time)
        series = [round(self._rng.gauss(20, 5), 3) for _ in range(self._rng.randrange(1, 50))]
        return json.dumps({"time_stamp": time_stamp.isoformat(), "data": series}).encode(), (time_stamp, series)


@dataclass
class Soak:
    """A running platform, its clients, and what they saw."""

    supervised: Supervised
    seed: int
    rate: float
    sent: Sent = field(default_factory=Sent)
    answers: list[Answer] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set when the load and the kills end."""
    drained: threading.Event = field(default_factory=threading.Event)
    """Set when nothing waits any more."""
    samples: dict[str, dict[int, list[tuple[float, float, int]]]] = field(default_factory=lambda: defaultdict(dict))
    """Part -> process id -> seconds, private megabytes, file descriptors."""

    @property
    def home(self) -> Path:
        return self.supervised.home

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        engine = connection.engine(embedded.ensure_running(self.home))
        try:
            yield engine
        finally:
            engine.dispose()

    def query(self, statement: str) -> list[Any]:
        with self.engine() as engine, engine.connect() as conn:
            return list(conn.execute(text(statement)))

    # The clients

    def clients(self) -> list[threading.Thread]:
        """Start a thread per door."""
        work = {
            "drop": (self._drop, self.rate * SHARES["drop"]),
            "post": (self._post, self.rate * SHARES["post"]),
            "upload": (self._upload, self.rate * SHARES["upload"]),
            "load": (self._load, 1 / CLI_SECONDS),
            "read": (self._read, 1 / READ_SECONDS),
        }
        return [self._thread(self._again, *one, name) for name, one in work.items()]

    def _thread(self, target: Callable[..., None], *arguments: Any) -> threading.Thread:
        def work() -> None:
            try:
                target(*arguments)
            except BaseException as error:
                self.failures.append(f"{arguments[-1] if arguments else target.__name__}: {error!r}")
                raise

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def _again(self, step: Callable[[httpx.Client, Rows, random.Random, int], None], rate: float, name: str) -> None:
        """Repeat a step at a rate; steps that fell behind are not made up for."""
        seed = f"{name} {self.seed}"
        rows, rng, number, due = Rows(seed), random.Random(seed), 0, time.monotonic()  # noqa: S311
        base = f"http://127.0.0.1:{self.supervised.api_port}"
        with httpx.Client(base_url=base, timeout=60, headers={"Accept": "application/json"}) as client:
            while not self.stopped.is_set():
                number += 1
                step(client, rows, rng, number)
                due = max(due + 1 / rate, time.monotonic() - 1 / rate)
                self.stopped.wait(max(0.0, due - time.monotonic()))

    def _ask(self, client: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response | None:
        """Make a request and record it; None if there was no whole answer."""
        began = time.monotonic()
        try:
            answer = client.request(method, path, **options)
        except httpx.TransportError:
            answer = None
        self.answers.append(
            Answer(began, time.monotonic(), path.partition("?")[0], answer.status_code if answer else 0)
        )
        return answer

    def _insist(self, client: httpx.Client, path: str, **options: Any) -> httpx.Response:
        """Repeat a request until it is answered, as a sender does that must not lose anything."""
        while True:
            answer = self._ask(client, "POST", path, **options)
            if answer is not None and answer.status_code < 500:
                return answer
            time.sleep(0.5)

    def _drop(self, _client: httpx.Client, rows: Rows, rng: random.Random, number: int) -> None:
        """Rename a finished file into the drop folder; now and then replace one there, or give it another name."""
        folder, data = self.supervised.data / "weather", rows.file()
        draw, names = rng.random(), list(self.sent.standing)
        if draw < 0.03 and names:
            old = rng.choice(names)
            new = f"renamed-{number}.csv"
            (folder / old).rename(folder / new)
            self.sent.standing[new] = self.sent.standing.pop(old)
            return
        name = rng.choice(names) if draw < 0.08 and names else f"drop-{number:06}.csv"
        sha256 = self.sent.record(data)
        unfinished = folder / f".{number}.tmp"
        unfinished.write_bytes(data)
        unfinished.rename(folder / name)
        self.sent.standing[name] = sha256

    def _upload(self, client: httpx.Client, rows: Rows, _rng: random.Random, number: int) -> None:
        data, name = rows.file(), f"upload-{number:06}.csv"
        sha256, path = self.sent.record(data), "/api/datasets/weather/files/"
        if number % 2:
            answer = self._insist(client, path, files={"file": (name, data, "text/csv")})
        else:
            answer = self._insist(
                client, path, params={"name": name}, content=data, headers={"Content-Type": "text/csv"}
            )
        if answer.status_code in (200, 202):
            self.sent.names[name] = sha256
        else:
            self.failures.append(f"upload: {answer.status_code} {answer.text[:300]}")

    def _post(self, client: httpx.Client, rows: Rows, _rng: random.Random, _number: int) -> None:
        body, row = rows.payload()
        sha256 = self.sent.record(body)
        self.sent.series[sha256] = row
        answer = self._insist(client, "/ingest", content=body, headers={"Content-Type": "application/json"})
        if answer.status_code == 202:
            self.sent.payloads[int(answer.json()["raw_id"])] = sha256
        else:
            self.failures.append(f"post: {answer.status_code} {answer.text[:300]}")

    def _read(self, client: httpx.Client, _rows: Rows, rng: random.Random, _number: int) -> None:
        """Read a page, an export, or a list to its fifth page."""
        draw = rng.random()
        if draw < 0.4:
            self._ask(client, "GET", rng.choice(PAGES), headers={"Accept": "text/html"})
        elif draw < 0.5:
            self._ask(client, "GET", f"/api/datasets/{rng.choice(EXPORTS)}", headers={"Accept": "*/*"})
        else:
            path: str | None = f"/api/datasets/{rng.choice(LISTS)}?limit={rng.choice((10, 100, 500))}"
            for _ in range(5):
                answer = self._ask(client, "GET", path) if path else None
                path = answer.json().get("next") if answer is not None and answer.status_code == 200 else None

    def _load(self, _client: httpx.Client, rows: Rows, _rng: random.Random, number: int) -> None:
        """Load a file by the CLI until it says that it is in the ledger; 1 may be a refused file or a kill."""
        data, name = rows.file(), f"load-{number:06}.csv"
        path = self.home.parent / name
        path.write_bytes(data)
        sha256 = self.sent.record(data)
        while (result := self.command("load", "weather", str(path), "--json")).returncode:
            with suppress(ValueError, IndexError, KeyError):
                if json.loads(result.stdout.splitlines()[0])["status"] in ("refused", "loaded"):
                    break
            time.sleep(2)
        self.sent.names[name] = sha256
        path.unlink()

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the platform in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "mini_platform.cli", *words],
            cwd=PROJECT, env=self.supervised.environment, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip

    # The kills

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return the living processes by part; runs and Postgres have several."""
        parts: dict[str, list[psutil.Process]] = defaultdict(list)
        state = read_state(self.home)
        pids = {part["pid"]: name for name, part in state.get("parts", {}).items() if part["pid"]}
        for process in marked(self.home):
            with suppress(psutil.Error):
                if process.pid in pids:
                    parts[pids[process.pid]].append(process)
                elif _is_fork(process) and (parent := process.parent()) and _is_fork(parent):
                    parts["run"].append(process)
        if ready := state.get("ready"):
            with suppress(psutil.NoSuchProcess):
                parts["supervisor"].append(psutil.Process(ready))
        if postmaster := embedded.pid(self.home):
            with suppress(psutil.Error):
                server = psutil.Process(postmaster)
                parts["postgres"].append(server)
                parts["backend"] = [one for one in server.children() if "mini_platform" in " ".join(one.cmdline())]
        return parts

    def kill_again_and_again(self) -> None:
        """Kill a part every 30 s, each as often as any other, and wait until it is back."""
        rng, victims, due = random.Random(self.seed), list[str](), time.monotonic()  # noqa: S311
        while not self.stopped.is_set():
            due = max(due + KILL_SECONDS, time.monotonic())
            if self.stopped.wait(due - time.monotonic() + rng.uniform(-3, 3)):
                return
            if not victims:
                victims = [*self.processes().keys() | {"run"}]
                victims.sort()
                rng.shuffle(victims)
            victim = victims.pop()
            if process := self._caught(victim, rng):
                self._kill(victim, process)

    def _caught(self, victim: str, rng: random.Random) -> psutil.Process | None:
        """Return a process of a part; wait for a run, as there is none while nothing waits."""
        give_up = time.monotonic() + KILL_SECONDS
        while time.monotonic() < give_up and not self.stopped.is_set():
            if processes := self.processes().get(victim):
                return rng.choice(processes)
            time.sleep(0.05)
        return None

    def _kill(self, victim: str, process: psutil.Process) -> None:
        kill = Kill(victim, time.monotonic())
        self.kills.append(kill)
        with suppress(psutil.NoSuchProcess):
            process.kill()
            process.wait(10)
        if victim == "supervisor":
            started = self.supervised.up()
            if started.returncode:
                self.failures.append(f"up after a kill: {started.stdout[-500:]}{started.stderr[-500:]}")
        while time.monotonic() < kill.at + RECOVERY_SECONDS:
            if self._is_whole(process.pid):
                kill.recovered = time.monotonic()
                CONSOLE.log(f"killed: {victim}, back after {kill.recovered - kill.at:.1f} s")
                return
            time.sleep(0.2)
        self.failures.append(f"{victim} was not back {RECOVERY_SECONDS:g} s after its kill")

    def _is_whole(self, killed: int) -> bool:
        """Return True if every part runs, none as the killed process, and the API reaches the database."""
        parts = read_state(self.home).get("parts", {})
        if not parts or any(not part["running"] or part["pid"] == killed for part in parts.values()):
            return False
        with suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{self.supervised.api_port}/health", timeout=10).status_code == 200
        return False

    # What is measured meanwhile

    def sample(self) -> None:
        """Measure every part, and show how far everything is."""
        began = time.monotonic()
        while not self.drained.wait(SAMPLE_SECONDS):
            now = time.monotonic() - began
            for part, processes in self.processes().items():
                for process in processes:
                    with suppress(psutil.Error):
                        memory = process.memory_info()
                        megabytes = (memory.rss - memory.shared) / 2**20
                        series = self.samples[part].setdefault(process.pid, [])
                        series.append((now, megabytes, process.num_fds()))
            statuses = "Postgres is away"
            with suppress(DatabaseAwayError, SQLAlchemyError, embedded.EmbeddedPostgresError):
                if embedded.is_running(self.home):  # it is for the platform to start it again
                    statuses = listed(self.query(STATUSES))
            CONSOLE.log(f"{now:4.0f} s: {statuses}; {len(self.answers)} requests, {len(self.kills)} kills")

    # The account

    def drain(self) -> float:
        """Wait until nothing waits; return the seconds."""
        began = time.monotonic()
        while time.monotonic() < began + DRAIN_SECONDS:
            latest = {row.name: row.sha256 for row in self.query(LEDGER) if row.dataset == "weather"}
            if self.sent.standing.items() <= latest.items() and not self.query(WAITING)[0][0]:
                self.drained.set()
                return time.monotonic() - began
            time.sleep(1)
        self.failures.append(f"files wait for more than {DRAIN_SECONDS:g} s")
        return DRAIN_SECONDS

    def account(self) -> list[str]:
        """Return everything that does not balance, as sentences."""
        rows = self.query(LEDGER)
        ledger = {row.file_id: row for row in rows}
        wrong = [f"file {row.file_id}: bytes that nobody sent" for row in rows if row.sha256 not in self.sent.content]
        names = {(row.name, row.sha256) for row in rows}
        acknowledged = [*self.sent.names.items(), *self.sent.standing.items()]
        wrong += [
            f"{name} was acknowledged and is not in the ledger"
            for name, sha256 in acknowledged
            if (name, sha256) not in names
        ]
        wrong += [
            f"payload {file_id} was acknowledged and is not in the ledger"
            for file_id, sha256 in self.sent.payloads.items()
            if file_id not in ledger or ledger[file_id].sha256 != sha256
        ]
        if broken := self.query(IDENTITY)[0][0]:
            wrong.append(f"the rows of {broken} files are not accounted for")
        oracle = Oracle()
        for row in rows:
            if row.dataset == "weather" and row.sha256 in self.sent.content:
                oracle.arrive(row.name, self.sent.content[row.sha256], row.file_id)
        with self.engine() as engine, engine.connect() as conn:
            wrong += differences(conn, oracle)
        wrong += self._signals([row for row in rows if row.dataset == "signals"])
        verified = self.command("verify")
        if verified.returncode:
            wrong.append(f"mini-platform verify: {verified.stdout[-1000:]}{verified.stderr[-1000:]}")
        return wrong

    def _signals(self, rows: Iterable[Any]) -> Iterator[str]:
        """Yield differences of the payloads to the tables: each good one is a row, each bad one a reject."""
        expected, rejected = {}, set()
        for row in rows:
            if (series := self.sent.series.get(row.sha256)) is None:
                rejected.add(row.file_id)
            else:
                expected[series[0]] = (len(series[1]), min(series[1]), max(series[1]))
            if (row.status, row.rows_rejected) != ("loaded", int(series is None)):
                yield f"payload {row.file_id} is {row.status} with {row.rows_rejected} rejected rows"
        actual = {row.timestamp_utc: (row.n, row.min, row.max) for row in self.query(SIGNALS)}
        if actual != expected:
            yield f"{len(actual.items() ^ expected.items())} rows of signals are not as they were sent"
        if {row[0] for row in self.query(REJECTED_SIGNALS)} != rejected:
            yield "the rejected payloads are not those that are bad"

    def unexpected(self) -> list[Answer]:
        """Return requests without an answer, or with one over 499, while no killed part was down."""
        windows = [(k.at, (k.recovered or k.at + RECOVERY_SECONDS) + GRACE_SECONDS) for k in self.kills]
        bad = [answer for answer in self.answers if not 0 < answer.status < 500]
        return [a for a in bad if not any(a.began < until and a.ended > since for since, until in windows)]

    def open_silences(self) -> list[str]:
        """Return the incidents of parts and sensors that the watchdog has not closed after its next look."""
        give_up = time.monotonic() + WATCHDOG_SECONDS
        while (left := [row[0] for row in self.query(SILENT_PARTS)]) and time.monotonic() < give_up:
            time.sleep(2)
        return left


def _is_fork(process: psutil.Process) -> bool:
    return "forkserver" in " ".join(process.cmdline())


def _folder_bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def listed(counts: Iterable[tuple[str, Any]], between: str = " ") -> str:
    """Return counts as text: `3 loaded, 1 refused`."""
    return ", ".join(f"{n}{between}{name}" for name, n in counts) or "none"


def load_facts(soak: Soak) -> Iterator[tuple[str, str]]:
    """Yield what was sent, and what became of it."""
    sent = {"payloads": soak.sent.payloads, "uploads and loads": soak.sent.names, "dropped files": soak.sent.standing}
    yield "acknowledged, or standing in the drop folder", listed((name, len(files)) for name, files in sent.items())
    ledger = soak.query(LEDGER)
    for dataset in ("weather", "signals"):
        ours = [row for row in ledger if row.dataset == dataset]
        rows = [(name.removeprefix("rows_"), sum(getattr(row, name) or 0 for row in ours)) for name in COUNTED]
        yield f"{dataset}: files", listed(Counter(row.status for row in ours).items())
        yield f"{dataset}: rows", listed(rows)
    statuses = Counter(str(answer.status or "no answer") for answer in soak.answers)
    yield "requests by status", listed(sorted(statuses.items()), " × ")
    yield "runs", listed((status.lower(), n) for status, n in soak.query(RUNS))
    yield "open incidents", listed((f"{kind} ({times} times)", n) for kind, n, times in soak.query(INCIDENTS))


def part_facts(soak: Soak) -> Iterator[tuple[str, str]]:
    """Yield the recoveries of each part, and what its longest process took: after 30 s of its life, at last, at most."""
    recoveries: dict[str, list[str]] = defaultdict(list)
    for kill in soak.kills:
        recoveries[kill.victim].append(f"{kill.recovered - kill.at:.0f}" if kill.recovered else "never")
    for victim, seconds in sorted(recoveries.items()):
        yield f"{victim} killed: seconds until all was back", ", ".join(seconds)
    for part, processes in sorted(soak.samples.items()):
        series = max(processes.values(), key=len)
        first, last = next((one for one in series if one[0] > series[0][0] + 30), series[0]), series[-1]
        peak = max(megabytes for one in processes.values() for _, megabytes, _ in one)
        words = f"{first[1]:.0f} → {last[1]:.0f} MB, {first[2]} → {last[2]} descriptors in {last[0] - first[0]:.0f} s"
        yield (
            f"{part}: private memory, file descriptors",
            f"{words}; at most {peak:.0f} MB in {len(processes)} processes",
        )


def disk_facts(home: Path) -> Iterator[tuple[str, str]]:
    """Yield the sizes of the folders and of the logs."""
    sizes = [(name, f"{_folder_bytes(home / name) / 2**20:.1f} MB") for name in ("raw", "postgres", "dagster")]
    logs = [(path.name, f"{path.stat().st_size / 2**10:.0f} kB") for path in sorted(home.glob("*.log*"))]
    yield "disk", listed(sizes)
    yield "logs", listed(logs)


def main(
    minutes: Annotated[float, typer.Option(help="Of load and kills.")] = 10,
    seed: Annotated[int | None, typer.Option(help="Of rows, requests and kills; by default drawn.")] = None,
    rate: Annotated[float, typer.Option(help="Files and payloads a second, over all doors.")] = 5,
    keep: Annotated[bool, typer.Option(help="Keep the folder if something does not balance.")] = False,
) -> None:
    """Put load on a platform, kill its parts, and print the account; exit 1 if it does not balance."""
    seed = random.randrange(10**6) if seed is None else seed  # noqa: S311
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    (folder / "data" / "weather").mkdir(parents=True)
    supervised = Supervised(folder / "home", folder / "data", free_port(), free_port())
    soak, wrong = Soak(supervised, seed, rate), list[str]()
    CONSOLE.log(f"seed {seed}, folder {folder}")
    try:
        if (started := supervised.up()).returncode:
            raise RuntimeError(started.stdout + started.stderr)
        threads = [soak._thread(soak.sample), soak._thread(soak.kill_again_and_again), *soak.clients()]
        soak.stopped.wait(minutes * 60)
        soak.stopped.set()
        for thread in threads:
            thread.join(RECOVERY_SECONDS + 60)
        drained = soak.drain()
        wrong += soak.account()
        wrong += [f"an incident is still open: {message}" for message in soak.open_silences()]
        table = Table("what", "figure")
        for what, figure in (*load_facts(soak), *part_facts(soak), *disk_facts(soak.home)):
            table.add_row(what, figure)
        table.add_row("seconds until nothing waited", f"{drained:.0f}")
        down = supervised.down()
        if down.returncode:
            wrong.append(f"down: {down.stdout[-500:]}{down.stderr[-500:]}")
        wrong += [f"after down there is still {process}" for process in supervised.processes()]
        bad = soak.unexpected()
        wrong += [
            f"{n} × {status} from {path} though nothing was down"
            for (path, status), n in Counter((a.path, a.status) for a in bad).items()
        ]
        wrong += soak.failures
        Console(width=150).print(table)
    finally:
        soak.stopped.set()
        supervised.down()
        end(marked(supervised.home))
        embedded.stop(supervised.home)
        if not (keep and wrong):
            shutil.rmtree(folder, ignore_errors=True)
    for sentence in wrong[:50]:
        CONSOLE.print(sentence, style="red", markup=False)
    CONSOLE.print(f"seed {seed}: " + (f"{len(wrong)} things do not balance" if wrong else "everything balances"))
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
