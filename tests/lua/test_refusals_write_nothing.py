"""Check everything, then write everything: a script that refuses has written nothing.

For every code of every script: the server's digest before and after the call is the same. Only resets
that were due are kept, whole, when a call is refused.
"""

from __future__ import annotations

from typing import Any, Callable

import msgpack
import pytest

from sidecar.domain import layout
from sidecar.domain.receipt import Receipt, pack
from sidecar.engine import keys, scripts
from tests.lua.scripted import CID, DAY_MS, GENERATION, LOG, META, NOW_MS, RUN_ID, Scripted, bucket, due

MAX = 2**53 - 1
Refusal = Callable[[Scripted], Any]
REFUSALS: list[tuple[str, str, str, Refusal]] = []


def refusal(name: str, code: str, case: str = "") -> Callable[[Refusal], Refusal]:
    """Registers a call that `name`.lua must refuse with `code`. It gets a server with customer `c`,
    who has buckets of `a`, `b` and (per seat) `e`, and makes ready what it needs before it returns
    the call."""

    def register(prepare: Refusal) -> Refusal:
        REFUSALS.append((name, code, case, prepare))
        return prepare

    return register


def ready(s: Scripted) -> None:
    share = bucket(4, 50, flags=layout.PER_ENTITY, entity_feature="seats", slots=1, balance=50)
    rows = {"a": [bucket(1, 100)], "b": [bucket(2, 10), bucket(3, 5, next_reset_at=0, interval=0)], "e": [share]}
    assert s.load(rows, entities=["e1"]) == [b"OK"]


# Calls of another generation, or on another server process


def others_calls() -> dict[str, Callable[[Scripted, dict[str, Any]], Any]]:
    meta, log = META, LOG
    return {
        "track": lambda s, kw: s.spend("track", {"a": 5}, key="k", **kw),
        "check": lambda s, kw: s.spend("check", {"a": 5}, "send", **kw),
        "view": lambda s, kw: s.view(**kw),
        "project": lambda s, kw: s.project((2, [["drop", "a", 1, ""]]), **kw),
        "hold": lambda s, kw: s.hold(5, **kw),
        "settle": lambda s, kw: s.settle(**kw),
        "refund": lambda s, kw: s.refund(b"3-0", [1, -5], 5, **kw),
        "claim": lambda s, kw: s.claim(**kw),
        "explain": lambda s, kw: s.explain(**kw),
        "keep": lambda s, kw: s.keep(**kw),
        "load": lambda s, kw: s.load({"a": [bucket(1, 5)]}, name="new", **kw),
        "evict": lambda s, kw: s.evict(99, **kw),
        "read": lambda s, kw: s.run(scripts.READ, (meta, log), 0, -1, 10, **kw),
        "trim": lambda s, kw: s.run(scripts.TRIM, (meta, log), GENERATION, 0, **kw),
    }


for _name, _call in others_calls().items():
    for _case, _kw in (
        ("older generation", {"gen": GENERATION - 1}), ("newer generation", {"gen": GENERATION + 1}), ("other process", {"run_id": b"x"}),
        ("no process", {"run_id": b""}),
    ):
        refusal(_name, "STALE", _case)(lambda s, call=_call, kw=_kw: lambda: call(s, kw))


# check and track


@refusal("track", "MISSING")
def _(s: Scripted) -> Any:
    return lambda: s.spend("track", {"a": 5}, key="k", name="nobody")


@refusal("check", "MISSING")
def _(s: Scripted) -> Any:
    return lambda: s.spend("check", {"a": 5}, "send", name="nobody")


@refusal("track", "MISSING", "deleted")
def _(s: Scripted) -> Any:
    assert s.project((2, [["delete"]]))[0] == b"OK"
    return lambda: s.spend("track", {"a": 5})


def half_loaded(s: Scripted) -> None:
    """Customer `c` as a load leaves it while steps that SQL decided before are still to come."""
    s.client.hset(keys.customer(0, "c"), "h", layout.pack_header(layout.Header(CID, 1, GENERATION, -1, 0, layout.LOADING)))


@refusal("track", "MISSING", "steps still to come")
def _(s: Scripted) -> Any:
    half_loaded(s)
    return lambda: s.spend("track", {"a": 5})


