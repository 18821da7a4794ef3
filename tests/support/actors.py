"""Processes inside `embedded_postgres`, and what they leave running."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

DEADLINE_S = 60  # bounds a hang, nothing else

EVERY_USER = ["root", "nobody"] if os.geteuid() == 0 else ["an ordinary user"]
"""The users that we can run as; the last one is never root."""


class Actor:
    """A process inside `embedded_postgres`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.announced: list[str] = []

    async def said(self) -> dict[str, str]:
        """The DSN or the error."""
        async with asyncio.timeout(DEADLINE_S):
            while line := await self.process.stdout.readline():
                said = json.loads(line)
                if "announced" not in said:
                    return said
                self.announced.append(said["announced"])
        pytest.fail("the process ended without a word")

    async def dsn(self) -> str:
        return (await self.said())["dsn"]

    async def leave(self) -> None:
        self.process.stdin.close()
        async with asyncio.timeout(DEADLINE_S):
            assert await self.process.wait() == 0

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


def running(folder: Path, doing: str = "") -> list[psutil.Process]:
    """Processes that work in the folder or were started for it (servers, their backends, initdb, guards), of whose
    command line `doing` is a part."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            inside = str(folder) in command or process.cwd().startswith(f"{folder}/")
            if inside and doing in command and process.pid != os.getpid():
                found.append(process)
    return found


def pids(folder: Path) -> set[int]:
    return {process.pid for process in running(folder)}


def is_open(process: psutil.Process, file: str) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return any(opened.path == file for opened in process.open_files())
    return False


async def eventually(condition: Callable[[], object], what: str) -> None:
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not within {DEADLINE_S} s: {what}")


async def nothing_runs(folder: Path) -> None:
    await eventually(lambda: not running(folder), f"nothing runs in {folder}")


def postmaster(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split("\n")[0])


def kill_all(folder: Path, spare: int | None = None) -> None:
    """SIGKILL for everything that runs in the folder; frozen first, so that none has time to react to another's end."""
    for deed in (signal.SIGSTOP, signal.SIGKILL):
        for process in running(folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.pid != spare:
                    process.send_signal(deed)
