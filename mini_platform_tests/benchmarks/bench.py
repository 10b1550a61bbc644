"""The stopwatch: the whole pipeline against the floor and against peers, each pair interleaved in one run.

    make bench                       # all of it, about half an hour
    make bench ARGS="--rounds 1 --only first_1m,reload"

Own Postgres in a temporary folder; every measurement is a process of its own, in a fresh copy of a prepared database.
Figures are medians over the rounds; what counts are the ratios, as the machine is shared. CPU is that of the process
itself, memory its highest resident size; both without Postgres.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, make_url, text

from mini_platform.datasets import all_datasets
from mini_platform.operations.sampling import write_sample
from mini_platform.warehouse import embedded
from mini_platform_tests.support.repository import PROJECT

HERE = "mini_platform_tests.benchmarks"
CONSOLE = Console(stderr=True)
MILLION = 1_000_000
SHUFFLE = """
import random, sys
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as target:
    header, *lines = source
    random.Random(1).shuffle(lines)
    target.writelines([header, *lines])
"""


@dataclass(frozen=True)
class Run:
    """One measured process: seconds of wall clock and of CPU, highest memory in MB, what it printed."""

    wall: float
    cpu: float
    memory: float
    printed: str

    @property
    def inside(self) -> float:
        """Seconds that the process itself says its work took."""
        last = self.printed.strip().splitlines()[-1]
        return float(json.loads(last)["all"]) if last.startswith("{") else float(last)


class Bench:
    """A server, sample files, and databases to measure in."""

    def __init__(self, folder: Path) -> None:
        """Start the server; everything is kept under the folder."""
        self.folder = folder
        self.url = make_url(embedded.ensure_running(folder / "home"))
        self.admin = create_engine(self.url, isolation_level="AUTOCOMMIT")

    def database(self, name: str, template: str | None = None) -> None:
        """Make a database anew, empty or as a copy."""
        with self.admin.connect() as conn:
            conn.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
            conn.execute(
                text(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}" STRATEGY FILE_COPY' if template else ""))
            )
            conn.execute(text("CHECKPOINT"))

    def vacuum(self, name: str) -> None:
        """Let a database be as the server has it some time after a load."""
        engine = create_engine(self.url.set(database=name), isolation_level="AUTOCOMMIT")
        with engine.connect() as conn:
            conn.execute(text("VACUUM ANALYZE"))
        engine.dispose()

    def values(self, name: str, query: str) -> list[Any]:
        """The first column of a query in a database."""
        engine = create_engine(self.url.set(database=name))
        with engine.connect() as conn:
            first_column = list(conn.scalars(text(query)))
        engine.dispose()
        return first_column

    def plain_url(self, name: str) -> str:
        """URL of a database, as psycopg2 takes it."""
        return self.url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)

    def environment(self, database: str, project: Path) -> dict[str, str]:
        """Return the environment of a process of a checkout on a database."""
        variables = {
            **os.environ,
            "DATABASE_URL": self.plain_url(database),
            "MINI_PLATFORM_HOME": str(self.folder / "state" / database),
            "MINI_PLATFORM_DATA": str(self.folder / "data"),
            "PYTHONPATH": str(project),
        }
        variables.pop("PYTHONDONTWRITEBYTECODE", None)  # Compiling every import anew would be measured instead.
        return variables

    def python(
        self,
        database: str,
        *arguments: str | Path,
        interpreter: str = sys.executable,
        dataset: str = "weather",
        project: Path = PROJECT,
    ) -> Run:
        """Run a Python process on a database and measure it."""
        environment = self.environment(database, project) | {"BENCH_DATASET": dataset}
        with tempfile.TemporaryFile() as errors:  # Nobody reads it meanwhile: a pipe would fill up.
            start = time.perf_counter()
            process = subprocess.Popen(
                [interpreter, *map(str, arguments)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=project,
            )
            assert process.stdout is not None
            printed = process.stdout.read().decode()
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - start
            errors.seek(0)
            error_text = errors.read().decode()
        if status != 0:
            raise RuntimeError(f"{arguments}: {error_text[-2000:]}{printed[-500:]}")
        return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, printed)

    def floor(self, database: str, path: Path) -> Run:
        """The floor of a file."""
        return self.python(database, "-m", f"{HERE}.floor", self.plain_url(database), path)

    def inside(self, database: str, *paths: Path, dataset: str = "weather") -> Run:
        """The work of a run."""
        return self.python(database, "-m", f"{HERE}.inside", *paths, dataset=dataset)

    def command(self, database: str, *paths: Path) -> Run:
        """The whole command `mini-platform load`."""
        return self.python(database, "-m", "mini_platform.cli", "load", "weather", *paths, "--json")

    def prepared(self) -> None:
        """Template databases: `empty` has every table, `loaded_1m` and `loaded_10m` have rows too, ours and the floor's."""
        self.database("empty")
        setup = "from dagster import DagsterInstance; DagsterInstance.get()\n"
        setup += "from mini_platform.platform import Platform; Platform().engine"
        os.environ["DAGSTER_HOME"] = str(PROJECT)
        self.python("empty", "-c", setup)
        # What is imported is compiled, and read from the disk, before a clock starts.
        self.database("measured", "empty")
        self.command("measured", self.small_files(1, 100)[0])

    def loaded(self, rows: int) -> str:
        """Name of a database into which the first rows were loaded, ours and the floor's; made once."""
        name = f"loaded_{rows}"
        with self.admin.connect() as conn:
            if conn.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name}):
                return name
        self.database(name, "empty")
        clean, dirty = self.part(rows, 0, rows, 0.0), self.part(rows, 0, rows, 0.01)
        self.floor(name, clean)
        self.inside(name, dirty)
        with self.admin.connect() as conn:
            conn.execute(text("CHECKPOINT"))
        return name

    def part(self, total: int, start: int, stop: int, dirty: float, *, shuffled: bool = False) -> Path:
        """Rows from `start` to `stop` of a weather file of `total` rows, by day and station, or in a random order."""
        if shuffled:
            return self._shuffled(self.part(total, start, stop, dirty))
        path = self.folder / f"weather-{total}-{dirty}-{start}-{stop}.csv"
        if not path.exists():
            whole = self.folder / f"weather-{total}-{dirty}.csv"
            if not whole.exists():
                CONSOLE.log(f"writing {whole.name}")
                write_sample(all_datasets()["weather"], whole, total, dirty, seed=1)
            with whole.open("rb") as source, path.open("wb") as target:
                target.write(source.readline())
                for number, line in enumerate(source):
                    if start <= number < stop:
                        target.write(line)
        return path

    def _shuffled(self, ordered: Path) -> Path:
        path = ordered.with_suffix(".shuffled.csv")
        if not path.exists():
            # In a process of its own: those that are measured are forked from this one, and its size would count as theirs.
            subprocess.run([sys.executable, "-c", SHUFFLE, str(ordered), str(path)], check=True)
        return path

    def changed(self, path: Path) -> Path:
        """The same rows under another hash: a blank line more."""
        copy = path.with_suffix(".again.csv")
        shutil.copy(path, copy)
        with copy.open("ab") as target:
            target.write(b"\n")
        return copy

    def sales(self, dirty: float) -> Path:
        """A million orders."""
        path = self.folder / f"sales-{dirty}.csv"
        if not path.exists():
            write_sample(all_datasets()["sales"], path, MILLION, dirty, seed=1)
        return path

    def small_files(self, count: int, rows: int) -> list[Path]:
        """Many small files of different rows."""
        folder = self.folder / f"small-{count}-{rows}"
        if not folder.exists():
            folder.mkdir()
            lines = self.part(MILLION, 0, MILLION, 0.01).read_bytes().split(b"\n")
            for i in range(count):
                body = lines[1 + i * rows : 1 + (i + 1) * rows]
                (folder / f"{i:05}.csv").write_bytes(b"\n".join([lines[0], *body, b""]))
        return sorted(folder.iterdir())

    def payloads(self, count: int) -> list[Path]:
        """Files of one signal each, of 100 numbers."""
        folder = self.folder / f"payloads-{count}"
        if not folder.exists():
            folder.mkdir()
            written = io.BytesIO()
            write_sample(all_datasets()["signals"], written, count)
            for i, line in enumerate(written.getvalue().splitlines()):
                (folder / f"{i:05}.json").write_bytes(line)
        return sorted(folder.iterdir())

    def peer(self, tool: str, database: str, path: Path) -> Run:
        """The same file by another tool, from its own environment."""
        interpreter = str(PROJECT / ".venv" / "peers" / "bin" / "python")
        script = Path(__file__).with_name("peers.py")
        url = self.plain_url(database)
        if tool == "dlt":  # It insists on a host, and on a password that nobody asks for.
            socket = quote(str(self.url.query["host"]), safe="")
            port = self.url.query.get("port", 5432)
            url = f"postgresql://{self.url.username}:unused@{socket}:{port}/{database}"
        self.python(database, script, tool, url, path, "prepare", interpreter=interpreter)
        return self.python(database, script, tool, url, path, interpreter=interpreter)


