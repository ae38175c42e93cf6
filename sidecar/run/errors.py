"""The one exception of starting and running processes."""

from __future__ import annotations


class RunError(Exception):
    """The sidecar cannot start or go on; the message says why and what to do next."""
