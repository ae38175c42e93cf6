"""What `/metrics` tells: decisions, latency, Redis' share of it, the log and its lag. Never a
customer id as a label."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

LATENCY_BUCKETS_S = (
    0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01,
    0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
)


class Metrics:
    """The counters of one process; with several HTTP workers, `text` adds them all up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.decisions = Counter(
            "sidecar_decisions_total", "Answers of check and track",
            ["verb", "outcome", "reason"], registry=self.registry,
        )
        self.latency = Histogram(
            "sidecar_request_seconds", "From decoded request to answer",
            ["verb"], buckets=LATENCY_BUCKETS_S, registry=self.registry,
        )
        self.redis_latency = Histogram(
            "sidecar_redis_seconds", "The round trip to Redis of a check or track",
            buckets=LATENCY_BUCKETS_S, registry=self.registry,
        )
        self.log_entries = Gauge(
            "sidecar_log_entries", "Log entries kept in Redis", registry=self.registry, multiprocess_mode="max"
        )
        self.sync_lag = Gauge(
            "sidecar_sync_lag_entries", "Log entries that SQL does not have yet",
            registry=self.registry, multiprocess_mode="max",
        )
        self.sync_lag_seconds = Gauge(
            "sidecar_sync_lag_seconds", "Age of the oldest log entry that SQL does not have yet",
            registry=self.registry, multiprocess_mode="max",
        )
        self.sync_rejected = Gauge(
            "sidecar_sync_rejected", "Log entries that could not be applied to SQL",
            registry=self.registry, multiprocess_mode="max",
        )
        self.lost_acknowledged = Gauge(
            "sidecar_lost_acknowledged", "Answered operations that a Redis loss took and SQL never had",
            registry=self.registry, multiprocess_mode="sum",
        )

        self._outcomes: dict[tuple[str, str, str], Counter] = {}
        self._latencies: dict[str, Histogram] = {}

    def decided(self, verb: str, outcome: str, reason: str, seconds: float) -> None:
        """Counts an answer and what it took."""
        self._outcome(verb, outcome, reason).inc()
        latency = self._latencies.get(verb)
        if latency is None:
            latency = self._latencies[verb] = self.latency.labels(verb)
        latency.observe(seconds)

    def refused(self, verb: str, code: str) -> None:
        """Counts a call that got an error."""
        self._outcome(verb, "refused", code).inc()

    def _outcome(self, *labels: str) -> Counter:
        found = self._outcomes.get(labels)  # type: ignore[arg-type]
        if found is None:
            found = self._outcomes[labels] = self.decisions.labels(*labels)  # type: ignore[index]
        return found

    def text(self) -> bytes:
        """The exposition format."""
        if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            return generate_latest(self.registry)
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)
        return generate_latest(everyone)
