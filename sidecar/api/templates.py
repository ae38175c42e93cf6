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
from ..domain import layout
from ..domain.quantities import unscale
from . import wire
from .balance_views import balance_v12

TEMPLATES_MAX = 20_000
COLDS_MAX = 10_000
PLAIN_ROWS_MAX = 8
NOT_PLAIN = layout.UNLIMITED | layout.PER_ENTITY | layout.BOOLEAN | layout.ROLLOVER
HOLES = ("balance", "usage", "next_reset_at")
HOLE = b"%b"
MISSING: Any = object()
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


_COLD = layout.Row._fields[layout.HOT_WIDTH :]
_OF_ITS_CUSTOMER = [_COLD.index(name) for name in ("anchor", "item", "created_at", "reset_at", "reset_over")]
"""Columns that differ from customer to customer and are not shown."""


class _Shape(NamedTuple):
    """Where a blob of so many buckets has what changes (balance and next reset of each), the other
    columns that every call reads, and the rest."""

    changing: struct.Struct
    fixed: tuple[slice, ...]
    cold_at: int
    unshown: tuple[int, ...]

    @classmethod
    def of(cls, rows: int) -> _Shape:
        """Of a blob of so many."""
        starts = [layout.COUNTS.size + i * layout.HOT.size for i in range(rows)]
        return cls(
            struct.Struct(f">{layout.COUNTS.size}x" + "4xq18xq8x" * rows),
            tuple(part for at in starts for part in (slice(at + 12, at + 30), slice(at + 38, at + layout.HOT.size))),
            layout.COUNTS.size + rows * layout.HOT.size,
            tuple(row * len(_COLD) + column for row in range(rows) for column in _OF_ITS_CUSTOMER),
        )


_SHAPES = {layout.COUNTS.pack(layout.FORMAT, rows, 0, 0, 0, 0): _Shape.of(rows) for rows in range(1, PLAIN_ROWS_MAX + 1)}
"""By how a blob begins that has so many buckets, no slots and none archived."""


class Template:
    """The balance fields of one arrangement of buckets, with holes for what changes: balance and
    usage, when the next reset is, of the whole and then of each bucket in order."""

    __slots__ = ("_form", "_fields", "_text", "_allowed", "_granted", "_sum", "_unit", "_precision", "_first_reset", "_resets")

    def __init__(self, form: Form, feature: Feature, fields: list[tuple[bytes, bytes]], rows: Sequence[layout.Row], first_reset: bool):
        self._form, self._fields, self._text = form, len(fields), form.end(fields)
        said = {"allowed": True, "customer_id": HOLE, "required_balance": HOLE, "code": "feature_found", "feature_id": feature.id}
        self._allowed = form.begin(_pairs(form, said), len(fields)) + self._text
        self._granted, self._sum = [row.granted for row in rows], sum(row.granted for row in rows)
        self._unit, self._precision = 10**feature.precision, feature.precision
        self._first_reset, self._resets = first_reset, [bool(row.next_reset_at) for row in rows]

    def allowed(self, customer_id: str, required: int | Decimal | None, changing: Sequence[int]) -> bytes:
        """The answer where nothing is to be said but that the call is allowed by this feature."""
        encode = self._form.encode
        return self._allowed % (encode(customer_id), encode(required), *self._numbers(changing))

    def answer(self, said: dict[str, Any], changing: Sequence[int]) -> bytes:
        """The answer that begins with that."""
        encode = self._form.encode
        pairs = [(encode(name), encode(value)) for name, value in said.items()]
        return self._form.begin(pairs, self._fields) + self._text % tuple(self._numbers(changing))

    def _numbers(self, changing: Sequence[int]) -> list[bytes]:
        number, unit, precision = self._form.number, self._unit, self._precision
        balances, resets = changing[::2], changing[1::2]
        total = sum(balances)
        numbers = [number(min(filter(None, resets)), 1, 0)] if self._first_reset else []
        numbers += (number(total, unit, precision), number(self._sum - total, unit, precision))
        for granted, balance, reset, has_reset in zip(self._granted, balances, resets, self._resets):
            numbers.append(number(balance, unit, precision))
            numbers.append(number(granted - balance, unit, precision))
            if has_reset:
                numbers.append(number(reset, 1, 0))
        return numbers


