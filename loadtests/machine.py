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


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {"cores": os.cpu_count(), "cpu": model, "python": platform.python_version(), "kernel": platform.release()}


def subject() -> dict[str, str]:
    """What was measured, and when: version, commit ("+" behind it where files differ from it), date."""
    return {
        "version": sidecar.__version__, "commit": _git("describe", "--always", "--dirty=+", "--exclude=*"),
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10)
    except OSError:
        return ""
    return done.stdout.strip()
