"""Calls to Redis for many partitions at once, without a task or a future for each of them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Callable, Sequence

from .connection import Connection, Done
from .scripts import Script


async def run_all(connection: Connection, script: Script, calls: Sequence[tuple[tuple[bytes, ...], tuple[Any, ...]]]) -> list[Any]:
    """A script's answers to several calls (keys and arguments), in their order. Raises what a call
    failed with, once all have ended."""
    return await _all(len(calls), lambda number, done: connection.run_script(script, *calls[number], done))


async def send_all(connection: Connection, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """As `run_all`, of several commands."""
    return await _all(len(commands), lambda number, done: connection.send(commands[number], done))


async def _all(count: int, begin: Callable[[int, Done], None]) -> list[Any]:
    answers: dict[int, Any] = {}
    ended = asyncio.get_running_loop().create_future()

    def done(number: int, answer: Any) -> None:
        answers[number] = answer  # not in order: a script that Redis had forgotten is sent again
        if len(answers) == count and not ended.done():
            ended.set_result(None)

    for number in range(count):
        begin(number, partial(done, number))
    if count:
        await ended
    in_order = [answers[number] for number in range(count)]
    for answer in in_order:
        if isinstance(answer, Exception):
            raise answer
    return in_order
