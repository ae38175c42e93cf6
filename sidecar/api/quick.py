"""The usual check and track, decoded and answered with the least work: the same calls and the same
bytes as `decode` and `answers` give (a test holds them equal), or None where those are to be used.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgpack
import msgspec

from ..catalog.model import Feature
from ..catalog.snapshot import Catalog
from ..domain.quantities import QUANTITY_MAX
from ..engine import scripts
from ..engine.call import Spend
from ..engine.spend import Result
from . import templates
from .answers import check_head
from .decode import KEY_CHARS_MAX, SHOWS_BALANCES, Decoded, fingerprint
from .fields import ID_CHARS_MAX

TRACKED_ONE = msgpack.packb({"v": "1", "s": "track"})
"""The info of a track of one, without a key."""

Number = Annotated[int, msgspec.Meta(ge=-QUANTITY_MAX, le=QUANTITY_MAX)]
"""Bounded, so that of a name that comes twice the first is looked at too, as `wire.decode` does."""


class _Check(msgspec.Struct, forbid_unknown_fields=True):
    customer_id: str
    feature_id: str
    required_balance: Number | None = None
    send_event: bool | None = None
    with_preview: bool | None = None
    idempotency_key: str | None = None


class _Track(msgspec.Struct, forbid_unknown_fields=True):
    customer_id: str
    feature_id: str
    value: Number | None = None
    idempotency_key: str | None = None


_check_decoder = msgspec.json.Decoder(_Check)
_track_decoder = msgspec.json.Decoder(_Track)
_packed_check_decoder = msgspec.msgpack.Decoder(_Check)
_packed_track_decoder = msgspec.msgpack.Decoder(_Track)


def decode_check(
    data: bytes, key_header: str | None, version: tuple[int, int], catalog: Catalog, packed: bool = False
) -> Decoded | None:
    """The call in a check body with nothing but the most common fields; `packed` in MessagePack."""
    try:
        body = (_packed_check_decoder if packed else _check_decoder).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return _check(body, key_header, catalog) if packed or data.isascii() else None


def decode_track(
    data: bytes, key_header: str | None, version: tuple[int, int], catalog: Catalog, packed: bool = False
) -> Decoded | None:
    """The call in a track body with nothing but the most common fields; `packed` in MessagePack."""
    try:
        body = (_packed_track_decoder if packed else _track_decoder).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return _track(body, key_header, version < SHOWS_BALANCES, catalog) if packed or data.isascii() else None


def check_of(item: Any, catalog: Catalog) -> Decoded | None:
    """As `decode_check`, of one item of a batch."""
    try:
        return _check(msgspec.convert(item, _Check), None, catalog)
    except msgspec.ValidationError:
        return None


def track_of(item: Any, catalog: Catalog) -> Decoded | None:
    """As `decode_track`, of one item of a batch, whose answers are brief."""
    try:
        return _track(msgspec.convert(item, _Track), None, True, catalog)
    except msgspec.ValidationError:
        return None


def _check(body: _Check, key_header: str | None, catalog: Catalog) -> Decoded | None:
    send = body.send_event
    key = _key(body.idempotency_key, key_header)
    amount = 1 if body.required_balance is None else body.required_balance
    paid = _paid(body.customer_id, body.feature_id, amount, catalog)
    if paid is None or key is None or body.with_preview:
        return None
    info, print_of = b"", b""
    if not send:
        key = ""
    else:
        told: dict[str, Any] = {"v": str(amount), "s": "check", "m": "reject"}
        if key:
            print_of = fingerprint("check", body.customer_id, "", body.feature_id, None, amount, None, None, None)
            told["k"] = key
        info = msgpack.packb(told)
    call = Spend(scripts.CHECK, body.customer_id, "", (paid,), "send" if send else "", info, key, print_of)
    return Decoded(call, amount, body.feature_id, None)


def _track(body: _Track, key_header: str | None, brief: bool, catalog: Catalog) -> Decoded | None:
    key = _key(body.idempotency_key, key_header)
    amount = 1 if body.value is None else body.value
    paid = _paid(body.customer_id, body.feature_id, amount, catalog)
    if paid is None or key is None:
        return None
    info, print_of = TRACKED_ONE, b""
    if key or amount != 1:
        told: dict[str, Any] = {"v": str(amount), "s": "track"}
        if key:
            print_of = fingerprint("track", body.customer_id, "", body.feature_id, None, amount, "cap", None, None)
            told["k"] = key
        info = msgpack.packb(told)
    call = Spend(scripts.TRACK, body.customer_id, "", (paid,), "cap", info, key, print_of, brief=brief)
    return Decoded(call, amount, body.feature_id, None)


def _key(in_body: str | None, header: str | None) -> str | None:
    """The call's key, "" for none; None for one that `decode` has something to say about."""
    if in_body and header and in_body != header:
        return None
    key = in_body or header or ""
    return key if len(key) <= KEY_CHARS_MAX and (not key or (key.isascii() and key.isprintable())) else None


def _paid(customer_id: str, feature_id: str, amount: int, catalog: Catalog) -> tuple[Feature, int] | None:
    feature = catalog.features.get(feature_id)
    if feature is None or not 0 < len(customer_id) <= ID_CHARS_MAX or not customer_id.isprintable():
        return None
    scaled: int = amount * 10**feature.precision
    return (feature, scaled) if -QUANTITY_MAX <= scaled <= QUANTITY_MAX else None


def is_plain(decoded: Decoded) -> bool:
    """Whether a track is one that `answer_track` answers: of a feature, for the customer itself, at a
    version that shows no balances."""
    return decoded.spend.brief and not (decoded.spend.entity_id or decoded.event_name or decoded.asynchronous)


def answer_track(decoded: Decoded, result: Result, packed: bool = False) -> bytes:
    """The body of a plain track; `packed` in MessagePack."""
    return (templates.PACKED if packed else templates.JSON).encode({
        "customer_id": decoded.spend.customer_id, "id": result.event_id, "code": "event_received",
        "feature_id": decoded.feature_id,
    })


def answer_check(decoded: Decoded, result: Result, catalog: Catalog, packed: bool = False) -> bytes | None:
    """The 1.2 body of a check on plain buckets of the customer; `packed` in MessagePack."""
    call = decoded.spend
    if call.entity_id or any(result.entity_blobs):
        return None
    if result.allowed and not (result.shown or result.event_id or result.lock_id):
        said, shown, blob = None, call.features[0][0], result.blobs[0]
    else:
        said, shown = check_head(decoded, result, catalog, (1, 2))
        blob = result.blobs[result.fields.index(shown.id)]
    if catalog.features.get(shown.id) is not shown:  # decoded with another catalog than the templates are kept with
        return None
    kept = catalog.answer_templates
    if "1.2" not in kept:
        kept["1.2"] = templates.Templates()
    found = kept["1.2"].find(templates.PACKED if packed else templates.JSON, shown, blob)
    if found is None:
        return None
    template, changing = found
    if said is None:
        return template.allowed(call.customer_id, decoded.amount, changing)
    return template.answer(said, changing)
