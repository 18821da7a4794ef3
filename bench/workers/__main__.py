"""`python -m bench.workers`: how many clients one machine parks with several workers, and how evenly they are spread.

All clients poll one topic, from processes of their own. Two messages are published; each has to reach everybody once.
"""

import argparse
import asyncio
import json
import math
import re
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil

from bench.database import FLUSHES, database, postgres
from bench.server import ROOT, running
from bench.workers.crowd import MESSAGES, TOPIC

# A process has other files too, and the kernel deals connections out by chance.
SPARE_FILES = 500
UNEVEN = 1.05
CLIENTS_OF_A_PROCESS = 18_000
# Both ends' sockets and buffers in the kernel, the server's part and the client's; measured: less than half of it.
MEMORY_OF_A_CLIENT = 24 * 1024

OPEN_S = 240.0
DELIVERY_S = 60.0
# Of a core, all workers together, when all is parked and only waits are over.
QUIET = 0.8


@asynccontextmanager
async def crowds(port: int, clients: int, cursor: str) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    processes = []
    try:
        for number, start in enumerate(range(0, clients, CLIENTS_OF_A_PROCESS)):
            count = min(CLIENTS_OF_A_PROCESS, clients - start)
            command = (sys.executable, "-m", "bench.workers.crowd", str(port), str(number), str(count), cursor)
            processes.append(
                await asyncio.create_subprocess_exec(
                    *command, stdout=asyncio.subprocess.PIPE, cwd=ROOT, start_new_session=True
                )
            )
        yield processes
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def line(process: asyncio.subprocess.Process, timeout_s: float) -> str:
    assert process.stdout
    async with asyncio.timeout(timeout_s):
        said = (await process.stdout.readline()).decode().strip()
    if not said:
        raise RuntimeError("A client process has ended; its last words are above.")
    return said


async def ask(port: int, method: str, target: str, body: bytes = b"") -> dict[str, object]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    async with asyncio.timeout(DELIVERY_S):
        answer = await reader.read()
    writer.close()
    found: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def pss_kb(pid: int) -> int:
    found = re.search(r"^Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def sockets_of(pid: int) -> int:
    found = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += str(fd.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue
    return found


def kernel_kb() -> int:
    """What the kernel holds for sockets and everything else: buffers, and the slabs of its objects."""
    meminfo = dict(re.findall(r"^(\w+): +(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE))
    found = re.search(r"^TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    return int(meminfo["Slab"]) + (int(found[1]) * 4 if found else 0)


def check_limits(workers: int, clients: int) -> None:
    """RuntimeError that names the limit that is too low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = int(clients / workers * UNEVEN) + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < max(need, min(clients, CLIENTS_OF_A_PROCESS) + SPARE_FILES):
        raise RuntimeError(f"The hard limit of open files is {hard}; {need} are needed for each process.")
    memory = psutil.virtual_memory().available
    if memory < clients * MEMORY_OF_A_CLIENT:
        raise RuntimeError(f"There are {memory >> 20} MB of memory; {clients * MEMORY_OF_A_CLIENT >> 20} are needed.")


async def quiet(workers: list[psutil.Process]) -> None:
    """Return when they have read all that was sent."""

    def cpu_s() -> float:
        return sum(sum(worker.cpu_times()[:2]) for worker in workers)

    async with asyncio.timeout(OPEN_S):
        before, now = -math.inf, cpu_s()
        while now - before > QUIET:
            await asyncio.sleep(1)
            before, now = now, cpu_s()


async def measure(workers: int, clients: int) -> bool:
    check_limits(workers, clients)
    async with AsyncExitStack() as stack:
        server_url = await stack.enter_async_context(postgres())
        url = await stack.enter_async_context(database(server_url, FLUSHES[-1]))
        server = await stack.enter_async_context(running(("bench.workers.serve", str(workers)), url))
        processes = psutil.Process(server.pid).children()
        assert len(processes) == workers
        empty = {each.pid: (sockets_of(each.pid), pss_kb(each.pid)) for each in processes}
        kernel = kernel_kb()
        cursor = str((await ask(server.port, "GET", f"/v1/topics/{TOPIC}?wait=0"))["cursor"])
        failures: list[str] = []
        start = time.monotonic()
        groups = await stack.enter_async_context(crowds(server.port, clients, cursor))
        await asyncio.gather(*(line(group, OPEN_S) for group in groups))
        print(f"{clients} connections opened in {time.monotonic() - start:.1f} s", flush=True)
        # A full queue of new connections drops some, for whom the kernel tries again seconds later.
        async with asyncio.timeout(OPEN_S):
            while sum(sockets_of(pid) - before for pid, (before, _) in empty.items()) < clients:
                await asyncio.sleep(0.5)
            print(f"... and accepted in {time.monotonic() - start:.1f} s", flush=True)
        await quiet(processes)
        counts = [sockets_of(each.pid) - empty[each.pid][0] for each in processes]
        sizes = [pss_kb(each.pid) - empty[each.pid][1] for each in processes]
        for each, count, size in zip(processes, counts, sizes, strict=True):
            whole = empty[each.pid][1] + size
            print(f"worker {each.pid}: {count} connections, PSS {whole} kB, {size / count:.2f} kB per client")
        print(f"{sum(counts)} connections, busiest/idlest {max(counts) / min(counts):.3f}")
        both_ends = (kernel_kb() - kernel) / clients
        print(f"per client: PSS {sum(sizes) / clients:.2f} kB, in the kernel {both_ends:.2f} kB (both ends)")
        # One more is a database connection that comes and goes.
        valid = sum(counts) >= clients and max(counts) <= 1.5 * min(counts)
        for number in range(1, MESSAGES + 1):
            start = time.monotonic()
            body = b'{"number": %d}' % number
            publishing = asyncio.create_task(ask(server.port, "POST", f"/v1/topics/{TOPIC}", body))
            told = [json.loads(await line(group, DELIVERY_S)) for group in groups]
            await publishing
            delivered = sum(count for count, _, _ in told)
            seconds = max(when for _, when, _ in told) - start
            print(f"message {number}: {delivered} of {clients} have it, the last after {seconds:.2f} s", flush=True)
            failures += [failure for _, _, some in told for failure in some]
            valid = valid and delivered == clients
            await quiet(processes)
        for group in groups:
            group.kill()
            failures += [(await group.stdout.read()).decode()] if group.stdout else []
        failures = [failure for failure in failures if failure]
        print(f"failures: {failures or 'none'}")
        return valid and not failures


async def interruptible(workers: int, clients: int) -> bool:
    """Ctrl-C and SIGTERM end everything that we have started."""
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await measure(workers, clients)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--clients", type=int, default=90_000)
    arguments = parser.parse_args()
    try:
        valid = asyncio.run(interruptible(arguments.workers, arguments.clients))
    except asyncio.CancelledError:
        return 130
    except (RuntimeError, TimeoutError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0 if valid else 1


if __name__ == "__main__":
    sys.exit(main())
