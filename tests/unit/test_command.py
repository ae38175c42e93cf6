"""The usual call's command, put together from parts: the very bytes that packing every argument gives."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.catalog.model import Feature
from sidecar.catalog.snapshot import Catalog
from sidecar.domain.quantities import QUANTITY_MAX
from sidecar.engine import keys, scripts
from sidecar.engine.command import Packer, packed
from sidecar.engine.call import Lock, Refunded, Spend, arguments, plan_of
from sidecar.settings import Settings

FEATURES = {name: Feature(name, name, kind) for name, kind in (("calls", "single_use"), ("mél", "single_use"), ("one", "single_use"))}
FEATURES["pool"] = Feature("pool", "Pool", "credit_system", credit_schema=(("one", Decimal("2.5")), ("mél", Decimal(1))))
GENERATION, RUN_ID = b"12", b"r" * 40


def catalog() -> Catalog:
    return Catalog.of(1, FEATURES.values(), ())


def settings(**chosen: Any) -> Settings:
    return Settings(redis_url="redis://nowhere", database_url="sqlite:///nowhere", **chosen)


def packer(chosen: Settings) -> Packer:
    return Packer((int(chosen.persist_free_overage), chosen.idempotency_ttl_s * 1000, chosen.idempotency_bytes_max // chosen.partitions))


MODES = st.one_of(
    st.tuples(st.just(scripts.TRACK), st.sampled_from(["cap", "reject", "overflow"]), st.booleans()),
    st.tuples(st.just(scripts.CHECK), st.sampled_from(["send", ""]), st.just(False)),
)


@given(
    MODES, st.text(min_size=1, max_size=40), st.sampled_from(sorted(FEATURES)), st.integers(-QUANTITY_MAX, QUANTITY_MAX),
    st.binary(max_size=80), st.text(max_size=30), st.integers(0, 255), st.booleans(),
)
def test_the_parts_are_the_whole(
    asked: tuple[Any, str, bool], name: str, feature_id: str, amount: int, info: bytes, key: str, p: int, carry: bool
) -> None:
    script, mode, brief = asked
    of, chosen = catalog(), settings(persist_free_overage=carry)
    fingerprint = b"\0" * 16 if key else b""
    call = Spend(script, name, "", ((FEATURES[feature_id], amount),), mode, info, key, fingerprint, brief=brief)
    record = keys.record(p, keys.digest(name, key)) if key else b""
    script_keys = (*keys.of_customer(p, name), *([record] if key else []))
    args, _ = arguments(call, of, chosen, "")
    one, plan = packer(chosen), plan_of((feature_id,), of)
    other = msgspec.structs.replace(call, features=((FEATURES[feature_id], 7),), info=b"else")
    assert one.pack(other, plan, p, GENERATION, RUN_ID, record)  # what is kept of it is true of the next call too
    for run_id in (RUN_ID, b"another", RUN_ID):  # what was packed for another server is not used again
        whole = packed(script, script_keys, (GENERATION, run_id, *args))
        assert one.pack(call, plan, p, GENERATION, run_id, record) == whole


@pytest.mark.parametrize("unusual", [
    {"entity_id": "e"}, {"features": ((FEATURES["calls"], 1), (FEATURES["mél"], 1))}, {"features": ()}, {"lock": Lock("l", 0)},
    {"refunded": Refunded(1, 1, 0, ())},
])
def test_an_unusual_call_is_left_alone(unusual: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"entity_id": "", "features": ((FEATURES["calls"], 1),), "mode": "cap", **unusual}
    call = Spend(scripts.TRACK, "c", **fields)
    plan = plan_of(tuple(feature.id for feature, _ in call.features), catalog())
    assert packer(settings()).pack(call, plan, 0, GENERATION, RUN_ID) is None
