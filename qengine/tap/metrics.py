"""/metrics for Prometheus: requests as they end, and the state of the service when it is asked.

Of requests: how many, how long they took, bytes and rows that were sent, by endpoint and status, never by user. Of the service:
queries by phase, workers that are alive and lost, jobs by phase, memory and time of this process. What is counted belongs to one
process; several processes on one registry are scraped one by one, and report the same jobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qengine.catalog.jobs import JobStore
from qengine.catalog.who import LOCAL
from qengine.coordinator.progress import QueryPhase
from qengine.tap.logs import RequestRecord
from qengine.tap.service import AnsweringService

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class Metrics:
    """What one process of the service counts."""

    def __init__(self, service: AnsweringService, *, jobs: JobStore | None = None) -> None:
        self.registry = CollectorRegistry()
        labels = ("endpoint", "method", "status")
        self._requests = Counter("qengine_requests", "Requests that have ended", labels, registry=self.registry)
        self._broken = Counter(
            "qengine_requests_broken", "Requests whose response was not sent to its end", ("endpoint",), registry=self.registry
        )
        self._seconds = Histogram(
            "qengine_request_seconds", "From the request to the end of the response", ("endpoint",), buckets=_BUCKETS_S,
            registry=self.registry,
        )  # fmt: skip
        self._bytes = Counter(
            "qengine_sent_bytes", "Bytes of response bodies, as compressed", ("endpoint",), registry=self.registry
        )
        self._rows = Counter("qengine_sent_rows", "Rows of results", ("endpoint",), registry=self.registry)
        ProcessCollector(registry=self.registry)
        self._state = _State(service)
        self._jobs = jobs
        self.registry.register(self._state)

    async def text(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        if self._jobs is not None:
            counts = await asyncio.to_thread(self._jobs.counts)
            self._state.jobs = {phase.value: count for phase, count in counts.items()}
        return generate_latest(self.registry)

    def observe(self, record: RequestRecord) -> None:
        """Count a request that has ended."""
        method = record.method if record.method in _METHODS else "other"
        self._requests.labels(record.endpoint, method, str(record.status)).inc()
        self._seconds.labels(record.endpoint).observe(record.seconds)
        self._bytes.labels(record.endpoint).inc(record.bytes)
        if record.rows > 0:
            self._rows.labels(record.endpoint).inc(record.rows)
        if not record.is_whole:
            self._broken.labels(record.endpoint).inc()


class _State(Collector):
    """Asks the service when somebody asks for the metrics; `jobs` is what the registry said last."""

    def __init__(self, service: AnsweringService) -> None:
        self._service = service
        self.jobs: Mapping[str, int] = {}

    def collect(self) -> Iterator[Metric]:
        running = [progress.phase for progress in self._service.running(identity=LOCAL)]
        queries = GaugeMetricFamily("qengine_queries_running", "Queries that have not ended", labels=["phase"])
        for phase in QueryPhase:
            if not phase.is_end:
                queries.add_metric([phase.value], running.count(phase))
        yield queries
        alive = [worker.is_alive for worker in self._service.workers()]
        workers = GaugeMetricFamily("qengine_workers", "Workers by state", labels=["state"])
        workers.add_metric(["alive"], alive.count(True))
        workers.add_metric(["lost"], alive.count(False))
        yield workers
        jobs = GaugeMetricFamily("qengine_jobs", "Jobs of /async in the registry, by phase", labels=["phase"])
        for name, count in sorted(self.jobs.items()):
            jobs.add_metric([name], count)
        yield jobs


def routes(metrics: Metrics) -> list[Route]:
    """Return the route that Prometheus asks."""

    async def show(request: Request) -> Response:
        return Response(await metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST, "cache-control": "no-store"})

    return [Route("/metrics", show)]
