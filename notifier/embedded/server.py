"""One process's share in running the server of a folder that several processes may use."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

from notifier.embedded.account import EmbeddedError
from notifier.embedded.binaries import find_binaries, version_of
from notifier.embedded.child import Child, shut_down, until
from notifier.embedded.cluster import Cluster, failed

logger = logging.getLogger(__name__)

SETTINGS = {
    "listen_addresses": "",
    "port": "5432",  # no more than a part of the socket's name
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
}

TICK_S = 0.1  # how soon a dead server or owner is noticed; costs a few system calls
RETRY_S = 2.0
ATTACH_S = 60.0  # an owner whose server does not listen by then is stuck
LEFTOVERS_S = 30.0  # the backends of a killed server finish their statement before they notice

# Where Postgres has the memory that its processes share while they run; its buffers are elsewhere.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
SHARED_BYTES = 16 << 20


def small_memory() -> dict[str, str]:
    """A setting for machines and containers with too little shared memory: files in the folder of the data instead.
    Postgres finds out by itself only where there is none at all."""
    try:
        free = os.statvfs(SHARED_MEMORY)
    except OSError:
        return {}
    return {"dynamic_shared_memory_type": "mmap"} if free.f_bavail * free.f_frsize < SHARED_BYTES else {}


@contextlib.asynccontextmanager
async def embedded_postgres(
    directory: Path,
    *,
    settings: Mapping[str, str] | None = None,
    announce: Callable[[str], None] | None = None,
) -> AsyncIterator[str]:
    """Yield the DSN (it holds a password: never log it) of a Postgres whose data is in `directory`.

    The folder is created if it is missing. `settings` are server settings such as `{"fsync": "off"}`; those of the
    process that runs the server count. `announce` gets a sentence that says where the data is.

    Inside, the server is started again when it dies; connections break then, as with any server. A process that forks
    must enter this in its children, after the fork: a child would inherit the lock.

    Raises `EmbeddedError` when no server can run here.
    """
    with _explained(directory):
        server = Server(Cluster(directory), {**SETTINGS, **(settings or {})})
    try:
        with _explained(directory):
            await server.enter()
            dsn = server.cluster.dsn()
        if announce:
            announce(f"Embedded Postgres {server.cluster.major()}, data in {server.cluster.where}")
        keeper = asyncio.create_task(server.keep())
        try:
            yield dsn
        finally:
            keeper.cancel()
            await asyncio.wait([keeper])
    finally:
        await server.leave()


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedError(f"No database can be kept in {directory} ({error}). Set DATABASE_URL.") from error


class Server:
    """Ours while we hold the lock, another process's otherwise."""

    def __init__(self, cluster: Cluster, settings: Mapping[str, str]) -> None:
        self.cluster = cluster
        self._settings = {**settings, "unix_socket_directories": str(cluster.sockets)}
        self._lock: int | None = None
        self._postmaster: Child | None = None

    async def enter(self) -> None:
        """Return when a server takes connections, ours or another process's."""
        while not self._own():
            if not await until(lambda: self._own() or self.cluster.listens(), ATTACH_S):
                raise EmbeddedError(f"The process that holds {self.cluster.lock} runs no server. End it.")
            if self._lock is None and self.cluster.postmaster()[1]:
                return
            await asyncio.sleep(0.02)
        if self.cluster.major() is None:
            binaries = await self._binaries()
            settable = (version_of(binaries, self.cluster.account) or ()) >= (16,)
            await self.cluster.create(binaries, small_memory() if settable else {})
        await self._start()

    async def keep(self) -> None:
        """Own the server as soon as no other process does; start it again when it has died. Runs until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                if not self._lock_is_current():
                    await self.leave()  # the folder was deleted; what is there now belongs to others
                if self._own():
                    if self._postmaster is None or not self._postmaster.runs():
                        await self._start()
                    self.cluster.rotate_log()
            except (EmbeddedError, OSError) as error:
                logger.error("The embedded Postgres is down: %s", error)  # noqa: TRY400  # the sentence says it all
                await asyncio.sleep(RETRY_S)

    async def leave(self) -> None:
        """Stop the server and release the folder, if they are ours. Another process that uses it starts it again."""
        lock, self._lock = self._lock, None
        try:
            await self._stop()
        finally:
            if lock is not None:
                os.close(lock)

    def _own(self) -> bool:
        """Take the lock if it is free. The kernel releases it however its holder ends."""
        if self._lock is None:
            lock = os.open(self.cluster.lock, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return False
            except OSError:
                os.close(lock)
                raise
            self._lock = lock
        return True

    def _lock_is_current(self) -> bool:
        if self._lock is None:
            return True
        try:
            return os.path.samestat(os.fstat(self._lock), self.cluster.lock.stat())
        except FileNotFoundError:
            return False

    async def _binaries(self) -> Path:
        return await asyncio.to_thread(find_binaries, self.cluster.account, self.cluster.major(), self.cluster.home)

    async def _start(self) -> None:
        """As the owner: start the server, and return when it takes connections."""
        await self._stop()
        cluster = self.cluster
        if cluster.major() is None:
            raise EmbeddedError(f"{cluster.data} has disappeared.")
        folder = await self._binaries()
        cluster.remove_ruin()
        stale, _ = cluster.postmaster()
        if stale:  # the last owner's server may still be on its way down, or an orphan whose guard was killed too
            await shut_down(stale, lambda: cluster.is_run_by(stale))
        if cluster.listens():
            raise EmbeddedError(f"A server that this process cannot see (in another container?) uses {cluster.data}.")
        cluster.open_sockets()
        command: list[str | Path] = [folder / "postgres", "-D", cluster.data]
        settings = {**small_memory(), **self._settings}
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # By now the pid in postmaster.pid is unused or another program's, and Postgres would not start while that one
        # runs. It does ignore the pid of its grandparent, and still looks for backends that were left behind.
        stranger = {"PG_GRANDPARENT_PID": str(stale)}
        deadline = asyncio.get_running_loop().time() + LEFTOVERS_S
        while True:
            self._postmaster = Child(command, cluster.account, cluster.log, stranger)
            if await self._becomes_ready(self._postmaster):
                return
            words = self._postmaster.last_words()
            await self._stop()
            if "pre-existing shared memory block" not in words or asyncio.get_running_loop().time() > deadline:
                raise failed(f"Postgres did not start on {cluster.data}", words)
            await asyncio.sleep(TICK_S)

    async def _becomes_ready(self, child: Child) -> bool:
        """False when it ended instead. There is no other bound: recovery from a crash may take long."""
        await until(lambda: self.cluster.postmaster() == (child.pid, True) or not child.runs())
        return child.runs()

    async def _stop(self) -> None:
        postmaster, self._postmaster = self._postmaster, None
        if postmaster:
            await postmaster.stop()
            self.cluster.close_sockets()
