"""Answers from templates: the same bytes as the ordinary way's, whatever the buckets, and as many
templates as there are kinds of customers, not customers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.api import quick, templates, wire
from sidecar.api.answers import answer_check
from sidecar.api.decode import Decoded
from sidecar.catalog.model import Feature
from sidecar.catalog.snapshot import Catalog
from sidecar.domain import layout
from sidecar.domain.layout import Row
from sidecar.domain.quantities import QUANTITY_MAX, unscale
from sidecar.engine import scripts
from sidecar.engine.call import Spend
from sidecar.engine.spend import Result

NOW_MS = 1_800_000_000_000
FEATURES = [
    Feature("msg", "Messages", "single_use"), Feature("fine", "Fine", "single_use", precision=9), Feature("whole", "Whole", "single_use", precision=0),
    Feature("100%", "Odd", "single_use", precision=2), Feature("pool", "Pool", "credit_system", credit_schema=(("msg", Decimal("0.25")),)),
]
CATALOG = Catalog.of(1, FEATURES, ())
QUANTITIES = st.one_of(st.integers(-QUANTITY_MAX // 16, QUANTITY_MAX // 16), st.integers(-3, 100).map(lambda n: n * 10**6))


@st.composite
def rows(draw: st.DrawFn) -> Row:
    interval = draw(st.sampled_from([0, 0, 3, 5, 5, 8]))
    return Row(
        no=draw(st.integers(1, 1 << 30)), balance=draw(QUANTITIES), granted=draw(QUANTITIES),
        flags=draw(st.sampled_from([0, 0, 0, 2, 4, 16, 132, 128, 1, 64])), purchasable=draw(st.sampled_from([-1, -1, -1, 0, 5_000_000])),
        next_reset_at=draw(st.integers(NOW_MS, NOW_MS + 10**10)) if interval else 0,
        expires_at=draw(st.sampled_from([0, 0, 0, 0, NOW_MS + 5])), anchor=draw(st.integers(0, NOW_MS)), interval=interval,
        interval_count=draw(st.sampled_from([1, 1, 3])), entity_id="", plan_id=draw(st.sampled_from(["", "pro", "50%", "pl\u00e4n"])),
        prepaid=draw(st.sampled_from([0, 0, 10**6])), item=draw(st.integers(0, 10**6)), created_at=draw(st.integers(0, NOW_MS)),
        slots=0, over=0, entity_feature="", held=draw(st.sampled_from([0, 0, 0, 5])),
    )


def checked(feature: Feature, blob: bytes, amount: Any = 1, **said: Any) -> tuple[Decoded, Result]:
    call = Spend(scripts.CHECK, "c\u00e9%b", "", ((feature, 1),), "")
    told = {"event_id": "", "required": 1, **said}
    return Decoded(call, amount, feature.id, None), Result(
        now_ms=NOW_MS, fields=(feature.id,), blobs=[blob], entity_blobs=[[]], parts=[], **told
    )


@given(
    st.lists(rows(), min_size=1, max_size=9), st.sampled_from(FEATURES), st.one_of(QUANTITIES, QUANTITIES.map(lambda n: unscale(n, 6))),
    st.sampled_from([{}, {}, {"allowed": False, "reason": "balance"}, {"event_id": "evt_1_1_1"}]),
)
def test_a_template_says_what_the_ordinary_way_says(some: list[Row], feature: Feature, amount: Any, said: dict[str, Any]) -> None:
    decoded, result = checked(feature, layout.pack(some), amount, **said)
    expected = answer_check(decoded, result, CATALOG, (1, 2))
    for packed, form in ((False, wire.JSON), (True, wire.MSGPACK)):
        found = quick.answer_check(decoded, result, CATALOG, packed)
        assert found is None or found == wire.encode(expected, form)[0]


@pytest.mark.parametrize("packed", [False, True])
def test_customers_whose_buckets_are_alike_share_a_template(packed: bool) -> None:
    catalog = Catalog.of(1, FEATURES, ())
    for number in range(1, 500):
        pair = [
            Row(number, number * 7, 10**9, 0, -1, NOW_MS + number, 0, NOW_MS - number, 5, 1, "", "pro", 0, number, number, 0, 0, ""),
            Row(number + 1, number * 10**6, 10**9, 4, -1, 0, 0, 0, 0, 1, "", "top", 10**9, number, number, 0, 0, ""),
        ]
        decoded, result = checked(FEATURES[0], layout.pack(pair))
        expected = wire.encode(answer_check(decoded, result, catalog, (1, 2)), wire.MSGPACK if packed else wire.JSON)[0]
        assert quick.answer_check(decoded, result, catalog, packed) == expected
    assert len(catalog.answer_templates["1.2"].known) == 1


def test_templates_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "TEMPLATES_MAX", 10)
    monkeypatch.setattr(templates, "COLDS_MAX", 10)
    catalog = Catalog.of(1, FEATURES, ())
    for granted in range(100):
        row = Row(1, 1, granted, 0, -1, NOW_MS, 0, NOW_MS + granted, 5, 1, "", "pro", 0, 1, 1, 0, 0, "")
        decoded, result = checked(FEATURES[0], layout.pack([row]))
        assert quick.answer_check(decoded, result, catalog) is not None
        assert len(catalog.answer_templates["1.2"].known) <= 10
        assert len(catalog.answer_templates["1.2"]._colds) <= 10


def test_a_call_of_an_older_catalog_leaves_no_template_in_the_newer() -> None:
    """What a credit system costs may have changed while the call was under way."""
    old, new = FEATURES[-1], Feature("pool", "Pool", "credit_system", credit_schema=(("msg", Decimal(9)),))
    catalog = Catalog.of(2, [*FEATURES[:-1], new], ())
    row = Row(1, 5, 10, 0, -1, NOW_MS, 0, NOW_MS, 5, 1, "", "pro", 0, 1, 1, 0, 0, "")
    decoded, result = checked(old, layout.pack([row]))
    assert quick.answer_check(decoded, result, catalog) is None
    decoded, result = checked(new, layout.pack([row]))
    assert b'"credit_amount":9' in (quick.answer_check(decoded, result, catalog) or b"")
