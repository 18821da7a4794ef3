"""Work that would take too long in a turn of the event loop."""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Reading a body of this size takes a few milliseconds at worst; handing it to a thread a fraction of one.
INLINE = 64 * 1024

# Python runs one thread at a time, and the event loop asks for its turn several times in each request, whenever it
# comes back from the kernel. By default a thread that works gives way after 5 ms.
SWITCH_S = 0.0005

# With two, a large body does not wait for the slowest one.
_THREADS = ThreadPoolExecutor(2, "offload", sys.setswitchinterval, (SWITCH_S,))


async def offload(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do `work`, which takes as long as reading a body of `size` bytes: in a thread, if that is long."""
    if size <= INLINE:
        return work(*args, **kwargs)
    return await asyncio.wrap_future(_THREADS.submit(work, *args, **kwargs))
