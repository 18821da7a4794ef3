"""What is broken: a primary and its standby, servers of the service, and nginx before them. All on loopback."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from conftest import ROOT, free_port
from support.servers import Postgres

from notifier.embedded.account import Account
from notifier.embedded.child import Child, until

PATIENCE_S = 40.0
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
US = Account("", os.geteuid(), os.getegid())

SETTINGS = {
    # What no commit has flushed, nothing else soon does: a crash takes it.
    "wal_writer_delay": "10s",
    "wal_keep_size": "512MB",
    "max_connections": "100",
    "primary_conninfo": "",
}


class Notifier:
    """`notifier serve`, with one process or more."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.port = free_port()
        self._log = folder / f"{name}.log"
        self._environment = environment | {"PORT": str(self.port), "PYTHONPATH": str(ROOT)}
        self._child: Child | None = None
        self._frozen: list[psutil.Process] = []

    async def start(self) -> None:
        """Return when it is ready."""
        child = self._child = Child([sys.executable, "-m", "notifier", "serve"], US, self._log, self._environment)
        async with asyncio.timeout(PATIENCE_S):
            while not await asyncio.to_thread(self._is_ready):
                if not child.runs():
                    raise RuntimeError(f"{self.name} does not start:\n{child.last_words()}")
                await asyncio.sleep(0.05)

    def processes(self) -> list[psutil.Process]:
        """Those that serve: the workers, or the one process."""
        assert self._child
        with contextlib.suppress(psutil.NoSuchProcess):
            main = psutil.Process(self._child.pid)
            return main.children() or [main]
        return []

    def freeze(self, rng: random.Random) -> None:
        """One of those that serve."""
        if processes := self.processes():
            self._frozen.append(process := rng.choice(processes))
            process.suspend()

    def thaw(self) -> None:
        while self._frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._frozen.pop().resume()

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End all of it, and return when it has gone."""
        self.thaw()
        if self._child is None:
            return
        child, self._child = self._child, None
        workers = []
        with contextlib.suppress(psutil.NoSuchProcess):
            workers = psutil.Process(child.pid).children()
        if child.runs():
            os.kill(child.pid, how)
        if not await until(lambda: not child.runs(), 20):
            os.kill(child.pid, signal.SIGKILL)
        await child.stop()
        _, alive = await asyncio.to_thread(psutil.wait_procs, workers, 15)
        for each in alive:
            each.kill()

    def words(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False


class Nginx:
    """A proxy before several servers, which numbers requests as many do."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        self.port = free_port()
        self._folder = folder
        self._child: Child | None = None
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
        (folder / "nginx.conf").write_text(
            f"{'user root;' if os.geteuid() == 0 else ''} daemon off; pid {folder}/nginx.pid; worker_processes 1;\n"
            f"error_log {folder}/nginx-error.log; events {{ worker_connections 1000; }}\n"
            f"http {{ access_log off; client_body_temp_path {folder}/client; {temporary}\n"
            f"upstream notifier {{ {' '.join(f'server 127.0.0.1:{port};' for port in ports)} keepalive 64; }}\n"
            f"server {{ listen 127.0.0.1:{self.port}; location / {{ proxy_pass http://notifier;\n"
            'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host localhost;\n'
            "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
            "proxy_set_header X-Request-Id $request_id; proxy_read_timeout 60s; proxy_buffering off; } } }\n"
        )

    async def start(self) -> None:
        assert NGINX, "make test-all installs nginx"
        command = [NGINX, "-e", self._folder / "nginx-error.log", "-c", self._folder / "nginx.conf"]
        self._child = Child(command, US, self._folder / "nginx.log")
        for _ in range(200):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.transport.abort()
                return
            await asyncio.sleep(0.02)
        raise RuntimeError(f"nginx does not start:\n{self._child.last_words()}")

    async def stop(self) -> None:
        if self._child:
            child, self._child = self._child, None
            await child.stop()


class NoStandby(Exception):
    """The primary could not be copied."""


class Replicable(Postgres):
    """A server that can begin as a copy of another, and change its port."""

    async def copy(self, primary: str) -> None:
        """Begin as a standby of `primary`. NoStandby where that breaks meanwhile."""
        parts = urlsplit(primary)
        self._cluster.data.parent.mkdir(parents=True, exist_ok=True)
        os.chown(self._cluster.home, self.account.uid, self.account.gid)
        command = [self._binaries / "pg_basebackup", "-D", self._cluster.data, "-d", primary, "-X", "stream"]
        copying = Child([*command, "-c", "fast"], self.account, self._cluster.log)
        try:
            await until(lambda: not copying.runs(), PATIENCE_S)
        finally:
            await copying.stop()
        if copying.status():
            raise NoStandby(copying.last_words())
        credentials = f"user={parts.username} password={parts.password}"
        self._settings["primary_conninfo"] = f"host=127.0.0.1 port={parts.port} {credentials}"
        (self._cluster.data / "standby.signal").touch()

    def move(self, port: int) -> None:
        """Listen there when it is started next, and follow nobody."""
        self._settings |= {"port": str(port), "primary_conninfo": ""}

    def demote(self) -> None:
        """Be a standby at the next start, of nobody: promoted, it has another timeline."""
        (self._cluster.data / "standby.signal").touch()

    async def start(self) -> None:
        """Return when it takes connections, if only to be read."""
        command: list[str | Path] = [self._binaries / "postgres", "-D", self._cluster.data]
        command += [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        child = self._child = Child(command, self.account, self._cluster.log)
        if not await until(lambda: self._is_open() or not child.runs(), PATIENCE_S) or not child.runs():
            raise RuntimeError(f"Postgres does not start:\n{child.last_words()}")

    def _is_open(self) -> bool:
        try:
            lines = (self._cluster.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        ours = self._child is not None and lines[:1] == [str(self._child.pid)]
        return ours and lines[7:] != [] and lines[7].strip() in {"ready", "standby"}


class Databases:
    """A primary at one address, and a standby that can take its place there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._port = free_port()
        self.primary = self._made()
        self._standby: Replicable | None = None
        self._making: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return self.primary.url

    async def start(self) -> None:
        await self.primary.create()
        await self.primary.start()

    def make_standby(self) -> None:
        """In the background, from the primary as it is now."""
        self._making = asyncio.create_task(self._make_standby())

    async def standby(self) -> Replicable:
        """One that has caught up."""
        if self._making is None:
            self.make_standby()
        assert self._making
        await self._making
        assert self._standby
        return self._standby

    def take_over(self) -> Replicable:
        """Make the standby, which must not run, the primary; it still has to be started. The old one, which has moved
        to another address."""
        assert self._standby
        old, self.primary = self.primary, self._standby
        old.move(free_port())
        self.primary.move(self._port)
        self._standby = self._making = None
        return old

    async def discard_standby(self) -> None:
        """The one there is cannot follow the primary any more."""
        if self._making:
            self._making.cancel()
            await asyncio.gather(self._making, return_exceptions=True)
        if self._standby:
            await self._standby.close()
        self._standby = self._making = None

    async def close(self) -> None:
        await self.discard_standby()
        await self.primary.close()

    def _made(self, port: int | None = None) -> Replicable:
        self._number += 1
        settings = SETTINGS | {"port": str(port or self._port)}
        return Replicable(self._folder / f"postgres-{self._number}", settings)

    async def _make_standby(self) -> None:
        while self._standby is None:
            standby = self._made(free_port())
            try:
                await standby.copy(self.primary.url)
            except NoStandby:
                await asyncio.sleep(0.2)  # something is being broken
            else:
                self._standby = standby
                await standby.start()
