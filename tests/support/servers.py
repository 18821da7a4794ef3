"""Servers of our own, to be stopped, crashed, frozen and restarted: a Postgres and a pgbouncer, on loopback."""

import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

import psutil
from conftest import DEADLINE_S, free_port

from notifier.embedded.account import find_account
from notifier.embedded.binaries import find_binaries
from notifier.embedded.child import Child, until
from notifier.embedded.cluster import Cluster


class Postgres:
    """A server on TCP. `url` leads to its database `postgres`."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None, binaries: Path | None = None) -> None:
        self._cluster = Cluster(folder)
        self._binaries = binaries or find_binaries(self._cluster.account, None, self._cluster.home)
        self._settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(free_port()),
            "unix_socket_directories": "",
            "fsync": "off",
            **(settings or {}),
        }
        self._child: Child | None = None
        self._frozen: list[psutil.Process] = []

    @property
    def url(self) -> str:
        credentials = self._cluster.dsn().partition("@")[0]
        return f"{credentials}@127.0.0.1:{self._settings['port']}/postgres"

    @property
    def account(self):
        return self._cluster.account

    @property
    def data(self) -> Path:
        return self._cluster.data

    async def create(self) -> None:
        await self._cluster.create(self._binaries)

    async def start(self) -> None:
        """Return when it takes connections."""
        command: list[str | Path] = [self._binaries / "postgres", "-D", self._cluster.data]
        command += [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        child = self._child = Child(command, self._cluster.account, self._cluster.log)
        ready = await until(lambda: self._cluster.postmaster() == (child.pid, True) or not child.runs(), DEADLINE_S)
        assert ready, child.last_words()
        assert child.runs(), child.last_words()

    async def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is a fast shutdown; SIGQUIT an immediate one, which is a crash: the next start recovers."""
        assert self._child
        os.kill(self._child.pid, how)
        assert await until(lambda: not self._child.runs(), DEADLINE_S), self._child.last_words()
        await self._child.stop()
        self._child = None

    def freeze(self) -> None:
        """Stop every process of the server where it stands. The kernel still takes connections for it."""
        assert self._child
        postmaster = psutil.Process(self._child.pid)
        postmaster.suspend()  # first: then there are no new backends
        self._frozen = [postmaster, *postmaster.children()]
        for process in self._frozen[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        frozen, self._frozen = self._frozen, []
        for process in reversed(frozen):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    async def restore(self) -> None:
        """Make it run again, whatever a test has done to it."""
        self.thaw()
        if self._child is None:
            await self.start()

    async def close(self) -> None:
        self.thaw()
        if self._child:
            await self._child.stop()


class Pgbouncer:
    """A transaction pooler in front of the server at `url`, open to all users. `url` leads through it."""

    def __init__(self, folder: Path, target: str) -> None:
        self._port = free_port()
        credentials, _, address = target.removeprefix("postgresql://").rpartition("@")
        user, _, password = credentials.partition(":")
        server, _, database = address.partition("/")
        host, _, port = server.partition(":")
        self.url = f"postgresql://{user}@127.0.0.1:{self._port}/{database}"
        self._account = find_account(None)
        self._log = folder / "pgbouncer.log"
        self._config = folder / "pgbouncer.ini"
        self._config.write_text(
            f"[databases]\n"
            f"{database} = host={host} port={port} user={user} password={password}\n"
            f"[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\n"
            f"listen_port = {self._port}\n"
            f"unix_socket_dir =\n"
            f"auth_type = any\n"
            f"pool_mode = transaction\n"
            f"default_pool_size = 5\n"
            f"min_pool_size = 5\n"
            f"server_round_robin = 1\n"  # each statement on another server where it may be, as under load
            f"server_login_retry = 0.2\n"
        )
        os.chown(self._config, self._account.uid, self._account.gid)
        self._child: Child | None = None

    async def start(self) -> None:
        """Return when it takes connections."""
        child = self._child = Child(["/usr/sbin/pgbouncer", self._config], self._account, self._log)
        assert await until(lambda: _listens(self._port) or not child.runs(), DEADLINE_S), child.last_words()
        assert child.runs(), child.last_words()

    async def close(self) -> None:
        if self._child:
            os.kill(self._child.pid, signal.SIGTERM)  # at once; SIGINT waits for the clients
            await until(lambda: not self._child.runs(), DEADLINE_S)
            await self._child.stop()


def _listens(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
