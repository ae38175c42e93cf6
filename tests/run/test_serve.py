"""`sidecar serve`: start, stop, and every refusal in words."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable
from urllib.request import Request, urlopen

import pytest

from sidecar.run import lock

from .harness import Sidecar, command, environment, wait_for


def test_stop_leaves_nothing_behind(sidecar: Sidecar) -> None:
    """By each signal, and what it leaves serves again."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        sidecar.start()
        assert sidecar.answers(), number
        assert {p.role for p in sidecar.processes()} == {"parent", "watch", "valkey", "http", "sync"}
        assert sidecar.stop(number) == 0, sidecar.output
        assert sidecar.processes() == [], number
        assert not (sidecar.data_dir / "valkey" / "redis.sock").exists()


def test_kill_int_ends_one_that_a_shell_started_in_the_background(sidecar: Sidecar) -> None:
    """Shells without job control start `sidecar serve &` with SIGINT ignored, and `nohup` does so with
    SIGHUP: the first is an order all the same, the second stays ignored."""
    sidecar.launch(ignored=[signal.SIGINT, signal.SIGHUP])
    sidecar.wait_until_started()
    with pytest.raises(subprocess.TimeoutExpired):
        sidecar.stop(signal.SIGHUP, timeout_s=0.5)
    assert sidecar.stop(signal.SIGINT) == 0, sidecar.output
    assert sidecar.processes() == []


