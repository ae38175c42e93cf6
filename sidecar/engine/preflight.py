"""What a Redis server must be to keep balances: looked at on every new connection."""

from __future__ import annotations

from typing import Mapping

VERSION_MIN = {"redis": (7, 0), "valkey": (7, 2)}


def problems(info: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """What is wrong with a server, from its `INFO server memory persistence replication`: reasons
    to refuse it, and reasons to warn."""
    refuse, warn = [], []
    kind = "valkey" if "valkey_version" in info else "redis"
    version = tuple(int(part) for part in info.get(f"{kind}_version", "0").split(".")[:2])
    if version < VERSION_MIN[kind]:
        refuse.append(f"it is {kind} {'.'.join(map(str, version))}; use Redis 7.0 or Valkey 8.0 and later")
    if info.get("role") != "master":
        refuse.append("it is a read-only replica; connect to the primary")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and info.get("maxmemory", "0") != "0":
        refuse.append(f"maxmemory-policy is {policy}, which drops balances; set it to noeviction")
    if info.get("loading") == "1":
        refuse.append("it is still loading its data; try again in a moment")
    if info.get("aof_enabled") != "1":
        warn.append("appendonly is off: a crash loses what was not yet synced to SQL; set appendonly yes")
    return refuse, warn


def parse(info: bytes) -> dict[str, str]:
    """The fields of an INFO reply."""
    lines = (line.split(b":", 1) for line in info.splitlines() if b":" in line)
    return {name.decode(): value.strip().decode() for name, value in lines}
