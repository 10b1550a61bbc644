"""Whether one of our own servers answers: for `up`, `status`, `doctor`, and the health check of a container.

python -m mini_platform.operations.answering        exit code 0 if the API answers
"""

from __future__ import annotations

import ssl
import sys
import urllib.request

from mini_platform.config.settings import Settings, load_settings


def answers(url: str, seconds: float = 3.0) -> bool:
    """Whether a URL of this machine answers 200."""
    # Nothing is sent and nothing believed, and the certificate is seldom one of 127.0.0.1.
    unverified = ssl._create_unverified_context()  # noqa: S323
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unverified)
    )
    try:
        with opener.open(url, timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def api_answers(settings: Settings) -> bool:
    """Whether the API answers, and the dashboard with it."""
    return answers(f"{settings.api_url}/api/health/")


def dagster_answers(settings: Settings) -> bool:
    """Whether Dagster's UI answers."""
    return answers(f"{settings.dagster_url}/server_info")


if __name__ == "__main__":
    sys.exit(not api_answers(load_settings()))
