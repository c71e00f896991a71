"""What the service counts, in the form of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one service, in a registry of their own.

    Args:
        waiting: places of the queue that are taken now.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "cast_requests", "Requests by path and status.", ("path", "status"), registry=self._registry
        )
        self.seconds = Histogram(
            "cast_request_seconds", "From request to answer.", ("path",), buckets=_SECONDS, registry=self._registry
        )
        self.batches = Histogram(
            "cast_batch_size", "Photographs per pass.", buckets=(1, 2, 4, 8, 16), registry=self._registry
        )
        self.refused = Counter("cast_refused", "Photographs that found no place.", registry=self._registry)
        places = Gauge("cast_places_taken", "Photographs that wait or are worked on.", registry=self._registry)
        places.set_function(waiting)

    def text(self) -> bytes:
        """The counters as text."""
        return generate_latest(self._registry)
