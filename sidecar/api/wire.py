"""Bodies in and out: JSON and MessagePack, and the API version a request speaks.

Numbers keep their decimal text: a JSON number with a fraction becomes a `Decimal`, a MessagePack
float the `Decimal` of its shortest decimal. This module knows nothing of routes or meaning.
"""

from __future__ import annotations

import json
import re
from datetime import date
from decimal import Decimal
from typing import Any

import msgpack
import msgspec

from ..errors import ApiError

JSON = "application/json"
MSGPACK = "application/msgpack"
BODY_BYTES_MAX = 1 << 20
NUMBER_DIGITS_MAX = 40
STORED_DEPTH_MAX = 64
DEFAULT_VERSION = (1, 2)
NEWEST_VERSION = (2, 3)

_encoder = msgspec.json.Encoder(decimal_format="number")
_CALENDAR = [
    (date(2026, 5, 13), (2, 3)), (date(2026, 3, 18), (2, 2)), (date(2026, 3, 17), (2, 1)),
    (date(2026, 3, 16), (2, 0)), (date(2025, 5, 5), (1, 2)), (date(2025, 4, 17), (1, 1)),
    (date(2025, 4, 1), (0, 2)), (date(2025, 2, 1), (0, 1)),
]


def decode(data: bytes, content_type: str) -> Any:
    """The value in a request body; an empty body is `{}`.

    Raises ApiError 400 `invalid_request` for a body that is not JSON (or MessagePack)."""
    if not data:
        return {}
    try:
        if content_type.startswith((MSGPACK, "application/x-msgpack")):
            return _exact(msgpack.unpackb(data, strict_map_key=True))
        return json.loads(data, parse_float=_decimal, parse_int=_integer, parse_constant=_no_constant)
    except (ValueError, RecursionError, msgpack.exceptions.UnpackException) as problem:
        kind = "MessagePack" if "msgpack" in content_type else "JSON"
        raise ApiError(400, "invalid_request", f"body: not valid {kind}: {problem}") from problem


def encode(value: Any, accept: str = JSON) -> tuple[bytes, str]:
    """The body of an answer and its content type; Decimals are written digit by digit in JSON."""
    if accept.startswith((MSGPACK, "application/x-msgpack")):
        return msgpack.packb(value, default=_packable), MSGPACK
    return _encoder.encode(value), JSON


def storable(value: Any, depth_max: int = STORED_DEPTH_MAX) -> Any:
    """`value` with every number a plain one that all stores and formats hold (64-bit integers,
    floats): for metadata and properties, which are kept and given back but never counted.

    Raises ValueError for a value nested deeper than `depth_max`."""
    if isinstance(value, (dict, list)):
        if not depth_max:
            raise ValueError(f"is nested deeper than {STORED_DEPTH_MAX} levels")
        if isinstance(value, dict):
            return {key: storable(item, depth_max - 1) for key, item in value.items()}
        return [storable(item, depth_max - 1) for item in value]
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return float(value)
    return value


def version_of(header: str | None) -> tuple[int, int]:
    """The API version a header names, as (major, minor); none is 1.2, and one from 2.1 up that is
    newer than this server answers as the newest.

    Raises ApiError 400 `invalid_api_version`."""
    if not header:
        return DEFAULT_VERSION
    text = header.strip()
    if text == "beta" or text == "1.4":
        return DEFAULT_VERSION
    if match := re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)(\.\w+)?", text):
        try:
            day = date(*map(int, match.group(1, 2, 3)))
        except ValueError:
            day = date.min
        for since, version in _CALENDAR:
            if day >= since:
                return version
    elif match := re.fullmatch(r"(\d{1,3})(?:\.(\d{1,3}))?(?:\.\d{1,5})?", text):
        version = (int(match[1]), int(match[2] or 0))
        if version >= (2, 1):
            return min(version, NEWEST_VERSION)
        if version in ((0, 1), (0, 2), (1, 1), (1, 2), (2, 0)):
            return version
    raise ApiError(400, "invalid_api_version", f"x-api-version: {text[:40]!r} is not a known version; try 1.2 or 2.1")


def _integer(text: str) -> int:
    if len(text) > NUMBER_DIGITS_MAX:
        raise ValueError(f"a number has more than {NUMBER_DIGITS_MAX} digits")
    return int(text)


def _decimal(text: str) -> Decimal:
    if len(text) > NUMBER_DIGITS_MAX:
        raise ValueError(f"a number has more than {NUMBER_DIGITS_MAX} digits")
    value = Decimal(text)
    if abs(value.adjusted()) > 60:
        raise ValueError(f"{text} is out of range")
    return value


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def _exact(value: Any) -> Any:
    if isinstance(value, float):
        return _decimal(repr(value)) if value == value and abs(value) != float("inf") else _no_constant(repr(value))
    if isinstance(value, dict):
        return {_name(key): _exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_exact(item) for item in value]
    if value is not None and not isinstance(value, (str, int)):
        raise ValueError(f"a {type(value).__name__} has no place in a call")
    return value


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError(f"a {type(key).__name__} is no name of a field")
    return key


def _packable(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError(f"cannot send a {type(value).__name__}")
