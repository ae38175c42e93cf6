"""check and track, first step: a decoded body to a validated call and its script arguments.

Pure: knows nothing of ASGI, tasks or sockets, and reads the catalog only from memory.
"""

from __future__ import annotations

from decimal import Decimal
from hashlib import blake2b
from secrets import token_hex
from typing import Any, Mapping, NamedTuple

import msgpack
import msgspec

from ..catalog.model import Feature
from ..catalog.snapshot import Catalog
from ..domain.quantities import QuantityError, scale
from ..engine import scripts
from ..engine.call import Lock, Spend
from ..errors import ApiError, NotSupported, invalid, not_found
from . import fields

MODES = ("cap", "reject", "overflow")
KEY_CHARS_MAX = 255
LOCK_CHARS_MAX = 256
SHOWS_BALANCES = (2, 0)
"""From this version on the answer of a track shows balances."""

UNBUILT_CHECK = ("with_preview",)
NOT_HELD = ("boolean", "continuous_use")
"""Types of features that no hold can be on."""


class Decoded(msgspec.Struct):  # made in C, in a fourth of the time that a dataclass takes
    """A validated call: what to run, and what its answer repeats. Of a track that gives an event
    back (`refund_of`) the features are known once that is found; `amount` None: all that is left.
    `timestamp`: the event's, in ms, where the caller gave one."""

    spend: Spend
    amount: int | Decimal | None
    feature_id: str | None
    event_name: str | None
    asynchronous: bool = False
    refund_of: str = ""
    timestamp: int | None = None


def decode_track(body: Mapping[str, Any], key_header: str | None, version: tuple[int, int], catalog: Catalog) -> Decoded:
    """The call in a track body. Raises ApiError 400 or 404 `feature_not_found`."""
    customer_id = fields.identifier(body, "customer_id")
    entity_id = fields.optional_id(body, "entity_id") or ""
    refund_of, lock, asked_lock = refunded_event(body), *lock_of(body)
    feature_id, event_name = fields.optional_id(body, "feature_id"), fields.optional_id(body, "event_name")
    if (feature_id is None) == (event_name is None) and not (refund_of and feature_id is None):
        raise invalid("feature_id", "give either feature_id or event_name")
    properties = fields.json_object(body, "properties")
    value = body.get("value")
    if value is None and version <= (1, 2) and properties:
        value = _shadowed_value(body)
    if value is not None or not refund_of:
        value = fields.number(1 if value is None else value, "value")
    if refund_of and value is not None and value >= 0:
        raise invalid("value", "must be below 0 with refund_of, or left out for all that is left of the event")
    mode = body.get("overage_behavior")
    if mode is not None and mode not in MODES:
        raise invalid("overage_behavior", f"must be one of {', '.join(MODES)}")
    if lock is not None and (refund_of or mode not in (None, "reject")):
        raise invalid("lock", "a hold is all or nothing: leave out refund_of and overage_behavior")
    timestamp = body.get("timestamp")
    if timestamp is not None:
        timestamp = fields.number(timestamp, "timestamp")
        if timestamp <= 0 or timestamp != int(timestamp) or timestamp > 1 << 53:
            raise invalid("timestamp", "must be milliseconds since 1970, above 0")
        timestamp = int(timestamp)
    key = idempotency_key(body, key_header)
    asynchronous = fields.flag(body, "async") or False
    paid = () if refund_of else _features(feature_id, event_name, value, "value", catalog)
    if lock is not None:
        refuse_hold(paid)
    info: dict[str, Any] = {} if value is None else {"v": str(value)}
    info["s"] = "track"
    told = (("n", event_name), ("p", properties), ("t", timestamp), ("k", key), ("m", mode), ("l", lock and lock.lock_id))
    for name, given in told:
        if given:
            info[name] = given
    print_of = b""
    if key:
        more = (refund_of,) if refund_of else asked_lock
        print_of = fingerprint(
            "track", customer_id, entity_id, feature_id, event_name, value, mode or "cap", timestamp, properties, *more
        )
    script = scripts.REFUND if refund_of else scripts.TRACK if lock is None else scripts.HOLD
    call = Spend(script, customer_id, entity_id, paid, mode or "cap", msgpack.packb(info), key, print_of, lock)
    call.brief = version < SHOWS_BALANCES and script is scripts.TRACK
    return Decoded(call, value, feature_id, event_name, asynchronous, refund_of, timestamp)


