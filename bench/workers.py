"""`python -m bench.workers`: how many clients one machine parks with several workers, and how evenly they are spread.

All clients poll one topic, from processes of their own. Two messages are published; each has to reach each client once.
"""

import argparse
import asyncio
import resource
import sys
import time
from contextlib import AsyncExitStack

import psutil

from bench import procs
from bench.database import NATIVE, database, postgres
from bench.server import NOTIFIER, run, running
from bench.stage import OURS, Crowd, Side, crowd

# A process has other files too, and the kernel deals connections out by chance.
SPARE_FILES = 500
UNEVEN = 1.05
CLIENTS_OF_A_PROCESS = 18_000
# Both ends' sockets and buffers in the kernel, the server's part and the client's; measured: less than half of it.
MEMORY_OF_A_CLIENT = 24 * 1024

MESSAGES = 2
# Of a core, all workers together, when all is parked and only waits are over.
BUSY = 0.8


def sockets_of(pid: int) -> int:
    return len(psutil.Process(pid).net_connections("tcp"))


def check_limits(workers: int, clients: int) -> None:
    """RuntimeError that names the limit that is too low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = int(clients / workers * UNEVEN) + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < max(need, min(clients, CLIENTS_OF_A_PROCESS) + SPARE_FILES):
        raise RuntimeError(f"The hard limit of open files is {hard}; {need} are needed for each process.")
    memory = psutil.virtual_memory().available
    if memory < clients * MEMORY_OF_A_CLIENT:
        raise RuntimeError(f"There are {memory >> 20} MB of memory; {clients * MEMORY_OF_A_CLIENT >> 20} are needed.")


async def measure(workers: int, clients: int) -> bool:
    check_limits(workers, clients)
    async with AsyncExitStack() as stack:
        server_url = await stack.enter_async_context(postgres())
        url = await stack.enter_async_context(database(server_url, NATIVE))
        serving = await stack.enter_async_context(running(NOTIFIER, url, WEB_CONCURRENCY=str(workers)))
        everything = serving.pids()
        pids = [pid for pid in everything if psutil.Process(pid).ppid() in everything]
        assert len(pids) == workers
        side = Side(OURS, "notifier", serving.port, lambda: pids)
        before = [(sockets_of(pid), procs.memory([pid])) for pid in pids]
        kernel = sum(procs.kernel_memory())
        groups: list[tuple[Crowd, int]] = []
        for first in range(0, clients, CLIENTS_OF_A_PROCESS):
            count = min(CLIENTS_OF_A_PROCESS, clients - first)
            groups.append((await stack.enter_async_context(crowd(side, first=first)), count))

        start = time.monotonic()
        for group, count in groups:
            group.check(await group.load.run("crowd_grow", count=count))
        print(f"{clients} clients parked in {time.monotonic() - start:.1f} s", flush=True)
        await procs.quiet(side.pids, BUSY)
        counts, sizes = [], []
        for pid, (sockets, size) in zip(pids, before, strict=True):
            whole = procs.memory([pid])
            counts.append(sockets_of(pid) - sockets)
            sizes.append(whole - size)
            each = f"{sizes[-1] / max(counts[-1], 1) / 1000:.2f} kB per client"
            print(f"worker {pid}: {counts[-1]} connections, PSS {whole // 1000} kB, {each}")
        print(f"{sum(counts)} connections, busiest/idlest {max(counts) / max(min(counts), 1):.3f}")
        both_ends = (sum(procs.kernel_memory()) - kernel) / clients / 1000
        print(f"per client: PSS {sum(sizes) / clients / 1000:.2f} kB, in the kernel {both_ends:.2f} kB (both ends)")
        # One more is a database connection that comes and goes.
        valid = sum(counts) >= clients and max(counts) <= 1.5 * min(counts)

        (publisher, _), *others = groups
        for number in range(1, MESSAGES + 1):
            for group, _ in others:
                await group.load.run("crowd_expect")
            done, *rest = await asyncio.gather(
                publisher.load.run("crowd_fan_out"), *(group.load.run("crowd_arrived") for group, _ in others)
            )
            last = max([done["ended"], *(each["ended"] for each in rest)]) - done["began"]
            for (group, _), result in zip(groups, [done, *rest], strict=True):
                group.check(result)
            has = sum(result["has"] for result in (done, *rest))
            print(f"message {number}: {has} of {clients} have it, the last after {last:.2f} s", flush=True)
            valid = valid and has == clients
            await procs.quiet(side.pids, BUSY)
        for group, _ in groups:
            group.check(await group.load.run("crowd_state"))
        failures = [failure for group, _ in groups for failure in group.void]
        print(f"failures: {failures or 'none'}")
        return valid and not failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--clients", type=int, default=90_000)
    arguments = parser.parse_args()
    try:
        valid = run(measure(arguments.workers, arguments.clients))
    except asyncio.CancelledError:
        return 130
    except (RuntimeError, TimeoutError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0 if valid else 1


if __name__ == "__main__":
    sys.exit(main())
