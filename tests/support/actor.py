"""A process that uses the embedded database until its standard input ends. Tests start, watch and kill it.

    actor.py DIRECTORY [--uid UID] [--wheel FOLDER] [--set NAME=VALUE]

It says what happens in lines of JSON: {"announced": ...}, {"dsn": ...}, {"error": ...}.
"""

import argparse
import asyncio
import concurrent.futures.thread  # noqa: F401  # after a change of user, modules may be out of reach
import json
import os
import sys
from pathlib import Path

from notifier.embedded import EmbeddedError, embedded_postgres


def say(**what: str) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def use(directory: Path, settings: dict[str, str]) -> None:
    try:
        async with embedded_postgres(directory, settings=settings, announce=lambda text: say(announced=text)) as dsn:
            say(dsn=dsn)
            await asyncio.to_thread(sys.stdin.read)
    except EmbeddedError as error:
        say(error=str(error))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--wheel")
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    if given.wheel:
        sys.path.insert(0, given.wheel)
    if given.uid is not None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(given.uid)
    os.chdir("/")
    asyncio.run(use(given.directory, dict(pair.split("=", 1) for pair in given.set)))
