"""Logs of our processes on stderr: a JSON object per line with the ids of its request, run and file, or lines for people."""

from __future__ import annotations

import logging
from typing import Literal

import structlog
from structlog.typing import Processor


def configure(form: Literal["json", "console"] = "json") -> None:
    """Write what this process and its libraries have to say; `mini-platform up` keeps it in files such as `api.log`."""
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Processor] = [structlog.dev.ConsoleRenderer(colors=False)]
    if form == "json":
        renderer = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=before,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for chatty in ("httpx", "httpcore", "apprise"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
