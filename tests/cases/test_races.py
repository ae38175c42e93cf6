"""Races, round after round: however the calls fall, exactly what is there is admitted, every sum is exact,
and the audit finds nothing."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from typing import Any, Callable

import pytest

from sidecar.engine import holds
from tests.cases.world import Customer, H, L, M, World
from tests.http import WAYS, Api, audit
from tests.promises import books
from tests.promises.books import REPLAYED, UNIT

CHECK, TRACK, FINALIZE, BATCH = "/v1/check", "/v1/track", "/v1/balances.finalize", "/v1/balances.batch_track"
ROUNDS = (1000 if os.environ.get("SIDECAR_LONG") == "1" else 50) // len(WAYS)
"""Of each race, 50 over both ways in."""
GROUP = {"group": "base"}

Call = tuple[str, str, Any]


@pytest.fixture
def shop(api: Api) -> World:
    """A world in which each round has a customer of its own, of one catalog."""
    return World(api)


def exact(c: Customer) -> None:
    """The feature's buckets are the sum of their ledger, in both stores."""
    lines, api = books.ledger(c.api, c.id), c.api
    live = {no: row.balance for no, row in books.rows(api, c.id).items()}
    sums: Counter[int] = Counter()
    for line in lines:
        sums[line.no] += line.delta
    assert {no: sums[no] for no in live} == live
    assert {row.no: row.balance for _, row in books.snapshot(api, c.id).rows} == live


def settle(name: str, action: str, value: Any = None) -> Call:
    return "POST", FINALIZE, {"lock_id": name, "action": action, **({} if value is None else {"override_value": value})}


HELD, FINAL, LIFETIME = 14, 5, 30


def test_confirm_release_expiry_switch_and_reset_of_one_hold(shop: World) -> None:
    """Rounds of confirm ∥ release ∥ expiry, alone, beside a plan switch, beside a reset: one of
    them ends the hold, and what is left is what some order of them leaves."""
    api = shop.api
    shop.plan(H(10), L(LIFETIME), is_default=True, **GROUP)
    new = shop.plan(H(20), L(LIFETIME + 10), **GROUP)
    seen: Counter[tuple[str, str]] = Counter()
    for round_ in range(3 * ROUNDS):
        beside = ("alone", "switch", "reset")[round_ % 3]
        c, name = shop.customer(), f"race-{round_}"
        began_ms = api.run(api.ctx.clock.now_ms())
        assert c.check(1)["allowed"]
        now_ms = api.run(api.ctx.clock.now_ms())
        life_ms = 40 + 5 * (now_ms - began_ms)  # so that the hold is there before it ends, however slow the machine
        assert c.check(HELD, lock={"enabled": True, "lock_id": name, "expires_at": now_ms + life_ms})["allowed"]
        end, won, statuses = c.period_end(), "expiry", []
        calls = [settle(name, "confirm", FINAL), settle(name, "release")]
        if beside == "switch":
            calls.append(("POST", "/v1/attach", {"customer_id": c.id, "product_id": new[0]}))
        if beside == "reset":
            calls.append(("POST", "/v1/test_clock", {"now_ms": end}))
        random.shuffle(calls)
        wait_s = random.choice((0.0, 0.6, 1.0, 1.2)) * life_ms / 1000
        answers, expired = api.run(_race(api, c.id, name, calls, wait_s))
        assert all(answer.status_code in (200, 409, 410) for answer in answers), [answer.text for answer in answers]
        for call, answer in zip(calls, answers):
            if call[1] == FINALIZE:
                statuses.append(answer.status_code)
                won = call[2]["action"] if answer.status_code == 200 else won
            else:
                assert answer.status_code == 200
        assert statuses.count(200) <= 1
        api.run(_until_ended(api, c.id, name))
        seen[beside, won] += 1
        used = FINAL if won == "confirm" else 0
        remains = c.ru()[0]
        if beside == "alone":
            assert remains == 10 + LIFETIME - used
        elif beside == "switch":  # usage starts fresh; a give-back to what is gone lifts nothing above its grant
            assert remains in range(20 + LIFETIME + 10 - used, 20 + LIFETIME + 10 + 1)
        else:  # settled before the reset or after: 5 of the hour's units came back to no one
            assert remains in (10 + LIFETIME, 10 + LIFETIME - used)
        assert not books.state(api, c.id).holds
        if round_ % 25 < 3:
            exact(c)
    assert len({won for _, won in seen}) == 3 and len(seen) > 5, seen
    audit(api)


