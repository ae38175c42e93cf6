"""A step that live balances do not allow changes nothing, and says why; the steps around it count."""

from __future__ import annotations

import pytest

from sidecar.domain import layout
from sidecar.engine import keys
from tests.lua.scripted import Scripted, bucket
from tests.lua.test_refusals_write_nothing import ready

MAX = 2**53 - 1
SHARED = bucket(4, 50, flags=layout.PER_ENTITY, entity_feature="seats", slots=1001, balance=50 * 1001)


def fields(s: Scripted) -> dict[bytes, bytes]:
    return {name: value for name, value in s.client.hgetall(keys.customer(0, "c")).items() if name not in (b"h", b"j")}


@pytest.mark.parametrize(("ops", "why"), [
    ([["set", "a", "", [1], "remaining", 5], ["set", "b", "", [9], "remaining", 5]], 2),
    ([["set", "a", "", [1], "remaining", 5], ["set", "b", "", [2, 3], "add", MAX]], 3),
    ([["grant", "e", "", 4, 10], ["grant", "b", "", 2, MAX]], 3),
    ([["set", "e", "", [4], "usage", 30], ["dates", "a", "", 9, 5, -1]], 2),
], ids=str)
def test_all_of_a_refused_step_is_undone(scripted: Scripted, ops: list[list[object]], why: int) -> None:
    ready(scripted)
    before = fields(scripted)
    assert scripted.project((2, ops)) == [b"OK", 2, [why]]
    assert fields(scripted) == before
    assert scripted.project((3, [["set", "a", "", [1], "remaining", 7]]), (4, ops), (5, [["grant", "e", "", 4, 10]])) == [
        b"OK", 5, [0, why, 0],
    ]
    assert {name for name, value in fields(scripted).items() if value != before.get(name)} == {b"b:a", b"b:e"}


def test_more_than_1000_shares_at_once_are_refused(scripted: Scripted) -> None:
    assert scripted.load({"e": [SHARED]}, entities=[f"e{n}" for n in range(1001)]) == [b"OK"]
    for op in (["set", "e", "", [4], "usage", 3], ["grant", "e", "", 4, 3], ["dates", "e", "", 4, 3, -1], ["recalc", "e", ""]):
        version = int(scripted.project((1, []))[1])
        assert scripted.project((version + 1, [op])) == [b"OK", version + 1, [4]], op
    assert scripted.project((6, [["set", "e", "e7", [4], "usage", 3]])) == [b"OK", 6, [0]]
