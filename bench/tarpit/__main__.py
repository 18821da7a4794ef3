"""`python -m bench.tarpit`: a server whose workers all wait answers nobody, and one that parks its clients does."""

import argparse
import asyncio
import resource
import signal
import sys
import time

from bench.peers.python import PYTHON
from bench.tarpit.parked import parked
from bench.tarpit.stuck import WORKERS, stuck
from bench.tarpit.telling import say, say_held, size
from notifier.embedded import EmbeddedError

APPS = {"Flask": "flask_app:app", "Django": "django_app:app"}
CLIENTS = 10_000

# Files of a process that are not clients: Notifier keeps 500 of its limit for itself.
SPARE_FILES = 600

INTRODUCTION = """\
Long-polling: a client asks for news, and the server answers when there is some. So at any moment nearly all clients are
waiting. Here some wait at a server, and then somebody else asks it what any server answers at once: GET /health."""


async def show(count: int) -> bool:
    """Whether all of it was as we say."""
    frameworks = {name: await stuck(name, app) for name, app in APPS.items()}
    ours = await parked(count)
    say()
    say_held([found.held for found in frameworks.values()] + [ours.held] + ([ours.postgres] if ours.postgres else []))
    say(f"\nTo hold {CLIENTS:,} clients, computed from what one more worker, thread and message took above:")
    for name, found in frameworks.items():
        say(f"{name + ', workers':20}{CLIENTS:9,} processes, {size(CLIENTS * found.worker)}")
        say(f"{name + ', threads':20}{CLIENTS:9,} threads, {size(CLIENTS * found.thread)}; {news(found.thread_us)}")
    measured = f"{ours.held.threads:9,} threads, {size(ours.held.memory)}; {news(ours.cpu_us)}"
    say(f"{'Notifier, measured':20}{measured}" + ("" if count == CLIENTS else f" (with {count:,} clients)"))
    say()
    for name, found in frameworks.items():
        effect = "do not stop it, which is a surprise" if found.answers else "stop it"
        say(f"{name}: {WORKERS} waiting clients {effect}.")
    say(f"Notifier: {'; '.join(ours.wrong) or f'{count:,} waiting clients do not'}.")
    return not ours.wrong and not any(found.answers for found in frameworks.values())


def news(each_us: float) -> str:
    return f"{each_us * CLIENTS / 1e6:.2f} s of CPU to bring one message to all"


def room(count: int) -> int:
    """As many of `count` clients as this process and a server may have open files for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= count + SPARE_FILES:
        return count
    fewer = max(hard - SPARE_FILES, 1)
    say(f"\nOnly {fewer:,} of {count:,} clients: a process may have {hard:,} open files here (see ulimit -Hn).")
    return fewer


async def interruptible(count: int) -> bool:
    """Ctrl-C and SIGTERM end everything that we have started."""
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await show(count)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.tarpit", description=__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"how many wait at Notifier ({CLIENTS:,})")
    arguments = parser.parse_args()
    if arguments.clients < 1:
        parser.error("--clients must be 1 or more.")
    if sys.platform != "linux":
        parser.error("What processes cost is read from Linux's /proc.")
    say(INTRODUCTION)
    try:
        if PYTHON.missing(()):
            say("\nSetting up Flask and Django in .venv/peers (once)")
        PYTHON.install()
        start = time.monotonic()
        as_said = asyncio.run(interruptible(room(arguments.clients)))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130
    except (RuntimeError, OSError, EmbeddedError) as error:
        print(error, file=sys.stderr)
        return 1
    say(f"\nThat took {time.monotonic() - start:.0f} s; nothing of it runs any more.")
    return 0 if as_said else 1


sys.exit(main())
