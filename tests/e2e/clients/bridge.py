"""Drives autumn-py for the tests: one call a line on stdin, {"method", "kwargs"}, one answer a line
on stdout: {"data"} as its models hold it, {"error": {"code", "message"}, "status"} or {"thrown"}.
Arguments: the sidecar's address, the key. Runs in autumn-py's own environment.
"""

import asyncio
import json
import sys
import traceback

from autumn import Autumn
from autumn.error import AutumnHTTPError
from pydantic import BaseModel

NO_RETRIES = 0  # a 5xx must show at once, not after half a minute of attempts


async def main(url: str, key: str) -> None:
    autumn = Autumn(key, base_url=url, max_retries=NO_RETRIES)
    loop = asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await answer(autumn, json.loads(line))), flush=True)
    finally:
        await autumn.close()


async def answer(autumn: Autumn, call: dict) -> dict:
    called = autumn
    try:
        for name in call["method"].split("."):
            called = getattr(called, name)
        data = await called(**call["kwargs"])
    except AutumnHTTPError as error:
        return {"error": {"code": error.code, "message": error.message}, "status": error.status_code}
    except Exception:
        return {"thrown": traceback.format_exc()}
    return {"data": data.model_dump(mode="json") if isinstance(data, BaseModel) else data}


asyncio.run(main(*sys.argv[1:]))
