"""Nobody but its owner enters the platform's state, also not that of an earlier version."""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from mini_platform.config.settings import Settings
from mini_platform.dagster.instance import prepare_instance
from mini_platform.rows.protection import Keyring
from mini_platform.storage.store import RawStore


@pytest.fixture
def open_handed() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[Path]:
    """Return the folder and what stands in it, so far as somebody else may enter or read it."""
    return [path for path in (folder, *folder.iterdir()) if not path.is_symlink() and path.stat().st_mode & 0o077]


def test_a_new_home_is_its_owners(tmp_path: Path, open_handed: None) -> None:
    settings = Settings(home=tmp_path / "new" / "home")
    RawStore(settings.raw_store).put(BytesIO(b"a"))
    Keyring.from_file(settings.home.with_name("other") / "pii.key")
    for home in (prepare_instance(settings).parent, settings.home.with_name("other")):
        assert list(home.iterdir())
        assert open_to_others(home) == []


def test_a_home_of_an_earlier_version_is_closed(tmp_path: Path, open_handed: None) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    for name in ("raw", "postgres", "dagster"):
        (home / name).mkdir(parents=True)
    (home / "pii.key").write_text("k1:secret")
    (home / "link").symlink_to(elsewhere)
    prepare_instance(Settings(home=home))
    assert open_to_others(home) == []
    assert (home / "pii.key").stat().st_mode & 0o777 == 0o600
    assert elsewhere.stat().st_mode & 0o777 == 0o755
