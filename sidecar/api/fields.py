"""Reading the fields of a decoded body: each function returns one field or raises 400.

Messages are `field: problem`. A field that is null counts as left out, as the wire contract says.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Iterable, Mapping

from ..errors import ApiError, NotSupported, invalid
from . import wire

ID_CHARS_MAX = 255
TEXT_CHARS_MAX = 10_000
URL_CHARS_MAX = 4_000
_EMAIL = re.compile(r"[^@\s<>(),;:\\\"]+@[^@\s<>(),;:\\\"]+\.[^@\s.<>(),;:\\\"]{2,}")


def identifier(fields: Mapping[str, Any], name: str, path: str = "") -> str:
    """A required id: a string of 1 to 255 characters without control characters."""
    value = fields.get(name)
    if value is None:
        raise invalid(path + name, "is required")
    return checked_id(value, path + name)


def optional_id(fields: Mapping[str, Any], name: str, path: str = "") -> str | None:
    """As `identifier`, or None when left out."""
    return None if fields.get(name) is None else checked_id(fields[name], path + name)


def checked_id(value: Any, path: str, chars_max: int = ID_CHARS_MAX) -> str:
    """`value` if it can be an id."""
    if not isinstance(value, str) or not value or len(value) > chars_max:
        raise invalid(path, f"must be a string of 1 to {chars_max} characters")
    if any(ord(char) < 32 or 0xD800 <= ord(char) <= 0xDFFF for char in value):
        raise invalid(path, "must not hold control characters")
    return value


def text(fields: Mapping[str, Any], name: str, path: str = "", chars_max: int = TEXT_CHARS_MAX) -> str | None:
    """An optional text."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > chars_max:
        raise invalid(path + name, f"must be a string of at most {chars_max} characters")
    if not is_text(value):
        raise invalid(path + name, "holds characters that are not text")
    return value


def email(fields: Mapping[str, Any], name: str = "email", path: str = "") -> str | None:
    """An optional e-mail address; an empty string is allowed and kept."""
    value = text(fields, name, path)
    if value and (len(value) > 320 or not _EMAIL.fullmatch(value)):
        raise invalid(path + name, "must be an e-mail address")
    return value


def flag(fields: Mapping[str, Any], name: str, path: str = "") -> bool | None:
    """An optional boolean."""
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(path + name, "must be true or false")
    return value


def web_url(fields: Mapping[str, Any], name: str) -> str | None:
    """An optional absolute http(s) address; an app's own scheme (`myapp://…`) is fine too."""
    value = text(fields, name, chars_max=URL_CHARS_MAX)
    if value is None:
        return None
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.\-]*)://[^\s]+$", value)
    if not scheme or scheme[1].lower() in ("javascript", "data", "vbscript") or not value.isascii():
        raise invalid(name, "must be an absolute address such as https://example.com/done")
    return value


def json_object(fields: Mapping[str, Any], name: str, path: str = "") -> dict[str, Any] | None:
    """An optional object that is kept and given back; numbers become plain numbers."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise invalid(path + name, "must be an object")
    try:
        kept: dict[str, Any] = wire.storable(value)
    except ValueError as problem:
        raise invalid(path + name, str(problem)) from None
    if not _storable(kept):
        raise invalid(path + name, "holds characters that are not text")
    return kept


def number(value: Any, path: str) -> int | Decimal:
    """A required number."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise invalid(path, "must be a number")
    return value


def whole(raw: Any, name: str, default: int, low: int, high: int) -> int:
    """An optional whole number from a query string or a body, within bounds."""
    if raw is None or raw == "":
        return default
    if isinstance(raw, Decimal) and raw == raw.to_integral_value():
        raw = int(raw)
    if isinstance(raw, str) and re.fullmatch(r"\d{1,9}", raw):
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
        raise invalid(name, f"must be a whole number from {low} to {high}")
    return raw


def refuse_unbuilt(fields: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuses the first of these known fields that asks for something: null, false and empty ask
    for nothing. Raises ApiError 400 `not_supported` naming it."""
    for name in names:
        if not asks_nothing(fields.get(name)):
            raise NotSupported(name)


def expand_of(call_query: Any, fields: Mapping[str, Any], known: Iterable[str]) -> frozenset[str]:
    """What the caller wants expanded: from the query (`a,b`, or repeated) and from a body's list.
    Raises ApiError 400 `invalid_expand` for a name not in `known`."""
    raw = list(call_query.getlist("expand")) + list(call_query.getlist("expand[]"))
    body = fields.get("expand")
    if isinstance(body, str):
        raw.append(body)
    elif isinstance(body, list):
        raw.extend(body)
    elif body is not None:
        raise ApiError(400, "invalid_expand", "expand: must be a list of names")
    known = frozenset(known)
    wanted = [name.strip() for part in raw if isinstance(part, str) for name in part.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise ApiError(400, "invalid_expand", f"expand: {name[:60]!r} is not one of {', '.join(sorted(known))}")
    if any(not isinstance(part, str) for part in raw):
        raise ApiError(400, "invalid_expand", "expand: must be a list of names")
    return frozenset(wanted)


def refuse_old(version: tuple[int, int]) -> None:
    """Refuses API versions older than any client still sends."""
    if version < (1, 2):
        raise NotSupported("x-api-version", f"answers of {version[0]}.{version[1]} are not supported; send 1.2 or later")


def asks_nothing(value: Any) -> bool:
    """Whether a known field without effect yet may hold this value."""
    if isinstance(value, dict):
        return all(asks_nothing(item) for item in value.values())
    return value is None or value is False or value == "" or value == []


def is_text(value: str) -> bool:
    """Whether both stores can keep it: no NUL, no lone surrogates."""
    return not any(char == "\0" or 0xD800 <= ord(char) <= 0xDFFF for char in value)


def _storable(value: Any) -> bool:
    if isinstance(value, str):
        return is_text(value)
    if isinstance(value, dict):
        return all(_storable(key) and _storable(item) for key, item in value.items())
    if isinstance(value, list):
        return all(_storable(item) for item in value)
    return True
