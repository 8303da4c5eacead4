"""What can be measured from outside while the program runs: Prometheus counters, all named nextbatch_…"""

import threading
from collections import OrderedDict

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    start_http_server,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, that nobody reads
REGISTRY = CollectorRegistry()
CONTENT_TYPE = CONTENT_TYPE_LATEST

_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

events = Counter(
    "nextbatch_events",
    "Webhook events by what became of them: stored, unknown_kind, unknown_project, malformed, unauthorized, not_ours.",
    ("outcome",),
    registry=REGISTRY,
)
predictions = Counter(
    "nextbatch_predictions",
    "Tasks in /predict by how they were answered: stored, encoded, queued, failed, broken, no_model, late.",
    ("outcome",),
    registry=REGISTRY,
)
MOST_VERSIONS = 50  # a round makes one: their names must not grow the exposition for ever

model_predictions = Counter(
    "nextbatch_model_predictions",
    "Predictions that /predict gave, by project and model version; the versions used last.",
    ("project", "version"),
    registry=REGISTRY,
)
requests = Histogram(
    "nextbatch_request_duration_seconds",
    "Time to answer, by endpoint and status class.",
    ("endpoint", "status"),
    buckets=_LATENCY_S,
    registry=REGISTRY,
)
in_flight = Gauge(
    "nextbatch_requests_in_flight",
    "Requests that are being answered, by endpoint.",
    ("endpoint",),
    registry=REGISTRY,
)

scan_items = Counter(
    "nextbatch_scan_items",
    "Items that went through a stage of a scan: fetch, decode, encode, store.",
    ("stage",),
    registry=REGISTRY,
)
scan_busy_s = Counter(
    "nextbatch_scan_busy_seconds",
    "Seconds that a stage's places were at work, added up; its rate over the places is the stage's busy share.",
    ("stage",),
    registry=REGISTRY,
)
scan_places = Gauge(
    "nextbatch_scan_places",
    "How much of a stage can be at work at once, of the scans that run.",
    ("stage",),
    registry=REGISTRY,
)
scan_failures = Counter(
    "nextbatch_scan_failures",
    "Items that a scan could not encode, by the kind of error.",
    ("kind",),
    registry=REGISTRY,
)


_used: OrderedDict[tuple[str, str], None] = OrderedDict()
_using = threading.Lock()
_others: list[Collector] = []


def used(project: str, version: str, predictions: int) -> None:
    """A model version of a project gave so many predictions. The series used longest ago end beyond `MOST_VERSIONS`."""
    with _using:
        _used[project, version] = None
        _used.move_to_end((project, version))
        model_predictions.labels(project, version).inc(predictions)
        while len(_used) > MOST_VERSIONS:
            model_predictions.remove(*_used.popitem(last=False)[0])


def serve_also(collector: Collector) -> None:
    """Let the exposition have what this collector reads; it takes the place of one of its kind."""
    for one in [one for one in _others if type(one) is type(collector)]:
        REGISTRY.unregister(one)
        _others.remove(one)
    REGISTRY.register(collector)
    _others.append(collector)


def exposition() -> bytes:
    """All of it in Prometheus's text format."""
    return generate_latest(REGISTRY)


def serve(address: str) -> None:
    """Answer scrapes at host:port from a thread, for a process that serves nothing else."""
    host, _, port = address.rpartition(":")
    start_http_server(int(port), host or "127.0.0.1", REGISTRY)
