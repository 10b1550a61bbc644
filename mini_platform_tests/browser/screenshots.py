"""The pictures of the README, from the running pages: `make screenshots`.

A platform of its own in a temporary folder, with the sample data of a new one, then with one file of invalid rows, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mini_platform.operations.sample_data import drop_clean, without_files
from mini_platform.platform import Platform
from mini_platform.warehouse import embedded
from mini_platform_tests.benchmarks.web_load import web_process
from mini_platform_tests.support.chromium import SIZES, launched
from mini_platform_tests.support.repository import PROJECT

PICTURES = PROJECT / ".github"
SHOTS = (
    ("overview", "/", "wide", "light"),
    ("weather", "/weather?station=ST000&station=ST002", "wide", "light"),
    ("sales", "/sales", "wide", "dark"),
    ("phone", "/weather?station=ST001", "phone", "dark"),
    ("file", "/files/{last}", "wide", "light"),
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
        data = folder / "data"
        (data / "samples").mkdir(parents=True)
        os.environ["MINI_PLATFORM_HOME"] = str(folder / "home")
        os.environ["MINI_PLATFORM_DATA"] = str(data)
        os.environ.pop("DATABASE_URL", None)
        try:
            platform = Platform()
            with platform.engine.connect() as conn:
                new = without_files(conn, data, platform.datasets.values())
            for dataset in new:
                _command("load", dataset.name, drop_clean(data, dataset))
            with web_process() as url, launched() as browser:
                for shot, path, size, scheme in SHOTS:
                    if shot == "file":
                        _command("load", "weather", data / "samples" / "weather" / "dirty.csv")
                    page = browser.new_context(
                        viewport=SIZES[size], color_scheme=scheme, device_scale_factor=1
                    ).new_page()
                    page.goto(url + path.format(last=len(new) + 1), wait_until="networkidle")
                    page.screenshot(path=PICTURES / f"{shot}.png")
        finally:
            embedded.stop(folder / "home")


if __name__ == "__main__":
    main()
