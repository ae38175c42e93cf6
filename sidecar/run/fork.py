"""A child as a copy of this process: what is loaded here it need not load again, and its memory is shared.

Only for a process with one thread and no event loop: of other threads a copy keeps what they had locked. The copy
leaves behind what is its parent's own: signal handlers, descriptors, terminal, name and environment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from typing import Callable, Iterable, Mapping, NoReturn

from setproctitle import setproctitle

POSSIBLE = sys.platform == "linux" and os.path.isdir("/proc/self/fd")
"""On macOS the system's own libraries do not outlive a fork without an exec; /proc names the descriptors."""


def have_standard_streams() -> None:
    """Opens /dev/null for each of stdin, stdout and stderr that is closed: copies write there, and no other
    descriptor may get such a number."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, mode, closefd=False))


class Forked:
    """A forked child, to be asked and ended as a `subprocess.Popen` is."""

    def __init__(self, pid: int):
        self.pid = pid
        self._exit_code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._collect(os.WNOHANG)

    def wait(self) -> int | None:
        """Waits for its end; the exit code."""
        return self._collect(0)

    def send_signal(self, number: int) -> None:
        """Signals it if it runs: until it is collected, its id is nobody else's."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _collect(self, options: int) -> int | None:
        if self._exit_code is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self._exit_code = os.waitstatus_to_exitcode(status)
        return self._exit_code


def start(main: Callable[[], int], name: str, environment: Mapping[str, str], fds: Iterable[int], stdout: int = 1) -> Forked:
    """A child in a process group of its own that runs `main` and ends with what that returns.

    It is called `name` among the machine's processes. Of this process's descriptors it has stderr, `fds`, and
    `stdout` as its own."""
    _flush()  # or it would be written twice
    # Until the child has handlers of its own, a signal to it waits: noted by a copy of ours it would be lost.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            try:
                _run(main, name, environment, frozenset(fds), stdout, mask)
            finally:
                os._exit(1)  # whatever a signal's handler raised: what this process was doing is its parent's
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Forked(pid)


def _run(
    main: Callable[[], int], name: str, environment: Mapping[str, str], fds: frozenset[int], stdout: int, mask: Iterable[int]
) -> NoReturn:
    """The child, from its first step to its last: it never returns to what its parent was doing."""
    code = 1
    try:
        os.setpgid(0, 0)
        _leave_signals()
        if stdout != 1:
            os.dup2(stdout, 1)
        _close_all_but({1, 2, *fds})
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free: 0, stdin
        setproctitle(name)  # finds its place by the environment, so before that changes
        os.environ.clear()
        os.environ.update(environment)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            _flush()
        finally:
            os._exit(code)


def _flush() -> None:
    """A reader that has gone away, as in `sidecar serve | head -3`, is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()


def _leave_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)


def _close_all_but(kept: set[int]) -> None:
    """The objects around the closed ones stay where they are, unused, so that none closes a number again."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in kept:
            with contextlib.suppress(OSError):  # the listing's own
                os.close(fd)