@refusal("check", "MISSING", "steps still to come")
def _(s: Scripted) -> Any:
    half_loaded(s)
    return lambda: s.spend("check", {"a": 5}, "send")


for _verb, _mode in (("track", "cap"), ("track", "reject"), ("track", "overflow"), ("check", "send"), ("check", "")):
    refusal(_verb, "ENTITY", _mode or "no event")(
        lambda s, verb=_verb, mode=_mode: lambda: s.spend(verb, {"a": 5, **({"b": 1} if verb == "track" else {})}, mode, entity="nobody")
    )

for _verb, _mode in (("track", "cap"), ("check", "send")):

    @refusal(_verb, "REPLAY")
    def _(s: Scripted, verb: str = _verb, mode: str = _mode) -> Any:
        assert s.spend(verb, {"a": 5}, mode, key="k")[0] == b"OK"
        return lambda: s.spend(verb, {"a": 5}, mode, key="k")

    @refusal(_verb, "CONFLICT")
    def _(s: Scripted, verb: str = _verb, mode: str = _mode) -> Any:
        assert s.spend(verb, {"a": 5}, mode, key="k")[0] == b"OK"
        return lambda: s.spend(verb, {"a": 5}, mode, key="k", fingerprint=b"g" * 16)

    @refusal(_verb, "ASK")
    def _(s: Scripted, verb: str = _verb, mode: str = _mode) -> Any:
        s.client.hset(META, mapping={"run": RUN_ID, "kl": NOW_MS + DAY_MS})
        return lambda: s.spend(verb, {"a": 5}, mode, key="k")

    @refusal(_verb, "ASK", "asked in an older snapshot")
    def _(s: Scripted, verb: str = _verb, mode: str = _mode) -> Any:
        s.client.hset(META, mapping={"run": RUN_ID, "kl": NOW_MS + DAY_MS, "eg": GENERATION, "es": 10})
        return lambda: s.spend(verb, {"a": 5}, mode, key="k", looked_up=f"{GENERATION} {GENERATION} 9")

    @refusal(_verb, "FULL")
    def _(s: Scripted, verb: str = _verb, mode: str = _mode) -> Any:
        assert s.spend(verb, {"a": 5}, mode, key="k", bytes_max=10)[0] == b"OK"
        return lambda: s.spend(verb, {"a": 5}, mode, key="l", bytes_max=10)

    @refusal(_verb, "RANGE")
    def _(s: Scripted, verb: str = _verb, mode: str = _mode) -> Any:
        huge = bucket(9, 0, flags=layout.USAGE_ALLOWED, balance=5 - MAX)
        s.load({"a": [huge]}, name="deep", cid=8)
        return lambda: s.spend(verb, {"a": 10}, mode, name="deep", key="k")

    @refusal(_verb, "SLOTS")
    def _(s: Scripted, verb: str = _verb, mode: str = _mode) -> Any:
        share = bucket(1, 1, flags=layout.PER_ENTITY, entity_feature="seats", slots=1100, balance=1100)
        s.load({"e": [share]}, name="many", cid=9, entities=[f"e{n:04}" for n in range(1100)])
        return lambda: s.spend(verb, {"e": 1050}, mode, name="many", key="k")


@refusal("track", "REFUSED", "first feature")
def _(s: Scripted) -> Any:
    return lambda: s.spend("track", {"b": 16, "a": 1}, "reject", key="k")


@refusal("track", "REFUSED", "second feature")
def _(s: Scripted) -> Any:
    return lambda: s.spend("track", {"a": 16, "b": 16}, "reject", key="k")


@refusal("track", "REFUSED", "of an entity, after its share was taken")
def _(s: Scripted) -> Any:
    return lambda: s.spend("track", {"e": 16, "b": 16}, "reject", entity="e1", key="k")


@refusal("track", "RANGE", "second feature")
def _(s: Scripted) -> Any:
    s.load({"a": [bucket(1, 100)], "b": [bucket(2, 5, balance=10 - MAX)]}, name="deep", cid=8)
    return lambda: s.spend("track", {"a": 50, "b": 50}, "overflow", name="deep")


