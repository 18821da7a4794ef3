"""Peers as processes that cannot outlive the run, not even a killed one."""

import asyncio
import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from bench.peers.peer import FOLDER, Peer, Served

# Bounds a hang: Django's workers take a second, all others less.
START_S = 30.0
END_S = 10.0

# Reads from a pipe whose other end is ours alone, so the read ends when we end it or die, even by SIGKILL; then the
# whole process group goes, this shell too. It goes as well when the program ends by itself. Every connection is a file.
GUARD = """
ulimit -S -n "$(ulimit -H -n)"
{ "$@" </dev/null; kill -KILL 0; } &
read -r _
kill -KILL 0
"""

# All that peers inherit. Nothing of what a developer's shell sets should change what they do.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "NODE_ENV": "production",
    "PYTHONPATH": str(FOLDER / "apps"),
}


@asynccontextmanager
async def serving(peer: Peer, port: int | None = None) -> AsyncIterator[Served]:
    """Start `peer`, wait until it answers /health, and end all its processes on the way out.

    RuntimeError when it does not start or has ended meanwhile, with what it said.
    """
    if missing := peer.missing():
        raise RuntimeError(f"{peer.name} cannot run here: {missing} is missing.")
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="notifier-peer-") as folder:
        async with started(peer.command(port, Path(folder)), port, Path(folder)) as served:
            yield served


@asynccontextmanager
async def started(
    command: Sequence[str],
    port: int,
    folder: Path,
    health: str = "/health",
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Served]:
    """As `serving`, for any command that will answer `health` on `port`; its log goes into `folder`."""
    log = folder / "log"
    reading, ours = os.pipe()
    try:
        with log.open("wb") as output:
            guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "sh", *command],
                stdin=reading,
                stdout=output,
                stderr=output,
                cwd=folder,
                env={
                    **ENVIRONMENT,
                    "HOME": str(folder),
                    "TMPDIR": str(folder),
                    "PORT": str(port),
                    **(environment or {}),
                },
                start_new_session=True,  # a Ctrl-C is ours to handle
            )
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(reading)

    def pids() -> list[int]:
        return [process.pid for process in members(guard.pid)]

    try:
        await answers(port, health, guard, log)
        yield Served(port, pids)
        if guard.poll() is not None:
            raise RuntimeError(f"{command[0]} has ended:\n{last_words(log)}")
    finally:
        left = members(guard.pid)
        os.close(ours)
        guard.wait(END_S)
        async with asyncio.timeout(END_S):
            while any(runs(process) for process in left):
                await asyncio.sleep(0.005)


def members(guard: int) -> list[psutil.Process]:
    """The program that `guard` runs, and its children. The two shells around it are ours."""
    with contextlib.suppress(psutil.NoSuchProcess):
        shell = psutil.Process(guard)
        around = {process.pid for process in shell.children()}
        return [process for process in shell.children(recursive=True) if process.pid not in around]
    return []


def runs(process: psutil.Process) -> bool:
    """Whether it does more than wait for the one who buries orphans."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def answers(port: int, health: str, guard: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when GET `health` is answered with success."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_S):
            while guard.poll() is None:
                with contextlib.suppress(OSError, TimeoutError):
                    if await is_healthy(port, health):
                        return
                await asyncio.sleep(0.02)
    raise RuntimeError(f"Port {port} does not answer {health}:\n{last_words(log)}")


async def is_healthy(port: int, health: str, patience_s: float = 1.0) -> bool:
    """Whether GET `health` is answered with success. OSError, TimeoutError: it is not answered."""
    async with asyncio.timeout(patience_s):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {health} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            return b" 20" in await reader.readline()
        finally:
            writer.close()


def last_words(log: Path) -> str:
    """The end of what the program has said."""
    return log.read_bytes()[-2000:].decode(errors="replace").strip()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port
