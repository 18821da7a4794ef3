"""How clients talk to each kind of server: the bytes of their requests, and what an answer holds.

A poll is `before + cursor + after`: only the cursor changes, so nothing is formatted while a message goes out.
"""

import hmac
import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from bench.load.http import Client, request

# The topic of a whole crowd.
TOPIC = "bench"

# What Chrome sends with a fetch() to the page's own origin.
BROWSER = """\
Host: 127.0.0.1
Connection: keep-alive
sec-ch-ua-platform: "Windows"
User-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
Chrome/142.0.0.0 Safari/537.36
sec-ch-ua: "Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"
sec-ch-ua-mobile: ?0
Accept: */*
Sec-Fetch-Site: same-origin
Sec-Fetch-Mode: cors
Sec-Fetch-Dest: empty
Referer: http://127.0.0.1/inbox
Accept-Encoding: gzip, deflate, br, zstd
Accept-Language: en-US,en;q=0.9,de;q=0.8
Cookie: theme=dark; session=a1f0c2d4e6b8497d9a3c5e7f80912b3d
""".replace("\n", "\r\n")

TOKEN_BYTES = 300
SECRET = "what-the-tokens-of-the-bench-are-signed-with"
# One time for all processes of a run would do too; no run takes as long.
EXPIRES = int(time.time()) + 12 * 3600


def token(number: int) -> str:
    """A line with a token of its own for each client: a JWT (RFC 7519) that allows the crowd's topics, padded."""
    claims = {"sub": str(number), "exp": EXPIRES, "notifier": {"subscribe": [TOPIC, f"user/{number}"]}, "pad": ""}
    signing = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
    # Three bytes become four characters; the signature has 43, and a dot before it.
    claims["pad"] = "x" * ((TOKEN_BYTES - 44 - len(signing)) * 3 // 4)
    signing = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims)}"
    signature = hmac.digest(SECRET.encode(), signing.encode(), "sha256")
    return f"Authorization: Bearer {signing}.{_encoded(signature)}\r\n"


def _part(value: object) -> str:
    return _encoded(json.dumps(value, separators=(",", ":")).encode())


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def message(number: int) -> bytes:
    """What is published: about a hundred bytes of JSON, as in a webhook's summary or a chat message."""
    return b'{"number": %d, "status": "paid", "customer": "c-20391", "note": "leave it at the door, please"}' % number


_NUMBER = re.compile(rb'\ndata: \{"id": .*?"data": \{"number": ([0-9]+),')
_ID = re.compile(rb"^id: ([0-9]+)$", re.MULTILINE)

