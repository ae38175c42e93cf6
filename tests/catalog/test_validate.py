"""Promise: what cannot work is refused with the path of the field and what to do; what can is read
exactly. One validation for the API and for files."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from sidecar.catalog.fields import Problems
from sidecar.catalog.model import Feature, Item, Plan
from sidecar.catalog.validate import check_schema, read_feature, read_plan, warnings
from sidecar.errors import ApiError, NotSupported

FEATURES = {
    feature.id: feature
    for feature in (
        Feature("msg", "Messages", "single_use"),
        Feature("whole", "Whole", "single_use", precision=0),
        Feature("seats", "Seats", "continuous_use"),
        Feature("sso", "SSO", "boolean"),
        Feature("credits", "Credits", "credit_system", credit_schema=(("msg", Decimal("0.01")),)),
    )
}


def plan_of(**fields: Any) -> Plan:
    problems = Problems()
    plan = read_plan({"id": "p", "name": "P", **fields}, FEATURES, problems)
    assert plan is not None and not problems, problems
    return plan


def item_of(**fields: Any) -> Item:
    return plan_of(items=[fields]).items[0]


def problems_of_item(**fields: Any) -> list[tuple[str, str]]:
    problems = Problems()
    good = {"feature_id": "msg", "included_usage": 1}
    assert read_plan({"id": "p", "name": "P", "items": [good, fields]}, FEATURES, problems) is None
    return [(problem.path, problem.message) for problem in problems]


def feature_problems(**fields: Any) -> list[str]:
    problems = Problems()
    assert read_feature({"id": "f", "type": "single_use", **fields}, problems) is None
    return [problem.path for problem in problems]


def test_the_kind_of_an_item_follows_from_its_fields() -> None:
    assert item_of(feature_id="msg", included_usage=10, interval="month").type == "feature"
    assert item_of(price=10, interval="month").type == "price"
    priced = item_of(feature_id="msg", price=Decimal("10"), billing_units=100, usage_model="prepaid")
    assert (priced.type, priced.usage_model, priced.included_usage, priced.interval) == ("priced_feature", "prepaid", 0, None)
    assert item_of(feature_id="msg", price=1).usage_model == "pay_per_use"
    assert item_of(feature_id="msg", included_usage="inf").unlimited
    assert item_of(feature_id="sso") == Item(feature_id="sso")


def test_null_counts_as_left_out_at_every_depth() -> None:
    nulls = dict.fromkeys((
        "type", "interval", "interval_count", "price", "tiers", "usage_model", "billing_units", "usage_limit",
        "reset_usage_when_enabled", "entity_feature_id", "config", "rollover",
    ))
    assert item_of(feature_id="msg", included_usage=10, **nulls) == item_of(feature_id="msg", included_usage=10)
    assert plan_of(group=None, free_trial=None, description=None, items=[]) == plan_of()
    assert item_of(feature_id="msg", included_usage=1, tiers=[], config={"rollover": None}).price is None


def test_quantities_are_rounded_to_the_precision_half_away_from_zero() -> None:
    assert item_of(feature_id="msg", included_usage=Decimal("0.30000000000000004")).included_usage == Decimal("0.3")
    assert item_of(feature_id="whole", included_usage=Decimal("2.5")).included_usage == 3


@pytest.mark.parametrize(
    ("fields", "path", "word"),
    [
        ({"feature_id": "nope", "included_usage": 1}, "feature_id", "create it first"),
        ({"feature_id": "msg"}, "included_usage", "inf"),
        ({"feature_id": "msg", "included_usage": "10"}, "included_usage", "number"),
        ({"feature_id": "msg", "included_usage": True}, "included_usage", "number"),
        ({"feature_id": "msg", "included_usage": -1}, "included_usage", "0 or more"),
        ({"feature_id": "msg", "included_usage": Decimal("1e-7")}, "included_usage", "precision 7"),
        ({"feature_id": "msg", "included_usage": 10**10}, "included_usage", "precision 5"),
        ({"feature_id": "msg", "included_usage": 1, "interval": "fortnight"}, "interval", "month"),
        ({"feature_id": "msg", "included_usage": 1, "interval": "lifetime"}, "interval", "left out"),
        ({"feature_id": "msg", "included_usage": 1, "interval": ["month"]}, "interval", "month"),
        ({"feature_id": "msg", "included_usage": 1, "interval": "day", "interval_count": 0}, "interval_count", "from 1"),
        ({"feature_id": "msg", "included_usage": 1, "interval": "year", "interval_count": 101}, "interval_count", "years"),
        ({"feature_id": "msg", "included_usage": 1, "interval_count": 2}, "interval_count", "needs an interval"),
        ({"feature_id": "msg", "included_usage": 1, "usage_model": "prepaid"}, "usage_model", "price"),
        ({"feature_id": "msg", "included_usage": 1, "type": "price"}, "type", "feature item"),
        ({"feature_id": "msg", "price": 1, "included_usage": 5, "usage_limit": 4}, "usage_limit", "less than"),
        ({"feature_id": "msg", "price": 1, "billing_units": 0}, "billing_units", "more than 0"),
        ({"feature_id": "msg", "price": 1, "included_usage": "inf"}, "price", "inf"),
        ({"feature_id": "msg", "price": -1}, "price", "0 to"),
        ({"feature_id": "msg", "price": Decimal("1e-13")}, "price", "decimal places"),
        ({"feature_id": "sso", "included_usage": 1}, "included_usage", "boolean"),
        ({"feature_id": "msg", "included_usage": 1, "entity_feature_id": "sso"}, "entity_feature_id", "continuous_use"),
        ({"feature_id": "seats", "included_usage": 1, "entity_feature_id": "seats"}, "entity_feature_id", "own"),
        ({"price": 1, "included_usage": 1}, "included_usage", "feature"),
        ({"interval": "month"}, "feature_id", "required"),
        ({"feature_id": "msg", "included_usage": 1, "reset_usage_when_enabled": "no"}, "reset_usage_when_enabled", "true"),
    ],
)
def test_a_wrong_item_is_refused_with_its_path(fields: dict[str, Any], path: str, word: str) -> None:
    found = problems_of_item(**fields)
    assert found and found[0][0] == f"items[1].{path}"
    assert word in found[0][1]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"tiers": [{"to": "inf", "amount": 1}]}, "tiers"),
        ({"usage_limit": 5}, "usage_limit"),
    ],
)
def test_a_field_without_effect_yet_is_not_supported(fields: dict[str, Any], path: str) -> None:
    problems = Problems()
    item = {"feature_id": "msg", "included_usage": 1, **fields}
    assert read_plan({"id": "p", "name": "P", "items": [item]}, FEATURES, problems) is None
    with pytest.raises(NotSupported, match=rf"items\[0\].{path}"):
        problems.raise_for_caller()


def test_a_trial_is_not_supported_yet() -> None:
    problems = Problems()
    assert read_plan({"id": "p", "name": "P", "free_trial": {"length": 7}}, FEATURES, problems) is None
    with pytest.raises(NotSupported, match="free_trial"):
        problems.raise_for_caller()


def test_a_plan_with_a_price_cannot_be_default() -> None:
    problems = Problems()
    assert read_plan({"id": "p", "name": "P", "is_default": True, "items": [{"price": 5}]}, FEATURES, problems) is None
    assert [problem.path for problem in problems] == ["is_default"]


def test_several_problems_are_told_at_once() -> None:
    problems = Problems()
    read_plan({"id": "a b", "items": [{"feature_id": "msg"}, 7]}, FEATURES, problems)
    with pytest.raises(ApiError) as error:
        problems.raise_for_caller()
    assert error.value.status == 400 and error.value.code == "invalid_inputs"
    assert error.value.message.startswith("[Validation Errors] ")
    for path in ("id: ", "name: ", "items[0].included_usage: ", "items[1]: "):
        assert path in error.value.message


def test_wrong_features_are_refused_with_their_path() -> None:
    assert feature_problems(type="metered") == ["type"]
    assert feature_problems(precision=10) == ["precision"]
    assert feature_problems(display={"singular": "one"}) == ["display.plural"]
    assert feature_problems(event_names=["a", "a"]) == ["event_names"]
    assert feature_problems(name=7) == ["name"]
    assert feature_problems(name="half \ud800") == ["name"]
    assert feature_problems(id="a b") == ["id"]
    schema = [{"metered_feature_id": "msg", "credit_cost": 1}]
    assert feature_problems(credit_schema=schema) == ["credit_schema"]
    for wrong in ({"credit_cost": -1}, {"credit_cost": "1"}, {"credit_cost": Decimal("1e-30")}):
        assert feature_problems(type="credit_system", credit_schema=[{**schema[0], **wrong}]) == ["credit_schema[0].credit_cost"]
    assert feature_problems(type="credit_system", credit_schema=schema * 2) == ["credit_schema[1].metered_feature_id"]


def test_precision_is_fixed_at_creation() -> None:
    base = Feature("f", "F", "single_use", precision=2)
    problems = Problems()
    assert read_feature({"precision": 3}, problems, base=base, keep=True) is None
    assert [problem.path for problem in problems] == ["precision"]
    kept = read_feature({"id": "f", "type": "single_use"}, Problems(), base=base)
    assert kept is not None and kept.precision == 2


def test_members_of_a_credit_system_must_be_metered_and_convert_exactly() -> None:
    def paths(*schema: tuple[str, Decimal], **options: bool) -> list[str]:
        problems = Problems()
        check_schema(Feature("c", "C", "credit_system", credit_schema=schema), FEATURES, problems, **options)  # type: ignore[arg-type]
        return [problem.path for problem in problems]

    assert paths(("msg", Decimal(1)), ("credits", Decimal(1)), ("sso", Decimal(1)), unknown_is_wrong=True) == [
        "credit_schema[1].metered_feature_id", "credit_schema[2].metered_feature_id",
    ]
    assert paths(("nope", Decimal(1)), unknown_is_wrong=True) == ["credit_schema[0].metered_feature_id"]
    assert paths(("nope", Decimal(1)), unknown_is_wrong=False) == []
    assert paths(("msg", Decimal("0.123456789012345678")), unknown_is_wrong=True) == ["credit_schema[0].credit_cost"]


def test_what_is_probably_not_meant_is_warned_of() -> None:
    costly = Feature("c", "C", "credit_system", credit_schema=(("whole", Decimal("0.002")), ("msg", Decimal("0.002"))))
    found = warnings([*FEATURES.values(), costly], [])
    assert len(found) == 1 and "whole" in found[0] and "0.002" in found[0]
    twice = [plan_of(id=id_, is_default=True) for id_ in ("a", "b")]
    assert len(warnings([], twice)) == 1


def test_a_default_plan_may_be_free_of_any_price() -> None:
    assert plan_of(is_default=True, items=[{"feature_id": "msg", "included_usage": 1}]).is_default
