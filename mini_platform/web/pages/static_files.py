"""Static files: our style sheet and script, and Plotly from its installed wheel; compressed once, with a hash in the URL.

Pages link to them with their tag, so that browsers can cache them indefinitely.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from fastapi import APIRouter, Request, Response

from mini_platform.web.problems import NotFoundError

router = APIRouter(include_in_schema=False)
FOLDER = Path(__file__).with_name("static")
PLOTLY = "plotly.min.js"
MEDIA_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class StaticFile:
    """A static file with its tag; its bytes are served as they are or compressed."""

    path: Path
    tag: str

    @property
    def packed(self) -> bytes:
        """Return the bytes as gzip."""
        return _packed(self.path, self.tag)


@cache
def _packed(path: Path, _tag: str) -> bytes:
    return gzip.compress(path.read_bytes(), 9, mtime=0)


def static_file(name: str) -> StaticFile:
    """Return the file of this name.

    Raises:
        NotFoundError: no file has this name.
    """
    if name == PLOTLY:
        import plotly

        return StaticFile(Path(plotly.__file__).parent / "package_data" / PLOTLY, version("plotly"))
    path = FOLDER / name
    if name not in {file.name for file in FOLDER.iterdir()}:
        raise NotFoundError(f"There is no static file {name!r}.")
    return StaticFile(path, hashlib.sha256(path.read_bytes()).hexdigest()[:12])


def static_url(name: str) -> str:
    """Return the URL of a file; it changes whenever the bytes change."""
    return f"/static/{name}?v={static_file(name).tag}"


@router.get("/static/{name}")
def static(name: str, request: Request, v: str | None = None) -> Response:
    """Return a static file, compressed if the client accepts that."""
    file = static_file(name)
    headers = {
        "ETag": f'"{file.tag}"',
        "Cache-Control": "public, max-age=31536000, immutable" if v == file.tag else "no-cache",
        "Vary": "Accept-Encoding",
    }
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    packed = "gzip" in request.headers.get("accept-encoding", "")
    if packed:
        headers["Content-Encoding"] = "gzip"
    return Response(
        file.packed if packed else file.path.read_bytes(), headers=headers, media_type=MEDIA_TYPES[file.path.suffix]
    )
