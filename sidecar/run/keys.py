"""The key that a sidecar without configured keys makes for itself."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from .. import folder
from ..settings import Settings
from .errors import RunError


def with_key(settings: Settings) -> Settings:
    """The settings with at least one key: the configured ones, or the data folder's own, which is
    made (readable by its owner only) the first time.

    Needs the folder's lock. Raises RunError if the file holds something else."""
    if settings.secret_keys:
        return settings
    return settings.model_copy(update={"secret_keys": (_own_key(folder.secret_key(settings.data_dir)),)})


def _own_key(path: Path) -> str:
    try:
        key = path.read_text().strip()
    except FileNotFoundError:
        key = "am_sk_test_" + secrets.token_urlsafe(24)
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w") as file:
            file.write(key + "\n")
        temporary.rename(path)  # whole or absent, whenever this is killed
    except UnicodeDecodeError:
        key = ""
    if not key.startswith("am_sk_test_"):
        raise RunError(f"{path} does not hold a key that sidecar made; remove it, or set SIDECAR_SECRET_KEYS")
    return key
