"""Check whether our own servers answer: for `up`, `status`, `doctor`, and the health check of a container.

python -m mini_platform.operations.answering             exit code 0 if the API answers
python -m mini_platform.operations.answering dagster     exit code 0 if Dagster's UI does
"""

from __future__ import annotations

import ssl
import sys
import urllib.request

from mini_platform.config.settings import Settings, load_settings
from mini_platform.config.sockets import CODE_SERVER_SOCKET, socket_folder


def unverified() -> ssl.SSLContext:
    """Return the TLS context for requests to this machine: the certificate is rarely valid for 127.0.0.1."""
    return ssl._create_unverified_context()  # noqa: S323


def opener() -> urllib.request.OpenerDirector:
    """Return what opens URLs of this machine: without a proxy, and whatever the certificate."""
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unverified()))
    return urllib.request.build_opener(*handlers)


def answers(url: str, seconds: float = 3.0) -> bool:
    """Return True if a URL of this machine answers 200."""
    try:
        with opener().open(url, timeout=seconds) as response:
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False


def api_answers(settings: Settings) -> bool:
    """Return True if the API answers, which also serves the dashboard."""
    return answers(f"{settings.api_url}/api/health/")


def dagster_answers(settings: Settings) -> bool:
    """Return True if Dagster's UI answers."""
    return answers(f"{settings.dagster_url}/server_info")


def code_server_answers(settings: Settings, seconds: float = 10.0) -> bool:
    """Return True if the code server of the supervisor answers: each of its threads may be in a tick of several seconds."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    address = socket_folder(settings.home / "socket") / CODE_SERVER_SOCKET
    with grpc.insecure_channel(f"unix:{address}") as channel:
        try:
            request = health_pb2.HealthCheckRequest(service="DagsterApi")
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    answering = dagster_answers if sys.argv[1:] == ["dagster"] else api_answers
    sys.exit(not answering(load_settings()))
