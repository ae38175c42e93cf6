"""A brief track does and keeps what a full one does; only its answer, and what is remembered of that, is
the entry's id alone. A short check says what a full one says."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from sidecar.domain import layout, receipt
from sidecar.engine import keys, scripts
from tests.lua.scripted import CID, LOG, TTL_MS, Scripted, bucket, due

CALLS: list[Any] = [
    pytest.param([bucket(1, 10), bucket(2, 10)], {"a": 3}, "", id="the common call"),
    pytest.param([bucket(1, 10), bucket(2, 10)], {"a": 13}, "", id="from two buckets"),
    pytest.param([bucket(1, 10), bucket(2, 10)], {"a": 25}, "", id="more than there is"),
    pytest.param([bucket(1, 10)], {"a": 25}, "overflow", id="below zero"),
    pytest.param([due(1, 10)], {"a": 3}, "", id="after a reset"),
    pytest.param([bucket(1, 10)], {"a": -4}, "", id="back"),
    pytest.param([bucket(1, 10)], {"a": 3, "b": 2}, "", id="two features"),
    pytest.param([], {"a": 3}, "", id="nothing held"),
    pytest.param([bucket(1, 0, flags=layout.UNLIMITED)], {"a": 3}, "", id="unlimited"),
]


def after(scripted: Scripted, rows: list[Any], amounts: dict[str, int], mode: str, **more: Any) -> tuple[Any, Any, Any, Any]:
    """The answer of a first track, and the state, the log's record and what is remembered."""
    scripted.client.delete(LOG, keys.customer(0, "c"))
    assert scripted.load({"a": rows, "b": [bucket(8, 5)]}) == [b"OK"]
    answer = scripted.spend("track", amounts, mode, **more)
    state = scripted.client.hgetall(keys.customer(0, "c"))
    (_, entry), = scripted.client.xrange(LOG)
    remembered = scripted.client.get(keys.record(0, keys.digest("c", "k")))
    return answer, state, msgpack.unpackb(entry[b"d"], raw=True, strict_map_key=False), remembered


@pytest.mark.parametrize(("rows", "amounts", "mode"), CALLS)
@pytest.mark.parametrize("key", ["", "k"])
def test_a_brief_track_does_what_a_full_one_does(
    scripted: Scripted, rows: list[Any], amounts: dict[str, int], mode: str, key: str
) -> None:
    full, state, record, remembered = after(scripted, rows, amounts, mode, key=key)
    scripted.client.delete(keys.record(0, keys.digest("c", "k")))
    brief, brief_state, brief_record, brief_remembered = after(scripted, rows, amounts, mode, key=key, brief=True)
    assert brief == full[1] == b"3-0"
    header, brief_header = (layout.unpack_header(one.pop(b"h")) for one in (state, brief_state))
    assert brief_state == state and brief_header._replace(last_ms=0) == header._replace(last_ms=0)
    *said, rec = record
    *brief_said, brief_rec = brief_record
    assert [*brief_said[:3], 0, *brief_said[4:]] == [*said[:3], 0, *said[4:]]
    if not key:
        assert (rec, brief_rec, remembered, brief_remembered) == (b"", b"", None, None)
        return
    for kept, told, reply in ((remembered, rec, full[2:]), (brief_remembered, brief_rec, None)):
        found, entry_id = receipt.unpack_record(kept)
        assert entry_id == b"3-0" and found == receipt.unpack(told)
        assert (found.cid, found.fingerprint) == (CID, b"f" * 16)
        assert found.reply == b"" if reply is None else msgpack.unpackb(found.reply, raw=True) == reply
    assert TTL_MS - 60_000 < scripted.client.pttl(keys.record(0, keys.digest("c", "k"))) <= TTL_MS


def test_what_is_remembered_briefly_is_told_briefly_to_whoever_asks(scripted: Scripted) -> None:
    assert scripted.load({"a": [bucket(1, 10)]}) == [b"OK"]
    assert scripted.spend("track", {"a": 3}, key="k", brief=True) == b"3-0"
    before = scripted.digest()
    for brief in (True, False):
        assert scripted.spend("track", {"a": 3}, key="k", brief=brief) == [b"REPLAY", b"3-0", b""]
    assert scripted.digest() == before


def test_a_short_check_says_what_a_full_one_says(scripted: Scripted) -> None:
    """With another feature among the fields the answer is not short."""
    assert scripted.load({"a": [bucket(1, 10), bucket(2, 10)]}) == [b"OK"]
    short = scripted.spend("check", {"a": 12})
    full = scripted.spend("check", {"a": 12}, also=("b",))
    assert 0 <= full[2] - short[2] < 60_000
    assert full[:2] == short[:2] and full[3:] == [1, b"", 0, 12, [*short[7], b""], [[], []], []]


@pytest.mark.parametrize("size", [0, 255, 256, 65_535, 65_536, 300_000])
@pytest.mark.parametrize("key", ["", "k"])
def test_a_record_holds_info_of_any_size(scripted: Scripted, size: int, key: str) -> None:
    """What is written directly says the sizes of its texts itself."""
    assert scripted.load({"a": [bucket(1, 10)]}) == [b"OK"]
    info = b"\xff" * size
    assert scripted.spend("track", {"a": 3}, info=info, key=key, brief=True) == b"3-0"
    (_, entry), = scripted.client.xrange(LOG)
    found = msgpack.unpackb(entry[b"d"], raw=True, strict_map_key=False)
    assert found[6] == info and found[7:-1] == [0, 1, b"a", 3, 3, 2, 1, -3, []]


def test_a_record_holds_a_receipt_of_any_size(scripted: Scripted) -> None:
    """The answer of a thousand buckets is longer than 64 KiB."""
    assert scripted.load({"a": [bucket(no, 10) for no in range(1, 1200)]}) == [b"OK"]
    answer = scripted.spend("track", {"a": 3}, key="k")
    (_, entry), = scripted.client.xrange(LOG)
    *_, rec = msgpack.unpackb(entry[b"d"], raw=True, strict_map_key=False)
    assert len(rec) > 1 << 16 and msgpack.unpackb(receipt.unpack(rec).reply, raw=True) == answer[2:]
    assert scripted.spend("track", {"a": 3}, key="k")[:2] == [b"REPLAY", b"3-0"]


def test_places_that_were_given_up_fill_nothing(scripted: Scripted) -> None:
    for number in range(300):
        key = f"k{number}"
        assert scripted.keep("take", key, bytes_max=4096) == scripted.keep("free", key, bytes_max=4096) == [b"OK"]
    assert scripted.keep("take", "last", bytes_max=4096) == [b"OK"]


def test_a_ledger_of_another_format_begins_anew(scripted: Scripted) -> None:
    assert scripted.load({"a": [bucket(1, 10)]}) == [b"OK"]
    scripted.client.hset(keys.meta(0), "ik", msgpack.packb([1, 2, 3]))
    assert scripted.spend("track", {"a": 3}, key="k", brief=True) == b"3-0"
    assert scripted.spend("track", {"a": 3}, key="l", bytes_max=100) == [b"FULL"]
