"""Finalizing a hold: it is confirmed, as it is or at another value, or released, once."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Mapping

import msgpack
from starlette.routing import Route

from ..catalog.snapshot import Catalog
from ..domain.quantities import QuantityError, unscale
from ..engine import holds, locks
from ..engine.errors import ReplyLost
from ..engine.holds import HoldEnded, Settlement
from ..engine.spend import CustomerMissing, Refused
from ..errors import ApiError, invalid, not_found
from . import fields
from .check_track import refuse_when_full, require_built
from .decode import LOCK_CHARS_MAX, fingerprint, idempotency_key
from .endpoint import Call, Context, Reply, endpoint

ACTIONS = ("confirm", "release")


@partial(endpoint, keyed=True)
async def finalize(call: Call) -> Reply:
    """Ends a hold: `confirm` (with `override_value`, at that value) or `release`."""
    ctx = call.ctx
    started = time.perf_counter()
    asked = decode_finalize(call.fields, call.headers.get("idempotency-key"))
    require_built(call.version)
    try:
        refuse_when_full(ctx)
        settled = await _settled(ctx, asked)
    except ApiError as error:
        ctx.metrics.refused("finalize", error.code)
        raise
    outcome = "replayed" if settled.replayed else settled.outcome
    ctx.metrics.decided("finalize", outcome, "", time.perf_counter() - started)
    return Reply({"success": True}, 200, {"Idempotency-Replayed": "true"} if settled.replayed else {})


def decode_finalize(body: Mapping[str, Any], key_header: str | None) -> Settlement:
    """The settlement in a body. Raises ApiError 400."""
    fields.refuse_unbuilt(body, ("properties",))
    if body.get("lock_id") is None:
        raise invalid("lock_id", "is required")
    lock_id = fields.checked_id(body["lock_id"], "lock_id", LOCK_CHARS_MAX)
    action, value = body.get("action"), body.get("override_value")
    if action not in ACTIONS:
        raise invalid("action", "must be confirm or release")
    if value is not None:
        fields.number(value, "override_value")
        if action == "release":
            raise invalid("override_value", "goes with confirm: a release gives everything back")
    key = idempotency_key(body, key_header)
    info: dict[str, Any] = {"s": "finalize", "l": lock_id}
    print_of = b""
    if key:
        print_of = fingerprint("finalize", lock_id, action, value)
        info["k"] = key
    return Settlement(lock_id, action, value, msgpack.packb(info), key, print_of)


async def _settled(ctx: Context, asked: Settlement) -> holds.Settled:
    catalog = ctx.catalog.current
    try:
        try:
            return await holds.settle(ctx.engine, catalog, asked)
        except holds.FeatureMissing:
            catalog = await ctx.catalog.refresh()
            return await holds.settle(ctx.engine, catalog, asked)
    except holds.FeatureMissing as missing:
        raise not_found("feature", str(missing)) from None
    except (holds.HoldMissing, CustomerMissing):
        raise ApiError(404, "lock_not_found", f"lock_id: no hold {asked.lock_id!r} is known") from None
    except HoldEnded as ended:
        raise _ended(asked.lock_id, ended, catalog) from None
    except QuantityError as problem:
        raise invalid("override_value", str(problem)) from problem
    except Refused as refusal:
        raise await _refused(ctx, refusal, asked.lock_id) from None
    except ReplyLost as problem:
        advice = "Repeat it with the same Idempotency-Key" if asked.key else "Repeat it: a hold ends once"
        raise ApiError(504, "outcome_unknown", f"it may have been done: {problem}. {advice}") from problem


def _ended(lock_id: str, ended: HoldEnded, catalog: Catalog) -> ApiError:
    """What became of a hold that was settled before."""
    if ended.outcome == holds.EXPIRED:
        return ApiError(410, "lock_expired", f"lock_id: the time of {lock_id!r} was over, and all it held went back")
    if ended.outcome == holds.RELEASED:
        return ApiError(409, "lock_already_finalized", f"lock_id: {lock_id!r} was released before, and all it held went back")
    feature = catalog.features.get(ended.feature_id)
    at = f" at {unscale(ended.final, feature.precision)} of {feature.id!r}" if feature is not None else ""
    return ApiError(409, "lock_already_finalized", f"lock_id: {lock_id!r} was confirmed before{at}")


async def _refused(ctx: Context, refusal: Refused, lock_id: str) -> ApiError:
    if refusal.code == "CONFLICT":
        return ApiError(409, "duplicate_idempotency_key", "Idempotency-Key: was used for another call of this customer")
    if refusal.code == "FULL":
        told = "no room to remember another Idempotency-Key; see SIDECAR_IDEMPOTENCY_BYTES_MAX"
        return ApiError(503, "idempotency_full", told, {"Retry-After": "60"})
    if refusal.code == "SLOTS":
        return ApiError(422, "too_many_entities", "override_value: would spend more than 1,000 entities' shares at once")
    owner = await locks.owner_of(ctx.engine, lock_id)
    feature = None if owner is None else ctx.catalog.current.features.get(owner.feature_id)
    at = f" at precision {feature.precision}" if feature is not None else ""
    return invalid("override_value", f"takes a balance out of the range of exact numbers{at}")


routes = [Route("/v1/balances.finalize", finalize, methods=["POST"])]
