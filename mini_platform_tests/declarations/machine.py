"""The machine: draws a declaration and a sequence of steps, runs them on a platform, holds each outcome against the model.

    with ground(server_url) as made:
        outcome = run(made, seed)

A seed says all: the declaration, the files, the steps. A find has a test in it that can be pasted.
"""

from __future__ import annotations

import datetime as dt
import math
import os
import random
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from mini_platform import Dataset, DeclarationError
from mini_platform.landing.retention import drop_old
from mini_platform.operations.forget import forget
from mini_platform.platform import Platform
from mini_platform.rows.validation import pandera_schema
from mini_platform.warehouse import connection, ledger, schema
from mini_platform.warehouse.roles import grant
from mini_platform.warehouse.schema import create_all
from mini_platform.warehouse.tables import dataset_tables, files
from mini_platform_tests.declarations import cells, compare, doors, draw, served, victim
from mini_platform_tests.declarations.cells import Written
from mini_platform_tests.declarations.draw import Col, Plan
from mini_platform_tests.declarations.model import KEY_ID, SECRET, World
from mini_platform_tests.support.databases import execute, url_of
from mini_platform_tests.support.trial import Trial

TEMPLATE = "template_machine"
NAMES = ("a", "b", "c", "d e", "ü")


@dataclass(frozen=True)
class Ground:
    """A server with a database to copy, a folder, and the words that are left out."""

    server: str
    folder: Path
    left_out: Set[str]


@contextmanager
def ground(server: str, folder: Path, left_out: Set[str] = frozenset()) -> Iterator[Ground]:
    """A template with the platform's tables; the environment is the machine's own while it is open."""
    before = dict(os.environ)
    template = f"{TEMPLATE}_{os.getpid()}"
    execute(server, f"CREATE DATABASE {template}")
    for name in [n for n in os.environ if n.startswith(("MINI_PLATFORM_", "DAGSTER_", "DATABASE_URL"))]:
        del os.environ[name]
    os.environ |= {"MINI_PLATFORM_HOME": str(folder / "home"), "MINI_PLATFORM_DATA": str(folder / "data")}
    os.environ["MINI_PLATFORM_PII_KEYS"] = f"{KEY_ID}:{SECRET}"
    os.environ["MINI_PLATFORM_DAGSTER_PORT"] = "1"
    (folder / "home").mkdir(exist_ok=True, parents=True)
    template_engine = connection.engine(url_of(server, template))
    create_all(template_engine, [])
    template_engine.dispose()
    try:
        yield Ground(server, folder, left_out)
    finally:
        execute(server, f"DROP DATABASE {template} WITH (FORCE)")
        os.environ.clear()
        os.environ.update(before)


@dataclass(frozen=True)
class Step:
    """Something that happens.

    Attributes:
        op: what.
        files: that arrive.
        plan: what is declared from then on.
        number: of a file, in the order of arrival, or of a fault point.
    """

    op: str
    files: tuple[Written, ...] = ()
    plan: Plan | None = None
    number: int = 0

    @property
    def source(self) -> str:
        """Return the step as a line of a test."""
        match self.op:
            case "load":
                return f"trial.load({self.files[0].name!r}, {self.files[0].data!r})"
            case "batch":
                lands = [f"trial.land({f.name!r}, {f.data!r})" for f in self.files]
                return "\n    ".join([*lands, "trial.run()"])
            case "forget":
                return f"forget(trial, {cells.PERSONS[0]!r}); trial.run()"
            case "purge":
                return "purge(trial)"
            case "kill" | "side by side":
                lands = [f"trial.land({f.name!r}, {f.data!r})" for f in self.files]
                return "\n    ".join(
                    [*lands, f"# {self.op} {victim.POINTS[self.number % len(victim.POINTS)]}", "trial.run()"]
                )
            case "reprocess one":
                return f"trial.reprocess({self.number + 1})"
            case "declare":
                return "trial = declared(declare(CHANGED))\n    trial.reprocess()"
            case _:
                return "trial.reprocess()"


