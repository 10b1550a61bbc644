"""Nudges: requests to Dagster, by GraphQL, for a run that loads files that have just been landed.

A nudge saves the time until the sensor's next tick. It runs in the background, and a failure is only logged: the sensor, which
reads the ledger, guarantees that files are loaded.
https://docs.dagster.io/api/graphql
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from fastapi import Request

from mini_platform.config.settings import Settings
from mini_platform.declare.dataset import Dataset
from mini_platform.operations.answering import unverified
from mini_platform.web.secret import own_headers

DATASET_TAG = "mini_platform/dataset"
REQUEST_TAG = "mini_platform/request_id"
"""Tag of a run that was requested for an HTTP request."""
ANSWER_SECONDS = 1.0
"""Timeout for Dagster's answer. A run that it is about to launch is launched anyway."""
PAUSE_SECONDS = 1.0
"""Minimum time between requests for a dataset; the sensor handles files that arrive in between."""

ASK = """
query Ask($filter: RunsFilter!) {
  repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } jobs { name } } } }
  runsOrError(filter: $filter, limit: 1) { ... on Runs { results { runId } } }
}
"""
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
  }
}
"""
UNFINISHED = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")
"""Statuses of runs that block the next run of their dataset."""


class Runs:
    """A client of Dagster's web server; one per process, with one connection."""

    def __init__(self, settings: Settings) -> None:
        """Create the client; nothing is requested yet."""
        self._url = f"{settings.dagster_url}/graphql"
        self._client = httpx.Client(timeout=ANSWER_SECONDS, headers=own_headers(settings), verify=unverified())
        self._worker = ThreadPoolExecutor(1, "nudge")
        self._next_allowed: dict[str, float] = {}
        self._lock = threading.Lock()

    def nudge(self, dataset: Dataset, request_id: str | None = None) -> None:
        """Request a run of a dataset in the background, unless one was requested just before.

        Args:
            dataset: dataset with pending files.
            request_id: id of the request that landed them, for the run's tag.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._next_allowed.get(dataset.name, 0.0):
                return
            self._next_allowed[dataset.name] = now + PAUSE_SECONDS
        self._worker.submit(self._nudge, dataset.name, request_id)

    def close(self) -> None:
        """Drop pending requests, and close the connection."""
        self._worker.shutdown(cancel_futures=True)
        self._client.close()

    def _nudge(self, dataset: str, request_id: str | None) -> None:
        log = logging.getLogger(__name__)
        try:
            run_id = self._launch(dataset, request_id)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.warning("Could not request a run of %s from Dagster, the sensor will: %r", dataset, error)
        else:
            log.info("Dagster launches run %s of %s", run_id, dataset) if run_id else None

    def _launch(self, dataset: str, request_id: str | None) -> str | None:
        """Return the id of the launched run; None if a run is queued or in progress, for which the sensor waits.

        Raises:
            httpx.HTTPError: Dagster does not answer in time.
            ValueError, KeyError, TypeError: Dagster's answer has an unknown form.
        """
        job = f"load_{dataset}"
        tags = [{"key": DATASET_TAG, "value": dataset}]
        state = self._ask(ASK, {"filter": {"tags": tags, "statuses": UNFINISHED}})
        if state["runsOrError"]["results"]:
            return None
        repositories = state["repositoriesOrError"]["nodes"]
        repository = next((r for r in repositories if any(j["name"] == job for j in r["jobs"])), None)
        if repository is None:
            raise ValueError(f"it has no job {job}")
        selector = {
            "jobName": job,
            "repositoryName": repository["name"],
            "repositoryLocationName": repository["location"]["name"],
        }
        if request_id:
            tags.append({"key": REQUEST_TAG, "value": request_id})
        launched = self._ask(LAUNCH, {"params": {"selector": selector, "executionMetadata": {"tags": tags}}})
        answer = launched["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise ValueError(answer.get("message", answer["__typename"]))
        return str(answer["run"]["runId"])

    def _ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        answer = self._client.post(self._url, json={"query": query, "variables": variables})
        answer.raise_for_status()
        data: dict[str, Any] | None = answer.json().get("data")
        if data is None:
            raise ValueError(answer.text[:500])
        return data


def nudge(request: Request, dataset: Dataset) -> None:
    """Ask for a run of a dataset on behalf of a request; returns at once."""
    runs: Runs = request.app.state.site.runs
    runs.nudge(dataset, getattr(request.state, "request_id", None))
