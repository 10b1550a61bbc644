"""Nudges: Dagster is asked, by GraphQL, for a run that loads what has just been landed.

A nudge saves the time until the sensor looks. It is never waited for, and where it fails the log says so and nothing else
happens: the sensor, which asks the ledger, is what makes sure that files are loaded.
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

from mini_platform.declare.dataset import Dataset

DATASET_TAG = "mini_platform/dataset"
REQUEST_TAG = "mini_platform/request_id"
"""Of a run that a request asked for."""
ANSWER_SECONDS = 1.0
"""For how long Dagster's answer is waited for. A run that it is about to launch is launched all the same."""
PAUSE_SECONDS = 1.0
"""A dataset is asked for no more often: the sensor sees to what arrives between."""

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
"""Statuses of runs that the next one of their dataset would have to wait for."""


class Runs:
    """Dagster's web server; one per process, which keeps its connection."""

    def __init__(self, url: str) -> None:
        """Nothing is asked yet.

        Args:
            url: of the web server.
        """
        self._url = f"{url}/graphql"
        self._client = httpx.Client(timeout=ANSWER_SECONDS)
        self._worker = ThreadPoolExecutor(1, "nudge")
        self._asked: dict[str, float] = {}
        self._lock = threading.Lock()

    def nudge(self, dataset: Dataset, request_id: str | None = None) -> None:
        """Ask for a run of a dataset, soon and in the background, unless that was done just now.

        Args:
            dataset: whose files wait.
            request_id: of the request that landed them; the run's tag.
        """
        with self._lock:
            now = time.monotonic()
            if now < self._asked.get(dataset.name, 0.0):
                return
            self._asked[dataset.name] = now + PAUSE_SECONDS
        self._worker.submit(self._nudge, dataset.name, request_id)

    def close(self) -> None:
        """Forget what was not asked yet."""
        self._worker.shutdown(cancel_futures=True)
        self._client.close()

    def _nudge(self, dataset: str, request_id: str | None) -> None:
        log = logging.getLogger(__name__)
        try:
            run_id = self._launch(dataset, request_id)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.warning("Dagster was not asked for a run of %s, the sensor will: %r", dataset, error)
        else:
            log.info("Dagster launches run %s of %s", run_id, dataset) if run_id else None

    def _launch(self, dataset: str, request_id: str | None) -> str | None:
        """Id of the run that was launched; None where one is queued or under way: the sensor waits for its end.

        Raises:
            httpx.HTTPError: Dagster does not answer in time.
            ValueError, KeyError, TypeError: it does not give the answer that we know.
        """
        job = f"load_{dataset}"
        tags = [{"key": DATASET_TAG, "value": dataset}]
        seen = self._ask(ASK, {"filter": {"tags": tags, "statuses": UNFINISHED}})
        if seen["runsOrError"]["results"]:
            return None
        repositories = seen["repositoriesOrError"]["nodes"]
        found = next((r for r in repositories if any(j["name"] == job for j in r["jobs"])), None)
        if found is None:
            raise ValueError(f"it has no job {job}")
        selector = {
            "jobName": job,
            "repositoryName": found["name"],
            "repositoryLocationName": found["location"]["name"],
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
