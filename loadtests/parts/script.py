"""F2: the shipped scripts against the least that reads, writes and logs as much, in Redis itself."""

from __future__ import annotations

import itertools
from typing import Any, Callable

from sidecar.engine import keys

from ..calls import customer
from ..script_cost import AT_ONCE, CONNECTIONS, RANDOM, Command, Cost, calls_per_s, cost
from ..spread import markdown, ratios, spread, with_range
from ..stage import Stage, bucket, top_up
from ..valkeys import valkey
from . import Goal, Options

TITLE = "The scripts, in Redis"
CALLS = 4000
"""Of each kind in a round."""
BENCHMARK_S = 1.0
"""About how long the bare client drives each kind."""
GRANTED = 10**15
LEAST_TRACK = """local v = redis.call('HMGET', KEYS[1], 'h', 'b:msg')
redis.call('HSET', KEYS[1], 'h', v[1], 'b:msg', v[2])
return redis.call('XADD', KEYS[2], '1-*', 'd', ARGV[1])"""
LEAST_CHECK = "return redis.call('HMGET', KEYS[1], 'h', 'b:msg')"
AGAINST = {"track": "least track", "track with key": "least track", "check": "least check"}
BOUNDS = {"track": 1.6, "track with key": 2.0, "check": 1.5}
"""How many times the least each may cost."""


class Kinds:
    """The commands of each kind, all for one customer with a month's bucket and a top-up."""

    def __init__(self, stage: Stage):
        self.stage = stage
        self._numbers = itertools.count()
        stage.load_many([customer(0)], {"msg": [bucket(1, GRANTED), top_up(2, GRANTED)]})
        _, state, self._log, _ = keys.of_customer(0, customer(0))
        stage.client.execute_command(*self._asked("track"))
        logged = b"x" * _entry_bytes(stage.client.xrange(self._log))
        least_track, least_check = (stage.client.script_load(text) for text in (LEAST_TRACK, LEAST_CHECK))
        self.of: dict[str, Callable[[], Command]] = {
            "least track": lambda: ("EVALSHA", least_track, 2, state, self._log, logged),
            "track": lambda: self._asked("track"),
            "track with key": lambda: self._asked("track", idempotency_key=f"call-{next(self._numbers):012}"),
            "least check": lambda: ("EVALSHA", least_check, 1, state),
            "check": lambda: self._asked("check"),
        }

    def _asked(self, verb: str, **more: Any) -> Command:
        return self.stage.asked(verb, {"customer_id": customer(0), "feature_id": "msg", **more})

    def endless(self, kind: str) -> Command:
        """A command for `calls_per_s`, which makes the call's key a new one each time."""
        if kind != "track with key":
            return self.of[kind]()
        command = self._asked("track", idempotency_key="call")
        at = 2 + int(command[2])  # its last key
        return (*command[:at], keys.record(0, RANDOM), *command[at + 1 :])

    def clear(self) -> None:
        """Empties the log, as the worker's trimming does, and forgets the keys."""
        client = self.stage.client
        client.xtrim(self._log, 0, approximate=False)
        for record in client.scan_iter(match="{p0}:i:*", count=10_000):
            client.unlink(record)


def _entry_bytes(entries: Any) -> int:
    return len(entries[0][1][b"d"])


def measured(rounds: int, calls: int, say: Callable[[str], None]) -> dict[str, list[Cost]]:
    """What a call of each kind costs, round by round."""
    with valkey() as client:
        kinds = Kinds(Stage(client))
        found: dict[str, list[Cost]] = {kind: [] for kind in kinds.of}
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for kind in sorted(kinds.of, reverse=number % 2 == 1):
                kinds.clear()
                found[kind].append(cost(client, [kinds.of[kind]() for _ in range(calls)]))
        return found


def run(options: Options) -> dict[str, Any]:
    """Processor time a call, in turns; and what a bare client gets."""
    found = measured(2 * options.rounds + 1, CALLS, options.say)
    return {
        "us": {kind: {each: spread(costs) for each, costs in _each(found[kind])} for kind in found},
        "ratios": {
            kind: {
                each: ratios(costs, theirs)
                for (each, costs), (_, theirs) in zip(_each(found[kind]), _each(found[least]), strict=True)
            }
            for kind, least in AGAINST.items()
        },
        "calls_per_s": _by_client(options),
    }


def _each(costs: list[Cost]) -> list[tuple[str, list[float]]]:
    return [(name, [float(getattr(one, name)) for one in costs]) for name in Cost._fields]


def _by_client(options: Options) -> dict[str, dict[str, dict[str, float]]]:
    with valkey() as client:
        kinds = Kinds(Stage(client))
        found: dict[str, dict[str, list[float]]] = {kind: {"1": [], "16": []} for kind in kinds.of}
        for number in range(options.rounds):
            for kind in sorted(kinds.of, reverse=number % 2 == 1):
                for at_once in ("1", "16"):
                    options.say(f"round {number + 1} of {options.rounds}, {kind}, {at_once} at once, by the bare client")
                    kinds.clear()
                    count = 2_000
                    rate = calls_per_s(client, kinds.endless(kind), count, int(at_once))
                    kinds.clear()
                    count = max(count, int(rate * BENCHMARK_S))
                    found[kind][at_once].append(calls_per_s(client, kinds.endless(kind), count, int(at_once)))
        return {kind: {at_once: spread(rates) for at_once, rates in of.items()} for kind, of in found.items()}


def table(result: dict[str, Any]) -> str:
    """Microseconds and ratios, and the client's calls a second."""
    rows = []
    for kind, us in result["us"].items():
        row = [kind]
        for each in Cost._fields:
            row += [f"{us[each]['median']:.1f}", with_range(result["ratios"][kind][each]) if kind in AGAINST else ""]
        row += [f"{result['calls_per_s'][kind][at_once]['median']:,.0f}" for at_once in ("1", "16")]
        rows.append(row)
    head = ["call", "µs of Redis' processor", "÷ the least", "µs in the script", "÷ the least"]
    found = markdown([*head, "calls/s, one at once", "calls/s, 16 at once"], rows)
    return f"{found}\n\nMicroseconds with {AT_ONCE} calls in a write; calls a second are those of {CONNECTIONS} connections of a bare client."


def goals(results: dict[str, Any]) -> list[Goal]:
    """Each script against the least."""
    found = results["script"]["ratios"]
    return [Goal(f"script: {kind} ÷ {AGAINST[kind]}", found[kind]["cpu_us"]["median"], bound, False) for kind, bound in BOUNDS.items()]
