"""`python -m mini_platform.cli` is `mini-platform`, for where the script is not on the PATH."""

from __future__ import annotations

from mini_platform.cli import app

app(prog_name="mini-platform")
