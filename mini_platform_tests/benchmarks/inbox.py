"""A bucket of 100,000 objects, none of them new: the seconds of a visit, which the process of the sensors is busy for.

    python -m mini_platform_tests.benchmarks.inbox

The server gives ready-made pages of a listing, and is no S3: a real one is slower, and its time not ours. Prints, as its last
line, the seconds of a look at what is known; on stderr those of the first look, and of CPU.
"""

from __future__ import annotations

import http.server
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from urllib.parse import parse_qs, urlsplit

from mini_platform.config.sections import InboxSettings
from mini_platform.datasets.weather import dataset as weather
from mini_platform.operations.sources import visit_inbox
from mini_platform.platform import Platform
from mini_platform.storage.remote import Inbox

OBJECTS, PAGE = 100_000, 1000


def page(start: int) -> bytes:
    """A page of the listing; the names say that the objects are not finished, so that none is asked for."""
    items = "".join(
        f"<Contents><Key>in/{n:08}.csv.part</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{n:032x}&quot;</ETag><Size>{n}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for n in range(start, start + PAGE)
    )
    following = start + PAGE
    more = f"<NextContinuationToken>{following}</NextContinuationToken>" if following < OBJECTS else ""
    truncated = "true" if more else "false"
    head = f"<Name>bucket</Name><Prefix>in/</Prefix><KeyCount>{PAGE}</KeyCount><IsTruncated>{truncated}</IsTruncated>"
    return f"<ListBucketResult>{head}{items}{more}</ListBucketResult>".encode()


def serve(tell: Connection) -> None:
    """Answer listings, and tell the port."""
    pages = {start: page(start) for start in range(0, OBJECTS, PAGE)}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            body = pages[int(query.get("continuation-token", ["0"])[0])]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tell.send(server.server_port)
    server.serve_forever()


def look(platform: Platform, inbox: Inbox) -> float:
    """Seconds of visits, until the listing has come to its end."""
    began = time.perf_counter()
    while True:
        visit = visit_inbox(platform, weather, inbox, at_once=True)
        if visit is None or visit.error or visit.file_ids:
            raise RuntimeError(f"it did not go as it should: {visit}")
        if not visit.has_more:
            return time.perf_counter() - began


def main() -> float:
    """Seconds of a look at what is known."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    keys = {"access_key": "bench", "secret_key": "bench"}
    settings = InboxSettings(url="s3://bucket/in", endpoint=f"http://127.0.0.1:{ours.recv()}", **keys)
    inbox, platform = Inbox("weather", "bench", settings), Platform()
    first, cpu = look(platform, inbox), time.process_time()
    second = look(platform, inbox)
    sys.stderr.write(
        f"first look {first:.2f} s, second {second:.2f} s of which {time.process_time() - cpu:.2f} s CPU\n"
    )
    server.terminate()
    return second


if __name__ == "__main__":
    sys.stdout.write(f"{main():.3f}\n")
