"""Drives autumn-sdk 1.2.0 or autumn-python 0.2.0 for the tests: one call a line on stdin, {"method",
"kwargs"}, one answer a line on stdout: {"data"} as its models hold it, {"error": {"code", "message"},
"status"} or {"thrown"}. Arguments: which of the two, the sidecar's address, the key. Runs in the client's
own environment.
"""

import json
import sys
import traceback

which, url, key = sys.argv[1:]
if which == "autumn-sdk":
    from autumn_sdk import Autumn
    from autumn_sdk.errors import AutumnDefaultError as Refused

    autumn = Autumn(secret_key=key, server_url=url, fail_open=False)  # else a dead sidecar would look well
else:
    from autumn import APIStatusError as Refused
    from autumn import Autumn

    autumn = Autumn(secret_key=key, base_url=f"{url}/v1", max_retries=0)


def answer(call: dict) -> dict:
    called = autumn
    try:
        for name in call["method"].split("."):
            called = getattr(called, name)
        data = called(**call["kwargs"])
    except Refused as error:
        body = error.body
        return {"error": json.loads(body) if isinstance(body, str) else body, "status": error.status_code}
    except Exception:
        return {"thrown": traceback.format_exc()}
    return {"data": data.model_dump(mode="json", by_alias=True)}


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
