"""Calls in the newer style, at a version of the wire."""

from __future__ import annotations

import uuid
from typing import Any

from tests.http import Api


def at(version: str) -> dict[str, Any]:
    """What makes a call one of that version."""
    return {"headers": {"x-api-version": version}}


def rpc(api: Api, version: str, method: str, status: int = 200, **body: Any) -> Any:
    """The decoded answer of one method."""
    return api.post(f"/v1/{method}", body, status, **at(version))


def new_id() -> str:
    """An id that nothing else has."""
    return f"x_{uuid.uuid4().hex[:10]}"
