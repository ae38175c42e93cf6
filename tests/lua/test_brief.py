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
    """With the feature asked for twice among the fields the answer is not short."""
    assert scripted.load({"a": [bucket(1, 10), bucket(2, 10)]}) == [b"OK"]
    name = scripted.state_keys()
    begin = (0, 0, "", b"", b"", TTL_MS, "", 1 << 20)
    short: Any = scripted.run(scripts.CHECK, name, *begin, 1, "h", "b:a", "a:a", 1, "a", 1, 12, 0)
    full: Any = scripted.run(scripts.CHECK, name, *begin, 2, "h", "b:a", "b:b", "a:a", "a:b", 1, "a", 1, 12, 0)
    assert isinstance(short, bytes) and full[:2] == [b"OK", b""]
    assert 0 <= full[2] - int.from_bytes(short[:8], "big") < 60_000
    assert full[3:] == [1, b"", 0, 12, [short[8:], b""], [[], []], []]
