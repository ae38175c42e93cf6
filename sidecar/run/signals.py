"""Signals for a process without an event loop: something to wait for, and a request to stop."""

from __future__ import annotations

import os
import select
import signal
from typing import Any


class Stop(Exception):
    """A signal asked the process to end."""


class Signals:
    """Signals as something to wait for; a child's end (SIGCHLD) is one."""

    _STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        os.set_blocking(self._read, False)
        self._old_fd = signal.set_wakeup_fd(self._write)
        self._old: dict[int, Any] = {}
        self._stops = 0
        for number in (*self._STOPS, signal.SIGCHLD):
            # Under nohup a hang-up stays ignored. SIGINT never does: a shell without job control
            # starts `sidecar serve &` with it ignored, and `kill -INT` is then still an order.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._old[number] = signal.signal(number, self._note)

    @property
    def stop_asked(self) -> bool:
        """Whether a signal asked to end."""
        return self._stops > 0

    @property
    def hurry(self) -> bool:
        """Whether a further signal came after the one that began the stop."""
        return self._stops > 1

    def stopping(self) -> None:
        """From now on further signals only make the stop quicker."""
        self._stops = max(1, self._stops)

    def pause(self, timeout_s: float | None) -> None:
        """As `wait`. Raises Stop if a signal asked to end."""
        if not self._stops:
            self.wait(timeout_s)
        if self._stops:
            raise Stop

    def wait(self, timeout_s: float | None) -> None:
        """Sleeps until a signal, at most `timeout_s`."""
        ready, _, _ = select.select([self._read], [], [], timeout_s)
        if ready:
            os.read(self._read, 4096)

    def close(self) -> None:
        """Gives the signals back."""
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        os.close(self._read)
        os.close(self._write)

    def _note(self, number: int, _frame: object) -> None:
        if number in self._STOPS:
            self._stops += 1