@dataclass
class Find:
    """Something wrong: the seed, what, and a test that shows it."""

    seed: int
    wrong: list[str]
    test: str

    @property
    def kind(self) -> str:
        """Return the kind of the find, without the particulars."""
        return self.wrong[0].partition(": ")[0]


@dataclass
class Outcome:
    """The result of a seed."""

    steps: int = 0
    refused: str | None = None
    find: Find | None = None
    words: Counter[str] = field(default_factory=Counter)


OPS = {
    "load": 100,
    "again": 20,
    "batch": 30,
    "reprocess": 8,
    "reprocess one": 8,
    "declare": 24,
    "forget": 20,
    "purge": 2,
    "kill": 3,
    "side by side": 2,
}
"""The weight by which each step is drawn; forget only where a person can be found."""


def steps(rng: random.Random, plan: Plan) -> list[Step]:
    """A sequence of steps for a declaration."""
    drawn: list[Step] = []
    arrived: list[Written] = []
    count, weights = 0, dict(OPS)
    if not any(c.protection == "hash" and c.is_stored and c.is_read for c in plan.columns):
        del weights["forget"]
    for _ in range(rng.randint(5, 25)):
        op = rng.choices(list(weights), list(weights.values()))[0]
        if op in ("again", "reprocess one") and not arrived:
            op = "load"
        if op == "again":
            files: tuple[Written, ...] = (rng.choice(arrived),)
            op = "load"
        else:
            many = {"load": 1, "batch": rng.randint(2, 4), "kill": 2, "side by side": 4}.get(op, 0)
            files = tuple(cells.write(rng, plan, rng.choice(NAMES)) for _ in range(many))
        if op == "purge":  # What is not kept cannot be validated again.
            weights = {name: weight for name, weight in weights.items() if name in ("load", "again", "batch")}
        if op == "declare":
            changed = _changed(rng, plan)
            if _is_refused(changed):
                continue
            plan = changed
        arrived += files
        count += len(files)
        drawn.append(Step(op, files, plan if op == "declare" else None, rng.randrange(max(1, count))))
    return drawn


def _is_refused(plan: Plan) -> bool:
    try:
        dataset_tables(draw.declare(plan.source))
    except DeclarationError:
        return True
    return False


def _changed(rng: random.Random, plan: Plan) -> Plan:
    """The declaration with another limit, policy or check."""
    kind = rng.choice(("share", "duplicates", "unexpected_columns", "checks", "stricter", "stricter", "rules"))
    if kind == "share":
        min_rows = rng.choice((0, 0, 4))
        share = rng.choice(("0.1", "0.5", "0.9", "None"))
        return replace(plan, share=share, most_rows=rng.choice((None, 1)), min_rows=min_rows)
    if kind == "duplicates":
        return replace(plan, duplicates=rng.choice(("last", "first", "reject")))
    if kind == "unexpected_columns" and plan.unexpected_columns != "keep":
        return replace(plan, unexpected_columns="refuse" if plan.unexpected_columns == "ignore" else "ignore")
    if kind == "stricter":  # Some rows that are loaded break it, and not so many that their file is refused.
        name = rng.choice(plan.read).name
        columns = [_stricter(rng, c) if c.name == name else c for c in plan.columns]
        return replace(plan, columns=tuple(columns), share=rng.choice(("0.9", "None")), most_rows=None)
    if kind == "checks":
        return replace(
            plan, columns=tuple(replace(c, checks={}, options={**c.options, "warn": ()}) for c in plan.columns)
        )
    return replace(plan, rules=())


def _stricter(rng: random.Random, column: Col) -> Col:
    number = {"le": 0 if column.decimals == 18 else rng.choice((0, 2))}
    stricter: Mapping[str, Mapping[str, Any]] = {
        "int": number,
        "float": number,
        "Decimal": number,
        "str": {"str_matches": "^[A-Za-z]"},
        "dt.date": {"lt": dt.date(2026, 1, 2)},
    }
    return replace(column, checks=stricter.get(column.type, {}), options={**column.options, "warn": ()})