@refusal("track", "SLOTS", "second feature")
def _(s: Scripted) -> Any:
    share = bucket(2, 1, flags=layout.PER_ENTITY, entity_feature="seats", slots=1100, balance=1100)
    s.load({"a": [bucket(1, 2000)], "e": [share]}, name="many", cid=9, entities=[f"e{n:04}" for n in range(1100)])
    return lambda: s.spend("track", {"a": 1050, "e": 1050}, "cap", name="many")


# buckets that left the hot state and may have to be refilled


def archived(s: Scripted) -> None:
    """Customer `old`: 5 units of `a` used up and put away, a month beside them."""
    s.load({"a": [bucket(1, 10), bucket(2, 5, balance=0, next_reset_at=0, interval=0)]}, name="old", cid=11)
    s.archive("a", 2, cid=11, name="old")


@refusal("track", "ARCHIVED")
def _(s: Scripted) -> Any:
    archived(s)
    return lambda: s.spend("track", {"a": -3}, name="old")


@refusal("check", "ARCHIVED")
def _(s: Scripted) -> Any:
    archived(s)
    return lambda: s.spend("check", {"a": -3}, "send", name="old")


@refusal("hold", "ARCHIVED")
def _(s: Scripted) -> Any:
    archived(s)
    return lambda: s.hold(-3, name="old")


@refusal("settle", "ARCHIVED")
def _(s: Scripted) -> Any:
    archived(s)
    assert s.hold(3, name="old")[0] == b"OK"
    return lambda: s.settle("confirm", -3, name="old")


@refusal("refund", "ARCHIVED")
def _(s: Scripted) -> Any:
    archived(s)
    return lambda: s.refund(b"3-0", [2, -5], 5, name="old")


# holds


@refusal("hold", "MISSING")
def _(s: Scripted) -> Any:
    return lambda: s.hold(5, name="nobody")


@refusal("hold", "ENTITY")
def _(s: Scripted) -> Any:
    return lambda: s.hold(5, entity="nobody")


@refusal("hold", "LOCKED")
def _(s: Scripted) -> Any:
    assert s.hold(5)[0] == b"OK"
    return lambda: s.hold(5)


@refusal("hold", "MANY")
def _(s: Scripted) -> Any:
    assert s.hold(5)[0] == b"OK"
    return lambda: s.hold(5, lock="m", holds_max=1)


@refusal("hold", "RANGE")
def _(s: Scripted) -> Any:
    s.load({"a": [bucket(9, 0, flags=layout.USAGE_ALLOWED, balance=5 - MAX)]}, name="deep", cid=8)
    return lambda: s.hold(10, name="deep")


@refusal("hold", "SLOTS")
def _(s: Scripted) -> Any:
    share = bucket(1, 1, flags=layout.PER_ENTITY, entity_feature="seats", slots=1100, balance=1100)
    s.load({"e": [share]}, name="many", cid=9, entities=[f"e{n:04}" for n in range(1100)])
    return lambda: s.hold(1050, "e", name="many")


@refusal("settle", "MISSING")
def _(s: Scripted) -> Any:
    return lambda: s.settle(name="nobody")


@refusal("settle", "ENTITY")
def _(s: Scripted) -> Any:
    assert s.hold(5, "e", entity="e1")[0] == b"OK"
    return lambda: s.settle(feature_id="e", entity="e2")


@refusal("settle", "ABSENT")
def _(s: Scripted) -> Any:
    return lambda: s.settle()


@refusal("settle", "EARLY")
def _(s: Scripted) -> Any:
    assert s.hold(5)[0] == b"OK"
    return lambda: s.settle("expire")


@refusal("settle", "RANGE")
def _(s: Scripted) -> Any:
    s.load({"a": [bucket(9, 0, flags=layout.USAGE_ALLOWED, balance=5 - MAX)]}, name="deep", cid=8)
    assert s.hold(3, name="deep")[0] == b"OK"
    return lambda: s.settle("confirm", 20, name="deep")


@refusal("settle", "SLOTS")
def _(s: Scripted) -> Any:
    share = bucket(1, 1, flags=layout.PER_ENTITY, entity_feature="seats", slots=1100, balance=1100)
    s.load({"e": [share]}, name="many", cid=9, entities=[f"e{n:04}" for n in range(1100)])
    assert s.hold(3, "e", name="many")[0] == b"OK"
    return lambda: s.settle("confirm", 1050, "e", name="many")