Pair = tuple[Run, Run]


def _inside(ours: Run, other: Run) -> float:
    return ours.inside / other.inside


def _whole(ours: Run, other: Run) -> float:
    return ours.wall / other.wall


@dataclass(frozen=True)
class Case:
    """A pair that is measured: what, against what, the figure that counts, and its target."""

    name: str
    work: str
    measure: Callable[[Bench], Pair]
    ratio: Callable[[Run, Run], float]
    target: float
    rounds: int = 5
    more_is_better: bool = False
    memory: float | None = None


def _fresh(bench: Bench, template: str, ours: Callable[[str], Run], other: Callable[[str], Run]) -> Pair:
    bench.database("measured", template)
    first = ours("measured")
    bench.database("measured", template)
    return first, other("measured")


def _first(rows: int, run: str, *, shuffled: bool = False) -> Callable[[Bench], Pair]:
    def measure(bench: Bench) -> Pair:
        dirty, clean = (bench.part(rows, 0, rows, share, shuffled=shuffled) for share in (0.01, 0.0))
        return _fresh(bench, "empty", lambda d: getattr(bench, run)(d, dirty), lambda d: bench.floor(d, clean))

    return measure


def _again(run: str) -> Callable[[Bench], Pair]:
    def measure(bench: Bench) -> Pair:
        template = bench.loaded(MILLION)
        dirty, clean = bench.part(MILLION, 0, MILLION, 0.01), bench.part(MILLION, 0, MILLION, 0.0)
        again = bench.changed(dirty)
        return _fresh(bench, template, lambda d: getattr(bench, run)(d, again), lambda d: bench.floor(d, clean))

    return measure


