"""The pictures of the README, from the running pages: `make screenshots`.

A platform of its own in a temporary folder, with samples of every dataset loaded by `mini-platform load`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mini_platform.warehouse import embedded
from mini_platform_tests.benchmarks.web_load import web_process
from mini_platform_tests.support.chromium import SIZES, launched
from mini_platform_tests.support.repository import PROJECT

PICTURES = PROJECT / ".github"
ROWS = {"weather": 400_000, "customers": 2_000, "signals": 3_000, "records": 1_500, "sales": 20_000}
SHOTS = (
    ("overview", "/", "wide", "light"),
    ("weather", "/weather?station=ST005&station=ST041&from=1985-01-01&to=1991-12-31", "wide", "light"),
    ("sales", "/sales", "wide", "dark"),
    ("file", "/files/{dirty}", "wide", "light"),
    ("phone", "/weather?station=ST041", "phone", "dark"),
)
"""Name of the picture, path of the page, size, colours."""


def _command(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "mini_platform.cli", *map(str, arguments)]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if result.returncode not in (0, 1):  # 1: rows were rejected
        raise RuntimeError(result.stderr)
    return result.stdout


def main() -> None:
    """Load, look, write."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MINI_PLATFORM_HOME"] = str(folder / "home")
        os.environ["MINI_PLATFORM_DATA"] = str(folder / "data")
        os.environ.pop("DATABASE_URL", None)
        try:
            for dataset, rows in ROWS.items():
                path = folder / f"{dataset}.{'jsonl' if dataset == 'signals' else 'csv'}"
                _command("sample", dataset, "--out", path, "--rows", str(rows), "--dirty", "0.002")
                _command("load", dataset, path)
            _command("load", "weather", PROJECT / "data" / "weather" / "dirty.csv")
            with web_process() as url, launched() as browser:
                for shot, path, size, scheme in SHOTS:
                    page = browser.new_context(
                        viewport=SIZES[size], color_scheme=scheme, device_scale_factor=1
                    ).new_page()
                    page.goto(url + path.format(dirty=len(ROWS) + 1), wait_until="networkidle")
                    page.screenshot(path=PICTURES / f"{shot}.png")
        finally:
            embedded.stop(folder / "home")


if __name__ == "__main__":
    main()
