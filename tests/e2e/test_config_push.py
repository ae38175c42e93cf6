"""`atmn push` of an `autumn.config.ts`, as its users run it. This CLI speaks to port 8080 only."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any, Iterator

import httpx
import pytest

from tests.run.harness import Sidecar

from . import install
from .client import KEY

PORT = 8080
PUSH_TIMEOUT_S = 60


@pytest.fixture
def empty() -> Iterator[Sidecar]:
    """A sidecar without a catalog on the port that atmn knows."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", PORT))
        except OSError as error:
            pytest.skip(f"port {PORT}, the only local one atmn 0.0.36 can be pointed at, is taken: {error}")
    with tempfile.TemporaryDirectory(prefix="sc-", dir="/tmp") as folder:
        settings = {"SIDECAR_SECRET_KEYS": KEY, "SIDECAR_PARTITIONS": "8"}
        running = Sidecar(Path(folder) / "d", port=PORT, settings=settings)
        running.start()
        try:
            yield running
        finally:
            running.stop()
            running.destroy()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the configuration and what atmn wants beside it."""
    shutil.copy(install.CLIENTS / "autumn.config.ts", tmp_path)
    shutil.copy(install.CLIENTS / "package.json", tmp_path)
    (tmp_path / "node_modules").symlink_to(install.javascript() / "node_modules")
    return tmp_path


def push(project: Path) -> str:
    """Runs `npx atmn -l push -y`, without npx; what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [str(project / "node_modules" / ".bin" / "atmn"), "-l", "push", "-y"],
        cwd=project, env=environment | {"AUTUMN_SECRET_KEY": KEY}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=PUSH_TIMEOUT_S,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert "error" not in printed.lower() and "failed" not in printed.lower(), printed
    return printed


def catalog(sidecar: Sidecar) -> dict[str, Any]:
    """All features and products as the API lists them, archived ones too, by id."""
    found = {}
    for kind in ("features", "products"):
        answer = httpx.get(
            f"{sidecar.url}/v1/{kind}", params={"include_archived": "true"}, headers={"Authorization": f"Bearer {KEY}"}
        )
        assert answer.status_code == 200, answer.text
        found[kind] = {entry["id"]: entry for entry in json.loads(answer.text, parse_float=Decimal)["list"]}
    return found


def item(product: dict[str, Any], feature_id: str | None) -> dict[str, Any]:
    """The one item of a product for a feature, or its price item."""
    [found] = [entry for entry in product["items"] if entry["feature_id"] == feature_id]
    return found


def test_pushing_twice(empty: Sidecar, project: Path) -> None:
    """The first push makes the catalog, the second changes nothing, not a version, not a time."""
    push(project)
    first = catalog(empty)
    assert {id_: feature["type"] for id_, feature in first["features"].items()} == {
        "messages": "single_use", "notifications": "single_use", "basic_messages": "single_use",
        "premium_messages": "single_use", "seats": "continuous_use", "sso": "boolean", "usd_credits": "credit_system",
    }
    schema = {entry["metered_feature_id"]: entry["credit_cost"] for entry in first["features"]["usd_credits"]["credit_schema"]}
    assert schema == {"basic_messages": Decimal("0.01"), "premium_messages": Decimal("0.1")}

    products = first["products"]
    assert {id_: (product["version"], product["is_default"]) for id_, product in products.items()} == {
        "free": (1, True), "pro": (1, False), "pay_as_you_go": (1, False), "top_up": (1, False)
    }
    grant = item(products["free"], "messages")
    assert (grant["included_usage"], grant["interval"], grant["price"]) == (10, "month", None)
    assert (item(products["free"], "seats")["included_usage"], item(products["free"], "seats")["interval"]) == (3, None)
    assert item(products["free"], "sso")["feature_type"] in ("boolean", "static")
    assert (item(products["pro"], None)["price"], item(products["pro"], None)["interval"]) == (10, "month")
    payg = item(products["pay_as_you_go"], "notifications")
    assert (payg["included_usage"], payg["price"], payg["billing_units"], payg["usage_model"]) == (1000, 1, 1000, "pay_per_use")
    assert payg["reset_usage_when_enabled"] is False
    package = item(products["top_up"], "messages")
    assert (package["price"], package["billing_units"], package["usage_model"], package["interval"]) == (10, 100, "prepaid", None)

    push(project)
    assert catalog(empty) == first


def test_what_was_pushed_is_sold(empty: Sidecar, project: Path) -> None:
    """A changed configuration makes a new version of the one changed product, and grants by it."""
    push(project)
    config = project / "autumn.config.ts"
    changed = config.read_text().replace("included_usage: 10, interval", "included_usage: 12, interval", 1)
    assert changed != config.read_text()
    before = catalog(empty)
    answer = httpx.post(
        f"{empty.url}/v1/check", json={"customer_id": "early", "feature_id": "messages"}, headers={"Authorization": f"Bearer {KEY}"}
    )
    assert answer.json()["balance"] == 10
    config.write_text(changed)
    push(project)
    after = catalog(empty)
    assert after["features"] == before["features"]
    assert {id_: product["version"] for id_, product in after["products"].items()} == {
        "free": 2, "pro": 1, "pay_as_you_go": 1, "top_up": 1
    }
    for customer_id, balance in (("early", 10), ("late", 12)):
        answer = httpx.post(
            f"{empty.url}/v1/check", json={"customer_id": customer_id, "feature_id": "messages"},
            headers={"Authorization": f"Bearer {KEY}"},
        )
        assert answer.json()["balance"] == balance, "customers keep the version they hold"
