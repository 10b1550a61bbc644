"""The numbers of the fault tests' summary."""

from __future__ import annotations

from collections.abc import Callable

FAULT = "fault"


Survives = Callable[[str], None]
