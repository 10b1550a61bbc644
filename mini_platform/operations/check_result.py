"""What the doctor says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes:
        check: its name.
        level: ok, warning or problem.
        message: what was found.
        advice: what to do about it; empty where all is well.
    """

    check: str
    level: Level
    message: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As a dict."""
        return asdict(self)
