"""Metrics for Prometheus: HTTP requests, and the pipeline as it is in the database at the time of a scrape.

https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from sqlalchemy import func, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mini_platform.operations import watchdog
from mini_platform.operations.incidents import open_by_kind
from mini_platform.operations.sources import inbox_states
from mini_platform.warehouse.ledger import IN_PRODUCTION, PENDING
from mini_platform.warehouse.tables import COUNTERS, alerts, files
from mini_platform.web.auth.guard import allowed
from mini_platform.web.problems import AWAY
from mini_platform.web.site import Site

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
"""Other methods share one label, as clients must not be able to create labels."""
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LOADED = files.c.status == "loaded"
router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    dependencies=[Depends(allowed("read"))],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """Return request and pipeline metrics in the text format of Prometheus."""
    measured: Measured = request.app.state.measured
    return Response(generate_latest(measured.registry), media_type=CONTENT_TYPE_LATEST)


def measure(app: FastAPI, site: Site) -> None:
    """Count the requests of an app, and serve its metrics and those of the site at `/metrics`."""
    app.state.measured = Measured(site)
    app.add_middleware(Measuring, measured=app.state.measured)


class Measured:
    """The metrics of an app, in `app.state.measured`."""

    def __init__(self, site: Site) -> None:
        """Create and register the metrics."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "mini_platform_http_requests",
            "Requests answered",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "mini_platform_http_request_duration_seconds",
            "Seconds from a request to the end of its response",
            ("method", "route"),
            buckets=SECONDS,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(Pipeline(site))


class Measuring:
    """Middleware that counts requests by the template of their route."""

    def __init__(self, app: ASGIApp, measured: Measured) -> None:
        """Wrap an app."""
        self._app = app
        self._measured = measured

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            # Requests without a route, such as files under /static, share one label.
            route = getattr(scope.get("route"), "path", "other")
            self._measured.requests.labels(method, route, status).inc()
            self._measured.seconds.labels(method, route).observe(time.perf_counter() - began)


class Pipeline:
    """Metrics of the pipeline, read at each scrape."""

    def __init__(self, site: Site) -> None:
        """Report on this site."""
        self._site = site

    def describe(self) -> list[Metric]:
        """Return no metrics: called at registration, when the database may be unreachable."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Return every metric; only `database_up` if the database cannot be reached."""
        up = GaugeMetricFamily("mini_platform_database_up", "1 if the database answers, else 0", 0)
        try:
            figures = [*self._of_the_ledger(), *self._of_inboxes(), *self._of_runs(), *self._of_incidents()]
        except AWAY:
            return [up]
        return [GaugeMetricFamily(up.name, up.documentation, 1), *figures]

    def _of_the_ledger(self) -> list[Metric]:
        """Return files and rows of the ledger. They are gauges, as reprocessing may lower them."""
        counted = [func.coalesce(func.sum(files.c[name]).filter(LOADED), 0).label(name) for name in COUNTERS]
        now = func.extract("epoch", func.now())
        waiting = func.min(func.extract("epoch", files.c.arrived_at)).filter(files.c.status.in_(PENDING))
        loaded = func.max(func.extract("epoch", files.c.loaded_at)).filter(IN_PRODUCTION)
        by_dataset = select(
            files.c.dataset, *counted, (now - waiting).label("lag"), loaded.label("loaded"), now.label("now")
        )
        by_status = select(files.c.dataset, files.c.status, func.count().label("number"))
        with self._site.read() as conn:
            datasets = conn.execute(by_dataset.group_by(files.c.dataset)).all()
            statuses = conn.execute(by_status.group_by(files.c.dataset, files.c.status)).all()
        count = _gauge("files", "Files in the ledger", "dataset", "status")
        for row in statuses:
            count.add_metric([row.dataset, row.status], row.number)
        rows = _gauge("rows", "Rows of loaded files by action", "dataset", "action")
        lag = _gauge(
            "oldest_pending_file_age_seconds",
            "Age of the oldest pending file; 0 if there is none",
            "dataset",
        )
        last = _gauge("last_load_timestamp_seconds", "Time of the last load", "dataset")
        age = _gauge("freshness_seconds", "Seconds since the last load", "dataset")
        for row in datasets:
            for name in COUNTERS:
                rows.add_metric([row.dataset, name.removeprefix("rows_")], float(getattr(row, name)))
            lag.add_metric([row.dataset], float(row.lag or 0))
            if row.loaded is not None:
                last.add_metric([row.dataset], float(row.loaded))
                age.add_metric([row.dataset], float(row.now - row.loaded))
        return [count, rows, lag, last, age]

    def _of_inboxes(self) -> list[Metric]:
        """Return the state of the remote inboxes."""
        up = _gauge("inbox_up", "1 if the remote inbox could be used on the last visit, else 0", "dataset", "inbox")
        looked = _gauge("inbox_last_look_timestamp_seconds", "Time of the last complete listing", "dataset", "inbox")
        with self._site.read() as conn:
            states = inbox_states(self._site.platform, conn, self._site.datasets.values())
        for row in states:
            up.add_metric([row.dataset, row.inbox], float(row.last_error is None))
            if row.looked_at is not None:
                looked.add_metric([row.dataset, row.inbox], row.looked_at.timestamp())
        return [up, looked]

    def _of_runs(self) -> list[Metric]:
        """Return runs and their durations, from Dagster's run records."""
        runs = _gauge("runs", "Runs by status", "dataset", "status")
        seconds = _gauge("runs_duration_seconds", "Total duration of completed runs", "dataset")
        latest = _gauge("last_successful_run_duration_seconds", "Duration of the last successful run", "dataset")
        success = _gauge("last_successful_run_timestamp_seconds", "Time of the last successful run", "dataset")
        for dataset, row in self._site.run_history().items():
            for status in ("succeeded", "failed", "running"):
                runs.add_metric([dataset, status], getattr(row, status))
            seconds.add_metric([dataset], float(row.seconds))
            if row.last_succeeded is not None:
                success.add_metric([dataset], row.last_succeeded.timestamp())
                latest.add_metric([dataset], float(row.last_seconds))
        return [runs, seconds, latest, success]

    def _of_incidents(self) -> list[Metric]:
        """Return open incidents, alerts that could not be sent, and when the watchdog looked."""
        failing = select(func.count()).where(alerts.c.sent_at.is_(None), alerts.c.attempts > 0)
        with self._site.read() as conn:
            by_kind = open_by_kind(conn)
            unsent = conn.scalar(failing) or 0
        open_incidents = _gauge("open_incidents", "Open incidents", "kind")
        for kind, number in by_kind.items():
            open_incidents.add_metric([kind], number)
        alerts_failing = _gauge("alerts_failing", "Alerts not sent yet, being retried")
        alerts_failing.add_metric([], unsent)
        looked = _gauge("watchdog_last_look_timestamp_seconds", "Time of the last complete look of the watchdog")
        if last := watchdog.last_look(self._site.settings):
            looked.add_metric([], last)
        return [open_incidents, alerts_failing, looked]


def _gauge(name: str, words: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"mini_platform_{name}", words, labels=labels)
