"""Promise: a rollover is read exactly from either of its places, kept, and shown in each version's
terms; one that could never be kept is refused with its path."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from sidecar.api.catalog_bodies import plan_of as body_of
from sidecar.api.catalog_views import item_json
from sidecar.api.catalog_views_v2 import plan_v2
from sidecar.billing.steps import Enabled
from sidecar.billing.switches import enable
from sidecar.billing.holdings import Holdings
from sidecar.catalog.fields import Problems
from sidecar.catalog.model import Item, Rollover
from sidecar.catalog.rollovers import ROWS_MAX, rows_max
from sidecar.domain.intervals import DAY, HOUR, MONTH, QUARTER, WEEK, YEAR
from sidecar.domain.layout import Row
from tests.catalog.test_validate import FEATURES, item_of, plan_of, problems_of_item

MONTHLY = {"feature_id": "msg", "included_usage": 100, "interval": "month"}


@pytest.mark.parametrize(("given", "read"), [
    ({}, Rollover()),
    ({"max": 50}, Rollover(max=Decimal(50))),
    ({"max": None, "max_percentage": None, "length": None}, Rollover()),
    ({"max": Decimal("0.5"), "duration": "month", "length": 12}, Rollover(max=Decimal("0.5"), length=12)),
    ({"max_percentage": Decimal("33.3333"), "length": 2}, Rollover(max_percentage=Decimal("33.3333"), length=2)),
    ({"max_percentage": Decimal("50.0")}, Rollover(max_percentage=Decimal(50))),
    ({"max": 0, "duration": "forever", "length": 7}, Rollover(max=Decimal(0), duration="forever")),
])
@pytest.mark.parametrize("place", ["rollover", "config", "both"])
def test_a_rollover_is_read_from_either_place_or_both(given: dict[str, Any], read: Rollover, place: str) -> None:
    both: dict[str, Any] = {"rollover": given, "config": {"rollover": given, "else": 1}}
    item = item_of(**MONTHLY, **({place: both[place]} if place != "both" else both))
    assert item.rollover == read
    assert Item.from_json(item.to_json()) == item


def test_an_item_without_one_has_none() -> None:
    assert item_of(**MONTHLY, config={}).rollover is None
    assert "rollover" not in item_of(**MONTHLY).to_json()


def test_a_priced_item_may_have_one() -> None:
    prepaid = item_of(**MONTHLY, price=5, usage_model="prepaid", rollover={"max": 5})
    assert (prepaid.type, prepaid.rollover) == ("priced_feature", Rollover(max=Decimal(5)))
    assert item_of(**MONTHLY, price=5, rollover={"max": 5}).rollover == Rollover(max=Decimal(5))
    per_entity = item_of(**MONTHLY, entity_feature_id="seats", rollover={})
    assert per_entity.rollover == Rollover()


@pytest.mark.parametrize(("fields", "path", "word"), [
    ({"rollover": 5}, "rollover", "object"),
    ({"config": 5}, "config", "object"),
    ({"config": {"rollover": []}}, "config.rollover", "object"),
    ({"rollover": {"max": -1}}, "rollover.max", "0 or more"),
    ({"rollover": {"max": "5"}}, "rollover.max", "number"),
    ({"rollover": {"max": Decimal("1e-8")}}, "rollover.max", "precision 8"),
    ({"rollover": {"max_percentage": 101}}, "rollover.max_percentage", "0 to 100"),
    ({"rollover": {"max_percentage": -1}}, "rollover.max_percentage", "0 to 100"),
    ({"rollover": {"max_percentage": Decimal("1.00001")}}, "rollover.max_percentage", "4 decimal"),
    ({"rollover": {"max": 1, "max_percentage": 1}}, "rollover.max_percentage", "max"),
    ({"rollover": {"duration": "year"}}, "rollover.duration", "month, forever"),
    ({"rollover": {"length": 0}}, "rollover.length", "from 1"),
    ({"rollover": {"length": Decimal("1.5")}}, "rollover.length", "whole"),
    ({"rollover": {"max": 1}, "config": {"rollover": {"max": 2}}}, "config.rollover", "rollover"),
    ({"interval": None, "rollover": {}}, "rollover", "interval"),
    ({"included_usage": "inf", "rollover": {}}, "rollover", "inf"),
    ({"feature_id": "seats", "interval": None, "rollover": {}}, "rollover", "never resets"),
    ({"feature_id": "sso", "included_usage": None, "interval": None, "config": {"rollover": {}}}, "config.rollover", "boolean"),
    ({"feature_id": None, "included_usage": None, "price": 1, "rollover": {}}, "rollover", "feature"),
    ({"interval": "day", "config": {"rollover": {"length": 2}}}, "config.rollover.length", "62"),
])
def test_a_wrong_rollover_is_refused_with_its_path(fields: dict[str, Any], path: str, word: str) -> None:
    found = problems_of_item(**{**MONTHLY, **fields})
    assert [at for at, _ in found] == [f"items[1].{path}"]
    assert word in found[0][1]


@pytest.mark.parametrize(("interval", "count", "length", "rows"), [
    (MONTH, 1, 12, 12), (MONTH, 1, 31, 31), (MONTH, 1, 32, 32), (MONTH, 5, 12, 3), (QUARTER, 1, 12, 4), (YEAR, 1, 1, 1),
    (DAY, 1, 1, 31), (DAY, 2, 1, 16), (DAY, 1, 2, 62), (WEEK, 1, 1, 5), (WEEK, 1, 7, 31), (WEEK, 1, 8, 35),
    (HOUR, 24, 1, 31), (HOUR, 23, 1, 33), (MONTH, 1, 10**5, 10**5), (DAY, 1, 12, 366),
])
def test_how_many_there_can_be_at_once(interval: int, count: int, length: int, rows: int) -> None:
    assert rows_max(interval, count, Rollover(length=length)) == rows
    assert rows_max(interval, count, Rollover(duration="forever")) == 1


def test_the_most_that_may_be_is_allowed_and_one_more_is_not() -> None:
    month = {"feature_id": "msg", "included_usage": 1, "interval": "month"}
    assert item_of(**month, rollover={"length": ROWS_MAX}).rollover == Rollover(length=ROWS_MAX)
    found = problems_of_item(**month, rollover={"length": ROWS_MAX + 1})
    assert [path for path, _ in found] == ["items[1].rollover.length"] and "forever" in found[0][1]


@pytest.mark.parametrize(("rollover", "old", "new"), [
    (Rollover(max=Decimal("2.5"), length=3), {"max": Decimal("2.5"), "duration": "month", "length": 3},
     {"max": Decimal("2.5"), "expiry_duration_type": "month", "expiry_duration_length": 3}),
    (Rollover(max_percentage=Decimal(50), duration="forever"), {"max": None, "max_percentage": 50, "duration": "forever"},
     {"max": None, "max_percentage": 50, "expiry_duration_type": "forever"}),
    (Rollover(), {"max": None, "duration": "month", "length": 1},
     {"max": None, "expiry_duration_type": "month", "expiry_duration_length": 1}),
])
@pytest.mark.parametrize("version", [(2, 0), (2, 1), (2, 3)])
def test_there_and_back_in_both_wires(rollover: Rollover, old: dict[str, Any], new: dict[str, Any], version: tuple[int, int]) -> None:
    plan = plan_of(items=[{**MONTHLY, "rollover": rollover.fields()}])
    assert plan.items[0].rollover == rollover
    shown = item_json(plan.items[0], FEATURES)
    assert shown["config"] == {"rollover": old}
    assert plan_of(items=[{**MONTHLY, "config": shown["config"]}]) == plan
    newer = plan_v2(plan, FEATURES, version=version)
    items = newer["items" if version >= (2, 1) else "features"]
    assert items[0]["rollover"] == new
    assert item_json(item_of(**MONTHLY), FEATURES).get("config") is None
    problems = Problems()
    back = body_of({"plan_id": "p", "id": "p", "name": "P", "features": items, "items": items}, version, FEATURES, problems, None)
    assert (back, problems) == (plan, [])


@pytest.mark.parametrize(("rollover", "path"), [
    ({"max_percentage": 101}, "max_percentage"), ({"expiry_duration_type": "week"}, "expiry_duration_type"),
    ({"expiry_duration_length": 32}, "expiry_duration_length"), ({"expiry_duration_length": 0}, "expiry_duration_length"),
    ({"max": -1}, "max"),
])
def test_what_is_wrong_is_told_in_the_terms_of_the_body(rollover: dict[str, Any], path: str) -> None:
    problems = Problems()
    item = {"feature_id": "msg", "included": 5, "reset": {"interval": "month"}, "rollover": rollover}
    assert body_of({"id": "p", "name": "P", "items": [item]}, (2, 3), FEATURES, problems, None) is None
    assert [problem.path for problem in problems] == [f"items[0].rollover.{path}"]


def test_a_2x_price_edit_keeps_an_items_rollover() -> None:
    plan = plan_of(items=[{**MONTHLY, "rollover": {"max": 5}}])
    problems = Problems()
    edited = body_of({"price": {"amount": 5, "interval": "month"}}, (2, 3), FEATURES, problems, plan)
    assert not problems and edited is not None
    assert [item.rollover for item in edited.items if item.feature_id] == [Rollover(max=Decimal(5))]


@pytest.mark.parametrize(("rollover", "columns"), [
    (None, (-1, -1, -1)),
    ({}, (1, -1, -1)),
    ({"max": Decimal("2.5"), "length": 3}, (3, 2_500_000, -1)),
    ({"max": 0, "duration": "forever"}, (0, 0, -1)),
    ({"max_percentage": Decimal("12.3456")}, (1, -1, 123_456)),
])
def test_the_bucket_says_what_rolls_over(rollover: dict[str, Any] | None, columns: tuple[int, int, int]) -> None:
    plan = plan_of(items=[{**MONTHLY, "rollover": rollover}])
    [op] = enable(FEATURES, Holdings(), Enabled(plan, 1, {}, "", 1_700_000_000_000, 1), ())
    row = Row(*op[2])
    assert (row.roll_length, row.roll_max, row.roll_percent) == columns
