"""Guarantee: at the ends of the range the scripts stay exact, or refuse and change nothing.

Here the numbers are the largest there are; the random comparison uses small ones.
"""

from __future__ import annotations

import itertools
from typing import Iterator

import pytest
import redis

from sidecar.catalog.model import Feature
from sidecar.catalog.snapshot import Catalog
from sidecar.domain import layout
from sidecar.domain.intervals import MONTH, add_interval, next_reset
from sidecar.domain.quantities import QUANTITY_MAX
from tests.model.account import Bucket
from tests.model.buckets import RolloverRule

from .machine import SETTINGS
from .subject import Scripts, Subject
from .worlds import START

_customers = itertools.count()


@pytest.fixture
def subject(valkey) -> Iterator[Subject]:
    client = redis.Redis(unix_socket_path=valkey.socket_path)
    real = Scripts(client)
    real.set_clock(START)
    unit = Feature("unit", "unit", "single_use", 0)
    credits = Feature("credits", "credits", "credit_system", 0, credit_schema=(("unit", 3),), created_at=1)
    yield Subject(real, f"range{next(_customers)}", Catalog.of(1, (unit, credits), ()), SETTINGS)
    client.close()


def grant(subject: Subject, feature_id: str, granted: int, **more) -> None:
    subject.grant(Bucket(1, feature_id, granted=granted, balance=granted, created_at=START, **more))


def track(subject: Subject, value: int, mode: str = "cap") -> tuple[bytes, int]:
    """The code, and how many log entries there are afterwards."""
    return subject.track({"unit": value}, mode, "", None, b"")[0], len(subject.records())


def row(subject: Subject) -> layout.Row:
    return subject.state().rows[1][1]


def test_a_balance_goes_to_the_end_of_the_range_and_no_further(subject):
    grant(subject, "unit", 0, usage_allowed=True, paid=True)
    assert track(subject, QUANTITY_MAX) == (b"OK", 2)
    assert track(subject, 1) == (b"RANGE", 2) == track(subject, QUANTITY_MAX)
    assert row(subject).balance == -QUANTITY_MAX
    assert track(subject, -1) == (b"OK", 3) and row(subject).balance == 1 - QUANTITY_MAX


def test_a_grant_of_the_largest_quantity_is_spent_to_the_last_unit(subject):
    grant(subject, "unit", QUANTITY_MAX)
    assert track(subject, QUANTITY_MAX - 1) == (b"OK", 2) and row(subject).balance == 1
    assert track(subject, 2) == (b"OK", 3) and row(subject).balance == 0
    assert track(subject, -QUANTITY_MAX) == (b"OK", 4) and row(subject).balance == QUANTITY_MAX
    assert track(subject, -1, "overflow") == (b"RANGE", 4)


def test_unlimited_usage_has_no_end(subject):
    grant(subject, "unit", 0, unlimited=True)
    for times in range(1, 6):
        assert track(subject, QUANTITY_MAX)[0] == b"OK"
        assert layout.used(row(subject)) == times * QUANTITY_MAX
    assert track(subject, -QUANTITY_MAX)[0] == b"OK" and track(subject, -5)[0] == b"OK"
    assert layout.used(row(subject)) == 4 * QUANTITY_MAX - 5


def test_credits_out_of_range_are_refused(subject):
    grant(subject, "credits", 9, usage_allowed=True, paid=True)
    assert track(subject, QUANTITY_MAX // 3 + 1) == (b"RANGE", 1)
    assert row(subject).balance == 9
    assert track(subject, 4) == (b"OK", 2) and row(subject).balance == -3
    assert track(subject, QUANTITY_MAX // 3 - 3) == (b"RANGE", 2), "what is used would pass the range"
    assert track(subject, QUANTITY_MAX // 3 - 4) == (b"OK", 3)
    assert row(subject).balance == 9 - 3 * (QUANTITY_MAX // 3)


def test_a_reset_far_below_zero_is_exact(subject):
    """What a reset adds is no more than the range holds, because what is used never is."""
    month = {"interval": MONTH, "anchor": START, "next_reset_at": next_reset(START, MONTH, 1, START)}
    grant(subject, "unit", 10, **month)
    assert track(subject, QUANTITY_MAX - 5, "overflow") == (b"OK", 2)
    assert track(subject, 6, "overflow") == (b"RANGE", 2)
    assert track(subject, 5, "overflow") == (b"OK", 3)
    subject._real.set_clock(month["next_reset_at"])
    subject.look()
    assert row(subject).balance == 10
    assert subject.records()[-1][9] == QUANTITY_MAX


def test_rollovers_stop_where_the_sums_would_pass_the_range(subject):
    month = {"interval": MONTH, "anchor": START, "next_reset_at": next_reset(START, MONTH, 1, START)}
    grant(subject, "unit", 2**52 - 1, rolls=RolloverRule(0), **month)
    for k in (1, 2, 3):
        subject._real.set_clock(add_interval(START, MONTH, 1, k))
        subject.look()
        rows = [row for _, row in subject.state().rows.values()]
        assert sum(row.balance for row in rows) == min(QUANTITY_MAX, (k + 1) * (2**52 - 1))


def test_check_says_no_where_track_would_be_out_of_range(subject):
    grant(subject, "unit", 0, usage_allowed=True, paid=True)
    track(subject, QUANTITY_MAX)
    code, *answer = subject.check("unit", 1, "", True, None, b"")
    assert code == b"RANGE" or (code == b"OK" and answer[2] == 0)
    assert row(subject).balance == -QUANTITY_MAX
