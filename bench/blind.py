"""The least that can hold a crowd: a bare protocol that reads nothing but the method, and has one answer for all. What
the crowd reaches against this is more than any server could get from it."""

import asyncio
from typing import cast

import uvloop

from bench.ceiling import serve

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
OK = HEAD % (2, b"{}")


class Parking(asyncio.Protocol):
    parked: "dict[Parking, None]" = {}  # noqa: RUF012
    published = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.parked.pop(self, None)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /poll/"):
            self.parked[self] = None
            return
        self.transport.write(OK)
        if data.startswith(b"POST"):
            Parking.published += 1
            message = b'{"cursor": "%d", "messages": [{"data": {"number": %d}}]}' % (self.published, self.published)
            answer = HEAD % (len(message), message)
            woken = list(self.parked)
            self.parked.clear()
            for parking in woken:
                parking.transport.write(answer)


if __name__ == "__main__":
    uvloop.run(serve(Parking))
