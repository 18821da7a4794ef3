"""Reading a request's body within bounds of size, time and memory."""

import asyncio
from collections.abc import Awaitable, Callable
from io import BytesIO

from aiohttp import web
from aiohttp.http import HttpVersion11

from notifier.core.errors import SlowRequest, TooLarge, Unavailable, UnsupportedMedia
from notifier.core.memory import NOT_STORED, SMALL_BODY, MemoryBudget
from notifier.web.appkeys import SERVICE

# aiohttp waits forever for a body that stalls half-way.
STALL_S = 10.0
TOTAL_S = 60.0

# What some senders write into Content-Encoding, and cannot change, is the name of a charset.
_AS_IT_IS = {"", "identity", "chunked", "utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1"}


async def with_body(request: web.Request, work: Callable[[bytes], Awaitable[web.Response]]) -> web.Response:
    """What `work` makes of the request's body. Once that is read, the work is done even if its client goes away.

    TooLarge, SlowRequest, UnsupportedMedia; Unavailable where there is no memory for it.
    """
    service = request.app[SERVICE]
    body = await read_body(request, service.settings.max_body, service.memory)

    async def working() -> web.Response:
        with service.memory.holding(len(body)):
            return await work(body)

    return await service.to_the_end(working())


async def expecting(_: web.Request) -> None:
    """In the place of aiohttp's handler of `Expect: 100-continue`, which has the body sent before anything is known of
    the request. Here `read_body` does, and what is refused is not sent at all."""


async def read_body(request: web.Request, limit: int, memory: MemoryBudget) -> bytes:
    """The raw bytes. TooLarge as soon as they are more than `limit`, SlowRequest when they stall, UnsupportedMedia when
    they are compressed: a signature covers what was sent, and a small body must not become a large one. Unavailable
    where there is no memory for it: what has come is counted by its connection."""
    headers = request.headers
    given = [*headers.getall("Content-Encoding", []), *headers.getall("Transfer-Encoding", [])]
    if any(encoding.strip() not in _AS_IT_IS for encoding in ",".join(given).lower().split(",")):
        raise UnsupportedMedia("Compressed bodies are not taken: send it without Content-Encoding.")
    _check_size(request.content_length or 0, limit, memory)
    content = request.content
    if "Expect" in headers and not content.is_eof() and request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # of the answer, nothing has been sent
    if content.is_eof():  # small ones come with their head: two time-outs would be a tenth of a publish
        whole: bytes = content.read_nowait()
        _check_size(len(whole), limit, memory)
        return whole
    body = BytesIO()  # which gives the bytes away uncopied; a list of tiny pieces would take sixty times as much
    try:
        async with asyncio.timeout(TOTAL_S):
            while True:
                async with asyncio.timeout(STALL_S):
                    chunk = await content.readany()
                if not chunk:
                    return body.getvalue()
                body.write(chunk)
                _check_size(body.tell(), limit, memory)
    except TimeoutError:
        raise SlowRequest("The body did not arrive in time.") from None


def _check_size(size: int, limit: int, memory: MemoryBudget) -> None:
    """TooLarge or Unavailable where a body must not have `size` bytes."""
    if size > limit:
        raise TooLarge(f"A body has at most {limit} bytes (NOTIFIER_MAX_BODY).")
    if memory.exhausted if size <= SMALL_BODY else memory.full:
        raise Unavailable(NOT_STORED)
