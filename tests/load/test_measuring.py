"""What measures can be trusted: it fails on wrong answers, counts every call, waits for what is due, and
puts its tables where they belong.
"""

from __future__ import annotations

import asyncio
import threading
from types import ModuleType
from typing import Any, Iterator

import pytest

from loadtests import load, publish, report, spread, wrk
from loadtests.calls import request
from loadtests.histogram import Histogram
from loadtests.parts import Goal

CALLS = [request("/v1/track", b'{"customer_id":"%d"}' % number) for number in range(20)]
FAILING = b'{"customer_id":"7"}'


class Server:
    """Answers every request, after `pause_s` each, and one at a time; that of customer 7 with `seventh`."""

    def __init__(self) -> None:
        self.pause_s = 0.0
        self.seventh = b"200 OK"
        self.answered = 0
        self._turn = asyncio.Lock()
        self.address = ""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                async with self._turn:
                    await asyncio.sleep(self.pause_s)
                status = self.seventh if body == FAILING else b"202 Accepted"
                self.answered += 1
                writer.write(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\n{}" % status)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            pass  # the client has closed it
        finally:
            writer.close()
            await writer.wait_closed()


@pytest.fixture
def server() -> Iterator[Server]:
    """A running one."""
    loop, made = asyncio.new_event_loop(), Server()
    listening = loop.run_until_complete(asyncio.start_server(made.talk, "127.0.0.1", 0))
    made.address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield made

    async def end() -> None:
        """Not before every connection, which its client has closed by now, is closed here too."""
        listening.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.gather(*others, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(end(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.mark.parametrize("rate_per_s", [0, 500], ids=["closed", "open"])
def test_the_generator_fails_on_a_refusal(server: Server, rate_per_s: float) -> None:
    """One of twenty customers is refused."""
    assert load.generate(server.address, CALLS, 4, 0.3, rate_per_s).latencies.count > 0
    server.seventh = b"503 Service Unavailable"
    with pytest.raises(RuntimeError, match="not a 2xx"):
        load.generate(server.address, CALLS, 4, 0.3, rate_per_s)


@pytest.mark.skipif(not wrk.there(), reason="wrk is not installed")
def test_wrk_fails_on_a_refusal(server: Server) -> None:
    """As the generator."""
    assert wrk.run(server.address, CALLS, 4, 1)["count"] > 0
    server.seventh = b"503 Service Unavailable"
    with pytest.raises(RuntimeError, match="'status'"):
        wrk.run(server.address, CALLS, 4, 1)


def test_every_answer_is_counted(server: Server) -> None:
    """Two generators of three connections each: what they counted is what was answered."""
    made = load.generate(server.address, CALLS, 6, 0.3, processes=2)
    assert made.answered == server.answered > made.latencies.count > 0


def test_at_a_fixed_rate_calls_come_whatever_the_answers_do(server: Server) -> None:
    """A server that can take a quarter of what comes: every call that was due in the window is waited for
    and counted, where a closed loop only sends as many as it gets answers."""
    server.pause_s = 0.02
    opened = load.generate(server.address, CALLS, 2, 0.5, rate_per_s=200)
    assert opened.latencies.count == pytest.approx(100, abs=3)
    assert opened.late.count == opened.latencies.count
    assert load.generate(server.address, CALLS, 2, 0.5).latencies.count < 50


def test_percentiles() -> None:
    """The smallest value that so many do not exceed, to three digits."""
    found = Histogram.of_ns([1_000 * value for value in range(1, 101)])
    assert [found.percentile_us(share) for share in (0.01, 0.5, 0.99, 1)] == [1, 50, 99, 100]
    both = Histogram.merged([found.pairs(), Histogram.of_ns([123_456_789]).pairs()])
    assert (both.count, both.percentile_us(1)) == (101, 123_000)
    assert sum(count for _, count in both.coarse()) == 101


def test_ratios_are_of_the_same_round() -> None:
    """A round in which everything was slow says as much as the others."""
    assert spread.ratios([100, 10, 98], [50, 5, 49]) == {"median": 2, "low": 2, "high": 2}


def test_results_go_between_their_marks(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page keeps its own words; the newest result of each part is shown, and the history has one
    entry for a commit."""
    part = ModuleType("part")
    part.table = lambda result: f"took {result['took']}"  # type: ignore[attr-defined]
    part.goals = lambda results: [Goal("quick", results["one"]["took"], 2, False)]  # type: ignore[attr-defined]
    for name, path in {"FOLDER": "", "LATEST": "latest.json", "HISTORY": "history.json", "PAGE": "page.md"}.items():
        monkeypatch.setattr(publish, name, tmp_path / path)
    (tmp_path / "page.md").write_text(
        "Before\n<!-- measured: one -->\nold\n<!-- end -->\nBetween\n<!-- measured: goals --><!-- end -->\nAfter\n"
    )
    about = {
        "version": "1", "date": "2030-01-01 00:00", "rounds": 3, "load_before": [1.0], "load_after": [2.0],
        "machine": {"cores": 4, "cpu": "x", "kernel": "6", "python": "3"}, "windows": [1],
    }
    publish.publish({"one": part}, {"one": {**about, "commit": "a", "took": 3}})
    publish.publish({"one": part}, {"one": {**about, "commit": "b", "took": 2}})
    publish.publish({"one": part}, {"one": {**about, "commit": "b", "took": 1}})
    page = (tmp_path / "page.md").read_text()
    assert [word for word in ("Before", "Between", "After", "took 1") if word not in page] == []
    assert "old" not in page and "took 3" not in page
    assert "| quick | ≤ 2 × | 1.00 × | yes |" in page
    assert [(run["commit"], run["goals"]) for run in publish.runs()] == [("a", {"quick": 3}), ("b", {"quick": 1})]
    assert "windows" not in publish.latest()["one"]


def test_a_goal_is_met_or_not() -> None:
    """At least, and at most."""
    found = [Goal("a", 1.5, 1.5), Goal("b", 1.4, 1.5), Goal("c", 100, 150, False, " bytes"), Goal("d", 151, 150, False, " bytes")]
    assert [goal.met for goal in found] == [True, False, True, False]
    assert report.goals_table(found).splitlines()[-1] == "| d | ≤ 150 bytes | 151 bytes | **no** |"