def test_every_address_of_ipv6_and_ipv4(sidecar: Sidecar) -> None:
    """`--host ::` is also 127.0.0.1, and the printed curl line names an address that can be called."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            sidecar.settings["SIDECAR_HOST"] = "127.0.0.1"  # a machine without IPv6 shows the rest
        else:
            sidecar.settings["SIDECAR_HOST"] = "::"
    sidecar.settings["SIDECAR_SECRET_KEYS"] = "am_sk_1"
    sidecar.start()
    assert sidecar.answers()
    assert re.search(r"curl -s http://(\[::1\]|127\.0\.0\.1):", sidecar.output)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder.write_text(""), "File exists"),
        (lambda folder: (folder / "secret_key").mkdir(parents=True), "secret_key: Is a directory"),
        (lambda folder: (folder.mkdir(), (folder / "secret_key").write_bytes(b"\xff")), "does not hold a key"),
        (lambda folder: (folder.mkdir(), (folder / "valkey").write_text("")), "valkey: File exists"),
        (lambda folder: (folder / "lock").mkdir(parents=True), "Is a directory"),
        (lambda folder: (folder / "sidecar.db").mkdir(parents=True), "unable to open database file"),
    ],
    ids=["a file", "key a folder", "key no text", "valkey a file", "lock a folder", "database a folder"],
)
def test_a_data_folder_that_cannot_be_used_is_refused(
    sidecar: Sidecar, tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    make(sidecar.data_dir)
    done = command("serve", cwd=tmp_path, settings=sidecar.settings)
    assert done.returncode == 1 and said in done.stderr and str(sidecar.data_dir) in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and sidecar.processes() == []


def test_a_disk_that_takes_nothing_is_named(sidecar: Sidecar, tmp_path: Path) -> None:
    """By a limit of 0 bytes a file, which fails as a full disk does."""
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 0; exec {shlex.quote(sys.executable)} -P -m sidecar serve"], cwd=tmp_path,
        env=environment(sidecar.settings), capture_output=True, text=True, timeout=30, restore_signals=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"sidecar: cannot write to the data folder {sidecar.data_dir}: File too large\n"
    sidecar.start()
    assert sidecar.answers()


def test_everything_is_below_the_data_folder_and_private_and_the_curl_line_works(sidecar: Sidecar) -> None:
    sidecar.start()
    assert [path.name for path in sidecar.data_dir.parent.iterdir() if path != sidecar.log] == ["data"]
    for name in ["", "valkey", "secret_key", "valkey/redis.sock"]:
        assert stat.S_IMODE((sidecar.data_dir / name).stat().st_mode) & 0o077 == 0, name
    line = re.search(r"^  try +(curl .*)$", sidecar.output, re.MULTILINE)
    assert line, sidecar.output
    done = subprocess.run([*shlex.split(line[1]), "-w", "\n%{http_code}"], capture_output=True, text=True, timeout=20)
    assert done.stdout.splitlines()[-1] == "200", done.stdout


def test_the_own_key_is_kept_and_a_given_one_is_used(sidecar: Sidecar) -> None:
    sidecar.start()
    own = sidecar.key
    assert own.startswith("am_sk_test_") and (sidecar.data_dir / "secret_key").read_text().strip() == own
    sidecar.stop()
    sidecar.settings["SIDECAR_SECRET_KEYS"] = "am_sk_42424242,am_pk_test_1"
    sidecar.start()
    assert sidecar.key == "am_sk_42424242"


def test_a_live_key_is_never_printed(sidecar: Sidecar) -> None:
    sidecar.settings["SIDECAR_SECRET_KEYS"] = "am_sk_live_deadbeefdeadbeef"
    sidecar.start()
    assert "deadbeef" not in sidecar.output


def test_two_workers_share_one_port(sidecar: Sidecar) -> None:
    sidecar.start("--workers", "2")
    assert len(sidecar.processes("http")) == 2
    assert sidecar.answers()
    header = {"Authorization": f"Bearer {sidecar.key}", "Content-Type": "application/json"}

    def asked(path: str, body: dict[str, str] | None = None) -> str:
        """The answer on a connection of its own, so that either worker takes some."""
        with urlopen(Request(sidecar.url + path, body and json.dumps(body).encode(), header), timeout=10) as answer:
            return str(answer.read().decode())

    asked("/v1/features", {"id": "msg", "name": "Messages", "type": "single_use"})
    for _ in range(40):
        asked("/v1/check", {"customer_id": "c", "feature_id": "msg"})

    def told() -> float:
        (count,) = re.findall(r'^sidecar_request_seconds_count\{verb="check"\} (.*)$', asked("/metrics"), re.M)
        return float(count)

    wait_for("each worker to tell of both", lambda: [told() for _ in range(10)] == [40.0] * 10)
    assert sidecar.stop() == 0
    assert sidecar.processes() == []


def test_unix_socket_beside_tcp(sidecar: Sidecar, tmp_path: Path) -> None:
    """Also after a kill, which leaves the socket's file."""
    path = tmp_path / "s"
    for _ in range(2):
        sidecar.start("--uds", str(path))
        assert sidecar.answers()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(path))
            sock.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        for process in sidecar.processes():
            process.kill()
        assert sidecar.process is not None
        sidecar.process.wait(5)
        assert path.exists()
    sidecar.start("--uds", str(path))
    sidecar.stop()
    assert not path.exists()


def test_a_call_in_flight_is_finished(sidecar: Sidecar) -> None:
    """A request whose body is still arriving when SIGTERM comes gets its answer."""
    sidecar.start()
    with socket.create_connection(("127.0.0.1", sidecar.port), 10) as sock:
        sock.settimeout(10)
        body = b'{"id": "ada"}'
        sock.sendall(
            b"POST /v1/customers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            + f"Authorization: Bearer {sidecar.key}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[:5]
        )
        time.sleep(0.3)  # so that the worker has the head: nothing tells when
        stopping = threading.Thread(target=sidecar.stop)
        stopping.start()
        time.sleep(0.3)
        sock.sendall(body[5:])
        assert sock.recv(4000).startswith(b"HTTP/1.1 200"), sidecar.output
        stopping.join(20)
    assert sidecar.processes() == []


def test_a_second_signal_is_quicker(sidecar: Sidecar) -> None:
    """A call that never ends holds a stop up for shutdown_timeout_s, and a second Ctrl-C ends it."""
    sidecar.settings["SIDECAR_SHUTDOWN_TIMEOUT_S"] = "60"
    sidecar.start()
    with socket.create_connection(("127.0.0.1", sidecar.port), 10) as sock:
        sock.sendall(b"POST /v1/customers HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
                     + f"Authorization: Bearer {sidecar.key}\r\n\r\n{{".encode())
        time.sleep(0.3)
        assert sidecar.process is not None
        sidecar.process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            sidecar.process.wait(1.5)
        assert sidecar.processes("http")
        sidecar.process.send_signal(signal.SIGINT)
        assert sidecar.process.wait(8) == 0
    assert sidecar.processes() == []


