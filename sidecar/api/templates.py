"""Answers of check with the text ready: what does not change by use is encoded once for each
arrangement of buckets, what does is put into its holes. The same bytes as `answers` gives.
"""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any, Iterable, Sequence

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
HOLE: Any = object()
MISSING: Any = object()
Pairs = Iterable[tuple[bytes, bytes]]


class _Json:
    """How an object is put together in JSON."""

    content_type = wire.JSON
    encode = staticmethod(msgspec.json.Encoder(decimal_format="number").encode)
    hole = b"%d"
    """What stands for a whole number in text with holes."""

    @staticmethod
    def wholes(numbers: list[int]) -> list[Any]:
        """What goes into such holes."""
        return numbers

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
    hole = b"%b"
    _pack = msgpack.Packer(autoreset=True)
    _encode = staticmethod(msgspec.msgpack.Encoder().encode)
    """Of text and whole numbers the same bytes, sooner."""

    @classmethod
    def encode(cls, value: Any) -> bytes:
        return cls._encode(value) if type(value) in (str, int) else wire.encode(value, wire.MSGPACK)[0]

    @classmethod
    def wholes(cls, numbers: list[int]) -> list[Any]:
        return list(map(cls._encode, numbers))

    @classmethod
    def number(cls, scaled: int, unit: int, precision: int) -> bytes:
        return cls._encode(scaled // unit if scaled % unit == 0 else float(unscale(scaled, precision)))

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


class _Shape(msgspec.Struct):
    """Where a blob of so many buckets has the hot columns that an answer depends on (of each bucket the
    balance, what stays, the next reset, when it ends) and the rest."""

    hot: struct.Struct
    cold_at: int
    unshown: tuple[int, ...]

    @classmethod
    def of(cls, rows: int) -> _Shape:
        """Of a blob of so many."""
        return cls(
            struct.Struct(f">{layout.COUNTS.size}x" + "4xq18sq8s" * rows),
            layout.COUNTS.size + rows * layout.HOT.size,
            tuple(row * len(_COLD) + column for row in range(rows) for column in _OF_ITS_CUSTOMER),
        )


_SHAPES = {layout.COUNTS.pack(layout.FORMAT, rows, 0, 0, 0, 0): _Shape.of(rows) for rows in range(1, PLAIN_ROWS_MAX + 1)}
"""By how a blob begins that has so many buckets, no slots and none archived."""


class _Text(msgspec.Struct):
    """The balance fields with holes, and the answer of a check that they allow. `granted` is what each
    bucket was given, in the unit that its holes' numbers are counted in."""

    fields: bytes
    allowed: bytes
    granted: list[int]

    @classmethod
    def of(cls, form: Form, feature: Feature, view: dict[str, Any], granted: list[int], hole: bytes) -> _Text:
        """For what the ordinary view says."""
        parts = []
        for entry in view["breakdown"]:
            pairs = _pairs(form, _with_holes(entry), hole)
            parts.append(form.begin(pairs[:1], len(pairs) - 1) + form.end(pairs[1:]))
        fields = []
        for name, value in _with_holes(view).items():
            fields += [(form.encode(name), form.array(parts))] if name == "breakdown" else _pairs(form, {name: value}, hole)
        said = {"allowed": True, "customer_id": HOLE, "required_balance": HOLE, "code": "feature_found", "feature_id": feature.id}
        text = form.end(fields)
        return cls(text, form.begin(_pairs(form, said, b"%b"), len(fields)) + text, granted)


class Template:
    """The balance fields of one arrangement of buckets, with holes for what changes: balance and
    usage, when the next reset is, of the whole and then of each bucket in order."""

    __slots__ = ("_form", "_fields", "_unit", "_first_reset", "_scales", "_exact", "_whole")

    def __init__(self, form: Form, feature: Feature, view: dict[str, Any], rows: Sequence[layout.Row]):
        granted, precision = [row.granted for row in rows], feature.precision
        unit = self._unit = 10**precision
        self._form, self._fields = form, len(view)
        self._first_reset = view["next_reset_at"] is not None
        quantity, time_ms = (unit, precision), (1, 0)
        self._scales = [time_ms] * self._first_reset + [quantity] * 2
        """The unit and precision of each hole's number."""
        for row in rows:
            self._scales += [quantity, quantity, time_ms] if row.next_reset_at else [quantity] * 2
        self._exact = _Text.of(form, feature, view, granted, b"%b")
        self._whole: _Text | None = None
        """For balances that are all whole, which most are."""
        if not any(grant % unit for grant in granted):
            self._whole = _Text.of(form, feature, view, [grant // unit for grant in granted], form.hole)

    def allowed(self, customer_id: str, required: int | Decimal | None, changing: Sequence[int]) -> bytes:
        """The answer where nothing is to be said but that the call is allowed by this feature."""
        encode = self._form.encode
        text, numbers = self._filled(changing)
        return text.allowed % (encode(customer_id), encode(required), *numbers)

    def answer(self, said: dict[str, Any], changing: Sequence[int]) -> bytes:
        """The answer that begins with that."""
        encode = self._form.encode
        pairs = [(encode(name), encode(value)) for name, value in said.items()]
        text, numbers = self._filled(changing)
        return self._form.begin(pairs, self._fields) + text.fields % tuple(numbers)

    def _filled(self, changing: Sequence[int]) -> tuple[_Text, list[Any]]:
        """The text to use, and what goes into its holes."""
        if self._whole is not None:
            numbers = self._numbers(self._whole.granted, changing, self._unit)
            if numbers is not None:
                return self._whole, self._form.wholes(numbers)
        number, exact = self._form.number, self._numbers(self._exact.granted, changing, 1) or []
        return self._exact, [number(scaled, *scale) for scaled, scale in zip(exact, self._scales)]

    def _numbers(self, granted: Sequence[int], changing: Sequence[int], unit: int) -> list[int] | None:
        """The holes' numbers, quantities in such units; None if one is no whole number of them."""
        numbers: list[int] = []
        left = total = first_reset = 0
        for grant, balance, reset in zip(granted, changing[::2], changing[1::2]):
            if balance % unit:
                return None
            balance //= unit
            left += balance
            total += grant
            if not reset:
                numbers += (balance, grant - balance)
                continue
            numbers += (balance, grant - balance, reset)
            if reset < first_reset or not first_reset:
                first_reset = reset
        return [first_reset, left, total - left, *numbers] if self._first_reset else [left, total - left, *numbers]


class Templates:
    """What is kept with a catalog: templates by form, feature and arrangement of buckets."""

    def __init__(self) -> None:
        self.known: dict[tuple[Any, ...], Template | None] = {}
        self._colds: dict[bytes, int] = {}
        """What of the rest of a blob tells one arrangement from another, by that rest: read once
        for each customer, as long as there are not too many."""
        self._alike: dict[tuple[Any, ...], int] = {}
        """The number of each such reading."""

    def find(self, form: Form, feature: Feature, blob: bytes) -> tuple[Template, Sequence[int]] | None:
        """The template of these packed buckets, and what changes of them; None if they are not plain.
        One template does for all customers whose buckets are alike."""
        shape = _SHAPES.get(blob[: layout.COUNTS.size])
        if shape is None:
            return None
        hot, rest = shape.hot.unpack_from(blob), blob[shape.cold_at :]
        cold = self._colds.get(rest)
        if cold is None:
            cold = self._read(shape, rest)
        key = (cold, form.content_type, feature.id, *hot[1::2], *map(bool, hot[2::4]))
        known = self.known
        template = known.get(key, MISSING)
        if template is MISSING:
            template = _template(form, feature, layout.unpack(blob).rows)
            if len(known) >= TEMPLATES_MAX:
                known.clear()
            known[key] = template
        return None if template is None else (template, hot[::2])

    def _read(self, shape: _Shape, rest: bytes) -> int:
        cold = msgpack.unpackb(rest)
        for place in shape.unshown:
            cold[place] = 0
        if len(self._colds) >= COLDS_MAX:
            self._colds.clear()
            self._alike.clear()
            self.known.clear()  # by numbers that begin anew
        found = self._colds[rest] = self._alike.setdefault(tuple(cold), len(self._alike))
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
    if len(view["breakdown"]) != len(rows) or list(view)[:3] != ["interval", "interval_count", "next_reset_at"]:
        return None
    template = Template(form, feature, view, others)
    changing = [number for row in others for number in (row.balance, row.next_reset_at)]
    return template if template.answer({"": 0}, changing) == form.encode({"": 0, **view}) else None


def _with_holes(said: dict[str, Any]) -> dict[str, Any]:
    return {name: HOLE if name in HOLES and value is not None else value for name, value in said.items()}


def _pairs(form: Form, said: dict[str, Any], hole: bytes) -> list[tuple[bytes, bytes]]:
    """Names and values, encoded for text with holes."""
    return [
        (form.encode(name), hole if value is HOLE else form.encode(value).replace(b"%", b"%%")) for name, value in said.items()
    ]


def _digits(scaled: int, unit: int, precision: int) -> bytes:
    """A number with decimals, as JSON."""
    whole, rest = divmod(abs(scaled), unit)
    return b"%b%d.%b" % (b"-" if scaled < 0 else b"", whole, (b"%0*d" % (precision, rest)).rstrip(b"0"))
