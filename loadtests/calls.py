"""The calls that the benchmark makes: of 1,000 customers in order, each with one feature in two buckets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .target import KEY, Target

CATALOG = Path(__file__).with_name("bench_catalog.py")
CUSTOMERS = 1_000
PATHS = {"check": "/v1/check", "track": "/v1/track"}
BATCH_PATH = "/v1/balances.batch_track"
SYNC_TIMEOUT_S = 120
JSON, MSGPACK = "application/json", "application/msgpack"


def customer(number: int) -> str:
    """The id of a customer."""
    return f"bench_{number}"


def body(verb: str, number: int) -> dict[str, Any]:
    """What is asked of one customer."""
    fields: dict[str, Any] = {"customer_id": customer(number), "feature_id": "calls"}
    return fields if verb == "check" else {**fields, "value": 1}


def request(path: str, content: bytes, content_type: str = JSON) -> bytes:
    """The bytes of a call. It asks for the answer in its own format."""
    accept = "" if content_type == JSON else f"Accept: {content_type}\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\nContent-Type: {content_type}\r\n{accept}"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def compact(value: Any) -> bytes:
    """JSON without spaces, as clients send it."""
    return json.dumps(value, separators=(",", ":")).encode()


def requests(verb: str, customers: int = CUSTOMERS) -> list[bytes]:
    """A call for each customer."""
    return [request(PATHS[verb], compact(body(verb, number))) for number in range(customers)]


def prepare(target: Target, customers: int = CUSTOMERS) -> dict[str, str]:
    """Makes every customer and has it in memory; the text of an answer by path."""
    answers = {}
    for verb, path in PATHS.items():
        for number in range(customers):
            answers[path] = compact(target.call("POST", path, body(verb, number))).decode()
    return answers


def settle(target: Target) -> None:
    """Waits until SQL has what a window left behind, which is not the next window's work.
    Raises RuntimeError if that never ends."""
    if not target.wait_for_sync(SYNC_TIMEOUT_S):
        raise RuntimeError(f"SQL did not catch up with the log in {SYNC_TIMEOUT_S} s")
