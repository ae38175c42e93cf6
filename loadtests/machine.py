"""What a measurement ran on, and what was measured."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import sidecar

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
MEASURED = ("sidecar", "sync", "lua")


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {"cores": os.cpu_count(), "cpu": model, "python": platform.python_version(), "kernel": platform.release()}


def subject() -> dict[str, str]:
    """What was measured, and when: version, commit ("+" behind it where the sidecar's files differ from it), date."""
    changed = "+" if _git("status", "--porcelain", "--", *MEASURED) else ""
    return {
        "version": sidecar.__version__, "commit": _git("rev-parse", "--short", "HEAD") + changed,
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def load_averages() -> list[float]:
    """How busy the machine is: over one, five and fifteen minutes."""
    return [round(average, 1) for average in os.getloadavg()]


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10)
    except OSError:
        return ""
    return done.stdout.strip()
