"""A thousand top-ups, bought and used up: they leave the hot state without changing any answer, and come
back when a refund needs them."""

from __future__ import annotations

import re
from typing import Any, Callable

import pytest
from sqlalchemy import Connection

from sidecar.store import customers, outbox
from sync.duties import Duties
from tests.cases.versions import NEWEST, V20, V21, shown_at
from tests.cases.world import Customer, P, World
from tests.http import Api

BOUGHT = 1000
PACK = 10
STEP = 250
"""Buckets that one step adds."""
TOTALS = re.compile("(.*_)?balance|usage|included_usage|granted|remaining|held|unlimited|overage_allowed|interval|next_reset_at")


@pytest.fixture
def world(make_api: Callable[..., Api]) -> World:
    """Patient: adding so many buckets at once takes Redis seconds on a busy machine."""
    return World(make_api(redis_timeout_ms=30_000))


def totals(c: Customer) -> dict[str, dict[str, Any]]:
    """Every version's numbers of the whole feature."""
    found = {}
    for version, headers in (("1.2", None), ("2.0", V20), ("2.1", V21), ("2.3", NEWEST)):
        shown = shown_at(c, headers)
        found[version] = {name: value for name, value in shown.items() if TOTALS.fullmatch(name)}
    return found


def archived(c: Customer) -> int:
    """How many buckets Redis has as a sum only."""
    state = c.api.run(c.api.ctx.engine.view(c.id))
    assert state is not None
    return state.archived["msg", ""].count if ("msg", "") in state.archived else 0


def bought_again(c: Customer, times: int) -> None:
    """Carries out the step of the customer's last purchase again so many times, each a bucket of its own.
    A purchase of each would take a minute of checkouts."""
    store = c.api.ctx.store
    cid = store.read_sync(customers.by_id, c.id).cid

    def steps(conn: Connection) -> None:
        [*_, (name, feature_id, row, *rest)] = outbox.operations(outbox.after(conn, cid, 0)[-1])
        assert (name, feature_id) == ("add", "msg")
        for count in [STEP] * (times // STEP) + [times % STEP]:
            version, first = customers.take_version(conn, cid, count)
            adds = [[name, feature_id, [first + number, *row[1:]], *rest] for number in range(count)]
            outbox.append(conn, cid, version, adds, 0)

    store.write_sync(steps)
    c.api.run(c.api.ctx.engine.project(c.id))
    c.api.sync()


def tidy_up(c: Customer) -> None:
    """What the worker does until there is no more to do."""
    duties = Duties(c.api.ctx.engine, c.api.ctx.store, c.api.settings.partitions)
    c.api.sync()
    while c.api.run(duties.archive_used_up()):
        c.api.sync()


def give_back(c: Customer, value: Any, event: str = "") -> Any:
    of = {"refund_of": event} if event else {"feature_id": "msg"}
    return c.api.post("/v1/track", {"customer_id": c.id, "value": value, **of}, headers=V21)["value"]


@pytest.mark.parametrize("make_api", ["asgi"], indirect=True)
def test_a_thousand_used_up_top_ups_count_on_and_come_back(world: World) -> None:
    top_up, _ = world.plan(P(0, PACK, None).with_(price=1, billing_units=PACK))
    c = world.customer()
    world.api.attach(c.id, top_up, {"msg": PACK})
    bought_again(c, BOUGHT - 2)
    world.api.attach(c.id, top_up, {"msg": PACK})
    everything = c.track(BOUGHT * PACK)["id"]
    before = totals(c)
    assert (before["1.2"]["usage"], before["1.2"]["balance"]) == (BOUGHT * PACK, 0)
    assert (before["2.1"]["granted"], before["2.1"]["remaining"]) == (BOUGHT * PACK, 0)
    tidy_up(c)
    assert archived(c) == BOUGHT - 4
    assert totals(c) == before, "they are counted on"

    # To the very buckets that paid: the last of them first.
    assert give_back(c, -105, everything) == -105
    assert archived(c) == 0 and totals(c)["2.1"]["remaining"] == 105
    assert [part["balance"] for part in shown_at(c, None)["breakdown"] if part["balance"]] == [5, *[PACK] * 10]

    # And once more, by a plain refund: the first in the order of spending.
    c.track(105)
    assert totals(c) == before
    tidy_up(c)
    assert archived(c) == BOUGHT - 4 and totals(c) == before
    assert give_back(c, -25) == -25
    after = totals(c)
    assert (after["1.2"]["balance"], after["2.1"]["remaining"], after["2.1"]["usage"]) == (25, 25, BOUGHT * PACK - 25)
    assert [part["balance"] for part in shown_at(c, None)["breakdown"] if part["balance"]] == [PACK, PACK, 5]
    assert give_back(c, None, everything) == 105 - BOUGHT * PACK
    assert totals(c)["2.1"]["remaining"] == BOUGHT * PACK - 105, "what was spent since then stays spent"
