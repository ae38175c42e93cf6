"""The one clock of the control plane: real time, or real time plus the test clock's offset.

Scripts use Redis' own time plus the same offset, kept in every partition's meta; this module keeps
what Python needs. It must not know about HTTP.
"""

from __future__ import annotations

import time
from typing import Awaitable, Callable

ReadOffset = Callable[[], Awaitable[int]]


def real_now_ms() -> int:
    """Milliseconds since the epoch by this machine's clock."""
    return time.time_ns() // 1_000_000


class Clock:
    """Tells the time that resets, expiries and `created_at` follow.

    Without a test clock that is the machine's; with one, `read_offset` is asked at each call, so
    that every process sees a move as soon as the call that made it has answered."""

    def __init__(self, read_offset: ReadOffset | None = None):
        self._read_offset = read_offset

    @property
    def is_test_clock(self) -> bool:
        return self._read_offset is not None

    async def offset_ms(self) -> int:
        """How far the test clock is ahead of the machine's; 0 without one."""
        return await self._read_offset() if self._read_offset else 0

    async def now_ms(self) -> int:
        """Now, in milliseconds since the epoch."""
        return real_now_ms() + await self.offset_ms()
