"""check and track, last step: a script's answer in the shape of an API version.

Pure: knows nothing of ASGI, tasks or sockets.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Iterator, Sequence

from ..catalog.model import Feature
from ..catalog.snapshot import Catalog
from ..domain import layout
from ..domain.quantities import unscale
from ..engine.spend import Result
from .balance_views import balance_v12
from .balance_views_v2 import balance_v20, balance_v21, bucket_id, flag_v21, reset_of
from .decode import Decoded

Version = tuple[int, int]


def answer_track(decoded: Decoded, result: Result, catalog: Catalog, version: Version) -> dict[str, Any]:
    """The body of a track."""
    body: dict[str, Any] = {"customer_id": decoded.spend.customer_id}
    if decoded.spend.entity_id:
        body["entity_id"] = decoded.spend.entity_id
    if decoded.event_name is not None:
        body["event_name"] = decoded.event_name
    body.update(_hold_fields(result))
    if version < (2, 0):
        body.update(id=result.event_id, code="event_received")
        if decoded.feature_id is not None:
            body["feature_id"] = decoded.feature_id
        return body
    balances = {  # none after a call that was brief the first time
        name: balance
        for name in (_touched(decoded, result, catalog) if result.blobs else ())
        if (balance := _balance(catalog.features[name], result, catalog, decoded, version)) is not None
    }
    body.update(value=amount_of(decoded, result), balance=next(iter(balances.values()), None), event_id=result.event_id)
    if len(balances) > 1:
        body["balances"] = balances
    if version >= (2, 1):
        body["deductions"] = _deductions(result, catalog)
    return body


def amount_of(decoded: Decoded, result: Result) -> int | Decimal:
    """The value that a track's answer repeats; of one that gives back all that is left of an event,
    what that was."""
    if decoded.amount is not None:
        return decoded.amount
    return unscale(result.applied[0], decoded.spend.features[0][0].precision)


def check_head(
    decoded: Decoded, result: Result, catalog: Catalog, version: Version
) -> tuple[dict[str, Any], Feature]:
    """What a check's body says before the balance, and the feature or credit system whose balance
    that is: the one it was judged on."""
    asked, _ = decoded.spend.features[0]
    shown, required = asked, decoded.amount
    if result.shown:
        system = catalog.systems_of[asked.id][result.shown - 1]
        shown = catalog.features[system.feature_id]
        required = unscale(result.required, shown.precision)
    body: dict[str, Any] = {
        "allowed": result.allowed, "customer_id": decoded.spend.customer_id, "required_balance": required,
    }
    if decoded.spend.entity_id:
        body["entity_id"] = decoded.spend.entity_id
    if result.reason:
        body["reason"] = result.reason
    if version < (2, 0):
        body["code"], body["feature_id"] = "feature_found", shown.id
    if result.event_id:
        body["id" if version < (2, 0) else "event_id"] = result.event_id
    body.update(_hold_fields(result))
    return body, shown


def _hold_fields(result: Result) -> dict[str, Any]:
    """What is to be said of a hold that was made."""
    return {"lock_id": result.lock_id, "expires_at": result.expires_at} if result.lock_id else {}


def answer_check(decoded: Decoded, result: Result, catalog: Catalog, version: Version) -> dict[str, Any]:
    """The body of a check: the decision, then the balance."""
    body, shown = check_head(decoded, result, catalog, version)
    rows, slots, archived = buckets_of(result, shown.id, bool(decoded.spend.entity_id))
    if version < (2, 0):
        if rows or archived.count:
            body.update(balance_v12(shown, rows, slots, archived))
        return body
    body["balance"] = _balance(shown, result, catalog, decoded, version)
    if version >= (2, 1):
        body["flag"] = flag_v21(shown, rows)
    return body


def buckets_of(
    result: Result, feature_id: str, for_entity: bool
) -> tuple[list[layout.Row], tuple[layout.Slot, ...] | None, layout.Archived]:
    """The usable buckets of a feature in a script's answer, the entity's slots (None: the customer's
    view), and what left the hot state."""
    at = result.fields.index(feature_id)
    packed = [result.blobs[at], *([result.entity_blobs[at]] if for_entity else result.entity_blobs[at])]
    blobs = [layout.unpack(each) if each else layout.Blob() for each in packed]
    rows = [row for blob in blobs for row in blob.rows if not row.expires_at or row.expires_at > result.now_ms]
    if for_entity:  # a share of a grant per entity is for entities of one feature
        of = result.entity_blobs[len(result.fields)].decode()
        rows = [row for row in rows if not row.per_entity or row.entity_feature == of]
    return rows, blobs[1].slots if for_entity else None, layout.Archived.sum(blob.archived for blob in blobs)


def _balance(
    feature: Feature, result: Result, catalog: Catalog, decoded: Decoded, version: Version
) -> dict[str, Any] | None:
    rows, slots, archived = buckets_of(result, feature.id, bool(decoded.spend.entity_id))
    if version == (2, 0):
        return balance_v20(feature, rows, slots, archived)
    return balance_v21(feature, rows, catalog, slots, archived)


def _touched(decoded: Decoded, result: Result, catalog: Catalog) -> list[str]:
    """The features whose balances a track shows: those tracked, then the credit systems that paid."""
    names = [feature.id for feature, _ in decoded.spend.features]
    paid = {delta["feature_id"] for delta in _deductions(result, catalog)}
    return names + [name for name in result.fields if name in paid and name not in names]


def _deductions(result: Result, catalog: Catalog) -> list[dict[str, Any]]:
    """What each bucket paid (negative: got back)."""
    known: dict[int, tuple[str, layout.Row]] = {}
    for at, name in enumerate(result.fields if result.blobs else ()):
        packed = [result.blobs[at]]
        packed += result.entity_blobs[at] if isinstance(result.entity_blobs[at], list) else [result.entity_blobs[at]]
        for blob in packed:
            if blob:
                known.update((row.no, (name, row)) for row in layout.unpack(blob).rows)
    found = []
    for no, delta in moved(result.parts):
        name, row = known.get(no, ("", None))
        if row is None or name not in catalog.features:  # what paid is sold no more
            continue
        found.append({
            "balance_id": bucket_id(row), "feature_id": name, "plan_id": row.plan_id or None,
            "reset": reset_of(row), "value": unscale(-delta, catalog.features[name].precision),
        })
    return found


def moved(parts: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """(bucket number, what was added to its balance) of each part, in order (sync/records.py)."""
    at = 0
    while at < len(parts):
        if parts[at] == -1:  # a credit system begins to pay
            at += 4
        elif parts[at] == -2:
            yield parts[at + 1], parts[at + 3]
            at += 6
        else:
            yield parts[at], parts[at + 1]
            at += 2
