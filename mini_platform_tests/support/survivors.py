"""What the summary of the faults counts."""

from __future__ import annotations

from collections.abc import Callable

FAULT = "fault"


Survives = Callable[[str], None]
