"""`sidecar serve`: starts every process in order, keeps them running, and ends them in order.

One thread, no event loop: it waits for signals (a child's end is one, too) and acts. What it loads
besides is for its children (`preload`), and loaded while Valkey and the database's preparation start.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Iterable, Iterator, Mapping

from ..settings import Settings
from . import fork, keys, listen, lock, preload, prepare, probe, valkey
from .child import Child
from .errors import RunError
from .parent import PARENT_FD
from .signals import Signals, Stop

HTTP_END_S = 5.0
"""How long an HTTP worker may take to close its stores, after the time for calls in flight."""
SYNC_STOP_S = 10.0
"""How long the sync worker may take to finish its batch when stopped in order."""
VALKEY_STOP_S = 30.0
WATCHER = "sidecar.run.watch"
READY_S = 15.0
"""How long the start waits for /readyz before it says what is missing."""


def serve(settings: Settings) -> int:
    """Runs a whole sidecar until SIGTERM or SIGINT; returns the exit code.

    Every process it started has ended when it returns or raises. Raises RunError if the start
    fails, or if a child keeps failing."""
    fork.have_standard_streams()
    with _full_disk_in_words(settings), contextlib.ExitStack() as stack:
        lock_fd = lock.take(settings.data_dir)
        stack.callback(os.close, lock_fd)
        sockets = listen.bind(settings)
        stack.callback(listen.close, sockets)
        tree = Tree(keys.with_key(settings), lock_fd)
        stack.callback(tree.stop)
        stack.callback(listen.close, sockets)  # first of all: whoever comes now is refused
        try:
            _start(tree, sockets)
            tree.keep_running()
        except Stop:
            pass
    return 0


@contextlib.contextmanager
def _full_disk_in_words(settings: Settings) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise RunError(f"cannot write to the data folder {settings.data_dir}: {error.strerror}") from None


def _start(tree: Tree, sockets: list[socket.socket]) -> None:
    began_at = time.monotonic()
    preparing = tree.prepare()
    tree.start_valkey()
    tree.load()  # while those two start
    from . import banner

    tree.wait_for_valkey()
    facts = preparing.finish(tree.signals)
    listen.start(sockets)
    workers = tree.start_workers(sockets)
    sync = tree.add("sync", preload.SYNC)
    sync.start()
    problem = tree.wait_ready(sockets[0], [*workers, sync], READY_S)
    banner.show(tree.settings, sockets, facts, time.monotonic() - began_at, problem)


class Tree:
    """The children of one supervisor and what they inherit: a pipe's end, and the folder's lock."""

    def __init__(self, settings: Settings, lock_fd: int):
        self.settings = settings
        self.children: list[Child] = []
        self._once: Child | None = None
        self._valkey: tuple[Child, Path] | None = None
        self._lock_fd = lock_fd
        self._child_fd, self._pipe = os.pipe()
        self._files = valkey.Files(settings.data_dir)
        self.signals = Signals()
        self._mains = preload.first()

    def add(self, name: str, module: str, args: Iterable[str] = (), fds: Iterable[int] = (), **extra: str) -> Child:
        """A child that knows the settings, its supervisor and the lock; not started yet."""
        child = self._child(name, module, self.settings.environment() | extra, args, fds)
        self.children.append(child)
        return child

    def _child(
        self, name: str, module: str, variables: Mapping[str, str], args: Iterable[str] = (), fds: Iterable[int] = ()
    ) -> Child:
        ties = {PARENT_FD: str(self._child_fd), "SIDECAR_LOCK_FD": str(self._lock_fd)}
        main = self._mains.get(module)
        if main is None and module != WATCHER:  # which watches the pipe itself, from its start
            module, args = "sidecar.run.begin", [module, *args]
        return Child(name, module, list(args), {**variables, **ties}, [self._child_fd, self._lock_fd, *fds], main)

    def load(self) -> None:
        """Loads what the workers run, so that each starts as a copy of this process, now and whenever it is started again."""
        if self.settings.workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = self._counters()  # prometheus_client reads it as it is loaded
        self._mains |= preload.workers()

    def start_workers(self, sockets: list[socket.socket]) -> list[Child]:
        """Starts the HTTP workers on sockets that listen."""
        fds = [sock.fileno() for sock in sockets]
        listening = ",".join(map(str, fds))
        workers = [
            self.add(f"http-{number}", preload.HTTP, fds=fds, SIDECAR_LISTEN_FDS=listening)
            for number in range(1, self.settings.workers + 1)
        ]
        for worker in workers:
            worker.start()
        return workers

    def _counters(self) -> str:
        """An empty folder in which several workers keep their counters, so that each tells of all."""
        folder = self.settings.data_dir / "metrics"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return str(folder)

    def prepare(self) -> prepare.Preparation:
        """Begins the migrations and the push of the catalog file, in a process of their own."""
        self._once = self._child("prepare", preload.PREPARE, self.settings.environment())
        return prepare.Preparation(self._once)

    def start_valkey(self) -> None:
        """Starts the embedded Valkey, if it is wanted."""
        if not self.settings.embedded_redis:
            return
        valkey.binary()
        socket_path = self._files.prepare(self.settings.durability)
        data_dir = str(self.settings.data_dir)  # all it may know: Valkey's environment holds no keys
        child = self._child("valkey", WATCHER, {"SIDECAR_DATA_DIR": data_dir}, [data_dir])
        self.children.append(child)
        child.start()
        self._valkey = child, socket_path

    def wait_for_valkey(self) -> None:
        """Returns when the Valkey that was started answers. Raises RunError if it ends instead."""
        if self._valkey is None:
            return
        child, socket_path = self._valkey
        told_at = time.monotonic() + 2.0
        while (state := valkey.state(socket_path)) != "ready":
            if not child.running:
                raise RunError(f"the embedded Valkey did not start; its log is {self._files.log}")
            if time.monotonic() > told_at:
                doing = "reads its append-only file" if state == "loading" else "starts"
                print(f"still starting: Valkey {doing} …", flush=True)
                told_at = time.monotonic() + 5.0
            self.signals.pause(0.01)

    def wait_ready(self, sock: socket.socket, children: list[Child], timeout_s: float) -> str | None:
        """Waits until /readyz says 200; returns None then, or what it last said.

        Raises RunError if a child ends for the second time before."""
        deadline = time.monotonic() + timeout_s
        problem: str | None = "no answer yet"
        while problem is not None and time.monotonic() < deadline:
            self.revive()
            for child in children:
                if not child.running and child.exit_code not in (None, 0) and child.failures > 1:
                    raise RunError(f"the {child.name} process ends at once; its messages are above")
            self.signals.pause(0.02)
            problem = probe.readiness(sock)
        return problem

    def keep_running(self) -> None:
        """Starts again whatever ends, until a signal asks to stop.

        Raises RunError if a child keeps failing."""
        try:
            while True:
                now = time.monotonic()
                due = [child.due_at - now for child in self.children if child.due_at is not None]
                self.signals.pause(max(0.0, min(due)) if due else None)
                self.revive()
        except Stop:
            return

    def revive(self) -> None:
        """Notes which children have ended and starts those whose pause is over."""
        for child in self.children:
            if child.exit_code is not None and child.due_at is None:
                self._note_end(child)
            if child.due_at is not None and child.due_at <= time.monotonic():
                child.start()

    def _note_end(self, child: Child) -> None:
        code = child.exit_code
        pause_s = child.note_end()
        if child.hopeless:
            raise RunError(f"the {child.name} process keeps ending (exit code {code}); gave up")
        from .. import logs  # loaded when there is something to say: the start does not wait for it

        log = logs.setup(self.settings, "supervisor")
        log.warning("child_ended", child=child.name, exit_code=code, restart_in_s=round(pause_s, 1))

    def stop(self) -> None:
        """Ends every child in order: HTTP workers finish what is in flight, the sync worker its
        batch, Valkey writes its file out. A second signal makes it quick. Leaves no process."""
        self.signals.stopping()
        if self._once is not None:
            self._once.kill()  # a migration cut short is rolled back
        groups = [
            ([c for c in self.children if c.name.startswith("http-")], self.settings.shutdown_timeout_s + HTTP_END_S),
            ([c for c in self.children if not c.name.startswith("http-") and c.name != "valkey"], SYNC_STOP_S),
            ([c for c in self.children if c.name == "valkey"], VALKEY_STOP_S),
        ]
        for group, limit_s in groups:
            self._end(group, limit_s)
        os.close(self._pipe)
        os.close(self._child_fd)
        if self.settings.embedded_redis:
            valkey.end(self._files)
            self._files.remove_socket()
        self.signals.close()

    def _end(self, group: list[Child], limit_s: float) -> None:
        for child in group:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + limit_s
        hurried = False
        while any(child.running for child in group) and time.monotonic() < deadline:
            if self.signals.hurry and not hurried:
                hurried = True
                deadline = min(deadline, time.monotonic() + 1.5)
                for child in group:
                    child.signal(signal.SIGTERM)
            self.signals.wait(min(0.2, max(0.0, deadline - time.monotonic())))
        for child in group:
            child.kill()
