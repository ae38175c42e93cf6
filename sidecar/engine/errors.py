"""What can go wrong between the engine and its stores.

    EngineError
      ├─ StoreUnavailable   the call did not run: 503 `unavailable`
      ├─ ReplyLost          it may have run, nobody knows: 504 `outcome_unknown`
      └─ PartitionRefused   Redis and SQL disagree in a way that only a person can settle
"""

from __future__ import annotations

REFUSALS = ("MISCONF", "OOM", "READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "BUSY")
"""How Redis says that a script did not run, or was stopped at its first write: disk full, memory
full, a replica, still loading, no quorum, a slot on the move, another script that does not end."""


class EngineError(Exception):
    """Any failure of the engine's stores."""


class StoreUnavailable(EngineError):
    """The call did not run, because a store could not be reached."""


class ReplyLost(EngineError):
    """The call was sent and its reply did not come: it may have run."""


class PartitionRefused(EngineError):
    """Redis is ahead of SQL (SQL was rolled back), or has another number of partitions."""
