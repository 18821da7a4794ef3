"""Sockets that share an address."""

import errno
import socket
from typing import Any


def bind(host: str, port: int, count: int) -> list[list[socket.socket]]:
    """For each of `count` slots a socket for each address of `host`, all on one port and none listening yet: the first
    worker begins that, and connections are refused until then. OSError when another program has the port."""
    slots: list[list[socket.socket]] = [[] for _ in range(count)]
    missing: OSError | None = None
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
        try:
            # Not shared, or a second server on the port would not notice the first.
            with bound(family, (address[0], port, *address[2:]), shared=False) as probe:
                port = probe.getsockname()[1]
        except OSError as error:
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
            missing = error  # a name may have an IPv6 address where there is no IPv6
            continue
        for sockets in slots:
            sockets.append(bound(family, (address[0], port, *address[2:]), shared=True))
    if missing and not slots[0]:
        raise missing
    return slots


def bound(family: int, address: tuple[Any, ...], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        reason = (error.strerror or str(error)).lower()
        raise OSError(error.errno, f"error while attempting to bind on address {address[:2]}: {reason}") from None
    return sock
