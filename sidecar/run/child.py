"""One child process of the supervisor: how it is started, ended, and started again."""

from __future__ import annotations

import os
import signal
import site
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Callable, Mapping, Sequence

from . import fork

SHORT_LIFE_S = 2.0
"""A child that ended sooner has failed; one that lived longer was disturbed."""
FAILURES_MAX = 10
"""Failures in a row after which the supervisor gives up."""
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0


class Child:
    """A child that is started again when it ends: a copy of this process that runs `main`, if there is one, else
    `python -m module args…`."""

    def __init__(
        self, name: str, module: str, args: Sequence[str], variables: Mapping[str, str], fds: Sequence[int],
        main: Callable[[], int] | None = None,
    ):
        self.name = name
        self._module = module
        self._main = main
        self._command = [sys.executable, "-P", "-m", module, *args]
        self._environment = _environment(variables)
        self._fds = tuple(fds)
        self._process: subprocess.Popen[bytes] | fork.Forked | None = None
        self._started_at = 0.0
        self._failures = 0
        self.due_at: float | None = None
        """When to start it again, by the monotonic clock; None while it runs."""

    @property
    def pid(self) -> int:
        """The process id of the current run. Only after `start`."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The last run's exit code, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def failures(self) -> int:
        """How often in a row it ended soon after its start."""
        return self._failures

    @property
    def hopeless(self) -> bool:
        """Whether it failed so often in a row that starting it again is no use."""
        return self._failures >= FAILURES_MAX

    def start(self, stdout: IO[bytes] | None = None) -> None:
        """Starts it (`stdout` as for `subprocess.Popen`), in a process group of its own so that a terminal's Ctrl-C reaches the
        supervisor alone."""
        self.due_at = None
        self._started_at = time.monotonic()
        if self._main is not None:
            out = {} if stdout is None else {"stdout": stdout.fileno()}
            self._process = fork.start(self._main, self._module, self._environment, self._fds, **out)
            return
        self._process = subprocess.Popen(
            self._command, env=self._environment, pass_fds=self._fds,
            stdin=subprocess.DEVNULL, stdout=stdout, process_group=0,
        )

    def note_end(self) -> float:
        """Counts the end of a run and plans the next; returns the pause until then, in seconds."""
        lived_s = time.monotonic() - self._started_at
        self._failures = self._failures + 1 if lived_s < SHORT_LIFE_S else 0
        pause_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2**self._failures) if self._failures else 0.0
        self.due_at = time.monotonic() + pause_s
        return pause_s

    def signal(self, number: int) -> None:
        """Signals it if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it at once and collects it."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: this process's, its SIDECAR_* settings replaced by `variables`.

    Children run with `-P`, so that no file of the folder the user stands in is imported; a source
    tree that is not installed is named by PYTHONPATH instead."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    environment.update(variables)
    root = str(Path(__file__).resolve().parents[2])
    if root not in site.getsitepackages():
        others = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = root + (os.pathsep + others if others else "")
    return environment
