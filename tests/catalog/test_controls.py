"""Promise: billing controls are read exactly, list by list; what is wrong is refused with its path; a
plan's travel through SQL, files and push unchanged."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from sidecar.api.catalog_views_v2 import controls_v2
from sidecar.catalog import push, repository
from sidecar.catalog.control_fields import ENTRIES_MAX, GivenControls
from sidecar.catalog.controls import (
    NO_CONTROLS, AutoTopup, Controls, OverageAllowed, PurchaseLimit, SpendLimit, UsageAlert, UsageLimit,
)
from sidecar.catalog.files import CatalogFileError, load_catalog
from sidecar.errors import ApiError
from sidecar.store import tables
from sidecar.store.db import Store
from tests.catalog.test_validate import FEATURES, plan_of

ALL = {
    "spend_limits": [
        {"feature_id": "msg", "overage_limit": Decimal("2.5")},
        {"limit_type": "usage_percentage", "overage_limit": Decimal("120.5"), "enabled": False, "skip_overage_billing": True},
    ],
    "usage_limits": [
        {"feature_id": "msg", "limit": 5, "interval": "day", "anchor": "utc"},
        {"feature_id": "msg", "limit": 5, "interval": "day", "enabled": False},
    ],
    "overage_allowed": [{"feature_id": "credits", "enabled": False}, {"feature_id": "seats"}],
    "usage_alerts": [{"threshold": 80, "threshold_type": "usage_percentage", "name": "soon", "enabled": False}],
    "auto_topups": [
        {
            "feature_id": "msg", "threshold": 10, "quantity": 100, "enabled": False,
            "purchase_limit": {"interval": "month", "limit": 3},
        },
    ],
}
READ = Controls(
    spend_limits=(
        SpendLimit("msg", overage_limit=Decimal("2.5")),
        SpendLimit(None, False, "usage_percentage", Decimal("120.5"), True),
    ),
    usage_limits=(UsageLimit("msg", True, Decimal(5), "day", "utc"), UsageLimit("msg", False, Decimal(5), "day")),
    overage_allowed=(OverageAllowed("credits", False), OverageAllowed("seats", True)),
    usage_alerts=(UsageAlert(None, False, Decimal(80), "usage_percentage", "soon"),),
    auto_topups=(AutoTopup("msg", False, Decimal(10), Decimal(100), PurchaseLimit("month", 3)),),
)


def read(raw: Any, base: Controls = NO_CONTROLS, path: str = "", of_entity: bool = False) -> Controls:
    return GivenControls(raw, path, of_entity).over(base, FEATURES)


def refused(raw: Any, **how: Any) -> str:
    with pytest.raises(ApiError) as problem:
        read(raw, **how)
    assert (problem.value.status, problem.value.code) == (400, "invalid_inputs")
    return problem.value.message


def test_every_list_is_read() -> None:
    assert read(ALL) == READ
    assert read({}) == NO_CONTROLS
    assert Controls.from_json(json.loads(json.dumps(READ.to_json()))) == READ
    assert NO_CONTROLS.to_json() is None and Controls.from_json(None) == NO_CONTROLS


def test_a_list_that_is_given_replaces_that_list_and_no_other() -> None:
    changed = read({"overage_allowed": [{"feature_id": "msg", "enabled": True}], "spend_limits": None}, READ)
    assert changed == replace(READ, overage_allowed=(OverageAllowed("msg", True),))
    assert read({"usage_limits": []}, READ) == replace(READ, usage_limits=())
    assert read({name: [] for name in ALL}, READ) == NO_CONTROLS
    assert read({}, READ) == READ


def test_unknown_fields_are_ignored() -> None:
    assert read({"soon": 1, "overage_allowed": [{"feature_id": "msg", "enabled": True, "why": 1}]}) == Controls(
        overage_allowed=(OverageAllowed("msg", True),)
    )


@pytest.mark.parametrize(("raw", "path"), [
    ({"usage_alerts": [{"threshold": 5, "threshold_type": "usage"}]}, "usage_alerts[0].enabled"),
    ({"auto_topups": [{"feature_id": "msg", "threshold": 1, "quantity": 5, "enabled": True}]}, "auto_topups[0].enabled"),
    ({"spend_limits": [{"overage_limit": 1, "skip_overage_billing": True}]}, "spend_limits[0].skip_overage_billing"),
], ids=str)
def test_what_would_do_nothing_yet_is_refused(raw: dict[str, Any], path: str) -> None:
    with pytest.raises(ApiError) as problem:
        read(raw)
    assert (problem.value.status, problem.value.code) == (400, "not_supported")
    assert path in problem.value.message and "no effect yet" in problem.value.message


def test_what_is_left_open_is_not_shown() -> None:
    shown = controls_v2(READ)
    assert list(shown) == list(ALL)
    assert shown["spend_limits"][0] == {
        "feature_id": "msg", "enabled": True, "limit_type": "absolute", "overage_limit": Decimal("2.5"), "skip_overage_billing": False,
    }
    assert "feature_id" not in shown["spend_limits"][1] and "name" in shown["usage_alerts"][0]
    assert shown["auto_topups"][0]["purchase_limit"] == {"interval": "month", "limit": 3, "interval_count": 1}
    assert read(shown) == READ
    assert controls_v2(NO_CONTROLS) == {}


DAY = {"feature_id": "msg", "limit": 5, "interval": "day"}
ALERT = {"threshold": 5, "threshold_type": "usage", "enabled": False}
TOP_UP = {"feature_id": "msg", "threshold": 1, "quantity": 5, "enabled": False}


@pytest.mark.parametrize(("raw", "path", "word"), [
    ([], "", "object"),
    ({"spend_limits": {}}, "spend_limits", "list"),
    ({"spend_limits": [1]}, "spend_limits[0]", "object"),
    ({"spend_limits": [{"feature_id": "nope"}]}, "spend_limits[0].feature_id", "nope"),
    ({"spend_limits": [{"feature_id": "sso"}]}, "spend_limits[0].feature_id", "boolean"),
    ({"spend_limits": [{"overage_limit": -1}]}, "spend_limits[0].overage_limit", "0"),
    ({"spend_limits": [{"overage_limit": "5"}]}, "spend_limits[0].overage_limit", "number"),
    ({"spend_limits": [{"overage_limit": 2**53}]}, "spend_limits[0].overage_limit", "0 to"),
    ({"spend_limits": [{"feature_id": "msg", "overage_limit": 10**12}]}, "spend_limits[0].overage_limit", "precision"),
    ({"spend_limits": [{"limit_type": "percent"}]}, "spend_limits[0].limit_type", "usage_percentage"),
    ({"spend_limits": [{"limit_type": "usage_percentage", "overage_limit": Decimal("1.23456")}]}, "spend_limits[0].overage_limit", "4 decimal"),
    ({"spend_limits": [{"enabled": 1}]}, "spend_limits[0].enabled", "true"),
    ({"spend_limits": [{"skip_overage_billing": "no"}]}, "spend_limits[0].skip_overage_billing", "true"),
    ({"spend_limits": [{"overage_limit": 1}, {"overage_limit": 2}]}, "spend_limits[1]", "every feature"),
    ({"spend_limits": [{"feature_id": "msg"}, {"feature_id": "msg"}]}, "spend_limits[1]", "msg"),
    ({"spend_limits": [{}] * (ENTRIES_MAX + 1)}, "spend_limits", str(ENTRIES_MAX)),
    ({"usage_limits": [{"feature_id": "msg", "interval": "day"}]}, "usage_limits[0].limit", "required"),
    ({"usage_limits": [{"feature_id": "msg", "limit": 5}]}, "usage_limits[0].interval", "required"),
    ({"usage_limits": [{"limit": 5, "interval": "day"}]}, "usage_limits[0].feature_id", "required"),
    ({"usage_limits": [{**DAY, "interval": "hour"}]}, "usage_limits[0].interval", "day, week, month, year"),
    ({"usage_limits": [{**DAY, "anchor": "local"}]}, "usage_limits[0].anchor", "utc"),
    ({"usage_limits": [{**DAY, "limit": -1}]}, "usage_limits[0].limit", "0 or more"),
    ({"usage_limits": [DAY, {**DAY, "limit": 6, "anchor": "billing_cycle"}]}, "usage_limits[1]", "msg day"),
    ({"overage_allowed": [{"enabled": True}]}, "overage_allowed[0].feature_id", "required"),
    ({"overage_allowed": [{"feature_id": "msg"}, {"feature_id": "msg", "enabled": False}]}, "overage_allowed[1]", "msg"),
    ({"usage_alerts": [{"threshold": 5}]}, "usage_alerts[0].threshold_type", "required"),
    ({"usage_alerts": [{**ALERT, "threshold_type": "cost"}]}, "usage_alerts[0].threshold_type", "remaining"),
    ({"usage_alerts": [{"threshold": 101, "threshold_type": "remaining_percentage"}]}, "usage_alerts[0].threshold", "100"),
    ({"usage_alerts": [ALERT, ALERT]}, "usage_alerts[1]", "another"),
    ({"auto_topups": [{**TOP_UP, "quantity": 0}]}, "auto_topups[0].quantity", "more than 0"),
    ({"auto_topups": [{"feature_id": "msg"}]}, "auto_topups[0].threshold", "required"),
    ({"auto_topups": [{**TOP_UP, "purchase_limit": {"interval": "month"}}]}, "auto_topups[0].purchase_limit.limit", "required"),
    ({"auto_topups": [{**TOP_UP, "purchase_limit": {"interval": "x", "limit": 1}}]}, "auto_topups[0].purchase_limit.interval", "month"),
    ({"auto_topups": [TOP_UP, TOP_UP]}, "auto_topups[1]", "msg"),
])
def test_what_is_wrong_is_refused_with_its_path(raw: Any, path: str, word: str) -> None:
    message = refused(raw, path="customer_data")
    where = "customer_data.billing_controls" + (f".{path}" if path else "")
    assert f"{where}: " in message and word in message, message


def test_one_list_may_have_several_windows_of_a_feature() -> None:
    several = [DAY, {**DAY, "interval": "month"}, {**DAY, "anchor": "utc"}, {**DAY, "feature_id": "credits"}]
    assert len(read({"usage_limits": several}).usage_limits) == 4


def test_top_ups_are_not_of_entities() -> None:
    assert "billing_controls.auto_topups" in refused({"auto_topups": [TOP_UP]}, of_entity=True)
    assert read({"auto_topups": []}, of_entity=True) == NO_CONTROLS


def test_quantities_are_rounded_to_the_features_precision() -> None:
    given = {"usage_limits": [{"feature_id": "whole", "limit": Decimal("2.5"), "interval": "day"}]}
    assert read(given).usage_limits[0].limit == 3


# --- plans: files, SQL, versions

YAML = """
features:
  - {id: msg, name: Messages, type: single_use}
