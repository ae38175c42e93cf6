"""Who may call what: bearer keys, as the wire contract states the refusals.

Pure: from a header, a method and a path to an environment, or an ApiError.
"""

from __future__ import annotations

import re

from ..errors import ApiError
from ..settings import is_live_key

PREFIXES = ("am_sk", "am_pk", "am_oauth_", "am_jwt_")
PUBLIC_ROUTES = re.compile(r"GET /v1/products|POST /v1/(entitled|check)|GET /v1/customers/[^/]+")
OPEN_PATHS = ("/livez", "/readyz", "/metrics", "/checkout/", "/favicon.ico")
"""Paths, or beginnings of paths, that need no key."""


class Keys:
    """The accepted keys."""

    def __init__(self, keys: tuple[str, ...]):
        self._env = {f"Bearer {key}": "live" if is_live_key(key) else "sandbox" for key in keys}
        self._publishable = {f"Bearer {key}" for key in keys if key.startswith("am_pk")}

    def secret_env(self, authorization: str) -> str | None:
        """The environment of an accepted secret key, None for anything else."""
        return None if authorization in self._publishable else self._env.get(authorization)

    def authorize(self, authorization: str | None, method: str, path: str) -> str:
        """The environment of the call, "sandbox" or "live". Raises ApiError 401."""
        env = self._env.get(authorization or "")
        if env is not None and authorization not in self._publishable:
            return env
        if path == "/" or path.startswith(OPEN_PATHS):
            return "sandbox"
        if not authorization or not authorization.lower().startswith("bearer "):
            raise ApiError(401, "no_secret_key", "send the header `Authorization: Bearer <key>`")
        token = authorization[7:].strip()
        if not token.startswith(PREFIXES):
            raise ApiError(401, "invalid_request", "the key must begin with am_sk or am_pk")
        env = self._env.get(f"Bearer {token}")
        if token.startswith("am_pk"):
            if not PUBLIC_ROUTES.fullmatch(f"{method} {path.rstrip('/')}"):
                raise ApiError(401, "endpoint_not_public", "a publishable key may only read products, customers and checks")
            if env is None:
                raise ApiError(401, "invalid_publishable_key", "this publishable key is not known here")
            return env
        if env is None:
            shown = token[:15] + "*" * min(len(token) - 15, 40) if len(token) > 30 else token[:5] + "*" * min(len(token) - 5, 25)
            raise ApiError(401, "invalid_secret_key", f"the key {shown} is not known here; see SIDECAR_SECRET_KEYS")
        return env
