"""The names of what lies in a data folder, for those who write it and those who look for it.

Standard library only, and nothing of the project: the smallest processes use it, too.
"""

from __future__ import annotations

from pathlib import Path

SOCKET_PATH_BYTES_MAX = 100
"""Unix socket paths end at 104 (macOS) or 108 (Linux) bytes, the closing zero included."""


def lock(data_dir: Path) -> Path:
    """Held by every process of the sidecar that runs on the folder."""
    return data_dir / "lock"


def secret_key(data_dir: Path) -> Path:
    """The key that a sidecar without configured keys made."""
    return data_dir / "secret_key"


def database(data_dir: Path) -> Path:
    """The SQLite file."""
    return data_dir / "sidecar.db"


def valkey(data_dir: Path) -> Path:
    """The folder of the embedded Valkey."""
    return data_dir / "valkey"


def valkey_socket_pointer(data_dir: Path) -> Path:
    """The file that holds the address of the embedded Valkey's socket while it runs."""
    return valkey(data_dir) / "socket"
