"""The load test's short form: real load, then proof; and that its proof can fail."""

from __future__ import annotations

from sqlalchemy import Connection, select

from loadtests import run
from loadtests.run import CATALOG, Load, drive, problems
from loadtests.target import serving
from sidecar.store.db import Store
from sidecar.store.tables import buckets, events

LOAD = Load(seconds=12, connections=24, customers=300)
CALLS = (
    "check", "track", "check + send_event", "track with key", "track repeated", "track -1", "checkout", "pay",
    "attach top-up", "attach pay-as-you-go", "get customer",
)


def test_the_short_form() -> None:
    """Every call 2xx, every acknowledged event in SQL, no difference between the stores."""
    with serving(CATALOG, {"SIDECAR_PARTITIONS": "16"}) as target:
        report = drive(target, LOAD)
        assert problems(target, report) == []
        made = {name: row["count"] for name, row in report["requests"].items()}
        assert set(CALLS) <= set(made), "the mix was not all there"
        assert made["check"] > made["track"] > made["checkout"] >= made["pay"] / 2 > 0
        acknowledged = report["acknowledged"]
        assert len(acknowledged) >= made["track"] + made["track with key"] + made["track -1"]

        # One scaled unit off in one bucket, and one event gone: both must be seen.
        store = Store(run.database_of(target))
        try:
            store.write_sync(_one_unit_off)
            store.write_sync(_without, run.position_of(acknowledged[0]))
        finally:
            store.close()
        found = problems(target, report)
        assert any("sidecar audit ended with 1" in problem for problem in found), found
        assert any(problem.startswith("1 acknowledged events are not in SQL") for problem in found), found


def test_a_refused_call_is_a_failure() -> None:
    """An answer that is no 2xx fails the run, whatever the stores say."""
    report = {"requests": {}, "failures": ["track: 503 unavailable"], "acknowledged": []}
    with serving(CATALOG, {"SIDECAR_PARTITIONS": "8"}) as target:
        found = problems(target, report)
    assert found == ["failed call: track: 503 unavailable", "no event was acknowledged: nothing was tested"]


def _one_unit_off(conn: Connection) -> None:
    cid, no = conn.execute(select(buckets.c.cid, buckets.c.no).where(buckets.c.removed_at.is_(None)).limit(1)).one()
    changed = conn.execute(
        buckets.update().where(buckets.c.cid == cid, buckets.c.no == no).values(balance=buckets.c.balance - 1)
    )
    assert changed.rowcount == 1


def _without(conn: Connection, position: tuple[int, ...]) -> None:
    p, gen, seq = position
    gone = conn.execute(events.delete().where(events.c.p == p, events.c.gen == gen, events.c.seq == seq))
    assert gone.rowcount >= 1
