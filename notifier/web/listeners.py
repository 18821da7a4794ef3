"""The sockets that listen: bound here, or handed over by the platform (systemd's socket activation)."""

import errno
import socket
from dataclasses import replace
from typing import Any

from notifier.settings import Settings, SettingsError, is_loopback
from notifier.web.process import BACKLOG

# Where they begin, by sd_listen_fds(3).
FIRST_HANDED_OVER = 3


def listen(settings: Settings) -> tuple[Settings, list[list[socket.socket]]]:
    """For each process a socket for each address, all on one port; and the settings with the address that it is. The
    first process's listen already: connections wait there until it serves, so that a restart refuses them for no longer
    than Python takes to begin. SettingsError where the address is not safe, OSError when another program has the port,
    or when what was handed over does not listen."""
    if settings.listen_fds:
        given = [_handed_over(FIRST_HANDED_OVER + number) for number in range(settings.listen_fds)]
        addresses = [sock.getsockname() for sock in given]
        host, port, *_ = next((each for each in addresses if not is_loopback(each[0])), addresses[0])
        settings = replace(settings, host=host, port=port)
        try:
            settings.check_exposure()
        except SettingsError:
            for sock in given:
                sock.close()
            raise
        return settings, [given] * settings.processes
    settings.check_exposure()
    slots = bind(settings.host, settings.port, settings.processes)
    for sock in slots[0]:
        sock.listen(BACKLOG)
    return settings, slots


def bind(host: str, port: int, count: int) -> list[list[socket.socket]]:
    """For each of `count` slots a socket for each address of `host`, all on one port and none listening yet. OSError
    when another program has the port."""
    slots: list[list[socket.socket]] = [[] for _ in range(count)]
    missing: OSError | None = None
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
        try:
            # Not shared, or a second server on the port would not notice the first.
            probe = bound(family, (address[0], port, *address[2:]), shared=False)
        except OSError as error:
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                raise
            missing = error  # a name may have an IPv6 address where there is no IPv6
            continue
        port = probe.getsockname()[1]
        if count == 1:
            slots[0].append(probe)
            continue
        probe.close()
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
        if error.errno == errno.EADDRINUSE:
            reason += ". Set PORT to another port, or to 0 for any that is free"
        raise OSError(error.errno, f"error while attempting to bind on address {address[:2]}: {reason}") from None
    return sock


def _handed_over(number: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=number)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise OSError(error.errno, f"LISTEN_FDS: {number} is not a socket") from None
    if not listens or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        sock.detach()
        raise OSError(errno.EINVAL, f"LISTEN_FDS: {number} is not a TCP socket that listens")
    sock.set_inheritable(False)
    return sock
