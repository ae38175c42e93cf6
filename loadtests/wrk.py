"""A closed loop driven by `wrk`, which costs so little itself that the server is what is measured.

It needs Debian's package `wrk`; `load.measure` takes the generator in Python where there is none. Note
that wrk puts the waits into its latencies that a stall would have meant for calls not sent (it corrects
for what closed loops hide), for all that is measured alike.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Sequence

SCRIPT = Path(__file__).with_name("wrk.lua")
MARK = "RESULT "


def there() -> bool:
    """Whether wrk is installed."""
    return shutil.which("wrk") is not None


def run(address: str, requests: Sequence[bytes], connections: int, seconds: float, threads: int = 1) -> dict[str, Any]:
    """One window; {"count", "duration_us", "percentiles_us"}. Raises RuntimeError if any call went wrong."""
    whole_s = max(1, math.ceil(seconds))  # wrk knows no parts of a second
    with tempfile.NamedTemporaryFile(prefix="wrk-") as file:
        for request in requests:
            file.write(b"%d\n%b" % (len(request), request))
        file.flush()
        command = [
            "wrk", f"-t{min(threads, connections)}", f"-c{connections}", f"-d{whole_s}s", "-s", str(SCRIPT),
            f"http://{address}", "--", file.name,
        ]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=whole_s + 60)
    found = done.stdout.partition(MARK)[2]
    if done.returncode != 0 or not found:
        raise RuntimeError(f"wrk on {address}: {done.stdout}{done.stderr}")
    window: dict[str, Any] = json.loads(found)
    failed = {kind: count for kind, count in window.pop("failed").items() if count}
    if failed or not window["count"]:
        raise RuntimeError(f"wrk on {address}: {window['count']} calls, failed: {failed}")
    return window
