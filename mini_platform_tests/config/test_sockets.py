"""Folders for sockets: short, private, and never somebody else's."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mini_platform.config.sockets import SocketFolderError, socket_folder


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short path, unlike those of pytest; also that of temporary files."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.mark.parametrize("name", ["plain", "a" * 120, "a folder, été"])
def test_a_socket_can_be_bound_whatever_the_path(short: Path, name: str) -> None:
    inside = short / name
    folder = socket_folder(inside)
    assert (folder == inside) is (name == "plain")
    assert folder == socket_folder(inside) != socket_folder(short / f"{name}2")
    assert folder.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "code_server.sock"))


def test_a_folder_of_somebody_else_is_refused(short: Path) -> None:
    (short / "link").symlink_to("/")
    with pytest.raises(SocketFolderError, match="belongs to another user"):
        socket_folder(short / "link")