class Templates:
    """What is kept with a catalog: templates by form, feature and arrangement of buckets."""

    def __init__(self) -> None:
        self.known: dict[tuple[Any, ...], Template | None] = {}
        self._colds: dict[bytes, tuple[Any, ...]] = {}
        """What of the rest of a blob tells one arrangement from another, by that rest: read once
        for each customer, as long as there are not too many."""
        self._alike: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def find(self, form: Form, feature: Feature, blob: bytes) -> tuple[Template, Sequence[int]] | None:
        """The template of these packed buckets, and what changes of them; None if they are not plain.
        One template does for all customers whose buckets are alike."""
        shape = _SHAPES.get(blob[: layout.COUNTS.size])
        if shape is None:
            return None
        changing = shape.changing.unpack_from(blob)
        rest = blob[shape.cold_at :]
        cold = self._colds.get(rest) or self._read(shape, rest)
        key = (form.content_type, feature.id, b"".join([blob[part] for part in shape.fixed]), cold, *map(bool, changing[1::2]))
        known = self.known
        template = known.get(key, MISSING)
        if template is MISSING:
            template = _template(form, feature, layout.unpack(blob).rows)
            if len(known) >= TEMPLATES_MAX:
                known.clear()
            known[key] = template
        return None if template is None else (template, changing)

    def _read(self, shape: _Shape, rest: bytes) -> tuple[Any, ...]:
        cold = msgpack.unpackb(rest)
        for place in shape.unshown:
            cold[place] = 0
        if len(self._colds) >= COLDS_MAX:
            self._colds.clear()
            self._alike.clear()
        found = tuple(cold)
        found = self._colds[rest] = self._alike.setdefault(found, found)
        return found


def _template(form: Form, feature: Feature, rows: Sequence[layout.Row]) -> Template | None:
    """The template of these buckets, from what the ordinary view says of such with other numbers:
    where it does not say the same, none."""
    if any(row.flags & NOT_PLAIN or row.expires_at or row.held or not (row.plan_id or row.interval) for row in rows):
        return None
    others = [
        row._replace(balance=7 * i + 1, next_reset_at=10**12 - i if row.next_reset_at else 0) for i, row in enumerate(rows)
    ]
    view = balance_v12(feature, others, None)
    entries, first_reset = view["breakdown"], view["next_reset_at"] is not None
    parts = []
    for entry in entries:
        pairs = _pairs(form, _with_holes(entry))
        parts.append(form.begin(pairs[:1], len(pairs) - 1) + form.end(pairs[1:]))
    fields = []
    for name, value in _with_holes(view).items():
        fields += [(form.encode(name), form.array(parts))] if name == "breakdown" else _pairs(form, {name: value})
    if len(entries) != len(rows) or list(view)[:3] != ["interval", "interval_count", "next_reset_at"]:
        return None
    template = Template(form, feature, fields, others, first_reset)
    changing = [number for row in others for number in (row.balance, row.next_reset_at)]
    return template if template.answer({"": 0}, changing) == form.encode({"": 0, **view}) else None


def _with_holes(said: dict[str, Any]) -> dict[str, Any]:
    return {name: HOLE if name in HOLES and value is not None else value for name, value in said.items()}


def _pairs(form: Form, said: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    """Names and values, encoded for text with holes."""
    return [
        (form.encode(name), HOLE if value is HOLE else form.encode(value).replace(b"%", b"%%")) for name, value in said.items()
    ]


def _digits(scaled: int, unit: int, precision: int) -> bytes:
    """A number with decimals, as JSON."""
    whole, rest = divmod(abs(scaled), unit)
    return b"%b%d.%b" % (b"-" if scaled < 0 else b"", whole, (b"%0*d" % (precision, rest)).rstrip(b"0"))
