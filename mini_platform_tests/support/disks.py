"""Small separate disks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


def mount(folder: Path, *options: str) -> None:
    """Mount a file system in memory; skip the test if none can be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {result.stderr.strip()}")
