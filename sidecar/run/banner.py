"""What `sidecar serve` prints once it answers: where, with which key, and a line to try."""

from __future__ import annotations

import contextlib
import json
import shlex
import socket

from rich.console import Console
from rich.markup import escape

from .. import __version__
from ..settings import Settings, is_live_key, mask
from . import listen
from .prepare import Facts


def show(
    settings: Settings, sockets: list[socket.socket], facts: Facts, took_s: float, problem: str | None
) -> None:
    """Prints the banner. `problem` is what /readyz still misses, None if nothing.

    A reader that has gone away, as in `sidecar serve | head -3`, is no reason to end (rich would)."""
    with contextlib.suppress(BrokenPipeError, SystemExit):
        _print(settings, sockets, facts, took_s, problem)


def _print(
    settings: Settings, sockets: list[socket.socket], facts: Facts, took_s: float, problem: str | None
) -> None:
    out = Console(highlight=False, soft_wrap=True)  # a wrapped curl line could not be copied
    for change in facts.changes:
        out.print(f"  [dim]catalog[/]  {escape(change)}")
    where = " and ".join(listen.address(sock) for sock in sockets)
    redis = f"embedded Valkey, durability {settings.durability}" if settings.embedded_redis else mask(settings.redis_address)
    sql = "SQLite" if settings.database_url is None else mask(settings.database_url)
    state = "[bold green]ready[/]" if problem is None else "[bold yellow]listening, not ready yet[/]"
    out.print(f"[bold]sidecar {__version__}[/] {state} in {took_s:.1f} s on [bold cyan]{escape(where)}[/]")
    if problem is not None:
        out.print(f"  [yellow]waiting for[/] {escape(mask(problem))}")
    out.print(f"  [dim]data[/]     {escape(str(settings.data_dir))} ({escape(redis)}; {escape(sql)})")
    out.print(f"  [dim]key[/]      {escape(_shown_key(settings))}")
    out.print(f"  [dim]try[/]      {escape(curl_line(settings, listen.address(sockets[0]), facts.feature_id))}")
    out.print("  [dim]stop[/]     Ctrl-C")
    out.file.flush()


def curl_line(settings: Settings, url: str, feature_id: str | None) -> str:
    """A call that works as printed: a check of a feature of the catalog, or a customer's creation
    while there is no feature."""
    key = _secret_key(settings)
    bearer = "$SIDECAR_KEY" if is_live_key(key) else key
    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    if feature_id is None:
        path, body = "customers", {"id": "ada"}
    else:
        path, body = "check", {"customer_id": "ada", "feature_id": feature_id}
    return (
        f'curl -s {url}/v1/{path} -H "Authorization: Bearer {bearer}" -H "Content-Type: application/json" '
        f"-d {shlex.quote(json.dumps(body))}"
    )


def _secret_key(settings: Settings) -> str:
    secret = [key for key in settings.secret_keys if key.startswith("am_sk")]
    return (secret or list(settings.secret_keys))[0]


def _shown_key(settings: Settings) -> str:
    """The key in full if it is a test key; a live one is never printed."""
    key = _secret_key(settings)
    more = len(settings.secret_keys) - 1
    return (mask(key) if is_live_key(key) else key) + (f" and {more} more" if more else "")