def _identical(bench: Bench) -> Pair:
    dirty, clean = bench.part(MILLION, 0, MILLION, 0.01), bench.part(MILLION, 0, MILLION, 0.0)
    template = bench.loaded(MILLION)
    return _fresh(bench, template, lambda d: bench.command(d, dirty), lambda d: bench.floor(d, clean))


def _append(bench: Bench) -> Pair:
    ten, eleven = 10 * MILLION, 11 * MILLION
    template = bench.loaded(ten)
    dirty, clean = bench.part(eleven, ten, eleven, 0.01), bench.part(eleven, ten, eleven, 0.0)
    return _fresh(bench, template, lambda d: bench.inside(d, dirty), lambda d: bench.floor(d, clean))


def _rejects(bench: Bench) -> Pair:
    half, few = bench.part(MILLION, 0, MILLION, 0.5), bench.part(MILLION, 0, MILLION, 0.01)
    return _fresh(bench, "empty", lambda d: bench.inside(d, half), lambda d: bench.inside(d, few))


def _small(bench: Bench) -> Pair:
    paths = bench.small_files(1000, 100)
    bench.database("measured", "empty")
    run = bench.inside("measured", *paths)
    return run, run


def _payloads(bench: Bench) -> Pair:
    paths = bench.payloads(5000)
    bench.database("measured", "empty")
    run = bench.inside("measured", *paths, dataset="signals")
    return run, run


def _sales(bench: Bench) -> Pair:
    path, weather = bench.sales(0.01), bench.part(MILLION, 0, MILLION, 0.01)
    return _fresh(bench, "empty", lambda d: bench.inside(d, path, dataset="sales"), lambda d: bench.inside(d, weather))


def _sales_floor(keys: str) -> Callable[[Bench], Pair]:
    def measure(bench: Bench) -> Pair:
        path, weather = bench.sales(0.0), bench.part(MILLION, 0, MILLION, 0.01)
        floor = ("-m", f"{HERE}.floor_sales", bench.plain_url("measured"), path, keys)
        return _fresh(bench, "empty", lambda d: bench.python(d, *floor), lambda d: bench.inside(d, weather))

    return measure


