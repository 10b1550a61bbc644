"""The command line, as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from mini_platform.cli import app


def cli(*arguments: str | Path, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a separate process."""
    result = subprocess.run(
        [sys.executable, "-m", "mini_platform.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env={**os.environ, **environment},
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


def here(*arguments: str | Path, text_input: str | None = None) -> Result:
    """Run the command in this process; unexpected exceptions propagate."""
    return CliRunner().invoke(app, [*map(str, arguments)], input=text_input, catch_exceptions=False)


def objects(output: str) -> list[dict[str, Any]]:
    """Return the objects of JSON lines."""
    return [json.loads(line) for line in output.splitlines()]
