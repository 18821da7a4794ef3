"""What processes cost, as Linux tells it."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

Pids = Callable[[], list[int]]

PAGE = 4096

# A server is quiet when it used less than this share of a processor over this time.
QUIET_SHARE = 0.02
QUIET_S = 0.1
# The slowest peer takes ten seconds to hear its 5,000 clients again. Beyond this it will not become quiet.
QUIET_AT_LAST_S = 20.0


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for parent in found:  # grows while it is walked
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in _read(children).split()]
    return found


def cpu_s(pids: list[int]) -> float:
    """Processor time of all threads, user and system, in seconds. The kernel counts nanoseconds, exact once a thread
    sleeps; of threads that have ended nothing."""
    schedules = (_read(path) for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(schedule.split()[0]) for schedule in schedules if schedule) / 1e9


def memory(pids: list[int]) -> int:
    """PSS in bytes: what is shared counts in parts."""
    lines = (line for pid in pids for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines())
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def threads(pids: list[int]) -> int:
    return sum(len(list(Path(f"/proc/{pid}/task").iterdir())) for pid in pids)


def kernel_memory() -> tuple[int, int]:
    """Bytes of all TCP buffers (sockstat), and of the kernel's own objects, such as sockets (slab)."""
    tcp = next(line.split() for line in _read(Path("/proc/net/sockstat")).splitlines() if line.startswith("TCP:"))
    slab = next(line.split() for line in _read(Path("/proc/meminfo")).splitlines() if line.startswith("Slab:"))
    return int(tcp[tcp.index("mem") + 1]) * PAGE, int(slab[1]) * 1024


async def quiet(pids: Pids, share: float = QUIET_SHARE) -> float:
    """Wait until the processes use less than `share` of a processor. Since when they do (`time.perf_counter`); 0 if
    they never do."""
    deadline = time.perf_counter() + QUIET_AT_LAST_S
    before, start = cpu_s(pids()), time.perf_counter()
    while start < deadline:
        await asyncio.sleep(QUIET_S)
        after, end = cpu_s(pids()), time.perf_counter()
        if after - before < share * (end - start):
            return start
        before, start = after, end
    return 0.0


def _read(path: Path) -> str:
    """Nothing if the process or thread has ended meanwhile."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
