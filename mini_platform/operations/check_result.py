"""Results of the doctor's checks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class CheckResult:
    """The result of a check.

    Attributes:
        check: name of the check.
        level: ok, warning or problem.
        message: the state that was found.
        advice: what to do about it; empty if the level is ok.
    """

    check: str
    level: Level
    message: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the result as a dict."""
        return asdict(self)
