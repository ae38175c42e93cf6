"""Tells whoever waits what is being done: on a terminal in one line, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time

QUIET_S = 15
"""Between lines that go to a file."""


class Progress:
    """What is said goes to stderr, behind the name of the part."""

    def __init__(self) -> None:
        self._part = ""
        self._said_at = 0.0
        self._began_at = time.monotonic()

    def part(self, name: str) -> None:
        """A new part begins."""
        self._part, self._said_at = name, 0.0

    def say(self, text: str) -> None:
        """What is being done now."""
        now = time.monotonic()
        line = f"{now - self._began_at:6.0f} s  {self._part}: {text}"
        if sys.stderr.isatty():
            print(f"\r\033[K{line[:110]}", end="", file=sys.stderr, flush=True)
        elif now - self._said_at > QUIET_S:
            self._said_at = now
            print(line, file=sys.stderr, flush=True)

    def done(self) -> None:
        """Nothing is being done any more; what follows is printed on an empty line."""
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
