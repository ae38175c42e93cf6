"""A partition that is open says so in two ways: with its generation behind the server's run_id, where nothing is
out of the ordinary, so that check and track read that alone; or in fields of their own, as releases before did.
Both mean the same to every script."""

from __future__ import annotations

import time
from typing import Any

import msgpack
import pytest

from sidecar.engine import keys, scripts
from tests.lua.scripted import DAY_MS, GENERATION, LOG, META, NOW_MS, OPEN, RUN_ID, Scripted, bucket

FORMS = pytest.mark.parametrize("run", [OPEN, RUN_ID], ids=["in one field", "in fields of their own"])
VERBS: list[Any] = [("track", ""), ("check", ""), ("check", "send")]


def reopened(s: Scripted, generation: int, run_id: bytes = RUN_ID, offset_ms: int = 0) -> bytes:
    """What `run` says after the partition was opened again."""
    assert s.unfenced(scripts.OPEN, (META, LOG), generation, 8, 0, -1)[0] == b"OK"
    assert s.unfenced(scripts.OPENED, (META, LOG), generation, run_id, offset_ms, 0, -1) == [b"OK"]
    run: bytes = s.client.hget(META, "run")
    return run


@FORMS
@pytest.mark.parametrize("key", ["", "k"])
@pytest.mark.parametrize(("verb", "mode"), VERBS)
def test_calls_run_on_either(scripted: Scripted, run: bytes, verb: str, mode: str, key: str) -> None:
    scripted.client.hset(META, "run", run)
    assert scripted.load({"a": [bucket(1, 10)]}) == [b"OK"]
    assert scripted.spend(verb, {"a": 3}, mode, key=key)[0] == b"OK"
    assert scripted.view()[0] == scripted.explain()[0] == b"OK"


@FORMS
@pytest.mark.parametrize(
    "other", [{"gen": GENERATION - 1}, {"gen": GENERATION + 1}, {"run_id": b"ru"}, {"run_id": b"run 4"}, {"run_id": b""}], ids=str
)
@pytest.mark.parametrize(("verb", "mode"), VERBS)
def test_calls_of_others_are_stale_on_either(scripted: Scripted, run: bytes, verb: str, mode: str, other: dict[str, Any]) -> None:
    scripted.client.hset(META, "run", run)
    assert scripted.load({"a": [bucket(1, 10)]}) == [b"OK"]
    before = scripted.digest()
    assert scripted.spend(verb, {"a": 3}, mode, **other) == scripted.view(**other) == [b"STALE"]
    assert scripted.digest() == before


@pytest.mark.parametrize(("verb", "mode"), VERBS)
def test_a_partition_under_a_new_generation_lets_no_call_on_before_it_is_open(scripted: Scripted, verb: str, mode: str) -> None:
    assert scripted.load({"a": [bucket(1, 10)]}) == [b"OK"]
    assert scripted.unfenced(scripts.OPEN, (META, LOG), GENERATION + 1, 8, 0, -1)[0] == b"OK"
    for generation in (GENERATION, GENERATION + 1):
        assert scripted.spend(verb, {"a": 3}, mode, gen=generation) == [b"STALE"]
    assert scripted.unfenced(scripts.OPENED, (META, LOG), GENERATION + 1, RUN_ID, 0, 0, -1) == [b"OK"]
    assert scripted.spend(verb, {"a": 3}, mode) == [b"STALE"]
    assert scripted.spend(verb, {"a": 3}, mode, gen=GENERATION + 1)[0] == b"OK"


def test_what_is_out_of_the_ordinary_stands_in_fields_of_its_own(scripted: Scripted) -> None:
    assert reopened(scripted, 4) == b"run 4"
    scripted.client.hset(META, "kl", NOW_MS - 10 * DAY_MS)
    assert reopened(scripted, 5) == b"run 5", "that time is over"
    scripted.client.hset(META, "kl", 1 << 52)
    assert reopened(scripted, 6) == b"run"
    scripted.client.hset(META, "kl", time.time_ns() // 1_000_000 - DAY_MS // 2)
    assert reopened(scripted, 8) == b"run", "the server's clock may be put back"
    scripted.client.hdel(META, "kl")
    assert reopened(scripted, 9, offset_ms=DAY_MS) == b"run"


@FORMS
def test_calls_see_the_clock_moved(scripted: Scripted, run: bytes) -> None:
    scripted.client.hset(META, "run", run)
    assert scripted.load({"a": [bucket(1, 10)]}) == [b"OK"]
    before = scripted.spend("track", {"a": 1})[2]
    assert scripted.unfenced(scripts.CLOCK, (META,), 5 * DAY_MS) == [b"OK", 5 * DAY_MS]
    assert scripted.client.hget(META, "run") == RUN_ID
    for now in (scripted.spend("track", {"a": 1})[2], scripted.spend("track", {"a": 1}, key="k")[2], scripted.view()[1]):
        assert 5 * DAY_MS <= now - before < 5 * DAY_MS + 60_000


def test_a_clock_that_stays_leaves_the_partition_as_it_is(scripted: Scripted) -> None:
    assert scripted.unfenced(scripts.CLOCK, (META,), 0) == [b"OK", 0]
    assert scripted.client.hget(META, "run") == OPEN


def test_a_ledger_of_the_release_before_goes_on(scripted: Scripted) -> None:
    """The same bytes, whoever wrote them last: a track, or what shares begin_keyed.lua."""
    assert scripted.load({"a": [bucket(1, 100)]}) == [b"OK"]
    assert scripted.spend("track", {"a": 3}, key="k", brief=True)[:2] == b"3-"
    first = scripted.client.hget(META, "ik")
    assert len(first) == 89
    assert scripted.hold(5, key="h")[0] == b"OK"
    second = scripted.client.hget(META, "ik")
    assert scripted.spend("track", {"a": 3}, key="l", brief=True)[:2] == b"3-"
    third = scripted.client.hget(META, "ik")
    sums = [int.from_bytes(one[9:17], "big") for one in (first, second, third)]
    assert sums[0] == 100 + len(scripted.client.get(keys.record(0, keys.digest("c", "k"))))
    assert sums[0] < sums[1] and sums[2] == sums[1] + sums[0]
    assert all(one[9:17] == one[17:25] and one[25:] == bytes(64) for one in (first, second, third))


@pytest.mark.parametrize("offset_ms", [0, 5 * DAY_MS], ids=["now", "clock moved"])
def test_a_record_ends_when_it_says(scripted: Scripted, offset_ms: int) -> None:
    assert scripted.load({"a": [bucket(1, 10)]}) == [b"OK"]
    assert scripted.unfenced(scripts.CLOCK, (META,), offset_ms) == [b"OK", offset_ms]
    scripted.spend("track", {"a": 3}, key="k", brief=True)
    name = keys.record(0, keys.digest("c", "k"))
    (_, entry), = scripted.client.xrange(LOG)
    *_, rec = msgpack.unpackb(entry[b"d"], raw=True, strict_map_key=False)
    assert scripted.client.execute_command("PEXPIRETIME", name) == int.from_bytes(rec[1:9], "big") - offset_ms