def _few(bench: Bench) -> Pair:
    """The first load beside the ten million may compute every aggregate anew: the second one is measured."""
    ten, eleven = 10 * MILLION, 11 * MILLION
    first, second = (bench.part(eleven, start, start + 100, 0.0) for start in (ten, ten + 100))
    bench.database("measured", bench.loaded(ten))
    bench.inside("measured", first)
    run = bench.inside("measured", second)
    return run, run


def _web(what: str) -> Callable[[Bench], Pair]:
    def measure(bench: Bench) -> Pair:
        run = bench.python(bench.loaded(10 * MILLION), "-m", f"{HERE}.web_load", what)
        return run, run

    return measure


def _upload(bench: Bench) -> Pair:
    bench.database("measured", "empty")
    run = bench.python("measured", "-m", f"{HERE}.upload")
    return run, run


def _inbox(bench: Bench) -> Pair:
    bench.database("measured", "empty")
    run = bench.python("measured", "-m", f"{HERE}.inbox")
    return run, run


def _peer(tool: str, *, shuffled: bool = False) -> Callable[[Bench], Pair]:
    def measure(bench: Bench) -> Pair:
        clean = bench.part(MILLION, 0, MILLION, 0.0, shuffled=shuffled)
        return _fresh(bench, "empty", lambda d: bench.command(d, clean), lambda d: bench.peer(tool, d, clean))

    return measure


def _p95(ours: Run, _: Run) -> float:
    return ours.inside


def _import(bench: Bench) -> Pair:
    return bench.python("empty", "-c", "import mini_platform.definitions"), bench.python(
        "empty", "-c", "import dagster"
    )


CASES = (
    Case("import", "cold import of the definitions / import dagster", _import, _whole, 1.6),
    Case("first_1m_inside", "1M rows, first load, inside the run / floor", _first(MILLION, "inside"), _inside, 1.0),
    Case(
        "first_1m", "1M rows, first load, whole `mini-platform load` / floor", _first(MILLION, "command"), _whole, 1.5
    ),
    Case(
        "first_1m_shuffled",
        "1M rows in random order, first load, inside the run / floor",
        _first(MILLION, "inside", shuffled=True),
        _inside,
        1.0,
    ),
    Case("reload", "same rows under a new hash, 1M, inside the run / floor", _again("inside"), _inside, 0.5),
    Case("identical", "identical file again, 1M, whole command / floor", _identical, _whole, 0.1),
    Case("rejects", "50 % rejected / 1 % rejected, 1M, inside the run", _rejects, _inside, 1.2),
    Case(
        "small", "1,000 files of 100 rows, inside the run: files/s", _small, lambda a, _: 1000 / a.inside, 500, 5, True
    ),
    Case(
        "payloads",
        "5,000 signal files of 100 numbers, inside the run: files/s",
        _payloads,
        lambda a, _: 5000 / a.inside,
        500,
        5,
        True,
    ),
    Case(
        "dlt",
        "dlt / whole `mini-platform load`, 1M clean rows",
        _peer("dlt"),
        lambda a, b: b.wall / a.wall,
        1.5,
        3,
        True,
    ),
    Case(
        "dlt_shuffled",
        "dlt / whole `mini-platform load`, 1M clean rows in random order",
        _peer("dlt", shuffled=True),
        lambda a, b: b.wall / a.wall,
        1.5,
        3,
        True,
    ),
    Case(
        "pandas", "pandas / whole `mini-platform load`, 1M", _peer("pandas"), lambda a, b: b.wall / a.wall, 10, 1, True
    ),
    Case(
        "first_10m",
        "10M rows, first load, whole command / floor",
        _first(10 * MILLION, "command"),
        _whole,
        0.5,
        rounds=1,
        memory=512,
    ),
    Case(
        "first_10m_shuffled",
        "10M rows in random order, first load, whole command / floor",
        _first(10 * MILLION, "command", shuffled=True),
        _whole,
        0.5,
        rounds=1,
        memory=512,
    ),
    Case("few", "100 rows into 10M, inside the run: seconds", _few, lambda a, _: a.inside, 2.0),
    Case("append", "1M new rows into 10M, inside the run / floor", _append, _inside, 1.4, rounds=3),
    Case("api_rows", "a page of 100 rows of 10M, 50 requests/s: 95th percentile, s", _web("rows"), _p95, 0.1, 3),
    Case(
        "api_series", "a year of a station of 10M rows, 50 requests/s: 95th percentile, s", _web("series"), _p95, 0.1, 3
    ),
    Case("inbox", "a bucket of 100,000 known objects: seconds of a visit", _inbox, lambda a, _: a.inside, 20),
    Case(
        "upload_1gb",
        "1 GB sent to the API, multipart and raw: highest memory of the web process above idle, MB",
        _upload,
        lambda a, _: a.inside,
        64,
        1,
    ),
    Case("page", "first load of the weather page over 10M rows, in Chromium: s", _web("page"), _p95, 2.0, 3),
    Case(
        "sales",
        "1M sales (16 columns, hashes, star) / 1M weather rows (4 columns), first load, rows/s inside the run",
        _sales,
        lambda a, b: b.inside / a.inside,
        0.5,
        3,
        more_is_better=True,
    ),
    *(
        Case(
            f"sales_floor_{keys}",
            f"1M sales in plain SQL, keys and indexes {keys} the rows / 1M weather rows inside the run, rows/s",
            _sales_floor(keys),
            lambda a, b: b.inside / a.inside,
            0.5,
            3,
            more_is_better=True,
        )
        for keys in ("before", "after")
    ),
)