@refusal("refund", "MISSING")
def _(s: Scripted) -> Any:
    return lambda: s.refund(b"3-0", [1, -5], 5, name="nobody")


@refusal("refund", "ENTITY")
def _(s: Scripted) -> Any:
    return lambda: s.refund(b"3-0", [1, -5], 5, entity="nobody")


@refusal("refund", "REFUSED")
def _(s: Scripted) -> Any:
    answer = s.spend("track", {"a": 5})
    return lambda: s.refund(answer[1], [1, -5], 5, -6, "reject")


@refusal("refund", "RETURNED")
def _(s: Scripted) -> Any:
    answer = s.spend("track", {"a": 5})
    s.client.hset(META, mapping={"eg": GENERATION, "es": 9})
    return lambda: s.refund(answer[1], [1, -5], 5)


@refusal("refund", "RETURNED", "asked in an older snapshot")
def _(s: Scripted) -> Any:
    answer = s.spend("track", {"a": 5})
    s.client.hset(META, mapping={"eg": GENERATION, "es": 9})
    return lambda: s.refund(answer[1], [1, -5], 5, returned_from=f"{GENERATION} {GENERATION} 8")


@refusal("refund", "OPEN")
def _(s: Scripted) -> Any:
    answer = s.hold(5)
    return lambda: s.refund(answer[1], [1, -5], 5, lock="l")


for _name, _again in {
    "hold": lambda s, **kw: s.hold(5, key="k", **{"lock": "l", **kw}),
    "settle": lambda s, **kw: s.settle(key="k", **kw),
    "refund": lambda s, **kw: s.refund(b"3-0", [1, -5], 5, -1, key="k", **kw),
}.items():

    @refusal(_name, "REPLAY")
    def _(s: Scripted, again: Any = _again) -> Any:
        s.hold(5)
        assert again(s, **({"lock": "m"} if again(s)[0] == b"LOCKED" else {}))[0] in (b"OK", b"REPLAY")
        return lambda: again(s)

    @refusal(_name, "CONFLICT")
    def _(s: Scripted, again: Any = _again) -> Any:
        s.spend("track", {"a": 5}, key="k", fingerprint=b"g" * 16)
        return lambda: again(s)

    @refusal(_name, "ASK")
    def _(s: Scripted, again: Any = _again) -> Any:
        s.client.hset(META, mapping={"run": RUN_ID, "kl": NOW_MS + DAY_MS})
        return lambda: again(s)

    @refusal(_name, "FULL")
    def _(s: Scripted, again: Any = _again) -> Any:
        assert s.spend("track", {"a": 5}, key="j", bytes_max=10)[0] == b"OK"
        return lambda: again(s, bytes_max=10)


@refusal("explain", "MISSING")
def _(s: Scripted) -> Any:
    return lambda: s.explain(name="nobody")


@refusal("explain", "ENTITY")
def _(s: Scripted) -> Any:
    return lambda: s.explain(entity="nobody")


@refusal("claim", "TAKEN")
def _(s: Scripted) -> Any:
    assert s.claim() == [b"OK"]
    return lambda: s.claim(b"y")


@refusal("claim", "ASK")
def _(s: Scripted) -> Any:
    s.client.hset(META, mapping={"run": RUN_ID, "kl": NOW_MS + DAY_MS})
    return lambda: s.claim()


# calls that SQL decides


@refusal("keep", "REPLAY")
def _(s: Scripted) -> Any:
    end_ms = NOW_MS + DAY_MS
    receipt = pack(Receipt(end_ms, CID, b"f" * 16, b"done"))
    assert s.keep() == [b"OK"] and s.keep() == [b"REPLAY", b"0-0", b""], "its place"
    assert s.keep("keep", receipt=receipt) == [b"OK"] and s.keep("free") == [b"OK"]
    assert s.keep() == [b"REPLAY", b"0-0", b"done"]
    return lambda: s.keep()


@refusal("keep", "CONFLICT")
def _(s: Scripted) -> Any:
    assert s.keep(key="j") == [b"OK"] and s.keep("free", "j") == [b"OK"] and s.keep(key="j") == [b"OK"]
    assert s.spend("track", {"a": 5}, key="k")[0] == b"OK"
    return lambda: s.keep(fingerprint=b"g" * 16)


