"""A window of load on one address, by wrk where it is installed, else by the generator in Python."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Sequence

from . import wrk
from .histogram import Histogram
from .processes import cpu_s, running

WARM_UP_S = 0.5
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)


@dataclass(frozen=True)
class Generated:
    """A window by the generator in Python: calls answered, warm-up included; and of the window itself the
    rate, the latencies, and how late it sent what was due (open loops only)."""

    answered: int
    requests_per_s: float
    latencies: Histogram
    late: Histogram


def generator_name(python: bool = False) -> str:
    """What drives closed loops here, for the reader of a table."""
    return "wrk" if wrk.there() and not python else "the generator in Python"


def measure(
    address: str, requests: Sequence[bytes], connections: int, seconds: float, pids: Sequence[int] = (),
    threads: int = 1, python: bool = False,
) -> dict[str, Any]:
    """One window of a closed loop: {"calls", "requests_per_s", "percentiles_us", "cpu_us_per_call"}, the last being
    the processor time of `pids` a call, and the first all that were answered. Raises RuntimeError if any call went wrong."""
    before_s = cpu_s(pids)
    if wrk.there() and not python:
        found = wrk.run(address, requests, connections, seconds, threads)
        answered, per_s, percentiles = found["count"], found["count"] / found["duration_us"] * 1e6, found["percentiles_us"]
    else:
        made = generate(address, requests, connections, seconds, 0, threads)
        answered, per_s, percentiles = made.answered, made.requests_per_s, percentiles_us(made.latencies)
    return {
        "calls": answered, "requests_per_s": round(per_s, 1), "percentiles_us": percentiles,
        "cpu_us_per_call": round((cpu_s(pids) - before_s) / answered * 1e6, 1),
    }


def percentiles_us(latencies: Histogram) -> dict[str, float]:
    """The percentiles that windows keep, by their names."""
    return {f"{percent:g}": latencies.percentile_us(percent / 100) for percent in PERCENTILES}


def generate(
    address: str, requests: Sequence[bytes], connections: int, seconds: float, rate_per_s: float = 0, processes: int = 1
) -> Generated:
    """A window by the generator in Python, at a rate or (0) in a closed loop. Raises RuntimeError if any
    call went wrong."""
    processes = min(processes, connections)
    jobs = [
        {
            "address": address, "connections": connections // processes, "warm_up_s": WARM_UP_S, "seconds": seconds,
            "requests": [request.decode("latin-1") for request in requests], "rate_per_s": rate_per_s / processes,
            "offset": number * len(requests) // processes,
        }
        for number in range(processes)
    ]
    outputs = _drive(jobs)
    return Generated(
        answered=sum(output["answered"] for output in outputs),
        requests_per_s=sum(count for output in outputs for _, count in output["latencies"]) / seconds,
        latencies=Histogram.merged(output["latencies"] for output in outputs),
        late=Histogram.merged(output["late"] for output in outputs),
    )


def _drive(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a generator for each job prints, all begun together."""
    command = [sys.executable, "-m", "loadtests.generator"]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    with contextlib.ExitStack() as stack:
        generators = [stack.enter_context(running(command, **pipes)) for _ in jobs]
        for job, generator in zip(jobs, generators):
            assert generator.stdin is not None
            generator.stdin.write(json.dumps(job).encode() + b"\n")
            generator.stdin.flush()
        for generator in generators:
            assert generator.stdout is not None
            generator.stdout.readline()  # it has connected, or ended
        for generator in generators:
            assert generator.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                generator.stdin.write(b"\n")
                generator.stdin.flush()
        return [_output(job, generator) for job, generator in zip(jobs, generators)]


def _output(job: dict[str, Any], generator: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, problem = generator.communicate(timeout=job["seconds"] + 60)
    if generator.returncode != 0:
        raise RuntimeError(f"the generator on {job['address']}: {problem.decode()}")
    return dict(json.loads(out))
