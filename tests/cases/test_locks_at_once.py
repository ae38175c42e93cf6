"""A worked case of many holds at once."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal

from tests.cases.world import L, World

PAIRS, AT_ONCE = 400, 40


def test_case_169_four_hundred_locks_and_confirms_at_once(world: World) -> None:
    """What is left is 1000 − Σ confirmed, to the last unit, in Redis and in SQL; the credits behind are
    not touched. Seeded, so that a failure comes again."""
    c = world.customer(world.plan(L(1000).of("action1"), L(2000).of("credits")))
    draw = random.Random(169)
    left, pairs = Decimal(1000), []
    for _ in range(PAIRS):
        held, used = (Decimal(draw.randint(low, high)) / 100 for low, high in ((51, 299), (10, 350)))
        if max(held, used) > left:
            break
        left -= max(held, used)
        pairs.append((held, used))

    async def use(number: int) -> None:
        held, used = pairs[number]
        name = {"enabled": True, "lock_id": f"{c.id}-{number}"}
        body = {"customer_id": c.id, "feature_id": "action1", "required_balance": float(held), "lock": name}
        answer = await c.api.send("POST", "/v1/check", body)
        assert answer.json()["allowed"], answer.text
        final = {"lock_id": name["lock_id"], "action": "confirm", "override_value": float(used)}
        assert (await c.api.send("POST", "/v1/balances.finalize", final)).status_code == 200

    async def all_of_them() -> None:
        for at in range(0, len(pairs), AT_ONCE):
            await asyncio.gather(*(use(number) for number in range(at, min(at + AT_ONCE, len(pairs)))))

    c.api.run(all_of_them())
    assert len(pairs) > 300
    assert Decimal(str(c.bal("action1"))) == 1000 - sum(used for _, used in pairs)
    assert c.bal("credits") == 2000
    c.api.sync()
    assert c.api.differences() == []
