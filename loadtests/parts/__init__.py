"""The parts of the benchmark, each a module that can be run alone: `TITLE`; `run`, which measures; `table`,
which shows what was measured; `goals`, which holds it against what is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence


@dataclass(frozen=True)
class Options:
    """How much is measured. `say` tells whoever waits what is being done."""

    rounds: int
    seconds: float
    connections: Sequence[int]
    floors: Sequence[str]
    customers: int
    """Loaded for `scale`, against 1,000."""
    known: Mapping[str, Any]
    """Results of the parts that were measured before."""
    say: Callable[[str], None]


@dataclass(frozen=True)
class Goal:
    """Something wanted of a figure: at least, or at most, `bound`."""

    name: str
    measured: float
    bound: float
    at_least: bool = True
    unit: str = "×"

    @property
    def met(self) -> bool:
        """Whether it is so."""
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound
