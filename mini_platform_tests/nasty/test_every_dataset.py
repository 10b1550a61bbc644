"""Every dataset: dirt of every rule, and nasty files of its forms, through the real pipeline.

A nasty file is read by the same code whichever dataset it is of, so each comes with one dataset, another one each day.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy import select

from mini_platform import Dataset, RejectLimit
from mini_platform.datasets import all_datasets
from mini_platform.operations.sampling import Form
from mini_platform.warehouse import ledger
from mini_platform.warehouse.tables import COUNTERS, files
from mini_platform_tests.support import drawn
from mini_platform_tests.support.bench import Bench, Outcome, explained
from mini_platform_tests.support.pollution import BEFORE, POLLUTION, ROWS, Pollution
from mini_platform_tests.support.samples import EVERY, Sample, encoding, production, sample

FORMS = [pytest.param(name, form, id=f"{name} {form}") for name, form in EVERY]
SMALL = [(name, form) for name, form in EVERY if encoding(all_datasets()[name], form) == "utf-8"]


def chosen() -> list[tuple[str, Pollution]]:
    """Return each case with one dataset of its form, drawn by the seed of the day; with NASTY=all, with each of them."""
    rng = random.Random(drawn.seed())  # noqa: S311 - a choice of tests
    pairs = []
    for case in POLLUTION:
        names = [
            name for name, form in SMALL if form == case.form and not (case.superseded and rejects_duplicates(name))
        ]
        pairs += [(name, case) for name in (names if os.environ.get("NASTY") == "all" else rng.sample(names, 1))]
    return pairs


def rejects_duplicates(name: str) -> bool:
    """True if the dataset rejects rows with the same key, of which it has tests of its own."""
    return all_datasets()[name].duplicates == "reject"


def lenient(name: str) -> Dataset:
    """The dataset, without a limit on rejects: here they are counted, one by one."""
    return replace(all_datasets()[name], reject_limit=RejectLimit(rows=10**9))


@pytest.fixture
def everybody(bench: Bench) -> Bench:
    bench.known = list(all_datasets().values())
    bench.clear()
    return bench


def counted(got: Outcome) -> dict[str, int]:
    return {name: int(number) for number, name in re.findall(r"(\d+) (\w+)", got.summary)}


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {name: number for name, number in counts.items() if number}


def held(bench: Bench, dataset: Dataset, file: str | None = None) -> Counter[tuple[object, ...]]:
    with bench.engine.connect() as conn:
        return production(conn, dataset, file)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_clean(everybody: Bench, name: str, form: str) -> None:
    """Every row arrives with the values that the file has, and once more changes nothing."""
    expected = sample(lenient(name), form, 300)  # type: ignore[arg-type]
    everybody.drop((f"clean.{form}", expected.data))
    (got,) = everybody.run(expected.dataset)
    assert counted(got) == {"read": 300, "inserted": 300}
    assert held(everybody, expected.dataset) == expected.valid
    assert everybody.run(expected.dataset) == [], "it was looked at, and is not new any more"
    everybody.drop((f"again.{form}", expected.data))
    (again,) = everybody.run(expected.dataset)
    assert counted(again) == {"read": 300, "unchanged": 300}
    assert held(everybody, expected.dataset) == expected.valid
    assert everybody.wrong(expected.dataset) == []


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_dirt_of_every_rule(everybody: Bench, name: str, form: str) -> None:
    """Each spoiled line is rejected by the rule that it breaks, every other one is loaded; again and reprocessed, too."""
    expected = sample(lenient(name), form, 400, dirty=0.5, seed=1)  # type: ignore[arg-type]
    everybody.drop((f"dirty.{form}", expected.data))
    (got,) = everybody.run(expected.dataset)
    check(expected, got)
    assert counted(got) == {"read": 400, "inserted": 200, "rejected": 200}
    assert held(everybody, expected.dataset) == expected.valid
    with everybody.engine.begin() as conn:
        ledger.return_to_landed(conn, name, files.c.status == "loaded")
    everybody.work(expected.dataset)
    with everybody.engine.connect() as conn:
        row = conn.execute(select(files)).mappings().one()
    assert [row[counter] for counter in COUNTERS] == [0, 0, 200, 0, 200], "reprocessed: all unchanged"
    assert held(everybody, expected.dataset) == expected.valid
    assert everybody.wrong(expected.dataset) == []


def check(expected: Sample, got: Outcome) -> None:
    """Fail unless just the spoiled lines are rejected, each by its rule."""
    rejected: dict[int, set[str]] = {}
    for reject in got.rejects:
        line, rule, _ = reject.split(" ", 2)
        rejected.setdefault(int(line), set()).add(rule)
    wrong = [
        f"line {line}: {kind} expected, {rejected.get(line)} got: {expected.lines[line - 1][:200]}"
        for line, kind in expected.broken.items()
        if kind.partition(":")[0] not in rejected.get(line, ())
    ]
    wrong += [
        f"line {line}: rejected by {rules}, but valid: {expected.lines[line - 1][:200]}"
        for line, rules in rejected.items()
        if line not in expected.broken
    ]
    if wrong:
        pytest.fail("\n".join(wrong[:20]), pytrace=False)


@pytest.mark.parametrize("name", sorted(all_datasets()))
def test_nasty_files(everybody: Bench, name: str) -> None:
    """All files of a dataset in one batch, each with rows of its own; alone, files are tried in `test_cases.py`."""
    dataset = lenient(name)
    cases = [case for drawn_name, case in chosen() if drawn_name == name]
    clean = {
        form: sample(dataset, form, ROWS * len(cases)).parts(ROWS) for form in {sample_form(case) for case in cases}
    }
    parts = [clean[sample_form(case)][place] for place, case in enumerate(cases)]
    everybody.drop(
        *(
            (f"{place:03} nasty.{case.form}{case.file}", case.make(part.lines))
            for place, (case, part) in enumerate(zip(cases, parts, strict=True))
        )
    )
    outcomes = everybody.run(dataset)
    wrong = "".join(
        f"\n{name} {case.form}, {case.name}{differences}"
        for case, part, got in zip(cases, parts, outcomes, strict=True)
        if (differences := different(everybody, dataset, case, part, got))
    )
    if wrong:
        pytest.fail(wrong, pytrace=False)
    assert everybody.wrong(dataset) == []


def sample_form(case: Pollution) -> Form:
    return "csv" if case.form == "csv" else "jsonl"


def different(bench: Bench, dataset: Dataset, case: Pollution, clean: Sample, got: Outcome) -> str:
    """Return the differences between a case and its outcome; empty if there are none."""
    why = case.refused
    if case.extra and dataset.unexpected_columns == "refuse":
        why = "columns that the dataset does not declare"
    counts = (case.rows, case.superseded, len(case.rejects))
    expected = dict(zip(("inserted", "superseded", "rejected", "read"), (*counts, sum(counts)), strict=True))
    rejects = [reject.split(" ")[:2] for reject in got.rejects]
    return explained(
        [
            ("status", "loaded" if why is None else "refused", got.summary.split(":")[0]),
            ("sentence", True, ((why or "") in got.error and bool(got.error) == (why is not None)) or got.error),
            ("accounting", {} if why else nonzero(expected), {} if why else nonzero(counted(got))),
            ("rejects", [] if why else [[str(line_of(case)), rule] for rule in case.rejects], rejects),
            (
                "production",
                clean.valid if case.rows and why is None else Counter(),
                held(bench, dataset, got.name),
            ),
        ]
    )


def line_of(case: Pollution) -> int:
    """The line of the bad record: a header or an opening bracket stands before the good ones."""
    return BEFORE + 1 + (case.form in ("csv", "json"))


def test_the_table() -> None:
    assert len(POLLUTION) >= 80
    assert len({(case.form, case.name) for case in POLLUTION}) == len(POLLUTION)
