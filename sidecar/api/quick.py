"""The usual check and track, decoded and answered with the least work: the same calls and the same
bytes as `decode` and `answers` give (a test holds them equal), or None where those are to be used.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, NamedTuple, Sequence

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
from .decode import KEY_CHARS_MAX, SHOWS_BALANCES, Decoded, fingerprint
from .fields import ID_CHARS_MAX

TEMPLATES_MAX = 20_000
PLAIN_ROWS_MAX = 8
NOT_PLAIN = layout.UNLIMITED | layout.PER_ENTITY | layout.BOOLEAN | layout.ROLLOVER
FIRST_BALANCE = layout.COUNTS.size + 4
"""Where the first bucket's balance is in a packed blob, after the bucket's number."""

NOTHING_ELSE = b"\0\0\0\0\0"
"""The other bytes of the counts: fewer than 256 buckets, no slots, none archived."""

TRACKED_ONE = msgpack.packb({"v": "1", "s": "track"})
"""The info of a track of one, without a key."""

HOLES = ("balance", "usage")
HOLE = b"%b"
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


def decode_check(data: bytes, key_header: str | None, version: tuple[int, int], catalog: Catalog) -> Decoded | None:
    """The call in a check body with nothing but the most common fields."""
    try:
        body = _check_decoder.decode(data)
    except msgspec.DecodeError:
        return None
    return _check(body, key_header, catalog) if data.isascii() else None


def decode_track(data: bytes, key_header: str | None, version: tuple[int, int], catalog: Catalog) -> Decoded | None:
    """The call in a track body with nothing but the most common fields."""
    try:
        body = _track_decoder.decode(data)
    except msgspec.DecodeError:
        return None
    return _track(body, key_header, version < SHOWS_BALANCES, catalog) if data.isascii() else None


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


def answer_track(decoded: Decoded, result: Result) -> bytes:
    """The body of a plain track."""
    return _encode({
        "customer_id": decoded.spend.customer_id, "id": result.event_id, "code": "event_received",
        "feature_id": decoded.feature_id,
    })


def answer_check(decoded: Decoded, result: Result, catalog: Catalog) -> bytes | None:
    """The 1.2 body of a check on plain buckets of the customer."""
    call = decoded.spend
    if call.entity_id or any(result.entity_blobs):
        return None
    asked = call.features[0][0]
    if result.allowed and not (result.shown or result.event_id or result.lock_id):
        shown, blob = asked, result.blobs[0]
        head = _ALLOWED % (_encode(call.customer_id), _encode(decoded.amount), _encode(asked.id))
    else:
        said, shown = check_head(decoded, result, catalog, (1, 2))
        head, blob = _encode(said)[:-1], result.blobs[result.fields.index(shown.id)]
    if not blob:
        return None
    rows = blob[2]
    if not 0 < rows <= PLAIN_ROWS_MAX or blob[1:2] + blob[3:7] != NOTHING_ELSE:
        return None
    shape = _SHAPES[rows]
    key = (shown.id, b"".join([blob[part] for part in shape.rest]))
    template = catalog.answer_templates.get(key)
    if template is None:
        template = _template(shown, blob)
        if len(catalog.answer_templates) < TEMPLATES_MAX:
            catalog.answer_templates[key] = template
    return template.fill(head, shape.balances.unpack_from(blob)) if template.text else None


_ALLOWED = b'{"allowed":true,"customer_id":%b,"required_balance":%b,"code":"feature_found","feature_id":%b'
"""How `check_head` begins where nothing but that is to be said."""


class _Shape(NamedTuple):
    """Where the balances of so many buckets are in a blob, and everything else."""

    balances: struct.Struct
    rest: tuple[slice, ...]

    @classmethod
    def of(cls, rows: int) -> _Shape:
        """Of a blob of so many."""
        starts = [FIRST_BALANCE + i * layout.HOT.size for i in range(rows)]
        between = [slice(a + 8, b) for a, b in zip(starts, starts[1:])]
        balances = struct.Struct(f">{layout.COUNTS.size}x" + f"4xq{layout.HOT.size - 12}x" * rows)
        return cls(balances, (slice(0, FIRST_BALANCE), *between, slice(starts[-1] + 8, None)))


_SHAPES = {rows: _Shape.of(rows) for rows in range(1, PLAIN_ROWS_MAX + 1)}


class _Template:
    """The balance fields of one arrangement of buckets, with holes for what changes by use:
    balance and usage, of the whole and then of each bucket in order. No text: not plain."""

    __slots__ = ("text", "_granted", "_sum", "_unit", "_precision")

    def __init__(self, text: bytes, granted: list[int], precision: int):
        self.text = text
        self._granted = granted
        self._sum = sum(granted)
        self._unit = 10**precision
        self._precision = precision

    def fill(self, head: bytes, balances: Sequence[int]) -> bytes:
        """The answer: its beginning, then the balance fields."""
        total = sum(balances)
        numbers = [total, self._sum - total]
        for granted, balance in zip(self._granted, balances):
            numbers += (balance, granted - balance)
        unit = self._unit
        return head + self.text % tuple([
            b"%d" % (scaled // unit) if scaled % unit == 0 else _text(scaled, self._precision) for scaled in numbers
        ])


_NONE = _Template(b"", [], 0)


def _template(feature: Feature, blob: bytes) -> _Template:
    """The template of these buckets, cut from what the ordinary view says of them."""
    rows = layout.unpack(blob).rows
    if any(row.flags & NOT_PLAIN or row.expires_at or row.held or not (row.plan_id or row.interval) for row in rows):
        return _NONE
    text, holes = b"", len(rows) * 2 + 2
    for name, value in balance_v12(feature, rows, None).items():
        text += b"," + _encode(name) + b":"
        if name == "breakdown":
            text += b"[" + b",".join(_with_holes(entry) for entry in value) + b"]"
        else:
            text += HOLE if name in HOLES else _literal(value)
    text += b"}"
    if text.replace(b"%%", b"").count(HOLE) != holes:  # some bucket is not in the breakdown
        return _NONE
    return _Template(text, [row.granted for row in rows], feature.precision)


def _with_holes(entry: dict[str, Any]) -> bytes:
    parts = [_encode(name) + b":" + (HOLE if name in HOLES else _literal(value)) for name, value in entry.items()]
    return b"{" + b",".join(parts) + b"}"


def _literal(value: Any) -> bytes:
    return _encode(value).replace(b"%", b"%%")


def _text(scaled: int, precision: int) -> bytes:
    """The number that `scaled` stands for, as JSON: what `unscale` gives, encoded."""
    whole, rest = divmod(abs(scaled), 10**precision)
    sign = b"-" if scaled < 0 else b""
    if not rest:
        return b"%b%d" % (sign, whole)
    return b"%b%d.%b" % (sign, whole, (b"%0*d" % (precision, rest)).rstrip(b"0"))