def refunded_event(body: Mapping[str, Any]) -> str:
    """What names the event that a track gives back: its id or its idempotency key; "" for none.
    Raises ApiError 400."""
    value = body.get("refund_of")
    if value is None:
        return ""
    if not isinstance(value, str) or not 0 < len(value) <= KEY_CHARS_MAX or not fields.is_text(value):
        raise invalid("refund_of", f"must be an event's id or its idempotency key: a string of at most {KEY_CHARS_MAX} characters")
    return value


def lock_of(body: Mapping[str, Any]) -> tuple[Lock | None, tuple[Any, ...]]:
    """The hold that a body asks for, under a name made here where it gives none; and what of it
    makes the call another one. Raises ApiError 400."""
    asked = body.get("lock")
    if asked is None:
        return None, ()
    if not isinstance(asked, dict):
        raise invalid("lock", "must be an object")
    if fields.flag(asked, "enabled", "lock.") is False or fields.asks_nothing(asked):
        return None, ()
    if asked.get("overage_behavior") not in (None, "reject"):
        raise NotSupported("lock.overage_behavior", "a hold is all or nothing")
    lock_id, expires_at = asked.get("lock_id"), asked.get("expires_at")
    if lock_id is not None:
        fields.checked_id(lock_id, "lock.lock_id", LOCK_CHARS_MAX)
    if expires_at is not None:
        expires_at = fields.number(expires_at, "lock.expires_at")
        if not 0 < expires_at < 1 << 53 or expires_at != int(expires_at):
            raise invalid("lock.expires_at", "must be milliseconds since 1970")
        expires_at = int(expires_at)
    return Lock(lock_id or f"lock_{token_hex(12)}", expires_at or 0), ("lock", lock_id, expires_at)


def refuse_hold(paid: tuple[tuple[Feature, int], ...]) -> None:
    """Refuses what cannot be held. Raises ApiError 400."""
    if len(paid) > 1:
        raise invalid("lock", "a hold is on one feature, this event feeds several")
    feature = paid[0][0]
    if feature.type in NOT_HELD:
        raise invalid("lock", f"{feature.id!r} is {feature.type}: only what is used up can be held")


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
    lock: Lock | None
    asked_lock: tuple[Any, ...]


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
    key = idempotency_key(body, key_header)
    return CheckFields(customer_id, entity_id, name, required, properties, send, key, *lock_of(body))


def decode_check(body: Mapping[str, Any], key_header: str | None, catalog: Catalog) -> Decoded:
    """The call in a check body. Raises ApiError 400 or 404 `feature_not_found`."""
    asked = check_fields(body, key_header)
    feature_id = fields.identifier(body, "feature_id")
    customer_id, entity_id, name, required = asked.customer_id, asked.entity_id, asked.name, asked.required
    properties, send = asked.properties, asked.send
    lock = asked.lock
    key = asked.key if send or lock else ""
    paid = _features(feature_id, None, required, name, catalog)
    info, print_of = b"", b""
    if lock:
        refuse_hold(paid)
    if send or lock:
        told: dict[str, Any] = {"v": str(required), "s": "check", "m": "reject"}
        if lock:
            told["l"] = lock.lock_id
        if properties:
            told["p"] = properties
        if key:
            print_of = fingerprint(
                "check", customer_id, entity_id, feature_id, None, required, None, None, properties, *asked.asked_lock
            )
            told["k"] = key
        info = msgpack.packb(told)
    script = scripts.CHECK if lock is None else scripts.HOLD
    call = Spend(script, customer_id, entity_id, paid, "send" if send else "", info, key, print_of, lock)
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
