"""Reads rounds from standard input, one JSON line each, and writes what they return."""

import asyncio
import gc
import json
import sys
import traceback

import uvloop

from bench.load import asking, hooks, returning, rounds
from bench.load.publishers import publish

ROUNDS = {**vars(rounds), **vars(returning), **vars(asking), **vars(hooks), "publish": publish}


async def main() -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, arguments = json.loads(line)
        gc.collect()
        gc.disable()  # a pause of the client is not the server's
        try:
            answer: dict[str, object] = {"result": await ROUNDS[name](**arguments)}
        except Exception:  # noqa: BLE001  # goes to the parent, which ends the run
            answer = {"error": traceback.format_exc()}
        gc.enable()
        print(json.dumps(answer), flush=True)


uvloop.run(main())
