"""Every error that a caller of the HTTP API can meet, as one exception.

    ApiError
      └─ NotSupported   a known field or route whose effect is not built (400)

An error carries the HTTP status, a stable `code` and a message that names the field and says
what to do. The API layer turns it into `{"message", "code", "env"}`.
"""

from __future__ import annotations


class ApiError(Exception):
    """A refusal with a status, a code from the wire contract and a message for people."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


class NotSupported(ApiError):
    """A known field or route whose effect is not built: refused, never accepted and ignored."""

    def __init__(self, field: str, reason: str = "is not supported yet"):
        super().__init__(400, "not_supported", f"{field}: {reason}")


def invalid(field: str, problem: str) -> ApiError:
    """A 400 `invalid_inputs` whose message is `field: problem`."""
    return ApiError(400, "invalid_inputs", f"{field}: {problem}")


def not_found(kind: str, identifier: str) -> ApiError:
    """A 404 `<kind>_not_found`, `kind` being customer, feature, product, entity, event …"""
    return ApiError(404, f"{kind}_not_found", f"{kind} {identifier!r} was not found")