def run(environment: Ground, seed: int, *, shrink_seconds: float = 0, end: float = math.inf) -> Outcome:
    """Draw all that a seed says, and do it; what is found is made smaller for so long."""
    rng = random.Random(seed)  # noqa: S311
    plan = draw.draw(rng, f"d{seed}")
    if words := plan.words.keys() & environment.left_out:
        return Outcome(refused=f"left out: {min(words)}")
    sequence = steps(rng, plan)
    outcome = play(environment, plan, sequence, seed, end=end)
    if outcome.find and shrink_seconds:
        outcome.find = shrunk(environment, plan, sequence[: outcome.steps or None], outcome.find, shrink_seconds)
    return outcome


def play(
    environment: Ground, plan: Plan, sequence: Sequence[Step], seed: int, often: float = 0.25, end: float = math.inf
) -> Outcome:
    """Do steps on a fresh platform until something is wrong; what is slow to compare is compared `often`."""
    outcome = Outcome()
    files = [file for step in sequence for file in step.files]
    if wrong := list(doors.differences(plan, files, environment.folder, random.Random(seed))):  # noqa: S311
        outcome.find = Find(seed, wrong, _test(seed, plan, [], wrong))
        return outcome
    try:
        dataset = draw.declare(plan.source)
        dataset_tables(dataset)
        pandera_schema(dataset)
    except DeclarationError as error:
        outcome.refused = str(error)
        return outcome
    except (ValueError, TypeError) as error:
        outcome.refused = f"no DeclarationError: {error}"
        return outcome
    except Exception as error:
        wrong = [f"a declaration ends in {type(error).__name__}: {error}"]
        outcome.find = Find(seed, wrong, _test(seed, plan, [], wrong))
        return outcome
    outcome.words = plan.words
    with _trial(environment, dataset) as trial:
        runner = Runner(trial, World(plan), random.Random(seed), often)  # noqa: S311
        for step in sequence:
            if time.monotonic() > end:
                break
            outcome.steps += 1
            outcome.words[f"step {step.op}"] += 1
            try:
                wrong = runner.run(step)
            except Exception as error:
                frames = [f for f in traceback.extract_tb(error.__traceback__) if "/mini_platform/" in f.filename]
                at = f"{Path(frames[-1].filename).name}, {frames[-1].name}" if frames else "the machine"
                message = str(error).splitlines()[0][:300] if str(error) else ""
                wrong = [f"{step.op} ends in {type(error).__name__} in {at}: {message}"]
            if runner.is_over:
                break
            if wrong:
                outcome.find = Find(seed, wrong, _test(seed, plan, sequence[: outcome.steps], wrong))
                break
    return outcome


def shrunk(environment: Ground, plan: Plan, sequence: Sequence[Step], find: Find, seconds: float) -> Find:
    """The same find with fewer steps, rows, columns, rules and aggregates."""
    best, cut, end = (plan, list(sequence)), True, time.monotonic() + seconds
    while cut:
        cut = False
        for candidate in _smaller(*best):
            if time.monotonic() > end:
                return find
            outcome = play(environment, *candidate, find.seed, often=1)
            if outcome.find and outcome.find.kind == find.kind:
                best, find, cut = (candidate[0], list(candidate[1][: outcome.steps or None])), outcome.find, True
                break
    return find


