"""What the supervisor loads so that its children, copies of it, need not."""

from __future__ import annotations

import site
import sys
from pathlib import Path
from typing import Callable

from . import fork, heap, prepare

HTTP = "sidecar.run.http_worker"
SYNC = "sync.worker"
PREPARE = "sidecar.run.prepare"

_ROOT = str(Path(__file__).resolve().parents[2])

Mains = dict[str, Callable[[], int]]
"""The main program of each module that can run as a copy of this process."""


def first() -> Mains:
    """What needs nothing loaded before: it loads the rest itself, on a core of its own."""
    if not fork.POSSIBLE:
        return {}
    if not sys.flags.safe_path:
        # Not the folder the user stands in: `python -m sidecar` would load its files.
        sys.path[:1] = [] if _ROOT in site.getsitepackages() else [_ROOT]
    return {PREPARE: prepare.main}


def workers() -> Mains:
    """The workers, all of their code loaded. Takes most of a second."""
    if not fork.POSSIBLE:
        return {}
    heap.loading()
    from ..engine.scripts import SCRIPTS
    from . import http_worker, sync_worker

    for script in SCRIPTS:
        script.sha  # puts its text together, and keeps it
    heap.loaded()
    return {HTTP: http_worker.main, SYNC: sync_worker.main}
