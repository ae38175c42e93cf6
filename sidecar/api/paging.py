"""Pages as each API version asks for and answers them: by offset below 2.3, by cursor from there on.

A cursor is a place in one list (see `store.listings`), opaque to callers: base64 of its letter and
numbers. It does not hold the filters, which a caller sends again.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Mapping

from ..errors import ApiError, invalid
from ..store.listings import Place
from . import fields

CURSORS_FROM = (2, 3)
LIMIT_MAX = 1000
OFFSET_LIMIT_DEFAULT, CURSOR_LIMIT_DEFAULT = 100, 50
_CURSOR = re.compile(r"([a-z])((?:\.\d{1,18})+)")


@dataclass(frozen=True)
class Paging:
    """Which page is wanted. `letter` names the list, so that no cursor is used on another."""

    letter: str
    by_cursor: bool
    limit: int
    offset: int = 0
    after: Place | None = None

    def answer(self, shown: list[dict[str, Any]], more: bool, last: Place | None) -> dict[str, Any]:
        """The page; `last` is the place of its last row."""
        if self.by_cursor:
            return {"list": shown, "next_cursor": _encode(self.letter, last) if more and last else None}
        return {
            "list": shown, "limit": self.limit, "offset": self.offset, "total": len(shown), "has_more": more,
        }


def paging_of(
    version: tuple[int, int], asked: Mapping[str, Any], letter: str, width: int, default: int = OFFSET_LIMIT_DEFAULT
) -> Paging:
    """The page that a query or body asks for; a place of this list has `width` numbers, `default` is
    the limit where pages go by offset. Raises ApiError 400, `invalid_cursor` for a cursor that is
    none of ours."""
    if version < CURSORS_FROM:
        if asked.get("start_cursor"):
            raise invalid("start_cursor", "pages go by offset below API version 2.3")
        limit = fields.whole(asked.get("limit"), "limit", default, 1, LIMIT_MAX)
        return Paging(letter, False, limit, fields.whole(asked.get("offset"), "offset", 0, 0, 10**9))
    limit = fields.whole(asked.get("limit"), "limit", CURSOR_LIMIT_DEFAULT, 1, LIMIT_MAX)
    cursor = asked.get("start_cursor")
    if cursor is not None and not isinstance(cursor, str):
        raise invalid("start_cursor", "must be a string")
    return Paging(letter, True, limit, after=_decode(letter, cursor, width) if cursor else None)


def _encode(letter: str, place: Place) -> str:
    text = letter + "".join(f".{number}" for number in place)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(letter: str, cursor: str, width: int) -> Place:
    try:
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    found = _CURSOR.fullmatch(text)
    numbers = found[2].split(".")[1:] if found and found[1] == letter else []
    if len(numbers) != width:
        raise ApiError(400, "invalid_cursor", "start_cursor: is no cursor of this list; send the next_cursor of the page before")
    return tuple(int(number) for number in numbers)
