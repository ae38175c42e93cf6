"""Eager callers of a running sidecar, in threads, and what each call came to.

Every change goes out under an idempotency key. A call whose outcome is unknown (connection cut,
time-out, 504) and one that was refused for the moment (503, connection refused) is repeated with
its key until it has an answer, so in the end every call is either acknowledged or denied.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Sequence

from .inside import KEY

TIMEOUT_S = 4.0
ANSWER_WITHIN_S = 60.0
PAUSE_S = 0.004
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


class Wrong(AssertionError):
    """An answer that no fault explains."""


@dataclass
class Call:
    """One keyed change. `event_id` is what the first answer said; `value` counts whole units."""

    key: str
    path: str
    customer_id: str
    feature_id: str
    value: int
    body: dict[str, Any]
    event_id: str | None = None
    denied: bool = False
    unknown: int = 0
    begun_at: float = field(default_factory=time.monotonic)
    answered_at: float = 0.0
    """Of its first answer; both by the monotonic clock."""


@dataclass
class Tally:
    """What all callers of a load have seen."""

    calls: list[Call] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    checks: int = 0
    repeats: int = 0
    repeats_called_so: int = 0
    """Fewer: a sidecar that lost Redis' reply to a repeat cannot tell it from a first call."""
    made_again: int = 0
    boosts_tried: Counter[str] = field(default_factory=Counter)
    boosts_made: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Unanswered(Exception):
    """The call was sent and nobody knows; `reason` says how that showed."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Client:
    """One caller's connection, made again when it breaks."""

    def __init__(self, port: int):
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any, dict[str, str]]:
        """(status, decoded answer, headers). Raises ConnectionRefusedError when it was not sent,
        Unanswered when it was and no whole answer came."""
        fresh = self._connection is None
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
            try:
                self._connection.connect()
            except OSError:
                self.close()
                raise ConnectionRefusedError from None
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), HEADERS)
            answer = self._connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as problem:
            self.close()
            how = "timeout" if isinstance(problem, TimeoutError) else "cut" if fresh else "cut, kept alive"
            raise Unanswered(how) from None
        return answer.status, json.loads(data), dict(answer.getheaders())

    def close(self) -> None:
        """Ends the connection; the next call makes another."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Load:
    """Callers on a port. `start`, then `stop`, which waits until every call has an answer. With
    `redis_loses` a repeat may find that its call was lost, and be the call."""

    def __init__(
        self, port: int, customer_ids: Sequence[str], seed: int, callers: int = 6, boosts: bool = True,
        redis_loses: bool = False,
    ):
        self._port = port
        self._customers = customer_ids
        self._boosts = boosts
        self._redis_loses = redis_loses
        self.tally = Tally()
        self._going = True
        self._lock = threading.Lock()  # for what several callers count
        self._in_flight = 0
        self._run = f"{seed}-{time.time_ns()}"
        self._threads = [
            threading.Thread(target=self._call_on, args=(number, random.Random(f"{seed}/{number}")), daemon=True)
            for number in range(callers)
        ]

    @property
    def in_flight(self) -> int:
        """Calls that were sent and have no answer now."""
        return self._in_flight

    def start(self) -> None:
        """Begins to call."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """No new calls; waits until every one that was begun has its answer. Raises Wrong."""
        self._going = False
        for thread in self._threads:
            thread.join(ANSWER_WITHIN_S + 30)
            assert not thread.is_alive(), "a caller does not come to an end"
        if self.tally.wrong:
            raise Wrong("\n".join(self.tally.wrong[:20]))

    # -- one caller ------------------------------------------------------------------------------

    def _call_on(self, number: int, draw: random.Random) -> None:
        client, mine = Client(self._port), []
        try:
            for at in range(1_000_000):
                if not self._going:
                    return
                self._one(client, draw, f"{self._run}-{number}-{at}", mine)
                time.sleep(PAUSE_S)
        except Wrong as problem:
            self.tally.wrong.append(str(problem))
        except BaseException as problem:  # a thread must not end in silence
            self.tally.wrong.append(f"{type(problem).__name__}: {problem}")
        finally:
            client.close()

    def _one(self, client: Client, draw: random.Random, key: str, mine: list[Call]) -> None:
        customer_id, what = draw.choice(self._customers), draw.random()
        if what < 0.70:
            call = _track(key, customer_id, "messages", draw.randint(1, 5))
        elif what < 0.80:
            call = _track(key, customer_id, "basic", draw.randint(1, 3))
        elif what < 0.88:
            body = {"customer_id": customer_id, "feature_id": "tight", "send_event": True, "required_balance": 1}
            call = Call(key, "/v1/check", customer_id, "tight", 1, {**body, "idempotency_key": key})
        elif what < 0.93:
            self._check(client, customer_id)
            return
        elif what < 0.99 or not self._boosts:
            if mine:
                self._repeat(client, draw.choice(mine))
            return
        else:
            self._boost(client, customer_id)
            return
        self.tally.calls.append(call)
        self.carry_out(client, call)
        if not call.denied:
            mine.append(call)

    def carry_out(self, client: Client, call: Call) -> bool:
        """Calls until there is an answer; whether it was a replay. Raises Wrong."""
        status, answer, headers = self._until_answered(client, call.path, call.body, call)
        if status != 200:
            raise Wrong(f"{call}: {status} {answer}")
        call.answered_at = call.answered_at or time.monotonic()
        if call.path == "/v1/check" and not answer["allowed"]:
            call.denied = True
        elif call.event_id is None:
            call.event_id = answer["id"]
        elif self._redis_loses and "idempotency-replayed" not in headers:
            with self._lock:
                self.tally.made_again += 1
            call.event_id = answer["id"]
        elif call.event_id != answer["id"]:
            raise Wrong(f"the repeat of {call} was answered {answer}")
        return headers.get("idempotency-replayed") == "true"

    def _until_answered(
        self, client: Client, path: str, body: Any, call: Call | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while time.monotonic() < deadline:
            try:
                status, answer, headers = self._send(client, path, body)
            except ConnectionRefusedError:
                self._count(self.tally.refused, "connection")
                time.sleep(0.02)
                continue
            except Unanswered as problem:
                self._count(self.tally.unknown, problem.reason)
                if call is not None:
                    call.unknown += 1
                continue
            if status == 504:
                self._count(self.tally.unknown, "504")
                if call is not None:
                    call.unknown += 1
            elif status == 503:
                self._count(self.tally.refused, answer["code"])
                time.sleep(0.02)
            else:
                return status, answer, headers
        raise Wrong(f"{path} {body}: no answer within {ANSWER_WITHIN_S} s")

    def _send(self, client: Client, path: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        with self._lock:
            self._in_flight += 1
        try:
            return client.send("POST", path, body)
        finally:
            with self._lock:
                self._in_flight -= 1

    def _count(self, counter: Counter[str], what: str) -> None:
        with self._lock:
            counter[what] += 1

    def _check(self, client: Client, customer_id: str) -> None:
        status, answer, _ = self._until_answered(
            client, "/v1/check", {"customer_id": customer_id, "feature_id": "messages"}
        )
        if status != 200 or not answer["allowed"]:
            raise Wrong(f"check of {customer_id}: {status} {answer}")
        with self._lock:
            self.tally.checks += 1

    def _repeat(self, client: Client, call: Call) -> None:
        called_so = self.carry_out(client, call)
        with self._lock:
            self.tally.repeats += 1
            self.tally.repeats_called_so += called_so

    def _boost(self, client: Client, customer_id: str) -> None:
        """A purchase: it has no key, so it is made once, and counted as tried and as answered."""
        self._count(self.tally.boosts_tried, customer_id)
        try:
            status, answer, _ = self._send(client, "/v1/attach", {"customer_id": customer_id, "product_id": "boost"})
        except ConnectionRefusedError:
            return
        except Unanswered as problem:
            self._count(self.tally.unknown, problem.reason)
            return
        if status == 200:
            self._count(self.tally.boosts_made, customer_id)
        elif status not in (503, 504):
            raise Wrong(f"attach: {status} {answer}")


def _track(key: str, customer_id: str, feature_id: str, value: int) -> Call:
    body = {"customer_id": customer_id, "feature_id": feature_id, "value": value, "idempotency_key": key}
    return Call(key, "/v1/track", customer_id, feature_id, value, body)