async def _race(api: Api, customer_id: str, name: str, calls: list[Call], wait_s: float) -> tuple[list[Any], bool]:
    async def sweep() -> bool:
        for _ in range(4):
            if await holds.expire_hold(api.ctx.engine, customer_id, name):
                return True
            await asyncio.sleep(0.001)
        return False

    await asyncio.sleep(wait_s)
    *answers, expired = await asyncio.gather(*(api.send(*call) for call in calls), sweep())
    return answers, expired


async def _until_ended(api: Api, customer_id: str, name: str) -> None:
    """Sweeps as the worker does until the hold has ended."""
    for _ in range(200):
        await holds.expire_due(api.ctx.engine)
        state = await api.ctx.engine.view(customer_id)
        if state is not None and name not in state.holds:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{name} does not end")


def rounds(shop: World, *buckets: Any, plays: Callable[[Customer, random.Random], None]) -> None:
    """Plays the rounds, each with a customer of its own; the seed is printed."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    draw = random.Random(seed)
    shop.plan(*buckets, is_default=True)
    for number in range(ROUNDS):
        c = shop.customer()
        plays(c, draw)
        if number % 10 == 0:
            exact(c)
    audit(shop.api)


def test_spends_admit_exactly_what_is_there(shop: World) -> None:
    """N callers of track, check with send_event, batch and hold, one unit each."""

    def play(c: Customer, draw: random.Random) -> None:
        body = {"customer_id": c.id, "feature_id": "msg"}
        one = {**body, "value": 1, "overage_behavior": "reject"}
        sent, held = {**body, "send_event": True}, {**body, "lock": {"enabled": True}}
        calls: list[Call] = [("POST", TRACK, one), ("POST", CHECK, sent), ("POST", CHECK, held)] * 7
        calls += [("POST", BATCH, [one, one])] * 2
        draw.shuffle(calls)
        admitted = 0
        for answer in c.api.together(*calls):
            told = answer.json()
            results = told.get("results", [told])
            admitted += sum(1 for one in results if one.get("allowed", one.get("status", answer.status_code) == 200))
        assert admitted == 17 and c.ru() == (0, 17)

    rounds(shop, H(5), M(8), L(4), plays=play)


def test_capped_spends_apply_exactly_what_is_there(shop: World) -> None:
    """N callers whose amounts do not divide what is there: the last one gets the rest."""

    def play(c: Customer, draw: random.Random) -> None:
        calls = [("POST", TRACK, {"customer_id": c.id, "feature_id": "msg", "value": draw.choice((1, 2, 3))}) for _ in range(14)]
        wanted = sum(call[2]["value"] for call in calls)
        assert {answer.status_code for answer in c.api.together(*calls)} == {200}
        assert c.ru() == (17 - min(17, wanted), min(17, wanted))
        if draw.random() < 0.2:
            assert sum(event["applied"] for event in c.api.events(c.id)) == min(17, wanted) * UNIT

    rounds(shop, H(5), M(8), L(4), plays=play)


def test_resets_happen_once_and_spends_after_them_fit(shop: World) -> None:
    """N callers find the reset due: the new period is there once, and not a unit more."""

    def play(c: Customer, draw: random.Random) -> None:
        c.track(7)
        c.api.advance_to(c.period_end())
        body = {"customer_id": c.id, "feature_id": "msg", "value": 1, "overage_behavior": "reject"}
        answers = c.api.together(*[("POST", TRACK, body)] * 16, ("GET", f"/v1/customers/{c.id}", None))
        assert sum(answer.status_code == 200 for answer in answers[:-1]) == 6 + 7
        assert sum(line.kind == "reset" for line in books.ledger(c.api, c.id)) == 1

    rounds(shop, H(6), L(8), plays=play)


def test_holds_and_their_ends_admit_exactly_what_is_there(shop: World) -> None:
    """N holds of three for what fits five of them; then all are ended by several at once."""

    def play(c: Customer, draw: random.Random) -> None:
        body = {"customer_id": c.id, "feature_id": "msg", "required_balance": 3, "lock": {"enabled": True}}
        answers = [answer.json() for answer in c.api.together(*[("POST", CHECK, body)] * 9)]
        names = [answer["lock_id"] for answer in answers if answer["allowed"]]
        assert len(names) == 5 and c.ru() == (2, 15)
        ends = [call for name in names for call in (settle(name, "confirm", 1), settle(name, "release"), settle(name, "confirm"))]
        draw.shuffle(ends)
        statuses = [answer.status_code for answer in c.api.together(*ends)]
        assert Counter(statuses) == {200: 5, 409: 10}
        kept = {"release": 0, "confirm": 3}
        used = sum(call[2].get("override_value", kept[call[2]["action"]]) for call, status in zip(ends, statuses) if status == 200)
        assert c.ru() == (17 - used, used)

    rounds(shop, H(5), M(8), L(4), plays=play)


def test_refunds_give_back_exactly_what_was_taken(shop: World) -> None:
    """N refunds of one event, of parts and of the rest, in both modes; no more than was taken, to the
    buckets that paid."""

    def play(c: Customer, draw: random.Random) -> None:
        before = books.balances(c.api, c.id)
        event = c.track(15)["id"]
        if draw.random() < 0.3:
            books.evict(c.api, c.id)
        body = {"customer_id": c.id, "refund_of": event}
        calls = [("POST", TRACK, {**body, "value": -4, "overage_behavior": "reject"}) for _ in range(6)]
        assert sum(answer.status_code == 200 for answer in c.api.together(*calls)) == 3
        assert c.ru() == (14, 3)
        calls = [("POST", TRACK, body)] * 3 + [("POST", TRACK, {**body, "value": -2})] * 3
        draw.shuffle(calls)
        assert {answer.status_code for answer in c.api.together(*calls)} == {200}
        assert books.balances(c.api, c.id) == before

    rounds(shop, H(5), M(8), L(4), plays=play)


def test_of_calls_under_one_key_one_is_made(shop: World) -> None:
    """N callers with one idempotency key, in half of the rounds with different calls."""

    def play(c: Customer, draw: random.Random) -> None:
        body = {"customer_id": c.id, "feature_id": "msg", "value": 3, "idempotency_key": "k"}
        other = {**body, "value": 4} if draw.random() < 0.5 else body
        calls = [("POST", TRACK, body), ("POST", TRACK, other)] * 4
        answers = c.api.together(*calls)
        assert sum(answer.status_code == 200 and REPLAYED not in answer.headers for answer in answers) == 1
        used = c.ru()[1]
        assert used in (3, other["value"])
        expected = [200 if call[2]["value"] == used else 409 for call in calls]
        assert [answer.status_code for answer in answers] == expected
        assert len({answer.text for answer in answers if answer.status_code == 200}) == 1

    rounds(shop, H(5), M(8), L(4), plays=play)


def test_top_ups_during_spends_are_all_spendable_and_no_more(shop: World) -> None:
    """N callers spend while top-ups arrive: with what is tried once more at last, exactly what was
    granted is admitted."""
    top_up = shop.add_on(L(3))

    def play(c: Customer, draw: random.Random) -> None:
        one: Call = ("POST", TRACK, {"customer_id": c.id, "feature_id": "msg", "value": 1, "overage_behavior": "reject"})
        buy: Call = ("POST", "/v1/attach", {"customer_id": c.id, "product_id": top_up[0]})
        calls = [one] * 20 + [buy] * 2
        draw.shuffle(calls)
        answers = c.api.together(*calls)
        assert [answer.status_code for call, answer in zip(calls, answers) if call is buy] == [200, 200]
        admitted = sum(answer.status_code == 200 for call, answer in zip(calls, answers) if call is one)
        assert 12 <= admitted <= 18
        admitted += sum(answer.status_code == 200 for answer in c.api.together(*[one] * 8))
        assert admitted == 18 and c.ru() == (0, 18)

    rounds(shop, M(8), L(4), plays=play)
