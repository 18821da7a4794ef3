"""Clients of the measurement, some thousands in one process: sockets, one epoll, and answers that are parsed once."""

import json
import os
import re
import resource
import select
import socket
import struct
import sys
import time

TOPIC = "bench/workers"
MESSAGES = 2

# Ephemeral ports are 28,000 for each pair of addresses: so each 8,000 clients have an address of their own.
CLIENTS_OF_AN_ADDRESS = 8_000
# Opened before the next look for answers; less than the backlog of one worker holds.
OPENING = 200
# A message that has reached some reaches the next within this, or is lost.
PATIENCE_S = 20.0


def crowd(port: int, number: int, clients: int, cursor: str) -> None:
    """Park clients, say "parked"; then for each message how many got it, when the last did, and what went wrong."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    head, tail = f"GET /v1/topics/{TOPIC}?after=".encode(), b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    got: dict[int, int] = {}
    known: dict[bytes, tuple[bytes, list[int]]] = {}
    rest: dict[int, bytes] = {}
    failures: list[str] = []
    delivered = [0] * (MESSAGES + 1)
    last = [0.0] * (MESSAGES + 1)
    request = head + cursor.encode() + tail

    def turn(timeout: float) -> None:
        for fd, _ in poll.poll(timeout, 1024):
            try:
                data = rest.pop(fd, b"") + sockets[fd].recv(65536)
                if data not in known:
                    answer = parse(data)
                    if answer is None:
                        rest[fd] = data
                        continue
                    known[data] = answer
                after, numbers = known[data]
                sockets[fd].send(head + after + tail)
            except (OSError, ValueError) as error:
                failures.append(f"{error!r}"[:200])
                poll.unregister(fd)
                continue
            for message in numbers:
                if message != got[fd] + 1:
                    failures.append(f"message {message} after {got[fd]}")
                    continue
                got[fd] = message
                delivered[message] += 1
                last[message] = time.monotonic()

    for index in range(clients):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT is left behind
        sock.bind((f"127.1.{number}.{1 + index // CLIENTS_OF_AN_ADDRESS}", 0))
        sock.connect(("127.0.0.1", port))
        sock.send(request)
        sock.setblocking(False)
        sockets[sock.fileno()], got[sock.fileno()] = sock, 0
        poll.register(sock.fileno(), select.EPOLLIN)
        if index % OPENING == 0:
            turn(0)
    print("parked", flush=True)
    told = 0
    parent = os.getppid()
    while os.getppid() == parent:
        turn(0.5)
        late = told < MESSAGES and delivered[told + 1] and time.monotonic() - last[told + 1] > PATIENCE_S
        if failures or late or (told < MESSAGES and delivered[told + 1] == clients):
            told = min(told + 1, MESSAGES)
            print(json.dumps([delivered[told], last[told], failures[:3]]), flush=True)
            failures.clear()


def parse(data: bytes) -> tuple[bytes, list[int]] | None:
    """The cursor, and the numbers in the messages; None while it is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if not data:
            raise ValueError("closed by the server")
        return None
    found = re.search(rb"(?i)content-length: (\d+)", data[:end])
    if found is None or not data.startswith(b"HTTP/1.1 200 "):
        raise ValueError(data[:100])
    body = data[end + 4 :]
    if len(body) < int(found[1]):
        return None
    answer = json.loads(body)
    if "gap" in answer:
        raise ValueError(answer["gap"])
    return answer["cursor"].encode(), [message["data"]["number"] for message in answer["messages"]]


if __name__ == "__main__":
    port, number, clients, cursor = sys.argv[1:]
    crowd(int(port), int(number), int(clients), cursor)
