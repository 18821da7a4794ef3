"""Reads rounds from standard input, one JSON line each, and writes what they return."""

import asyncio
import gc
import json
import sys
import traceback

import uvloop

from bench.load.crowds import crowd_fan_out, crowd_grow, crowd_hang_up, crowd_inboxes, crowd_open, crowd_state
from bench.load.latency import bare_latency, http_latency
from bench.load.probe import probe
from bench.load.publishers import publish
from bench.load.statements import append, execute

CROWD = (crowd_fan_out, crowd_grow, crowd_hang_up, crowd_inboxes, crowd_open, crowd_state)
ROUNDS = {round_.__name__: round_ for round_ in (append, bare_latency, execute, http_latency, probe, publish, *CROWD)}


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
