"""Takes a flat MessagePack array apart, one typed element after the other, strictly.

Lua has one type of string, so texts arrive as bytes or text alike. Whatever is not what was asked
for raises RecordError.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence, TypeVar, get_type_hints

import msgpack

from sidecar.domain import layout

INT_MAX = (1 << 63) - 1  # what both databases can keep; scripts stay far below
COUNT_MAX = 100_000  # parts of one kind in one record: a script touches at most some thousands

T = TypeVar("T")

_ROW_TEXTS = tuple(get_type_hints(layout.Row)[name] is str for name in layout.Row._fields)


class RecordError(ValueError):
    """The entry is not a record, or says something that cannot be."""


class Fields:
    """An array and how far it has been read."""

    __slots__ = ("items", "at")

    def __init__(self, items: Any):
        if type(items) is not list:
            raise RecordError(f"not an array but {type(items).__name__}")
        self.items: list[Any] = items
        self.at = 0

    def next(self) -> Any:
        """The next element, whatever it is."""
        at = self.at
        if at >= len(self.items):
            raise RecordError(f"ends after {at} parts")
        self.at = at + 1
        return self.items[at]

    def whole(self) -> int:
        """A whole number that both databases can keep."""
        value = self.next()
        if type(value) is not int or not -INT_MAX <= value <= INT_MAX:
            raise RecordError(f"part {self.at - 1} is {value!r}, not a whole number")
        return value

    def natural(self) -> int:
        """A whole number, not below zero."""
        value = self.whole()
        if value < 0:
            raise RecordError(f"part {self.at - 1} is {value}, below zero")
        return value

    def raw(self) -> bytes:
        """Bytes."""
        value = self.next()
        if type(value) is not bytes:
            raise RecordError(f"part {self.at - 1} is {type(value).__name__}, not bytes")
        return value

    def text(self) -> str:
        """Bytes that are UTF-8."""
        try:
            return self.raw().decode()
        except UnicodeDecodeError as error:
            raise RecordError(f"part {self.at - 1} is not UTF-8") from error

    def array(self) -> list[Any]:
        """An array within this one."""
        value = self.next()
        if value == {}:  # an empty Lua table may be packed as either
            return []
        if type(value) is not list:
            raise RecordError(f"part {self.at - 1} is {type(value).__name__}, not an array")
        return value

    def count(self) -> int:
        """How many elements or groups of them follow."""
        count = self.natural()
        if count > COUNT_MAX:
            raise RecordError(f"{count} parts of one kind")
        return count

    def many(self, one: Callable[[], T]) -> tuple[T, ...]:
        """A count, then so many groups as `one` reads."""
        count = self.count()
        return tuple([one() for _ in range(count)]) if count else ()

    def row(self) -> layout.Row:
        """A bucket: an array of all its columns."""
        values: Sequence[Any] = self.array()
        if len(values) != layout.ROW_WIDTH:
            raise RecordError(f"a bucket of {len(values)} columns")
        columns = Fields(list(values))
        return layout.Row(*[columns.text() if is_text else columns.whole() for is_text in _ROW_TEXTS])

    def end(self, what: str) -> None:
        """Nothing may follow."""
        if self.at != len(self.items):
            raise RecordError(f"{what} has {len(self.items) - self.at} parts too many")


def unpacked(data: bytes) -> Any:
    """What is packed there, texts as bytes. Raises RecordError."""
    try:
        return msgpack.unpackb(data, raw=True, strict_map_key=False)
    except Exception as error:  # msgpack raises ValueError, its own errors and some of struct's
        raise RecordError(f"not MessagePack: {error}") from error
