"""The calls of the short way: a usual check or track is decoded, sent to Redis and answered from the
reply's callback; everything else is handed to the ordinary route's handler.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Coroutine

import msgspec
import structlog

from ..engine import spend
from ..engine.errors import ReplyLost
from ..engine.spend import Refused, Result
from ..errors import ApiError
from . import check_track, decode, quick, wire
from .auth import Keys
from .decode import Decoded
from .endpoint import Call, Context, Reply, answered, error_reply, internal_error
from .heads import Heads

if TYPE_CHECKING:
    from .fast import FastCycle

log = structlog.get_logger()


class _Launched(msgspec.Struct):
    """A call whose reply is waited for; decoded and sent at those times, by `time.perf_counter`."""

    service: FastService
    cycle: FastCycle
    decoded: Decoded
    started: float
    sent: float

    def done(self, outcome: Result | Exception | None) -> None:
        """See `spend.start`."""
        self.service.concluded(self, outcome)


class FastService:
    """What every connection of a process shares: the application's parts, and what is known of heads."""

    def __init__(self, ctx: Context, keys: Keys):
        self.heads = Heads(keys)
        self._ctx = ctx
        self._closed = False

    def close(self) -> None:
        """The process ends: calls that lose their reply from now on are answered without another try."""
        self._closed = True

    def launch(self, cycle: FastCycle) -> None:
        """Decodes the request and makes its call; the cycle gets the answer, now or later. What is
        not a plain success is the ordinary way's to answer: it comes to the same. Raises nothing."""
        started = time.perf_counter()
        try:
            ctx = self._ctx
            decoded = self._decoded(cycle)
            if decoded is None:
                self._ordinary(cycle)
                return

            call = _Launched(self, cycle, decoded, started, time.perf_counter())
            if not spend.start(ctx.engine, ctx.catalog.current, decoded.spend, call.done):
                self._ordinary(cycle)
        except Exception:
            self._fault(cycle)

    def concluded(self, call: _Launched, outcome: Result | Exception | None) -> None:
        """Answers with a call's outcome. Raises nothing."""
        cycle, decoded = call.cycle, call.decoded
        try:
            if type(outcome) is Result:
                self._ctx.metrics.round_trip(time.perf_counter() - call.sent)
                self._conclude(cycle, decoded, outcome, call.started)
            elif isinstance(outcome, Refused):
                self._refuse(cycle, check_track.refused(outcome, decoded.spend, cycle.head.verb))
            elif isinstance(outcome, ReplyLost):
                self._find_out(cycle, decoded, outcome, call.started)
            elif isinstance(outcome, Exception):
                raise outcome
            else:
                self._ordinary(cycle)
        except Exception:
            self._fault(cycle)

    def _fault(self, cycle: FastCycle) -> None:
        """Logs the exception and answers 500: what it is raised into would end a connection."""
        log.exception("fast_call_failed", verb=cycle.head.verb)
        cycle.respond(internal_error(cycle.head.env))

    def _conclude(self, cycle: FastCycle, decoded: Decoded, result: Result, started: float) -> None:
        ctx, version = self._ctx, cycle.head.version
        if cycle.head.verb == "track":
            if quick.is_plain(decoded) and not result.replayed:
                check_track.count_track(ctx, result, started)
                cycle.respond_ok(quick.answer_track(decoded, result, cycle.head.packed))
            else:
                cycle.respond(check_track.track_reply(ctx, decoded, result, version, started))
            return
        body = quick.answer_check(decoded, result, ctx.catalog.current, cycle.head.packed) if version < (2, 0) else None
        if body is None or result.replayed:
            cycle.respond(check_track.check_reply(ctx, decoded, result, version, started))
            return
        check_track.count_check(ctx, result, started)
        cycle.respond_ok(body)

    def _decoded(self, cycle: FastCycle) -> Decoded | None:
        """The call, None when it is not of the usual kind, or not one at all."""
        head, ctx = cycle.head, self._ctx
        if ctx.health.log_full:
            return None
        catalog, data = ctx.catalog.current, bytes(cycle.body)
        usual = quick.decode_check if head.verb == "check" else quick.decode_track
        decoded = usual(data, head.key, head.version, catalog, head.packed)
        if decoded is not None:
            return decoded
        try:
            body = wire.decode(data, head.form)
            if type(body) is not dict or any(body.get(name) is not None for name in UNUSUAL_FIELDS):
                return None
            if head.verb == "track":
                return decode.decode_track(body, head.key, head.version, catalog)
            return decode.decode_check(body, head.key, catalog)
        except ApiError:
            return None

    def _refuse(self, cycle: FastCycle, error: ApiError) -> None:
        self._ctx.metrics.refused(cycle.head.verb, error.code)
        cycle.respond(error_reply(error, cycle.head.env))

    def _find_out(self, cycle: FastCycle, decoded: Decoded, lost: ReplyLost, started: float) -> None:
        """Makes a call again whose reply did not come, where a key tells whether it ran or nothing
        depends on that."""
        call = decoded.spend
        if self._closed or not (call.key or call.changes_nothing):
            self._refuse(cycle, check_track.lost(lost, call))
            return

        async def called() -> Any:
            body = wire.decode(bytes(cycle.body), cycle.head.form)
            return await check_track.make(self._ctx, cycle.head.verb, decoded, body, cycle.head.version, started, resent=True)

        self._with_task(cycle, called())

    def _ordinary(self, cycle: FastCycle) -> None:
        """Makes the call by the ordinary route's handler."""

        async def called() -> Any:
            call = Call(
                ctx=self._ctx, body=wire.decode(bytes(cycle.body), cycle.head.form), path={}, query={},
                headers={"idempotency-key": cycle.head.key} if cycle.head.key else {}, version=cycle.head.version, env=cycle.head.env,
                base_url="",
            )
            return await HANDLERS[cycle.head.verb](call)

        self._with_task(cycle, called())

    def _with_task(self, cycle: FastCycle, work: Coroutine[Any, Any, Any]) -> None:
        """Answers with what a coroutine comes to. Its task is one of uvicorn's, which waits for them
        when it stops, and in the end cancels them."""

        async def answer() -> None:
            try:
                cycle.respond(await answered(work, "POST", cycle.head.verb, cycle.head.env))
            except asyncio.CancelledError:
                stopped = "it may have been done: the server stops"
                cycle.respond(Reply({"message": stopped, "code": "outcome_unknown", "env": cycle.head.env}, 504))
                raise
            except Exception:
                self._fault(cycle)

        tasks = cycle.protocol.tasks
        task = asyncio.get_running_loop().create_task(answer())
        tasks.add(task)
        task.add_done_callback(tasks.discard)


HANDLERS: dict[str, Any] = {"check": check_track.check.handler, "track": check_track.track.handler}  # type: ignore[attr-defined]
UNUSUAL_FIELDS = ("timestamp", "product_id", "customer_data", "entity_data", "lock", "refund_of")
"""Fields that have something awaited or created."""