@refusal("keep", "ASK")
def _(s: Scripted) -> Any:
    s.client.hset(META, mapping={"run": RUN_ID, "kl": NOW_MS + DAY_MS})
    return lambda: s.keep()


@refusal("keep", "FULL")
def _(s: Scripted) -> Any:
    assert s.spend("track", {"a": 5}, key="j", bytes_max=10)[0] == b"OK"
    return lambda: s.keep(bytes_max=10)


# structure


@refusal("view", "MISSING")
def _(s: Scripted) -> Any:
    return lambda: s.view(1, name="nobody")


@refusal("explain", "MISSING")
def _(s: Scripted) -> Any:
    return lambda: s.explain(name="nobody")


@refusal("explain", "ENTITY")
def _(s: Scripted) -> Any:
    return lambda: s.explain(entity="e9")


@refusal("project", "MISSING")
def _(s: Scripted) -> Any:
    return lambda: s.project((2, []), name="nobody")


@refusal("project", "OTHER")
def _(s: Scripted) -> Any:
    return lambda: s.project((2, [["drop", "a", 1, ""]]), cid=CID + 1)


@refusal("project", "GAP")
def _(s: Scripted) -> Any:
    return lambda: s.project((3, [["drop", "a", 1, ""]]))


@refusal("project", "GAP", "after a step that fits")
def _(s: Scripted) -> Any:
    return lambda: s.project((2, [["drop", "a", 1, ""], ["entity", "e2", "seats", 1, 1]]), (4, [["drop", "b", 2, ""]]))


@refusal("load", "EXISTS")
def _(s: Scripted) -> Any:
    return lambda: s.load({"a": [bucket(1, 5)]})


@refusal("load", "OTHER")
def _(s: Scripted) -> Any:
    return lambda: s.load({"a": [bucket(1, 5)]}, cid=CID + 1)


@refusal("load", "BEHIND", "an eviction")
def _(s: Scripted) -> Any:
    s.client.hset(META, mapping={"eg": GENERATION, "es": 5})
    return lambda: s.load({"a": [bucket(1, 5)]}, name="new", cursor=(GENERATION, 4))


@refusal("load", "BEHIND", "a generation")
def _(s: Scripted) -> Any:
    return lambda: s.load({"a": [bucket(1, 5)]}, name="new", sql_generation=GENERATION - 1)


@refusal("evict", "ABSENT")
def _(s: Scripted) -> Any:
    return lambda: s.evict(9, name="nobody")


@refusal("evict", "ABSENT", "another customer of that name")
def _(s: Scripted) -> Any:
    return lambda: s.evict(9, CID + 1)


@refusal("evict", "AHEAD")
def _(s: Scripted) -> Any:
    s.spend("track", {"a": 1})
    s.spend("track", {"a": 1})
    return lambda: s.evict(0)


@refusal("read", "BEHIND", "what was trimmed")
def _(s: Scripted) -> Any:
    s.client.hset(META, mapping={"tg": GENERATION, "ts": 5})
    return lambda: s.run(scripts.READ, (META, LOG), GENERATION, 4, 10)


# opening


@refusal("open", "HIGHER")
def _(s: Scripted) -> Any:
    return lambda: s.unfenced(scripts.OPEN, (META, LOG), GENERATION - 1, 8, 0, -1)


@refusal("open", "COUNT")
def _(s: Scripted) -> Any:
    return lambda: s.unfenced(scripts.OPEN, (META, LOG), GENERATION + 1, 16, 0, -1)


@refusal("opened", "HIGHER")
def _(s: Scripted) -> Any:
    s.client.hset(META, "run", "")
    return lambda: s.unfenced(scripts.OPENED, (META, LOG), GENERATION - 1, RUN_ID, 0, 0, -1)


@refusal("opened", "HIGHER", "open already")
def _(s: Scripted) -> Any:
    return lambda: s.unfenced(scripts.OPENED, (META, LOG), GENERATION, RUN_ID, 99, 0, -1)


@refusal("forget", "HIGHER")
def _(s: Scripted) -> Any:
    s.client.hset(META, "run", "")
    return lambda: s.unfenced(scripts.FORGET, (META, LOG, keys.customer(0, "c")), GENERATION - 1, 0, 9, NOW_MS, 1)


