"""What `/metrics` tells: decisions, latency, Redis' share of it, the log and its lag. Never a
customer id as a label.

Decisions are counted in plain numbers, which costs a call next to nothing, and folded into
Prometheus' counters when somebody asks, every second (several workers may share files of counters,
PROMETHEUS_MULTIPROC_DIR) and at the end.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left
from collections import defaultdict

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

LATENCY_BUCKETS_S = (
    0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01,
    0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
)
FOLD_EVERY_S = 1.0


class _Latencies:
    """How often an answer took how long, since it was folded last."""

    __slots__ = ("buckets", "sum_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_BUCKETS_S) + 1)
        self.sum_s = 0.0

    def count(self, seconds: float) -> None:
        """Counts one."""
        self.buckets[bisect_left(LATENCY_BUCKETS_S, seconds)] += 1
        self.sum_s += seconds

    def fold(self, histogram: Histogram) -> None:
        """Adds all to a histogram: to its members, for `observe` takes one at a time; a test holds
        them to what that does."""
        histogram._sum.inc(self.sum_s)
        for bucket, count in zip(histogram._buckets, self.buckets):
            if count:
                bucket.inc(count)


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
            "sidecar_log_entries", "Log entries kept in Redis", registry=self.registry, multiprocess_mode="mostrecent"
        )
        self.sync_lag = Gauge(
            "sidecar_sync_lag_entries", "Log entries that SQL does not have yet",
            registry=self.registry, multiprocess_mode="mostrecent",
        )
        self.sync_lag_seconds = Gauge(
            "sidecar_sync_lag_seconds", "Age of the oldest log entry that SQL does not have yet",
            registry=self.registry, multiprocess_mode="mostrecent",
        )
        self.sync_rejected = Gauge(
            "sidecar_sync_rejected", "Log entries that could not be applied to SQL",
            registry=self.registry, multiprocess_mode="mostrecent",
        )
        self.lost_acknowledged = Gauge(
            "sidecar_lost_acknowledged", "Answered operations that a Redis loss took and SQL never had",
            registry=self.registry, multiprocess_mode="sum",
        )

        self._decided: defaultdict[tuple[str, str, str], _Latencies] = defaultdict(_Latencies)
        self._refused: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._redis = _Latencies()

    def decided(self, verb: str, outcome: str, reason: str, seconds: float) -> None:
        """Counts an answer and what it took."""
        self._decided[verb, outcome, reason].count(seconds)

    def round_trip(self, seconds: float) -> None:
        """Counts what a check or track waited for Redis."""
        self._redis.count(seconds)

    def refused(self, verb: str, code: str) -> None:
        """Counts a call that got an error."""
        self._refused[verb, code] += 1

    def fold(self) -> None:
        """Adds what was counted since the last time to Prometheus' counters."""
        decided, refused = self._decided.copy(), self._refused.copy()
        self._decided.clear()
        self._refused.clear()
        for (verb, outcome, reason), counted in decided.items():
            self.decisions.labels(verb, outcome, reason).inc(sum(counted.buckets))
            counted.fold(self.latency.labels(verb))
        for (verb, code), count in refused.items():
            self.decisions.labels(verb, "refused", code).inc(count)
        redis, self._redis = self._redis, _Latencies()
        redis.fold(self.redis_latency)

    async def fold_forever(self) -> None:
        """Folds every second, for other workers to see in the files, until cancelled."""
        while True:
            await asyncio.sleep(FOLD_EVERY_S)
            self.fold()

    def text(self) -> bytes:
        """The exposition format; of this process exact, of others a second old."""
        self.fold()
        if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            return generate_latest(self.registry)
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)
        return generate_latest(everyone)
