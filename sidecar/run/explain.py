"""`sidecar explain`: what the route of that name answers, as tables."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Iterable, Mapping

from ..settings import Settings
from . import beside
from .errors import RunError

NO_END = "any"


def run(settings: Settings, customer_id: str, feature_id: str, entity_id: str) -> int:
    """Prints the explanation; returns the exit code 0. Raises RunError where there is none."""
    from .. import logs

    logs.setup(settings.model_copy(update={"log_level": "error"}), "explain")
    beside.require_database(settings)
    with beside.stores(settings):
        show(asyncio.run(_explained(settings, customer_id, feature_id, entity_id)))
    return 0


async def _explained(settings: Settings, customer_id: str, feature_id: str, entity_id: str) -> dict[str, Any]:
    from ..api.explain import explained
    from ..catalog.snapshot import CatalogCache
    from ..engine.errors import EngineError
    from ..errors import ApiError

    async with beside.engine(settings) as (engine, store):
        catalog = await CatalogCache(store).refresh()
        try:
            return await explained(engine, store, catalog, customer_id, feature_id, entity_id)
        except ApiError as error:
            raise RunError(error.message) from None
        except EngineError as problem:
            raise RunError(f"Redis does not answer: {problem}") from None


def show(found: Mapping[str, Any]) -> None:
    """Prints an explanation."""
    out = beside.console()
    whose = found["customer_id"] + (f", entity {found['entity_id']}" if found["entity_id"] else "")
    answer = "yes" if found["allowed"] else f"no: {found['reason']}"
    out.print(f"{found['feature_id']} of {whose} at {_time(found['now'])}")
    out.print(f"One more is allowed: {answer}. The most that fits: {_number(found['accepts'], NO_END)}.")
    if found["truncated"]:
        out.print("There are more entities than were looked at.")
    _table(out, "Rollovers", found["rollovers"], {
        "rollover": lambda r: r["id"], "feature": lambda r: r["feature_id"], "of": lambda r: r["rolled_over_from"],
        "entity": lambda r: r["entity_id"], "balance": lambda r: r["balance"], "granted": lambda r: r["granted"],
        "gives": lambda r: _number(r["gives"], NO_END), "ends": lambda r: _time(r["expires_at"]),
    })
    _table(out, "Buckets, in spending order", found["buckets"], {
        "bucket": lambda b: b["id"], "feature": lambda b: b["feature_id"], "plan": lambda b: b["plan_id"],
        "entity": lambda b: b["entity_id"], "balance": lambda b: b["balance"], "granted": lambda b: b["granted"],
        "gives": lambda b: _number(b["gives"], NO_END), "floor": lambda b: _number(b["floor"], "none"),
        "ends": lambda b: _time(b["expires_at"]),
    })
    _table(out, "Caps", found["caps"], {
        "cap": lambda c: c["kind"], "feature": lambda c: c["feature_id"],
        "limit": lambda c: c["limit"] if c["limit"] is not None else ("on" if c["enabled"] else "off"),
        "used": lambda c: c["used"], "per": lambda c: c.get("interval"), "until": lambda c: _time(c.get("ends_at")),
        "from": lambda c: c["source"],
    })
    _table(out, "Holds", found["holds"], {
        "lock": lambda h: h["lock_id"], "feature": lambda h: h["feature_id"], "held": lambda h: h["held"],
        "ends": lambda h: _time(h["expires_at"]),
    })
    _table(out, "Changes, newest first", found["changes"], {
        "when": lambda c: _time(c["at"]), "what": lambda c: c["kind"], "id": lambda c: c["id"],
        "asked": lambda c: c.get("value"), "applied": lambda c: c.get("applied"), "paid by": lambda c: _deltas(c["deltas"]),
    })
    if found["changes_pending"]:
        out.print("Newer changes are under way to SQL.")


def _table(out: Any, title: str, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_text(cell(row)) for cell in columns.values()))
    if table.row_count:
        out.print()
        out.print(table)


def _deltas(deltas: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{delta['balance_id']} {delta['value']:+} {delta['feature_id']}"
        + (f" ({delta['kind']})" if delta["kind"] != "use" else "")
        for delta in deltas
    )


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


def _number(value: Any, endless: str) -> str:
    return endless if value is None else str(value)


def _time(ms: int | None) -> str:
    if not ms:
        return "-"
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
