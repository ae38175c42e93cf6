"""What Redis' memory holds: a customer, a log entry that SQL does not have yet, a remembered key."""

from __future__ import annotations

import time
from typing import Any

import redis

from sidecar.catalog.model import Feature
from sidecar.catalog.snapshot import Catalog
from sidecar.engine import keys

from ..script_cost import require_done
from ..spread import markdown
from ..stage import Stage, bucket, top_up
from ..valkeys import embedded
from . import Goal, Options

TITLE = "Redis' memory"
CUSTOMERS = ENTRIES = 20_000
FEATURES = ("messages", "images", "credits")
BOUNDS = {"customer": 1024, "log entry": 150, "idempotency key": 170}
SHOWN = {
    "customer": "a customer with 3 features in 4 buckets", "log entry": "a log entry not yet in SQL, without properties",
    "idempotency key": "a remembered idempotency key",
}
SETTLE_S = 0.3


def run(options: Options) -> dict[str, Any]:
    """Bytes for each of these, by what 20,000 of them add to Redis' own count."""
    with embedded() as client:
        stage = Stage(client, catalog=Catalog.of(1, [Feature(name, name.title(), "single_use") for name in FEATURES], []))
        names = [f"customer_{number:08}" for number in range(CUSTOMERS)]
        buckets = {FEATURES[0]: [bucket(1), top_up(2, 10**11)], **{name: [bucket(no)] for no, name in enumerate(FEATURES[1:], 3)}}
        options.say("loads customers")
        before = _used(client)
        stage.load_many(names, buckets)
        loaded = _used(client)
        options.say("tracks")
        _all(stage, names)
        tracked = _used(client)
        options.say("tracks with keys")
        client.xtrim(keys.log(0), 0, approximate=False)
        trimmed = _used(client)
        _all(stage, names, key="order")
        client.xtrim(keys.log(0), 0, approximate=False)  # what SQL has leaves the log; the keys stay
        remembered = _used(client)
    return {
        "count": CUSTOMERS,
        "bytes": {
            "customer": round((loaded - before) / CUSTOMERS, 1), "log entry": round((tracked - loaded) / ENTRIES, 1),
            "idempotency key": round((remembered - trimmed) / ENTRIES, 1),
        },
    }


def _all(stage: Stage, names: list[str], key: str = "") -> None:
    pipe = stage.client.pipeline(transaction=False)
    for number, name in enumerate(names):
        more = {"idempotency_key": f"{key}-{number:08}"} if key else {}
        pipe.execute_command(*stage.asked("track", {"customer_id": name, "feature_id": FEATURES[0], **more}))
    require_done(pipe.execute())


def _used(client: redis.Redis) -> int:
    client.memory_purge()
    time.sleep(SETTLE_S)  # buffers of what was just written are given back
    return int(client.info("memory")["used_memory"])


def table(result: dict[str, Any]) -> str:
    """Bytes of each."""
    rows = [[SHOWN[name], f"{size:,.0f}", f"{BOUNDS[name]:,}"] for name, size in result["bytes"].items()]
    return markdown(["held", "bytes", "wanted, at most"], rows)


def goals(results: dict[str, Any]) -> list[Goal]:
    """Bytes of each."""
    found = results["memory"]["bytes"]
    return [Goal(f"Redis' memory for {SHOWN[name]}", found[name], bound, False, " bytes") for name, bound in BOUNDS.items()]
