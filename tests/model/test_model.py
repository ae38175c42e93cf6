"""What the worked cases do not say: the model's reading of the rules at their corners.

Guarantee: these readings are decided once, here; the scripts follow.
"""

from __future__ import annotations

from fractions import Fraction

from .account import Account, Bucket, Catalog, Feature
from .calls import DONE, INSUFFICIENT, Model
from .walk import CAP, OVERFLOW, REJECT, Pool

NOW = 1_000_000_000_000


def model(*buckets: Bucket, costs: dict[str, Fraction] | None = None, entities: dict[str, str] | None = None) -> Model:
    """A customer with these buckets; every feature is at precision 0 and `costs` are of `unit`."""
    systems = [Feature(s, "credit_system", 0, (("unit", cost),)) for s, cost in (costs or {}).items()]
    catalog = Catalog((Feature("unit", precision=0), Feature("seat", "continuous_use", 0), *systems))
    made = Model(catalog, Account(entities=dict(entities or {})), now=NOW)
    for bucket in buckets:
        bucket.created_at = bucket.created_at or bucket.no
        made.account.add(bucket)
    return made


def bucket(no: int, feature_id: str, granted: int, left: int | None = None, **more) -> Bucket:
    return Bucket(no, feature_id, granted=granted, balance=granted if left is None else left, **more)


def stands(made: Model) -> list[int]:
    return [b.used if b.unlimited else b.balance for b in made.account.buckets]


def test_a_partial_refund_to_credits_counts_the_units_they_make():
    made = model(bucket(1, "c", 7, 0), bucket(2, "c", 7, 5), costs={"c": Fraction(7, 5)})
    answer = made.track({"unit": -10}).features[0]
    # 7 credits are 5 units; 10 units in all are 14, of which 2 more fit: 9 credits are 6 units
    assert answer.applied == -6 and stands(made) == [7, 7]


def test_debts_of_a_system_heal_before_the_feature_itself_refills():
    made = model(bucket(1, "unit", 10, 4), bucket(2, "c", 0, -6, usage_allowed=True), costs={"c": Fraction(2)})
    made.track({"unit": -5})
    assert stands(made) == [6, 0]


def test_a_refund_passes_what_has_no_room_even_if_it_costs_nothing():
    made = model(bucket(1, "unit", 10, 4), bucket(2, "c", 5), costs={"c": Fraction(0)})
    assert made.track({"unit": -5}).features[0].applied == -5
    assert stands(made) == [9, 5]


def test_a_refund_lowers_unlimited_usage_to_no_less_than_zero():
    for mode in (CAP, OVERFLOW):
        made = model(bucket(1, "unit", 0, unlimited=True, used=3), bucket(2, "unit", 10, -4))
        assert made.track({"unit": -8}, mode).features[0].applied == -3
        assert stands(made) == [0, -4]


def test_an_unlimited_system_is_given_back_in_its_turn():
    made = model(bucket(1, "unit", 10, 4), bucket(2, "c", 0, unlimited=True, used=9), costs={"c": Fraction(3)})
    made.track({"unit": -8})
    assert stands(made) == [10, 3]


def test_an_overflowing_refund_ends_on_the_first_bucket():
    made = model(bucket(1, "unit", 10, 9), bucket(2, "c", 5), costs={"c": Fraction(2)})
    assert made.track({"unit": -8}, OVERFLOW).features[0].applied == -8
    assert stands(made) == [17, 5]


def test_overflow_goes_to_the_first_of_the_order_and_has_no_floor():
    capped = bucket(2, "unit", 2, usage_allowed=True, purchasable=1)
    made = model(bucket(1, "unit", 3), capped, bucket(3, "c", 4), costs={"c": Fraction(1)})
    made.track({"unit": 20}, OVERFLOW)
    assert stands(made) == [-11, 0, 0]


def test_pass_two_goes_on_with_the_conversion_of_pass_one():
    arrears = bucket(2, "c", 0, usage_allowed=True, paid=True)
    made = model(bucket(1, "c", 1, paid=True), arrears, costs={"c": Fraction(7, 5)})
    answer = made.track({"unit": 3}).features[0]
    assert answer.applied == 3 and stands(made) == [0, -4]  # 5 credits for 3 units, not 1 and then 5


def test_systems_stand_in_one_list():
    made = model(
        bucket(1, "c", 10), bucket(2, "d", 10, interval=3, anchor=NOW, next_reset_at=NOW + 1),
        costs={"c": Fraction(1), "d": Fraction(2)},
    )
    made.track({"unit": 7})
    assert stands(made) == [8, 0]


def test_an_unlimited_system_pays_only_when_the_feature_itself_is_empty():
    made = model(bucket(1, "unit", 2), bucket(2, "c", 0, unlimited=True), bucket(3, "c", 9), costs={"c": Fraction(3)})
    assert made.track({"unit": 5}, REJECT).status == DONE
    assert stands(made) == [0, 9, 9]


def test_slots_go_by_entity_before_main_and_add_on():
    made = model(
        bucket(1, "unit", 5, entity_feature="seat", add_on=True), bucket(2, "unit", 5, entity_feature="seat"),
        entities={"b": "seat", "a": "seat"},
    )
    made.track({"unit": 12})
    assert [b.slots for b in made.account.buckets] == [{"a": 0, "b": 5}, {"a": 0, "b": 3}]


def test_an_entity_merges_its_plans_with_its_share():
    made = model(
        bucket(1, "unit", 5, entity_feature="seat"), bucket(2, "unit", 5, entity_id="a", created_at=1),
        bucket(3, "unit", 5, interval=3, anchor=NOW, next_reset_at=NOW + 1), entities={"a": "seat"},
    )
    made.account.find(1).created_at = 2
    made.track({"unit": 7}, entity_id="a")
    assert (made.account.find(1).slots, stands(made)[1:]) == ({"a": 3}, [0, 5])


def test_a_grant_per_entity_is_held_by_the_customer_before_there_is_one():
    made = model(bucket(1, "unit", 5, entity_feature="seat"))
    assert made.track({"unit": 1}, REJECT).status == INSUFFICIENT
    assert made.check("unit", 1).reason == "insufficient_balance" and made.check("unit", 0).allowed
    made.account.entities["x"] = "room"
    assert made.check("unit", 0, "x").reason == "not_held"


def test_an_unlimited_grant_per_entity_needs_an_entity():
    made = model(bucket(1, "unit", 0, entity_feature="seat", unlimited=True), bucket(2, "unit", 1))
    made.track({"unit": 4})
    assert stands(made) == [0, 0]
    made.open_entity("a", "seat")
    made.track({"unit": 4})
    assert stands(made) == [4, 0]


def test_expired_buckets_take_no_part():
    made = model(bucket(1, "unit", 5, expires_at=NOW), bucket(2, "unit", 5, expires_at=NOW + 1))
    made.track({"unit": 7})
    assert stands(made) == [5, 0]


def test_the_shown_feature_of_a_refund_is_converted_downwards():
    made = model(bucket(1, "c", 9), costs={"c": Fraction(7, 5)})
    assert (made.check("unit", -2).shown, made.check("unit", -2).required) == ("c", -2)
    assert made.check("unit", 2).required == 3


def test_a_pool_pays_what_its_credits_make_and_keeps_the_rest():
    pool = Pool(Fraction(7, 5))
    assert pool.pay(10, 5) == (5, 3)
    assert pool.pay(7, None) == (9, 7)
    assert (pool.units, pool.credits) == (10, 14)
