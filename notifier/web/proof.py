"""The proof, at start, that this aiohttp has what the hand-over relies on: a real poll, parked and answered.

If it fails, the server works without the hand-over and with aiohttp's own handling of requests. Then parked
polls and unfinished requests cost more memory, but nothing else changes for clients.
"""

import asyncio
import logging
import socket
from importlib.metadata import version

from aiohttp import web
from aiohttp.http import HttpRequestParser
from aiohttp.web_protocol import RequestHandler

from notifier.service import Service
from notifier.web.appkeys import SERVICE
from notifier.web.connections import INTERNALS, AnsweringHandler
from notifier.web.handover import HANDOVER, Handover, ParkedConnection
from notifier.web.server import Server

log = logging.getLogger(__name__)

# How long the poll waits. On a loaded machine a short wait can be over before the poll is parked, and then nothing is
# handed over: a longer one is tried.
WAITS_S = (0.01, 0.1, 1.0)
PROOF_S = 10.0


async def prove(runner: web.AppRunner) -> bool:
    """Whether the fast path works, once `runner` is set up. Where it does not, it is switched off, and the log says so
    in one line."""
    handover = runner.app.get(HANDOVER)
    server = runner.server
    assert isinstance(server, Server)
    if handover is None:
        return False
    try:
        _check_names()
        async with asyncio.timeout(PROOF_S):
            with runner.app[SERVICE].callers.temporary_key() as key:
                for wait_s in WAITS_S:
                    try:
                        await _park(server, handover, runner.app[SERVICE], key, wait_s)
                        break
                    except _NotParked:
                        if wait_s == WAITS_S[-1]:
                            raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the plain path does without it
        log.warning(
            "aiohttp %s is not one of those that this version of notifier was made for (%s): "
            "parked polls and unfinished requests will cost more memory",
            version("aiohttp"),
            str(error) or type(error).__name__,
        )
        server.handler = AnsweringHandler
        return False
    return True


def _check_names() -> None:
    """Check the names first: a missing one would also fail below, but noisily."""
    missing = [name for name in INTERNALS if name not in dir(RequestHandler)]
    if "message_consumed" not in dir(HttpRequestParser):
        missing.append("message_consumed")
    if missing:
        raise _NotProven(f"no {', '.join(missing)}")


async def _park(server: Server, handover: Handover, service: Service, key: str, wait_s: float) -> None:
    """Send a poll that is parked, one from a cursor, the same once more, and something else, on one connection."""
    position = service.window.head
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        await asyncio.get_running_loop().connect_accepted_socket(server, theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
    except asyncio.CancelledError:  # a stop during the start
        ours.close()
        theirs.close()
        raise
    try:
        head = ["Host: localhost", f"Authorization: Bearer {key}", "", ""]
        # The first, without a cursor, is aiohttp's to read.
        polls = [f"GET /v1/topics/notifier?{after}wait={wait_s:g} HTTP/1.1" for after in ("", f"after={position}&")]
        held: list[ParkedConnection] = []
        for request in (*polls, polls[1], "GET /healthz HTTP/1.1"):
            writer.write("\r\n".join([request, *head]).encode())
            try:
                answer = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError as error:
                raise _NotProven("a poll was not answered") from error
            length = int(answer.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            if not answer.startswith(b"HTTP/1.1 200 "):
                raise _NotProven(f"a poll was answered {answer[9:12].decode()}")
            holding = handover.connections()
            if request not in polls:
                if holding:
                    raise _NotProven("a connection was not given back")
            elif not holding or (held and held != holding):
                raise _NotParked("a parked poll was not handed over")
            held = holding
    finally:
        writer.transport.abort()


class _NotProven(Exception):
    """Something that the fast path relies on is missing."""


class _NotParked(_NotProven):
    """Or the poll was over before it could be parked."""
