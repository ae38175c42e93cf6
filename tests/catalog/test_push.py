"""Promise: a push changes what differs and nothing else, all of it or nothing; pushing again
changes nothing; plans that customers hold get a new version and holders keep theirs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import Connection, insert, select, update

from sidecar.catalog import push, repository
from sidecar.catalog.diff import Diff, render
from sidecar.catalog.files import CatalogFile, CatalogFileError, load_catalog
from sidecar.catalog.snapshot import Catalog, CatalogCache, System, read_catalog
from sidecar.store import tables as t
from sidecar.store.db import Store

NOW_MS = 1_800_000_000_000
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "chat.py"
BASE = """\
features:
  - {id: msg, name: Messages, type: single_use}
  - {id: credits, type: credit_system, credit_schema: [{metered_feature_id: msg, credit_cost: 0.01}]}
plans:
  - id: free
    name: Free
    is_default: true
    items:
      - {feature_id: msg, included_usage: 10, interval: month}
"""


@pytest.fixture
def file(tmp_path: Path):  # type: ignore[no-untyped-def]
    def of(text: str = BASE, *changes: tuple[str, str]) -> CatalogFile:
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        path = tmp_path / "catalog.yaml"
        path.write_text(text)
        return load_catalog(path)

    return of


def changed(diff: Diff) -> dict[str, list[str]]:
    return {change.id: [field.path for field in change.fields] for change in diff.changes if change.action == "changed"}


def hold(store: Store, plan_id: str, status: str = "active") -> int:
    """A customer who has the plan's newest version; returns that version's uid."""

    def write(conn: Connection) -> int:
        plan = repository.latest_plan(conn, plan_id)
        assert plan is not None
        conn.execute(insert(t.customers).values(id=f"c{plan.uid}{status}", p=0, name="Ann", metadata={}, created_at=1))
        cid = conn.execute(select(t.customers.c.cid).order_by(t.customers.c.cid.desc())).scalar()
        conn.execute(insert(t.customer_plans).values(
            cid=cid, plan_uid=plan.uid, plan_id=plan_id, status=status, quantity=1, options=[], started_at=1, anchor=1,
        ))
        return plan.uid

    return store.write_sync(write)


def test_pushing_again_changes_nothing(store: Store) -> None:
    example = load_catalog(EXAMPLE)
    first = push.plan_push(store, example)
    assert first.count("added") == len(example.features) + len(example.plans)
    assert push.apply(store, example, first) == first
    before = store.read_sync(read_catalog)
    again = push.apply(store, example)
    assert again.is_empty and again.count("unchanged") == first.count("added")
    assert store.read_sync(read_catalog) == before and before.version == 1


def test_what_is_stored_is_what_the_file_says(store: Store, file: Any) -> None:
    pushed = file()
    push.apply(store, pushed, now_ms=NOW_MS)
    catalog = store.read_sync(read_catalog)
    assert tuple(catalog.features.values()) == pushed.features
    assert tuple(catalog.plans.values()) == pushed.plans
    assert list(catalog.features) == ["msg", "credits"]
    assert catalog.systems_of == {"msg": (System("credits", 1, 100),)}
    assert [plan.id for plan in catalog.default_plans] == ["free"]
    free = catalog.plans["free"]
    assert catalog.item(free.item_ref(0)) == free.items[0]
    assert catalog.item(free.item_ref(1)) is None and catalog.item(0) is None


def test_changes_are_shown_field_by_field(store: Store, file: Any) -> None:
    push.apply(store, file())
    diff = push.apply(store, file(BASE, ("included_usage: 10", "included_usage: 20"), ("credit_cost: 0.01", "credit_cost: 0.1")))
    assert changed(diff) == {"credits": ["credit_schema.msg"], "free": ["items[0].included_usage"]}
    out = StringIO()
    Console(file=out, width=200).print(render(diff))
    assert "items[0].included_usage: 10 → 20" in out.getvalue()
    assert "2 to change" in out.getvalue()


def test_what_is_not_in_the_file_is_left_alone_and_named(store: Store, file: Any) -> None:
    push.apply(store, file())
    only = file("features:\n  - {id: other, type: boolean}\n")
    diff = push.apply(store, only)
    assert diff.left_alone == ("feature msg", "feature credits", "plan free")
    assert len(store.read_sync(read_catalog).features) == 3


def test_a_plan_nobody_holds_is_edited_in_place(store: Store, file: Any) -> None:
    push.apply(store, file())
    before = store.read_sync(read_catalog).plans["free"]
    hold(store, "free", "expired")
    diff = push.apply(store, file(BASE, ("included_usage: 10", "included_usage: 20")))
    after = store.read_sync(read_catalog).plans["free"]
    assert (after.uid, after.version, after.items[0].included_usage) == (before.uid, 1, 20)
    assert [change.new_version for change in diff.changes if change.id == "free"] == [0]


@pytest.mark.parametrize("status", ["active", "scheduled", "past_due"])
def test_a_plan_customers_hold_gets_a_new_version(store: Store, file: Any, status: str) -> None:
    push.apply(store, file())
    held = hold(store, "free", status)
    changed_file = file(BASE, ("included_usage: 10", "included_usage: 20"))
    diff = push.apply(store, changed_file)
    assert [change.new_version for change in diff.changes if change.id == "free"] == [2]
    catalog = store.read_sync(read_catalog)
    assert catalog.plans["free"].version == 2 and catalog.plans["free"].uid != held
    assert catalog.plans_by_uid[held].items[0].included_usage == 10
    assert push.apply(store, changed_file).is_empty


def test_a_name_changes_in_place_even_when_held(store: Store, file: Any) -> None:
    push.apply(store, file())
    held = hold(store, "free")
    push.apply(store, file(BASE, ("name: Free", "name: Gratis")))
    plan = store.read_sync(read_catalog).plans["free"]
    assert (plan.uid, plan.version, plan.name) == (held, 1, "Gratis")


def test_a_plan_about_to_be_paid_for_keeps_what_was_offered(store: Store, file: Any) -> None:
    push.apply(store, file())
    uid = store.read_sync(read_catalog).plans["free"].uid

    def offer(conn: Connection) -> None:
        conn.execute(insert(t.checkouts).values(
            token="t", cid=1, status="open", request={"plan_uid": uid}, preview={}, created_at=NOW_MS, expires_at=NOW_MS + 1000,
        ))

    store.write_sync(offer)
    push.apply(store, file(BASE, ("included_usage: 10", "included_usage: 20")), now_ms=NOW_MS)
    assert store.read_sync(read_catalog).plans_by_uid[uid].items[0].included_usage == 10
    latest = store.read_sync(read_catalog).plans["free"]
    assert latest.uid != uid
    store.write_sync(lambda conn: conn.execute(update(t.checkouts).values(status="cancelled")) and None)


def test_the_type_of_a_feature_customers_hold_cannot_change(store: Store, file: Any) -> None:
    push.apply(store, file("features:\n  - {id: a, type: single_use}\n"))
    other = file("features:\n  - {id: a, type: continuous_use}\n")
    assert changed(push.plan_push(store, other)) == {"a": ["type"]}
    store.write_sync(lambda conn: conn.execute(insert(t.entities).values(
        cid=1, id="e", feature_id="a", status="active", created_at=1,
    )) and None)
    with pytest.raises(CatalogFileError, match=r"catalog.yaml:2: features.a.type: "):
        push.plan_push(store, other)
    with pytest.raises(CatalogFileError, match=r"features.a.type: "):
        push.apply(store, other)


def test_the_type_of_a_feature_in_another_plan_cannot_change(store: Store, file: Any) -> None:
    push.apply(store, file())
    with pytest.raises(CatalogFileError, match="plan free"):
        push.plan_push(store, file("features:\n  - {id: msg, type: continuous_use}\n"))


def test_precision_stays_where_the_file_names_none(store: Store, file: Any) -> None:
    push.apply(store, file("features:\n  - {id: a, type: single_use, precision: 2}\n"))
    assert push.apply(store, file("features:\n  - {id: a, type: single_use}\n")).is_empty
    with pytest.raises(CatalogFileError, match=r":2: features.a.precision: "):
        push.apply(store, file("features:\n  - {id: a, type: single_use, precision: 3}\n"))


def test_a_push_is_all_or_nothing(store: Store, file: Any) -> None:
    push.apply(store, file("features:\n  - {id: msg, type: boolean}\n  - {id: p2, type: single_use, precision: 2}\n"))
    with pytest.raises(CatalogFileError):
        push.apply(store, file(BASE.replace("plans:", "  - {id: p2, type: single_use, precision: 3}\nplans:")))
    catalog = store.read_sync(read_catalog)
    assert list(catalog.features) == ["msg", "p2"] and catalog.version == 1


def test_a_difference_that_is_no_longer_true_is_not_applied(store: Store, file: Any) -> None:
    first, second = file(), file(BASE, ("name: Free", "name: Other"))
    shown = push.plan_push(store, first)
    push.apply(store, second)
    with pytest.raises(push.CatalogMovedOn):
        push.apply(store, first, shown)
    assert store.read_sync(read_catalog).plans["free"].name == "Other"


def test_pushes_at_once_end_as_one_of_them(store: Store, file: Any) -> None:
    files = [file(BASE, ("included_usage: 10", f"included_usage: {n}")) for n in range(1, 9)]
    with ThreadPoolExecutor(8) as threads:
        diffs = list(threads.map(lambda one: push.apply(store, one), files))
    catalog = store.read_sync(read_catalog)
    assert sum(diff.count("added") > 0 for diff in diffs) == 1
    assert catalog.version == 8 and len(catalog.plans_by_uid) == 1
    assert catalog.plans["free"].items[0].included_usage in {Decimal(n) for n in range(1, 9)}


def test_a_deleted_plans_uid_is_not_given_again(store: Store, file: Any) -> None:
    push.apply(store, file())
    uid = store.read_sync(read_catalog).plans["free"].uid
    store.write_sync(repository.delete_plan, "free")
    push.apply(store, file())
    assert store.read_sync(read_catalog).plans["free"].uid > uid


def test_a_grant_decided_on_an_older_catalog_is_refused(store: Store, file: Any) -> None:
    push.apply(store, file())
    store.write_sync(repository.confirm_version, 1)
    push.apply(store, file(BASE, ("name: Free", "name: Other")))
    with pytest.raises(repository.CatalogMoved):
        store.write_sync(repository.confirm_version, 1)


def test_a_cache_sees_a_push_and_reads_only_changes(store: Store, file: Any) -> None:
    cache = CatalogCache(store)
    assert cache.current == Catalog() and cache.refresh_sync().version == 0
    push.apply(store, file())
    seen = cache.refresh_sync()
    assert seen.version == 1 and "free" in seen.plans
    push.apply(store, file())
    assert cache.refresh_sync() is seen
