"""The usual check and track, decoded and answered with the least work: the same calls and the same
bytes as `decode` and `answers` give (a test holds them equal), or None where those are to be used.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgpack
import msgspec

from ..catalog.model import Feature
from ..catalog.snapshot import Catalog
from ..domain import layout
from ..domain.quantities import QUANTITY_MAX
from ..engine import scripts
from ..engine.spend import Result, Spend
from .answers import check_head
from .balance_views import balance_v12
from .decode import KEY_CHARS_MAX, Decoded, fingerprint
from .fields import ID_CHARS_MAX

TEMPLATES_MAX = 20_000
PLAIN_ROWS_MAX = 8
NOT_PLAIN = layout.UNLIMITED | layout.PER_ENTITY | layout.BOOLEAN | layout.ROLLOVER
FIRST_BALANCE = layout.COUNTS.size + 4
"""Where the first bucket's balance is in a packed blob, after the bucket's number."""

NOTHING_ELSE = b"\0\0\0\0\0"
"""The other bytes of the counts: fewer than 256 buckets, no slots, none archived."""

HOLES = ("balance", "usage")
_encode = msgspec.json.Encoder(decimal_format="number").encode


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


def decode_check(data: bytes, key_header: str | None, catalog: Catalog) -> Decoded | None:
    """The call in a check body with nothing but the most common fields."""
    try:
        body = _check_decoder.decode(data)
    except msgspec.DecodeError:
        return None
    if body.with_preview:
        return None
    send = body.send_event
    key = _key(body.idempotency_key, key_header)
    amount = 1 if body.required_balance is None else body.required_balance
    paid = _paid(body.customer_id, body.feature_id, amount, catalog)
    if paid is None or key is None or not data.isascii():
        return None
    info, print_of = b"", b""
    if not send:
        key = ""
    else:
        told: dict[str, Any] = {"v": str(amount), "s": "check", "m": "reject"}
        if key:
            print_of = fingerprint("check", body.customer_id, "", body.feature_id, None, amount, None, None, None)
            told["k"], told["f"] = key, print_of
        info = msgpack.packb(told)
    call = Spend(scripts.CHECK, body.customer_id, "", (paid,), "send" if send else "", info, key, print_of)
    return Decoded(call, amount, body.feature_id, None)


def decode_track(data: bytes, key_header: str | None, catalog: Catalog) -> Decoded | None:
    """The call in a track body with nothing but the most common fields."""
    try:
        body = _track_decoder.decode(data)
    except msgspec.DecodeError:
        return None
    key = _key(body.idempotency_key, key_header)
    amount = 1 if body.value is None else body.value
    paid = _paid(body.customer_id, body.feature_id, amount, catalog)
    if paid is None or key is None or not data.isascii():
        return None
    told: dict[str, Any] = {"v": str(amount), "s": "track"}
    print_of = b""
    if key:
        print_of = fingerprint("track", body.customer_id, "", body.feature_id, None, amount, "cap", None, None)
        told["k"], told["f"] = key, print_of
    call = Spend(scripts.TRACK, body.customer_id, "", (paid,), "cap", msgpack.packb(told), key, print_of)
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


def answer_check(decoded: Decoded, result: Result, catalog: Catalog) -> bytes | None:
    """The 1.2 body of a check on plain buckets of the customer."""
    if decoded.spend.entity_id or any(result.entity_blobs):
        return None
    head, shown = check_head(decoded, result, catalog, (1, 2))
    blob = result.blobs[result.fields.index(shown.id)]
    if not blob:
        return None
    rows = blob[2]
    if not 0 < rows <= PLAIN_ROWS_MAX or blob[1:2] + blob[3:7] != NOTHING_ELSE:
        return None
    mask, balances, start = [blob[:FIRST_BALANCE]], [], FIRST_BALANCE
    for _ in range(rows):
        balances.append(int.from_bytes(blob[start : start + 8], "big", signed=True))
        mask.append(blob[start + 8 : start + layout.HOT.size])
        start += layout.HOT.size
    mask.append(blob[start - 4 :])
    key = (shown.id, b"".join(mask))
    template = catalog.answer_templates.get(key)
    if template is None:
        template = _template(shown, blob)
        if len(catalog.answer_templates) < TEMPLATES_MAX:
            catalog.answer_templates[key] = template
    if not template.parts:
        return None
    return template.fill(_encode(head)[:-1], balances)


class _Template:
    """The balance fields of one arrangement of buckets, with holes for what changes by use:
    balance and usage, of the whole and then of each bucket in order."""

    __slots__ = ("parts", "_order", "_granted", "_precision")

    def __init__(self, parts: list[bytes], order: list[int], granted: list[int], precision: int):
        self.parts = parts
        self._order = order
        self._granted = granted
        self._precision = precision

    def fill(self, head: bytes, balances: list[int]) -> bytes:
        """The answer: its beginning, then the balance fields."""
        precision, granted = self._precision, self._granted
        total = sum(balances)
        numbers = [_text(total, precision), _text(sum(granted) - total, precision)]
        for i in self._order:
            numbers.append(_text(balances[i], precision))
            numbers.append(_text(granted[i] - balances[i], precision))
        made = [head]
        for part, number in zip(self.parts, numbers):
            made.append(part)
            made.append(number)
        made.append(self.parts[-1])
        return b"".join(made)


_NONE = _Template([], [], [], 0)


def _template(feature: Feature, blob: bytes) -> _Template:
    """The template of these buckets, cut from what the ordinary view says of them."""
    rows = layout.unpack(blob).rows
    if any(row.flags & NOT_PLAIN or row.expires_at or row.held or not (row.plan_id or row.interval) for row in rows):
        return _NONE
    fields = balance_v12(feature, rows, None)
    parts, last = [], b""
    for name, value in fields.items():
        if name == "breakdown":
            last += b',"breakdown":['
            for i, entry in enumerate(value):
                last += b"," if i else b""
                for j, (inner, text) in enumerate(entry.items()):
                    last += (b"," if j else b"{") + _encode(inner) + b":"
                    if inner in HOLES:
                        parts.append(last)
                        last = b""
                    else:
                        last += _encode(text)
                last += b"}"
            last += b"]"
            continue
        last += b"," + _encode(name) + b":"
        if name in HOLES:
            parts.append(last)
            last = b""
        else:
            last += _encode(value)
    parts.append(last + b"}")
    return _Template(parts, list(range(len(rows))), [row.granted for row in rows], feature.precision)


def _text(scaled: int, precision: int) -> bytes:
    """The number that `scaled` stands for, as JSON: what `unscale` gives, encoded."""
    if not precision:
        return b"%d" % scaled
    whole, rest = divmod(abs(scaled), 10**precision)
    sign = b"-" if scaled < 0 else b""
    if not rest:
        return b"%b%d" % (sign, whole)
    return b"%b%d.%b" % (sign, whole, (b"%0*d" % (precision, rest)).rstrip(b"0"))