@contextmanager
def _bench(folder: Path | None) -> Iterator[Bench]:
    base = folder or Path(tempfile.mkdtemp(prefix="mini-platform-bench-"))
    try:
        bench = Bench(base)
        bench.prepared()
        yield bench
    finally:
        embedded.stop(base / "home")
        if folder is None:
            shutil.rmtree(base, ignore_errors=True)


def main(
    only: Annotated[str, typer.Option(help="Names of cases, with commas.")] = "",
    rounds: Annotated[int, typer.Option(help="Rounds of every case; 0: as each case says.")] = 0,
    folder: Annotated[Path | None, typer.Option(help="Keep files and server here between benches.")] = None,
    markdown: Annotated[bool, typer.Option(help="Print the table as the README has it.")] = False,
    against: Annotated[str, typer.Option(help="Compare with this commit instead: its cost, not targets.")] = "",
    pairs: Annotated[int, typer.Option(help="Pairs of each case of --against.")] = 5,
) -> None:
    """Measure, and print a row per case; exit 1 if a target is missed."""
    if against:
        from mini_platform_tests.benchmarks.against import compare

        return compare(against, pairs, only)
    chosen = [case for case in CASES if not only or case.name in only.split(",")]
    lines, missed = [], 0
    with _bench(folder) as bench:
        for case in chosen:
            measured = []
            for number in range(rounds or case.rounds):
                CONSOLE.log(f"{case.name}: round {number + 1}")
                measured.append(case.measure(bench))
            ratios = [case.ratio(*pair) for pair in measured]
            figure = statistics.median(ratios)
            met = figure >= case.target if case.more_is_better else figure <= case.target
            memory = max(ours.memory for ours, _ in measured)
            met = met and (case.memory is None or memory <= case.memory)
            missed += not met
            ours, other = (statistics.median(pair[i].wall for pair in measured) for i in (0, 1))
            cpu = statistics.median(pair[0].cpu for pair in measured)
            spread = f"{min(ratios):.3g}-{max(ratios):.3g}"
            sign = ">=" if case.more_is_better else "<="
            target = f"{sign} {case.target:g}" + (f", <= {case.memory:g} MB" if case.memory else "")
            row = (case.work, f"{figure:.3g}", spread, target, "met" if met else "missed")
            lines.append((*row, f"{ours:.2f}", f"{other:.2f}", f"{cpu:.2f}", f"{memory:.0f}"))
            CONSOLE.log(*lines[-1])
    heads = ("work", "figure", "spread", "target", "", "ours s", "other s", "ours CPU s", "ours MB")
    if markdown:
        rows = [heads, ("---",) * len(heads), *lines]
        sys.stdout.write("\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n")
    else:
        table = Table(*heads)
        for line in lines:
            table.add_row(*line)
        Console(width=200).print(table)
    raise typer.Exit(1 if missed else 0)


if __name__ == "__main__":
    typer.run(main)
