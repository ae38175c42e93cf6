"""check and track, first step: a decoded body to a validated call and its script arguments.

Pure: knows nothing of ASGI, tasks or sockets, and reads the catalog only from memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Mapping, NamedTuple

import msgpack

from ..catalog.model import Feature
from ..catalog.snapshot import Catalog
from ..domain.quantities import QuantityError, scale
from ..engine import scripts
from ..engine.spend import Spend
from ..errors import ApiError, invalid, not_found
from . import fields

MODES = ("cap", "reject", "overflow")
KEY_CHARS_MAX = 255
UNBUILT_TRACK = ("refund_of", "lock")
UNBUILT_CHECK = ("lock", "with_preview")


@dataclass(slots=True)  # not frozen: that would treble what making one costs
class Decoded:
    """A validated call: what to run, and what its answer repeats."""

    spend: Spend
    amount: int | Decimal
    feature_id: str | None
    event_name: str | None
    asynchronous: bool = False


def decode_track(body: Mapping[str, Any], key_header: str | None, version: tuple[int, int], catalog: Catalog) -> Decoded:
    """The call in a track body. Raises ApiError 400 or 404 `feature_not_found`."""
    customer_id = fields.identifier(body, "customer_id")
    entity_id = fields.optional_id(body, "entity_id") or ""
    fields.refuse_unbuilt(body, UNBUILT_TRACK)
    feature_id, event_name = fields.optional_id(body, "feature_id"), fields.optional_id(body, "event_name")
    if (feature_id is None) == (event_name is None):
        raise invalid("feature_id", "give either feature_id or event_name")
    properties = fields.json_object(body, "properties")
    value = body.get("value")
    if value is None and version <= (1, 2) and properties:
        value = _shadowed_value(body)
    value = fields.number(1 if value is None else value, "value")
    mode = body.get("overage_behavior")
    if mode is not None and mode not in MODES:
        raise invalid("overage_behavior", f"must be one of {', '.join(MODES)}")
    timestamp = body.get("timestamp")
    if timestamp is not None:
        timestamp = fields.number(timestamp, "timestamp")
        if timestamp <= 0 or timestamp != int(timestamp) or timestamp > 1 << 53:
            raise invalid("timestamp", "must be milliseconds since 1970, above 0")
        timestamp = int(timestamp)
    key = idempotency_key(body, key_header)
    asynchronous = fields.flag(body, "async") or False
    paid = _features(feature_id, event_name, value, "value", catalog)
    info: dict[str, Any] = {"v": str(value), "s": "track"}
    for name, given in (("n", event_name), ("p", properties), ("t", timestamp), ("k", key), ("m", mode)):
        if given:
            info[name] = given
    print_of = fingerprint("track", customer_id, entity_id, feature_id, event_name, value, mode or "cap", timestamp, properties) if key else b""
    if print_of:
        info["f"] = print_of
    call = Spend(scripts.TRACK, customer_id, entity_id, paid, mode or "cap", msgpack.packb(info), key, print_of)
    return Decoded(call, value, feature_id, event_name, asynchronous)


def product_of(body: Mapping[str, Any]) -> str | None:
    """The plan that a check asks about, None when it asks about a feature. Raises ApiError 400."""
    feature_id, product_id = fields.optional_id(body, "feature_id"), fields.optional_id(body, "product_id")
    if (feature_id is None) == (product_id is None):
        raise invalid("feature_id", "give either feature_id or product_id")
    return product_id


class CheckFields(NamedTuple):
    """What a check of a feature and one of a plan have in common. `name` is the field that
    `required` was read from."""

    customer_id: str
    entity_id: str
    name: str
    required: int | Decimal
    properties: dict[str, Any] | None
    send: bool
    key: str


def check_fields(body: Mapping[str, Any], key_header: str | None) -> CheckFields:
    """The fields of a check besides what it asks about. Raises ApiError 400."""
    customer_id = fields.identifier(body, "customer_id")
    entity_id = fields.optional_id(body, "entity_id") or ""
    fields.flag(body, "with_preview")
    fields.refuse_unbuilt(body, UNBUILT_CHECK)
    name = "required_balance" if body.get("required_balance") is not None else "required_quantity"
    value = body.get(name)
    required = fields.number(1 if value is None else value, name)
    properties = fields.json_object(body, "properties")
    send = fields.flag(body, "send_event") or False
    return CheckFields(customer_id, entity_id, name, required, properties, send, idempotency_key(body, key_header))


def decode_check(body: Mapping[str, Any], key_header: str | None, catalog: Catalog) -> Decoded:
    """The call in a check body. Raises ApiError 400 or 404 `feature_not_found`."""
    asked = check_fields(body, key_header)
    feature_id = fields.identifier(body, "feature_id")
    customer_id, entity_id, name, required = asked.customer_id, asked.entity_id, asked.name, asked.required
    properties, send = asked.properties, asked.send
    key = asked.key if send else ""
    paid = _features(feature_id, None, required, name, catalog)
    info, print_of = b"", b""
    if send:
        told: dict[str, Any] = {"v": str(required), "s": "check", "m": "reject"}
        if properties:
            told["p"] = properties
        if key:
            print_of = fingerprint("check", customer_id, entity_id, feature_id, None, required, None, None, properties)
            told["k"], told["f"] = key, print_of
        info = msgpack.packb(told)
    call = Spend(scripts.CHECK, customer_id, entity_id, paid, "send" if send else "", info, key, print_of)
    return Decoded(call, required, feature_id, None)


def idempotency_key(body: Mapping[str, Any], header: str | None) -> str:
    """The call's key, from the body or the header; "" for none. Raises ApiError 400."""
    in_body = body.get("idempotency_key")
    if in_body is not None and not isinstance(in_body, str):
        raise invalid("idempotency_key", "must be a string")
    if in_body and header and in_body != header:
        raise invalid("idempotency_key", "differs from the Idempotency-Key header")
    key = in_body or header or ""
    if len(key) > KEY_CHARS_MAX:
        raise invalid("idempotency_key", f"must have at most {KEY_CHARS_MAX} characters")
    if key and not fields.is_text(key):
        raise invalid("idempotency_key", "holds characters that are not text")
    return key


def fingerprint(*parts: Any) -> bytes:
    """16 bytes that two decoded calls share exactly when they are the same call."""
    return blake2b(msgpack.packb([_canonical(part) for part in parts]), digest_size=16).digest()


def _canonical(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else str(value.normalize())
    if isinstance(value, dict):
        return {key: _canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return str(value)
    return value


def _shadowed_value(body: Mapping[str, Any]) -> Any:
    """At 1.2 and below `properties.value` stands in for a missing value."""
    shadow = body["properties"].get("value")
    return shadow if isinstance(shadow, (int, Decimal)) and not isinstance(shadow, bool) else None


def _features(
    feature_id: str | None, event_name: str | None, value: int | Decimal, name: str, catalog: Catalog
) -> tuple[tuple[Feature, int], ...]:
    ids = (feature_id,) if feature_id is not None else catalog.features_of_event.get(event_name or "", ())
    if not ids:
        raise ApiError(404, "feature_not_found", f"no feature lists the event {event_name!r} in its event_names")
    found = []
    for each in ids:
        feature = catalog.features.get(each or "")
        if feature is None:
            raise not_found("feature", str(each))
        try:
            found.append((feature, scale(value, feature.precision)))
        except QuantityError as problem:
            raise invalid(name, str(problem)) from problem
    return tuple(found)