plans:
  - id: pro
    name: Pro
    items:
      - feature_id: msg
        included_usage: 100
        interval: month
        rollover: {max_percentage: 12.5, length: 3}
    billing_controls:
      spend_limits:
        - {feature_id: msg, overage_limit: 2.5}
      usage_limits:
        - feature_id: msg
          limit: 5
          interval: day
"""
PYTHON = """
from sidecar.catalog.builders import feature, feature_item, product
msg = feature(id="msg", name="Messages", type="single_use")
pro = product(
    id="pro", name="Pro",
    items=[feature_item(feature_id=msg, included_usage=100, interval="month", rollover={"max_percentage": 12.5, "length": 3})],
    billing_controls={
        "spend_limits": [{"feature_id": msg, "overage_limit": 2.5}],
        "usage_limits": [{"feature_id": msg, "limit": 5, "interval": "day"}],
    },
)
"""
OF_FILE = Controls(
    spend_limits=(SpendLimit("msg", overage_limit=Decimal("2.5")),),
    usage_limits=(UsageLimit("msg", True, Decimal(5), "day"),),
)


@pytest.fixture(params=["yaml", "py"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"catalog.{request.param}"
    path.write_text(YAML if request.param == "yaml" else PYTHON)
    return path


def test_a_file_may_have_controls_and_rollovers(file: Path) -> None:
    [plan] = load_catalog(file).plans
    assert plan.controls == OF_FILE
    assert plan.items[0].rollover is not None and plan.items[0].rollover.max_percentage == Decimal("12.5")


@pytest.mark.parametrize(("old", "new", "path", "line"), [
    ("overage_limit: 2.5", "overage_limit: 2.5, cap: 1", "plans.pro.billing_controls.spend_limits[0].cap", 14),
    ("interval: day", "interval: hour", "plans.pro.billing_controls.usage_limits[0].interval", 18),
    ("spend_limits:", "spending:", "plans.pro.billing_controls.spending", 13),
    ("length: 3", "length: 32", "plans.pro.items[0].rollover.length", 11),
    ("length: 3", "lenght: 3", "plans.pro.items[0].rollover.lenght", 11),
])
def test_what_is_wrong_in_a_file_is_told_with_its_line(tmp_path: Path, old: str, new: str, path: str, line: int) -> None:
    (tmp_path / "c.yaml").write_text(YAML.replace(old, new))
    with pytest.raises(CatalogFileError) as problem:
        load_catalog(tmp_path / "c.yaml")
    assert [(found.path, found.line) for found in problem.value.problems] == [(path, line)]


def test_pushed_again_nothing_changes(store: Store, file: Path) -> None:
    loaded = load_catalog(file)
    push.apply(store, loaded)
    assert push.plan_push(store, loaded).is_empty
    [stored] = store.read_sync(repository.plans)
    assert stored.controls == OF_FILE and stored == loaded.plans[0]


def test_a_difference_names_each_field(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(YAML)
    push.apply(store, load_catalog(path))
    path.write_text(YAML.replace("limit: 5", "limit: 6").replace("length: 3", "length: 4"))
    [change] = [c for c in push.plan_push(store, load_catalog(path)).changes if c.action == "changed"]
    assert {tuple(field) for field in change.fields} == {
        ("billing_controls.usage_limits[0].limit", "5", "6"), ("items[0].rollover.length", "3", "4"),
    }
    path.write_text(YAML.partition("    billing_controls")[0])
    [change] = [c for c in push.plan_push(store, load_catalog(path)).changes if c.action == "changed"]
    assert ("billing_controls.spend_limits[0].overage_limit", "2.5", "none") in {tuple(field) for field in change.fields}


def test_new_controls_of_a_plan_that_is_held_make_a_version(store: Store) -> None:
    old = plan_of(billing_controls=ALL)

    def write(conn: Any) -> tuple[bool, bool]:
        stored = repository.insert_plan(conn, old, 1)
        new = replace(stored, controls=NO_CONTROLS)
        before = repository.will_version(conn, stored, new, 2)
        conn.execute(tables.customer_plans.insert().values(
            cid=1, plan_uid=stored.uid, plan_id="p", status="active", options={}, started_at=1, anchor=1
        ))
        return before, repository.will_version(conn, stored, new, 2)

    assert store.write_sync(write) == (False, True)


def test_a_feature_is_used_by_a_plan_whose_controls_name_it() -> None:
    plan = plan_of(billing_controls={"overage_allowed": [{"feature_id": "msg", "enabled": True}]})
    assert plan.names("msg") and not plan.names("whole")
