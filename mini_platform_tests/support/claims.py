"""Claims of the documents of the replaced systems, the tests that show them, and the count of those that hold in a run.

`mini_platform_tests/replaced/` has one list for each system: `CLAIMS` at the top of `test_<system>.py`, above its replays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["held", "partly held", "different on purpose", "not yet"]
STATES: Sequence[State] = ("held", "partly held", "different on purpose", "not yet")
SYSTEMS = ("weather", "customers", "signals", "records", "sales")


@dataclass(frozen=True)
class Claim:
    """A claim of a document.

    Attributes:
        text: the claim, in the words of its document as far as they are short.
        state: what is true of it here, if its tests pass.
        tests: ids of the tests that show it, from `mini_platform_tests/` on: `web/api/test_health.py::test_x`.
        reason: why it holds in part, why it is different, or which issue brings it.
    """

    text: str
    state: State
    tests: tuple[str, ...] = ()
    reason: str = ""


def held(text: str, *tests: str) -> Claim:
    """Return a claim that its tests show."""
    return Claim(text, "held", tests)


def partly(text: str, reason: str, *tests: str) -> Claim:
    """Return a claim of which the tests show a part; the reason names the other one."""
    return Claim(text, "partly held", tests, reason)


def different(text: str, reason: str, *tests: str) -> Claim:
    """Return a claim that does not hold on purpose; the documentation lists it (`docs/replaced.md`)."""
    return Claim(text, "different on purpose", tests, reason)


def not_yet(text: str, reason: str) -> Claim:
    """Return a claim that does not hold."""
    return Claim(text, "not yet", (), reason)


def counts(claims: Iterable[Claim], passed: Mapping[str, bool]) -> Counter[str]:
    """Return how many claims are in each state, and how many of the held ones this run did not show or refuted.

    Args:
        claims: claims of one system.
        passed: whether every run of a test passed, by its id without parameters; a test that did not run is not in it.
    """
    total: Counter[str] = Counter()
    for claim in claims:
        total[claim.state] += 1
        ran = [passed[test] for test in claim.tests if test in passed]
        total["refuted"] += not all(ran)
        total["not run here"] += bool(claim.tests) and len(ran) < len(claim.tests)
    return total


def line(system: str, total: Counter[str]) -> str:
    """Return the line of a system in the summary of a run."""
    listed = sum(total[state] for state in STATES)
    states = ", ".join(f"{total[state]} {state}" for state in STATES if total[state] or state != "not yet")
    more = [f"{total[note]} {note}" for note in ("refuted", "not run here") if total[note]]
    return f"{system}: {states}, of {listed} claims" + (f" ({', '.join(more)})" if more else "")