def test_a_second_serve_on_the_folder_is_refused(sidecar: Sidecar, tmp_path: Path) -> None:
    sidecar.start()
    second = command("serve", "--port", "0", "--data-dir", str(sidecar.data_dir), cwd=tmp_path)
    assert second.returncode == 1
    assert f"a sidecar (process {sidecar.one('parent').pid}) already runs on {sidecar.data_dir}" in second.stderr
    assert "--data-dir" in second.stderr and "Traceback" not in second.stderr
    assert sidecar.answers()


def test_serve_is_refused_while_an_orphan_still_writes(sidecar: Sidecar, tmp_path: Path) -> None:
    """A Valkey on the folder that nobody ends any more, with the lock it inherited."""
    sidecar.start()
    program = os.readlink(f"/proc/{sidecar.one('valkey').pid}/exe")
    config = (sidecar.data_dir / "valkey" / "valkey.conf").read_text()
    sidecar.stop()
    (sidecar.data_dir / "valkey" / "valkey.conf").write_text(config)
    lock_fd = lock.take(sidecar.data_dir)
    orphan = subprocess.Popen([program, sidecar.data_dir / "valkey" / "valkey.conf"], pass_fds=[lock_fd])
    os.ftruncate(lock_fd, 0)  # the process that took it is gone
    os.close(lock_fd)
    began_at = time.monotonic()
    second = command("serve", "--port", "0", "--data-dir", str(sidecar.data_dir), cwd=tmp_path)
    assert second.returncode == 1
    assert "processes of an earlier sidecar still hold" in second.stderr
    assert time.monotonic() - began_at < lock.WAIT_S + 2
    orphan.kill()
    orphan.wait()
    sidecar.start()
    assert sidecar.answers()


@pytest.mark.parametrize("reuse", [False, True], ids=["plain", "reuse_port"])
def test_a_port_in_use_is_refused(sidecar: Sidecar, tmp_path: Path, reuse: bool) -> None:
    """Also by a listener that would share it."""
    with socket.socket() as other:
        if reuse:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", sidecar.port))
        other.listen()
        done = command("serve", cwd=tmp_path, settings=sidecar.settings)
    assert done.returncode == 1
    assert f"port {sidecar.port} on 127.0.0.1 is in use" in done.stderr and "--port" in done.stderr
    assert sidecar.processes() == []
    sidecar.start()


def test_a_unix_socket_in_use_is_refused(sidecar: Sidecar, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        done = command("serve", "--uds", str(path), cwd=tmp_path, settings=sidecar.settings)
    assert done.returncode == 1 and "is in use" in done.stderr
    path.unlink()
    path.write_text("mine")
    done = command("serve", "--uds", str(path), cwd=tmp_path, settings=sidecar.settings)
    assert done.returncode == 1 and "is not a socket" in done.stderr
    assert path.read_text() == "mine"


def test_a_stop_while_starting_leaves_nothing_behind(sidecar: Sidecar) -> None:
    for role in ["http", "valkey", "sync"]:
        sidecar.launch()
        wait_for(role, lambda: sidecar.processes(role))
        assert sidecar.stop() == 0, sidecar.output
        assert sidecar.processes() == []


def test_files_of_the_folder_one_stands_in_are_not_imported(sidecar: Sidecar) -> None:
    """`sync` and `redis` are also names of other people's folders."""
    for name in ["sync", "redis", "sidecar"]:
        folder = sidecar.data_dir.parent / name
        folder.mkdir()
        (folder / "__init__.py").write_text("raise SystemExit('wrong module')")
    sidecar.start()
    assert sidecar.answers() and sidecar.processes("sync")
    assert "wrong module" not in sidecar.output
