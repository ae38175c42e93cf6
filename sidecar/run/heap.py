"""The garbage collector of a process that loads much and then lives long.

What is loaded is never garbage: looking for some in between makes the start a tenth longer, and a full
collection over it later would show as a slow answer. Standard library only.
"""

from __future__ import annotations

import gc

THRESHOLDS = (20_000, 20, 20)


def loading() -> None:
    """Until `loaded`, nothing is collected."""
    gc.disable()


def loaded() -> None:
    """From now on the collector looks at what is made from now on, and less often than by default."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()