@refusal("forget", "HIGHER", "open already")
def _(s: Scripted) -> Any:
    return lambda: s.unfenced(scripts.FORGET, (META, LOG, keys.customer(0, "c")), GENERATION, 0, 9, NOW_MS, 1)


CHANGING = {("settle", "EXPIRED")}
"""Codes that are no success for the caller and still change something: a hold that came too late to
be confirmed is given back."""


def test_every_code_of_every_script_is_here() -> None:
    told = {(script.name, code) for script in scripts.SCRIPTS for code in script.codes} - CHANGING
    assert {(name, code) for name, code, _, _ in REFUSALS} == told


@pytest.mark.parametrize(
    ("code", "prepare"), [pytest.param(c, p, id=" ".join(filter(None, (n, c, w)))) for n, c, w, p in REFUSALS]
)
def test_a_refusal_writes_nothing(scripted: Scripted, code: str, prepare: Refusal) -> None:
    ready(scripted)
    call = prepare(scripted)
    before = scripted.digest()
    assert call()[0] == code.encode()
    assert scripted.digest() == before
    assert call()[0] == code.encode(), "and again"


# Answers that are no refusals and still change nothing


QUIET = {
    "check of what is there": lambda s: s.spend("check", {"a": 5}),
    "check of too much": lambda s: s.spend("check", {"a": 101}),
    "check of too much, with send_event": lambda s: s.spend("check", {"a": 101}, "send", key="k"),
    "check of what is not held": lambda s: s.spend("check", {"nothing": 1}, "send", key="k"),
    "check of an entity": lambda s: s.spend("check", {"e": 51}, "send", entity="e1"),
    "view": lambda s: s.view(),
    "explanation": lambda s: s.explain(),
    "explanation of an entity's": lambda s: s.explain("e", entity="e1"),
    "project of steps it has": lambda s: s.project((0, [["drop", "a", 1, ""]]), (1, [["delete"]])),
    "project of nothing": lambda s: s.project(),
    "clock that would go back": lambda s: s.unfenced(scripts.CLOCK, (META,), -5),
}


@pytest.mark.parametrize("call", QUIET.values(), ids=QUIET)
def test_what_has_nothing_to_write_writes_nothing(scripted: Scripted, call: Refusal) -> None:
    ready(scripted)
    scripted.unfenced(scripts.CLOCK, (META,), 0)
    before = scripted.digest()
    assert call(scripted)[0] == b"OK"
    assert scripted.digest() == before


def test_a_load_is_over_when_its_steps_are_there(scripted: Scripted) -> None:
    ready(scripted)
    half_loaded(scripted)
    assert scripted.project((2, [["drop", "b", 2, "", 0, 1]]))[0] == b"OK"
    assert scripted.spend("track", {"a": 5})[0] == b"OK"


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.spend("track", {"a": 60, "b": 999}, "reject", key="k"),
        lambda s: s.spend("track", {"a": 60, "b": 999}, "reject", entity="e1", key="k"),
        lambda s: s.spend("check", {"b": 999}, "send", key="k"),
    ],
    ids=["track", "track of an entity", "check"],
)
def test_a_refusal_keeps_the_resets_that_were_due_and_no_more(scripted: Scripted, call: Refusal) -> None:
    scripted.load({"a": [due(1, 100)], "b": [due(2, 10)]}, entities=["e1"])
    answer = call(scripted)
    assert answer[0] == b"REFUSED" or answer[3] == 0
    assert scripted.balances("b") == [10]
    touched = scripted.client.hgetall(keys.customer(0, "c"))
    assert set(touched) == {b"h", b"b:a", b"b:b", b"e:e1", b"n:seats"} and b"" not in touched.values()
    ((_, entry),) = scripted.client.xrange(LOG)
    record = msgpack.unpackb(entry[b"d"], raw=True)
    assert record[1] == 2 and record[7] == len([f for f in ("a", "b") if scripted.balances(f) in ([100], [10])])
    assert not scripted.client.exists(keys.record(0, keys.digest("c", "k")))
    assert scripted.spend("track", {"a": 1, "b": 1}, "reject", entity="e1")[0] == b"OK"
