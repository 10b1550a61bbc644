"""The folder of Dagster's instance, DAGSTER_HOME, for processes that the platform starts. Dagster itself is not imported.

It is in the home, as Dagster creates folders of its own there and the project's folder may be read-only.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mini_platform.config.home import OWNER_ONLY, make_home
from mini_platform.config.project import DAGSTER_YAML, project
from mini_platform.config.settings import Settings


def prepare_instance(settings: Settings) -> Path:
    """Write the project's dagster.yaml into the home, and return the folder for DAGSTER_HOME."""
    folder, own = make_home(settings.home) / "dagster", project().folder / DAGSTER_YAML.name
    folder.mkdir(mode=OWNER_ONLY, exist_ok=True)
    replace_file(folder / own.name, (own if own.is_file() else DAGSTER_YAML).read_text())
    return folder


def replace_file(path: Path, text: str) -> None:
    """Write a file at once: several services may share the folder and start at the same time."""
    new = path.with_name(f".{path.name}.{os.getpid()}.{os.uname().nodename}")
    new.write_text(text)
    shutil.move(new, path)
