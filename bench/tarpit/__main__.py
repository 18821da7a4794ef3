"""`python -m bench.tarpit`: a server whose workers all wait answers no request; one that parks its clients does."""

import argparse
import asyncio
import resource
import sys
import time

from bench.server import run
from bench.tarpit import FRAMEWORKS, Held, parked, say, size, stuck
from notifier.embedded import EmbeddedError

CLIENTS = 10_000

# Files of a process that are not clients: Notifier keeps 500 of its limit for itself.
SPARE_FILES = 600

INTRODUCTION = """\
Long-polling: a client asks for news, and the server answers when there is some. So at any moment nearly all clients are
waiting. Here some wait at a server, and then another client sends what any server answers at once: GET /health."""


async def show(count: int) -> bool:
    """Whether all of it was as we say."""
    frameworks = {each: await stuck(each) for each in FRAMEWORKS}
    ours = await parked(count)
    say()
    say_held([found.held for found in frameworks.values()] + [ours.held] + ([ours.postgres] if ours.postgres else []))
    say(f"\nTo hold {CLIENTS:,} clients, computed from what one more worker, thread and message took above:")
    for each, found in frameworks.items():
        if each.grows:
            say(f"{each.name + ', workers':26}{CLIENTS:9,} processes, {size(CLIENTS * found.worker)}")
        threads = f"{CLIENTS:9,} threads, {size(CLIENTS * found.thread)}; {news(found.thread_us)}"
        say(f"{each.name + ', threads':26}{threads}")
    measured = f"{ours.held.threads:9,} threads, {size(ours.held.memory)}; {news(ours.cpu_us)}"
    say(f"{'Notifier, measured':26}{measured}" + ("" if count == CLIENTS else f" (with {count:,} clients)"))
    say()
    for each, found in frameworks.items():
        effect = "do not stop it, which is a surprise" if found.answers else "stop it"
        say(f"{each.name}: {each.workers} waiting clients {effect}.")
    say(f"Notifier: {'; '.join(ours.wrong) or f'{count:,} waiting clients do not'}.")
    return not ours.wrong and not any(found.answers for found in frameworks.values())


def say_held(rows: list[Held]) -> None:
    say(f"{'While they wait':26}{'clients':>9}{'health':>12}{'processes':>11}{'threads':>9}{'memory':>10}{'CPU':>8}")
    for row in rows:
        health = "no answer" if row.health_ms is None else f"{row.health_ms:.1f} ms"
        clients = f"{row.clients:9,}{health:>12}" if row.clients else " " * 21
        cost = f"{row.processes:11,}{row.threads:9,}{size(row.memory):>10}{row.cpu:8.1%}"
        say(f"{row.name:26}{clients}{cost}")


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
        for runtime in dict.fromkeys(each.stuck.runtime for each in FRAMEWORKS):
            if names := [each.name for each in FRAMEWORKS if each.stuck.runtime is runtime and each.stuck.missing()]:
                say(f"\nSetting up {' and '.join(names)} (once)")
            runtime.install()
        start = time.monotonic()
        as_said = run(show(room(arguments.clients)))
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130
    except (RuntimeError, OSError, EmbeddedError) as error:
        print(error, file=sys.stderr)
        return 1
    say(f"\nThat took {time.monotonic() - start:.0f} s; nothing of it runs any more.")
    return 0 if as_said else 1


if __name__ == "__main__":
    sys.exit(main())
