"""Reading a request's body within bounds of size and time."""

import asyncio

from aiohttp import web

from notifier.core.errors import SlowRequest, TooLarge, UnsupportedMedia

# aiohttp waits forever for a body that stalls half-way.
STALL_S = 10.0
TOTAL_S = 60.0


async def read_body(request: web.Request, limit: int) -> bytes:
    """The raw bytes. TooLarge as soon as they are more than `limit`, SlowRequest when they stall, UnsupportedMedia when
    they are compressed: a signature covers what was sent, and a small body must not become a large one."""
    headers = request.headers
    given = [*headers.getall("Content-Encoding", []), *headers.getall("Transfer-Encoding", [])]
    if any(encoding.strip() not in {"", "identity", "chunked"} for encoding in ",".join(given).lower().split(",")):
        raise UnsupportedMedia("Compressed bodies are not taken: send it without Content-Encoding.")
    too_large = TooLarge(f"A body has at most {limit} bytes (NOTIFIER_MAX_BODY).")
    if (request.content_length or 0) > limit:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(TOTAL_S):
            while True:
                async with asyncio.timeout(STALL_S):
                    chunk = await request.content.readany()
                if not chunk:
                    return b"".join(chunks)
                size += len(chunk)
                if size > limit:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise SlowRequest("The body did not arrive in time.") from None
