"""Logs of the platform's processes on stderr: a JSON object per line with the ids of request, run and file, or plain lines."""

from __future__ import annotations

import logging
from typing import Literal

import structlog
from structlog.typing import Processor


def configure(form: Literal["json", "console"] = "json") -> None:
    """Configure the logging of this process and its libraries; `mini-platform up` writes it to files such as `api.log`."""
    shared_processors: list[Processor] = [
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
        foreign_pre_chain=shared_processors,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for name in ("httpx", "httpcore", "apprise"):
        logging.getLogger(name).setLevel(logging.WARNING)