Greeting = Generator[bytes, bytes, tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one answer holds: the numbers of its messages, in their order, and the bytes of the next poll's cursor, None
    if the same poll is sent again. `pong` if the server wants to hear something else before the next poll; `goes_on` if
    there is none, because more comes by itself."""

    numbers: tuple[int, ...]
    cursor: bytes | None
    pong: bool = False
    goes_on: bool = False


class Dialect:
    """The one that all peers written by hand speak ("plain")."""

    health: ClassVar[str] = "/health"
    streams: ClassVar[bool] = False  # one request, and then event after event: `read_events`
    start: ClassVar[bytes] = b"0"

    async def begin(self, publisher: Client, topics: Sequence[str]) -> bytes:  # noqa: ARG002
        """Where a topic that has no message yet begins."""
        return self.start

    def greet(self, topic: str, extra: str) -> Greeting:
        """Yields a new client's requests before it polls, is sent the bodies of their answers, and returns what stands
        before and after the cursor in a poll. `extra`: more header lines. The first answer tells the crowd that the
        server has accepted the connection, so that it can open many without overrunning the backlog."""
        yield get(self.health, extra)
        return self.around(topic, extra)

    def around(self, topic: str, extra: str) -> tuple[bytes, bytes]:
        return f"GET /poll/{topic}?after=".encode(), f" HTTP/1.1\r\n{BROWSER}{extra}\r\n".encode()

    def publish(self, topic: str, number: int) -> bytes:
        return request("POST", f"/publish/{topic}", message(number))

    def read(self, status: int, head: bytes, body: bytes) -> Answer:  # noqa: ARG002
        """The answer to a poll. ValueError or KeyError if a poll should not be told this."""
        if status != 200:
            raise ValueError
        answer = json.loads(body)
        return Answer(tuple(message["data"]["number"] for message in answer["messages"]), answer["cursor"].encode())


class Notifier(Dialect):
    """Ours. A full server answers at once, empty, and says when to come back: no poll was parked then."""

    health = "/healthz"

    async def begin(self, publisher: Client, topics: Sequence[str]) -> bytes:
        _, body = await publisher.send(request("GET", f"/v1/topics/{topics[0]}?wait=0"))
        cursor: str = json.loads(body)["cursor"]
        return cursor.encode()

    def around(self, topic: str, extra: str) -> tuple[bytes, bytes]:
        return f"GET /v1/topics/{topic}?wait=25&after=".encode(), f" HTTP/1.1\r\n{BROWSER}{extra}\r\n".encode()

    def publish(self, topic: str, number: int) -> bytes:
        return request("POST", f"/v1/topics/{topic}", message(number))

    def read(self, status: int, head: bytes, body: bytes) -> Answer:
        if header(head, "retry-after"):
            raise ValueError
        return super().read(status, head, body)


class NotifierStream(Notifier):
    """Ours as Server-Sent Events."""

    streams = True

    def around(self, topic: str, extra: str) -> tuple[bytes, bytes]:
        browser = BROWSER.replace("Accept: */*", "Accept: text/event-stream")
        return f"GET /v1/topics/{topic}?after=".encode(), f" HTTP/1.1\r\n{browser}{extra}\r\n".encode()

    def read_events(self, data: bytes) -> Answer | None:
        """What came: whole chunks, perhaps behind the head, or else None. ValueError if it is the last chunk."""
        if data.startswith(b"HTTP/1.1 200 "):
            data = data.partition(b"\r\n\r\n")[2]
        if not data.endswith(b"\n\n\r\n"):
            if data.endswith(b"0\r\n\r\n") or data.startswith(b"HTTP/"):
                raise ValueError
            return None
        ids = _ID.findall(data)
        return Answer(tuple(map(int, _NUMBER.findall(data))), ids[-1], goes_on=True) if ids else None


class Nchan(Dialect):
    """Its cursor is the pair of validators of the last answer, sent back as a browser's cache would."""

    start = b""

    def around(self, topic: str, extra: str) -> tuple[bytes, bytes]:
        return f"GET /poll/{topic} HTTP/1.1\r\n{BROWSER}{extra}".encode(), b"\r\n"

    def read(self, status: int, head: bytes, body: bytes) -> Answer:
        if status == 408:  # its way to say that the wait was over
            return Answer((), None)
        modified, tag = header(head, "last-modified"), header(head, "etag")
        if status != 200 or not modified or not tag:
            raise ValueError
        cursor = b"If-Modified-Since: %b\r\nIf-None-Match: %b\r\n" % (modified, tag)
        return Answer((json.loads(body)["number"],), cursor)


class DurableStreams(Dialect):
    """Streams of JSON. The offset and the cursor of the last answer go into the next poll."""

    async def begin(self, publisher: Client, topics: Sequence[str]) -> bytes:
        for topic in topics:
            await publisher.send(request("PUT", f"/{topic}"))
        return b"-1&live=long-poll"

    def around(self, topic: str, extra: str) -> tuple[bytes, bytes]:
        return f"GET /{topic}?offset=".encode(), f" HTTP/1.1\r\n{BROWSER}{extra}\r\n".encode()

    def publish(self, topic: str, number: int) -> bytes:
        return request("POST", f"/{topic}", message(number))

    def read(self, status: int, head: bytes, body: bytes) -> Answer:
        if status not in {200, 204}:
            raise ValueError
        numbers = tuple(message["number"] for message in json.loads(body)) if status == 200 else ()
        offset, cursor = header(head, "stream-next-offset"), header(head, "stream-cursor")
        return Answer(numbers, b"%b&live=long-poll&cursor=%b" % (offset, cursor))


class SocketIO(Dialect):
    """Its polling transport: open a session, connect, join the topic's room; then polls bring packets."""

    start = b""
    target: ClassVar[str] = "/socket.io/?EIO=4&transport=polling"

    def greet(self, topic: str, extra: str) -> Greeting:
        session = json.loads((yield get(self.target, extra))[1:])["sid"]
        poll = get(f"{self.target}&sid={session}", extra)
        yield packet(poll, b"40")
        yield poll
        yield packet(poll, b'42["subscribe","%b"]' % topic.encode())
        return poll, b""

    def read(self, status: int, head: bytes, body: bytes) -> Answer:  # noqa: ARG002
        if status != 200:
            raise ValueError
        packets = body.split(b"\x1e")
        events = [json.loads(event[2:])[1] for event in packets if event.startswith(b"42")]
        if len(events) + packets.count(b"2") + (body == b"ok") != len(packets):
            raise ValueError
        return Answer(tuple(event["data"]["number"] for event in events), b"", pong=b"2" in packets)


def get(target: str, extra: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\n{BROWSER}{extra}\r\n".encode()


def packet(poll: bytes, body: bytes) -> bytes:
    """The request that sends a packet of Socket.IO in the session of `poll`."""
    length = b"Content-Type: text/plain;charset=UTF-8\r\nContent-Length: %d\r\n\r\n" % len(body)
    return b"POST" + poll.removeprefix(b"GET").removesuffix(b"\r\n") + length + body


def header(head: bytes, name: str) -> bytes:
    """The value of a header, empty if it is missing."""
    start = head.lower().find(b"\r\n" + name.encode() + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()


STREAM = "notifier-stream"

DIALECTS: dict[str, type[Dialect]] = {
    "plain": Dialect,
    "notifier": Notifier,
    STREAM: NotifierStream,
    "nchan": Nchan,
    "durable-streams": DurableStreams,
    "socketio": SocketIO,
}
