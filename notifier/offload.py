"""Work that would take too long in a turn of the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Reading a body of this size takes a few milliseconds at worst; handing it to a thread a fraction of one.
INLINE = 64 * 1024

# Python runs only one thread at a time anyway. With two, a large body does not wait for the slowest one.
_THREADS = ThreadPoolExecutor(2, thread_name_prefix="offload")


async def offload(size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do `work`, which takes as long as reading a body of `size` bytes: in a thread, if that is long."""
    if size <= INLINE:
        return work(*args, **kwargs)
    return await asyncio.wrap_future(_THREADS.submit(work, *args, **kwargs))
