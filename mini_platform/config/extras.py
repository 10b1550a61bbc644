"""Extras: packages that only some settings need, installed by `pip install 'mini-platform[s3]'`.

Here: which setting needs which extra, and the sentence if it is not installed. Nothing is imported to find out. Not here: the
packages of an extra (`pyproject.toml`).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mini_platform.config.settings import Settings

MODULES = {"s3": "s3fs", "sftp": "asyncssh", "alerts": "apprise", "sentry": "sentry_sdk"}
"""Extra -> the module by which it is recognized. A URL needs the extra with the name of its scheme, if there is one."""


def refusal(extra: str, setting: str) -> str | None:
    """Return that a setting needs an extra, as a sentence with the command to type; None if the extra is installed."""
    if find_spec(MODULES[extra]):
        return None
    return f"{setting} needs packages that are not installed: pip install 'mini-platform[{extra}]'"


def require(extra: str, setting: str, error: type[Exception]) -> None:
    """Raise an error of this class, which the callers handle, if an extra that a setting needs is not installed."""
    if sentence := refusal(extra, setting):
        raise error(sentence)


def refusals(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each setting that needs an extra that is not installed."""
    urls = {f"INBOX__{key.upper()}__URL": inbox.url for key, inbox in settings.inbox.items()}
    needed = {f"MINI_PLATFORM_{name}": url.partition(":")[0] for name, url in urls.items() if url}
    if settings.raw_url:
        needed["MINI_PLATFORM_RAW_STORE"] = "s3"
    if settings.alerts and settings.alerts.get_secret_value().strip():
        needed["MINI_PLATFORM_ALERTS"] = "alerts"
    if settings.sentry_dsn and settings.sentry_dsn.get_secret_value():
        needed["SENTRY_DSN"] = "sentry"
    yield from (
        sentence for setting, extra in needed.items() if extra in MODULES and (sentence := refusal(extra, setting))
    )
