"""`sidecar explain` beside a running sidecar: the tables, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import Request, urlopen

from .harness import REPOSITORY, Sidecar, command

EXAMPLE = str(REPOSITORY / "docs" / "examples" / "chat.py")


def call(sidecar: Sidecar, path: str, body: dict[str, object]) -> dict[str, object]:
    headers = {"Authorization": f"Bearer {sidecar.key}", "Content-Type": "application/json"}
    with urlopen(Request(f"{sidecar.url}/v1/{path}", json.dumps(body).encode(), headers), timeout=10) as answer:
        return dict(json.load(answer))


def test_who_pays_and_what_changed(sidecar: Sidecar, tmp_path: Path) -> None:
    sidecar.start("--catalog", EXAMPLE)
    call(sidecar, "customers", {"id": "ada"})
    event = call(sidecar, "track", {"customer_id": "ada", "feature_id": "messages", "value": 3})["id"]
    folder = ("--data-dir", str(sidecar.data_dir))
    told = command("explain", "ada", "messages", *folder, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("messages of ada at ") and "One more is allowed: yes" in told.stdout
    assert "Buckets, in spending order" in told.stdout and "bkt_1" in told.stdout
    sidecar.stop()
    alone = command("explain", "ada", "messages", *folder, cwd=tmp_path)
    assert str(event) in alone.stdout and "bkt_1 -3 messages" in alone.stdout, alone.stderr
    for names, message in ((("bob", "messages"), "customer 'bob' was not found"), (("ada", "nothing"), "feature 'nothing'")):
        refused = command("explain", *names, *folder, cwd=tmp_path)
        assert refused.returncode == 1 and message in refused.stderr and "Traceback" not in refused.stderr
    nowhere = command("explain", "ada", "messages", "--data-dir", str(tmp_path / "none"), cwd=tmp_path)
    assert nowhere.returncode == 1 and "there is no database" in nowhere.stderr
