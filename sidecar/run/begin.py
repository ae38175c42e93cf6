"""Begins a child that is no copy of its supervisor: `python -m sidecar.run.begin MODULE` ties the process to it,
then runs MODULE as the main program. Loading that takes a second or more on a busy machine, and a supervisor
may be killed meanwhile. Standard library only.
"""

from __future__ import annotations

import runpy
import sys

from . import heap
from .parent import tie


def main() -> None:
    """Does so; ends as MODULE ends. MODULE, once it has loaded, calls `heap.loaded`, if it lives long."""
    tie()
    heap.loading()
    del sys.argv[0]  # MODULE sees its own name and arguments
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
