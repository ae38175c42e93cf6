"""Answers of check with the text ready: what does not change by use is encoded once for each
arrangement of buckets, what does is put into its holes. The same bytes as `answers` gives.
"""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any, Iterable, NamedTuple, Sequence

import msgpack
import msgspec

from ..catalog.model import Feature
from ..catalog.snapshot import Catalog
from ..domain import layout
from ..domain.quantities import unscale
from . import wire
from .balance_views import balance_v12

TEMPLATES_MAX = 20_000
PLAIN_ROWS_MAX = 8
NOT_PLAIN = layout.UNLIMITED | layout.PER_ENTITY | layout.BOOLEAN | layout.ROLLOVER
FIRST_BALANCE = layout.COUNTS.size + 4
"""Where the first bucket's balance is in a packed blob, after the bucket's number."""

NOTHING_ELSE = b"\0\0\0\0\0"
"""The other bytes of the counts: fewer than 256 buckets, no slots, none archived."""

HOLES = ("balance", "usage")
HOLE = b"%b"
Pairs = Iterable[tuple[bytes, bytes]]


class _Json:
    """How an object is put together in JSON."""

    content_type = wire.JSON
    encode = staticmethod(msgspec.json.Encoder(decimal_format="number").encode)

    @staticmethod
    def number(scaled: int, unit: int, precision: int) -> bytes:
        """What `unscale` gives, encoded."""
        return b"%d" % (scaled // unit) if scaled % unit == 0 else _digits(scaled, unit, precision)

    @staticmethod
    def begin(pairs: Pairs, _more: int) -> bytes:
        """An object up to where `more` pairs go on."""
        return b"{" + b",".join(name + b":" + value for name, value in pairs)

    @staticmethod
    def end(pairs: Pairs) -> bytes:
        """Those pairs, and its end."""
        return b"".join(b"," + name + b":" + value for name, value in pairs) + b"}"

    @staticmethod
    def array(items: Sequence[bytes]) -> bytes:
        return b"[" + b",".join(items) + b"]"


class _Packed:
    """As `_Json`, in MessagePack."""

    content_type = wire.MSGPACK
    _pack = msgpack.Packer(autoreset=True)

    @staticmethod
    def encode(value: Any) -> bytes:
        return wire.encode(value, wire.MSGPACK)[0]

    @classmethod
    def number(cls, scaled: int, unit: int, precision: int) -> bytes:
        packed: bytes = cls._pack.pack(scaled // unit if scaled % unit == 0 else float(unscale(scaled, precision)))
        return packed

    @classmethod
    def begin(cls, pairs: Pairs, more: int) -> bytes:
        pairs = list(pairs)
        header: bytes = cls._pack.pack_map_header(len(pairs) + more)  # no "%": there are never 37 fields
        return header + cls.end(pairs)

    @staticmethod
    def end(pairs: Pairs) -> bytes:
        return b"".join(name + value for name, value in pairs)

    @classmethod
    def array(cls, items: Sequence[bytes]) -> bytes:
        header: bytes = cls._pack.pack_array_header(len(items))
        return header + b"".join(items)


JSON, PACKED = _Json(), _Packed()
Form = _Json | _Packed


def form_of(packed: bool) -> Form:
    """The form of an answer."""
    return PACKED if packed else JSON


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


class Template:
    """The balance fields of one arrangement of buckets, with holes for what changes by use: balance
    and usage, of the whole and then of each bucket in order."""

    __slots__ = ("_form", "_fields", "_text", "_allowed", "_granted", "_sum", "_unit", "_precision")

    def __init__(self, form: Form, feature: Feature, fields: list[tuple[bytes, bytes]], granted: list[int]):
        self._form, self._fields, self._text = form, len(fields), form.end(fields)
        said = {"allowed": True, "customer_id": HOLE, "required_balance": HOLE, "code": "feature_found", "feature_id": feature.id}
        self._allowed = form.begin(_pairs(form, said), len(fields)) + self._text
        self._granted, self._sum = granted, sum(granted)
        self._unit, self._precision = 10**feature.precision, feature.precision

    def allowed(self, customer_id: str, required: int | Decimal, balances: Sequence[int]) -> bytes:
        """The answer where nothing is to be said but that the call is allowed by this feature."""
        encode = self._form.encode
        return self._allowed % (encode(customer_id), encode(required), *self._numbers(balances))

    def answer(self, said: dict[str, Any], balances: Sequence[int]) -> bytes:
        """The answer that begins with that."""
        encode = self._form.encode
        pairs = [(encode(name), encode(value)) for name, value in said.items()]
        return self._form.begin(pairs, self._fields) + self._text % tuple(self._numbers(balances))

    def _numbers(self, balances: Sequence[int]) -> list[bytes]:
        total, number, unit, precision = sum(balances), self._form.number, self._unit, self._precision
        numbers = [number(total, unit, precision), number(self._sum - total, unit, precision)]
        for granted, balance in zip(self._granted, balances):
            numbers.append(number(balance, unit, precision))
            numbers.append(number(granted - balance, unit, precision))
        return numbers


def find(form: Form, catalog: Catalog, feature: Feature, blob: bytes) -> tuple[Template, Sequence[int]] | None:
    """The template of these packed buckets, and their balances; None if they are not plain."""
    rows = blob[2]
    if not 0 < rows <= PLAIN_ROWS_MAX or blob[1:2] + blob[3:7] != NOTHING_ELSE:
        return None
    shape = _SHAPES[rows]
    key = (form.content_type, feature.id, b"".join([blob[part] for part in shape.rest]))
    known = catalog.answer_templates
    template = known.get(key, known)
    if template is known:
        template = _template(form, feature, blob)
        if len(known) < TEMPLATES_MAX:
            known[key] = template
    return None if template is None else (template, shape.balances.unpack_from(blob))


def _template(form: Form, feature: Feature, blob: bytes) -> Template | None:
    """The template of these buckets, from what the ordinary view says of them."""
    rows = layout.unpack(blob).rows
    if any(row.flags & NOT_PLAIN or row.expires_at or row.held or not (row.plan_id or row.interval) for row in rows):
        return None
    view = balance_v12(feature, rows, None)
    if len(view["breakdown"]) != len(rows):
        return None
    entries = [{name: HOLE if name in HOLES else value for name, value in entry.items()} for entry in view["breakdown"]]
    fields = []
    for name, value in view.items():
        if name == "breakdown":
            entries_text = [form.begin(pairs[:1], len(pairs) - 1) + form.end(pairs[1:]) for pairs in (_pairs(form, e) for e in entries)]
            fields.append((form.encode(name), form.array(entries_text)))
        else:
            fields += _pairs(form, {name: HOLE if name in HOLES else value})
    return Template(form, feature, fields, [row.granted for row in rows])


def _pairs(form: Form, said: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Names and values, encoded for text with holes."""
    return [
        (form.encode(name), HOLE if value is HOLE else form.encode(value).replace(b"%", b"%%")) for name, value in said.items()
    ]


def _digits(scaled: int, unit: int, precision: int) -> bytes:
    """A number with decimals, as JSON."""
    whole, rest = divmod(abs(scaled), unit)
    return b"%b%d.%b" % (b"-" if scaled < 0 else b"", whole, (b"%0*d" % (precision, rest)).rstrip(b"0"))