def _smaller(plan: Plan, sequence: Sequence[Step]) -> Iterator[tuple[Plan, list[Step]]]:
    """Yield what might still show a find, the boldest cuts first."""
    for part in (len(sequence) // 2, 1):
        for i in range(0, len(sequence) - 1, max(1, part)) if part else ():
            yield plan, [*sequence[:i], *sequence[i + part :]]
    if plan.aggregates and all(s.plan is None for s in sequence):
        for one in plan.aggregates:
            aggregates = tuple(a for a in plan.aggregates if a is not one and one.name not in a.reads)
            views = tuple(v for v in plan.views if one.name not in v.reads)
            yield replace(plan, aggregates=aggregates, views=views), list(sequence)
    if plan.base:
        yield replace(plan, base=None), list(sequence)
    if not plan.aggregates and all(s.plan is None for s in sequence):
        for rule in plan.rules:
            yield replace(plan, rules=tuple(r for r in plan.rules if r is not rule)), list(sequence)
        used = {*plan.key, *plan.indexes, plan.highest, *(n for r in plan.rules for n in (*r.holds.reads, r.column))}
        used |= {n for c in plan.columns if c.derived for n in c.derived.reads}
        for column in plan.columns:
            if column.name not in used:
                columns = tuple(c for c in plan.columns if c is not column)
                files = [tuple(f.keeping(f.rows, columns) for f in s.files) for s in sequence]
                yield (
                    replace(plan, columns=columns),
                    [replace(s, files=f) for s, f in zip(sequence, files, strict=True)],
                )
    yield from ((plan, fewer) for fewer in _fewer_rows(plan, sequence))


def _fewer_rows(plan: Plan, sequence: Sequence[Step]) -> Iterator[list[Step]]:
    for i, step in enumerate(sequence):
        for j, file in enumerate(step.files):
            for size in {len(file.rows) // 2, 1} if file.rows else ():
                for start in range(0, len(file.rows), max(1, size)):
                    rows = [*file.rows[:start], *file.rows[start + size :]]
                    files = (*step.files[:j], file.keeping(rows, plan.columns), *step.files[j + 1 :])
                    yield [*sequence[:i], replace(step, files=files), *sequence[i + 1 :]]


def _test(seed: int, plan: Plan, sequence: Sequence[Step], wrong: Sequence[str]) -> str:
    changed = [s.plan.source for s in sequence if s.plan]
    parts = [f"DECLARED = '''\n{plan.source.replace(chr(92), chr(92) * 2)}'''"]
    parts += [f"CHANGED = '''\n{source.replace(chr(92), chr(92) * 2)}'''" for source in changed]
    body = [
        "trial = declared(declare(DECLARED))",
        *(s.source for s in sequence),
        *("# " + w[:2000].replace("\n", "\n    # ") for w in wrong[:5]),
    ]
    return "\n".join([*parts, "", f"def test_seed_{seed}(declared):", *(f"    {line}" for line in body)])


@contextmanager
def _trial(environment: Ground, dataset: Any) -> Iterator[Trial]:
    name = f"machine_{uuid.uuid4().hex}"
    execute(environment.server, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}_{os.getpid()}")
    os.environ["DATABASE_URL"] = url_of(environment.server, name)
    platform = Platform({dataset.name: dataset})
    try:
        platform.__dict__["engine"] = connection.engine(platform.url)
        _create(platform, dataset)
        yield Trial(platform, dataset)
    finally:
        platform.engine.dispose()
        execute(environment.server, f"DROP DATABASE {name} WITH (FORCE)")
        for cached in (dataset_tables, pandera_schema):
            cached.cache_clear()


def _create(platform: Platform, dataset: Dataset) -> None:
    """Do what `create_all` does, without a look at the platform's own tables, which takes half a second."""
    with platform.engine.begin() as conn:
        schema._migrate(conn, dataset)
        grant(conn, schema._tables_and_views(dataset))


class Runner:
    """Does steps on the platform and in the model."""

    def __init__(self, trial: Trial, world: World, rng: random.Random, often: float) -> None:
        self.often = often
        self.trial = trial
        self.world = world
        self.rng = rng
        self.lasting: compare.Lasting = {}
        self.is_over = False

    def run(self, step: Step) -> list[str]:
        """Do a step; returns what is wrong after it."""
        counted: compare.Counted = {}
        before = self.world.production() if step.op == "load" else {}
        for file in step.files:
            arrived = self.world.arrive(self.trial.land(file.name, file.data), file)
            if step.op == "load":
                counted[arrived.file_id] = self.world.counters(arrived, before)
        getattr(self, f"_{step.op.replace(' ', '_')}")(step)
        if self.is_over:
            return []
        wrong = list(compare.differences(self.trial, self.world, counted, self.lasting))
        expected = self.world.production()
        for key in list(expected) if self.often == 1 else self.rng.sample(list(expected), min(1, len(expected))):
            if not wrong and self.rng.random() < self.often:
                wrong += compare.explained(self.trial, self.world, key, expected[key])
        if not wrong and self.rng.random() < self.often / 2:
            wrong += compare.measured(self.trial, self.world)
        if not wrong and expected and self.rng.random() < self.often / 10:
            with served.client(self.trial) as client:
                wrong += served.differences(client, self.world, self.rng)
        return wrong

    def _load(self, step: Step) -> None:
        self._work()

    _batch = _load

    def _reprocess(self, step: Step) -> None:
        with self.trial.platform.engine.begin() as conn:
            ledger.reprocess(conn, self.trial.dataset.name, step.number + 1 if step.op == "reprocess one" else None)
        self._work()

    _reprocess_one = _reprocess

    def _declare(self, step: Step) -> None:
        assert step.plan
        dataset = draw.declare(step.plan.source)
        _create(self.trial.platform, dataset)
        self.trial = Trial(self.trial.platform, dataset)
        self.world.declare(step.plan)
        self._reprocess(step)

    def _forget(self, step: Step) -> None:
        platform, dataset = self.trial.platform, self.trial.dataset
        before = {f.file_id for f in self.world.files if not f.raw_is_there}
        empty = platform.settings.home.with_name("dropped")
        empty.mkdir(exist_ok=True)
        if step.number % 5 == 0:  # Killed in the middle of it, it is repeated.
            fault = victim.FORGETTING[step.number // 5 % len(victim.FORGETTING)]
            victim.start(self.world.plan.source, fault).join(60)
        forget(platform.engine, dataset, cells.PERSONS[0], platform.raw_files(dataset), platform.store, empty)
        with platform.engine.connect() as conn:
            gone = set(conn.scalars(select(files.c.file_id).where(files.c.raw_dropped_at.is_not(None))))
        self.world.forget(cells.PERSONS[0], gone)
        self.lasting.clear()  # A person's number goes with them.
        self._work()
        # What a row was before does not come back from a file that is gone.
        self.is_over = bool(gone - before)

    def _purge(self, step: Step) -> None:
        platform = self.trial.platform
        drop_old(platform.engine, self.trial.dataset, platform.store, dt.timedelta(0))
        for file in self.world.files:
            file.raw_is_there = False

    def _kill(self, step: Step) -> None:
        victim.start(self.world.plan.source, victim.POINTS[step.number % len(victim.POINTS)]).join(60)
        self._work()

    def _side_by_side(self, step: Step) -> None:
        other = victim.start(self.world.plan.source, None)
        self._work()
        other.join(60)
        assert other.exitcode == 0, "the worker beside this one has failed"
        self._work()

    def _work(self) -> None:
        """Process what waits, and what another worker lets go of."""
        while True:
            self.trial.run()
            if not self._waiting():
                return

    def _waiting(self) -> int:
        """Return how many files wait, once nobody else holds one."""
        mine = (files.c.dataset == self.trial.dataset.name, files.c.status.in_(ledger.PENDING))
        while True:
            with self.trial.platform.engine.connect() as conn:
                waiting = conn.scalar(select(func.count()).where(*mine)) or 0
                if not waiting or ledger.pending(conn, self.trial.dataset.name):
                    return waiting
            time.sleep(0.05)


def counted(outcomes: Mapping[str, int]) -> str:
    """Words and how often they were drawn, the rarest first."""
    return "\n".join(f"  {count:6} {word}" for word, count in sorted(outcomes.items(), key=lambda item: item[1]))
