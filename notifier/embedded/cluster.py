"""The folder of an embedded database, and what it says about its server.

<home>/owner.lock     held by the process that runs the server
<home>/data/          the cluster, with the superuser's password in pgpass (mode 0600) and the socket
<home>/postgres.log   and postgres.log.1
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shlex
import shutil
import socket
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from notifier.embedded.account import Account, EmbeddedError, find_account
from notifier.embedded.child import Child, until

ELSEWHERE = (Path("/var/lib/notifier"), Path("/var/tmp/notifier"))  # noqa: S108  # unlike /tmp it outlives a reboot
"""Where root's data goes when the server's user cannot reach the requested folder."""

SOCKET = ".s.PGSQL.5432"
LONGEST_SOCKET = 100  # bytes; Linux takes 107, macOS 103
LOG_BYTES = 4 << 20


class Cluster:
    """A folder that the server's user can reach.

    `where` names it; it is not the requested folder when root requests one that the server's user cannot enter.
    Existing folders keep their mode: opening a home directory to others is not ours to decide.
    """

    def __init__(self, directory: Path) -> None:
        directory = directory.resolve()
        self.home, self.account = _settle(directory)
        self.where = str(self.home)
        if self.home != directory:
            self.where += f" (not in {directory}: the server's user {self.account.name!r} cannot reach that)"
        self.data = self.home / "data"
        self.log = self.home / "postgres.log"
        self.lock = self.home / "owner.lock"
        self.sockets = _socket_folder(self.data)

    def major(self) -> int | None:
        """The PostgreSQL version of the data; None when there is none."""
        file = self.data / "PG_VERSION"
        try:
            written = file.read_bytes()
        except FileNotFoundError:
            return None
        if not written.strip().isdigit():
            # Each database has one, too.
            spare = self.data / "base" / "1" / "PG_VERSION"
            lost = f"{file} does not hold a version, as after a power cut"
            if spare.exists() and spare.read_bytes().strip().isdigit():
                raise EmbeddedError(f"{lost}. Put it back: cat {quoted(spare)} > {quoted(file)}")
            raise EmbeddedError(f"{lost}, and more may be lost. Restore the folder, or move it away to begin anew.")
        return int(written)

    def dsn(self) -> str:
        password = (self.data / "pgpass").read_text().strip().rpartition(":")[2]
        return f"postgresql://postgres:{password}@/postgres?host={quote(str(self.sockets), safe='')}&port=5432"

    def postmaster(self) -> tuple[int, bool]:
        """The pid in postmaster.pid (0: none), which may be stale, and whether that server took connections."""
        try:
            lines = (self.data / "postmaster.pid").read_bytes().split(b"\n")
        except FileNotFoundError:
            return 0, False
        pid = int(lines[0]) if lines[0].isdigit() else 0
        return pid, len(lines) > 7 and lines[7].strip() == b"ready"  # as pg_ctl does

    def remove_ruin(self) -> None:
        """Remove a postmaster.pid without a pid, which a power cut leaves, and which no server starts beside. (Ours
        write theirs while we hold the lock, and those that we took over have been there for longer.)"""
        with contextlib.suppress(FileNotFoundError):
            if not (self.data / "postmaster.pid").read_bytes().split(b"\n")[0].isdigit():
                (self.data / "postmaster.pid").unlink()

    def is_run_by(self, pid: int) -> bool:
        """Whether that process is a server on this folder: by now the pid in a file may belong to another program."""
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            if Path("/proc/self").exists():
                return False
            command = self.account.run(["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]).stdout
        return b"postgres -D %b " % os.fsencode(self.data) in command

    def listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(str(self.sockets / SOCKET))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            except BlockingIOError:  # its queue is full
                return True
        return True

    async def create(self, binaries: Path, settings: Mapping[str, str] | None = None) -> None:
        """Make the data aside and move it into place when it is complete, so that a kill leaves nothing half-done.
        `settings` are for the servers that make it (PostgreSQL 16 or later)."""
        for ruin in self.home.glob("new-*"):
            shutil.rmtree(ruin, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(prefix="new-", dir=self.home))
        os.chown(aside, self.account.uid, self.account.gid)
        password = secrets.token_urlsafe(24)
        self._write_secret(aside / "password", password)
        command: list[str | Path] = [binaries / "initdb", "-D", aside / "data", "--pwfile", aside / "password"]
        command += ["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-instructions"]
        command += [part for name, value in (settings or {}).items() for part in ("-c", f"{name}={value}")]
        initdb = Child(command, self.account, self.log)
        try:
            await until(lambda: not initdb.runs())
        finally:
            await initdb.stop()
        if initdb.status():
            raise failed(f"No database could be created in {self.home}", initdb.last_words())
        self._write_secret(aside / "data" / "pgpass", f"*:*:*:postgres:{password}\n")
        (aside / "data").rename(self.data)
        _sync(self.data)
        _sync(self.home)
        shutil.rmtree(aside)

    def open_sockets(self) -> None:
        """Make sure that the socket's folder is ours, and remove the socket of a server that is gone."""
        if self.sockets != self.data:
            with contextlib.suppress(FileExistsError):
                self.sockets.mkdir(mode=0o700)
            found = self.sockets.lstat()
            ours = found.st_uid in (self.account.uid, os.geteuid()) and not found.st_mode & 0o077
            if not (ours and stat.S_ISDIR(found.st_mode)):
                raise EmbeddedError(f"{self.sockets}, the folder for the database's socket, belongs to another user.")
            os.chown(self.sockets, self.account.uid, self.account.gid)
        for name in (SOCKET, f"{SOCKET}.lock"):
            (self.sockets / name).unlink(missing_ok=True)

    def close_sockets(self) -> None:
        if self.sockets != self.data:
            with contextlib.suppress(OSError):
                self.sockets.rmdir()

    def rotate_log(self) -> None:
        if self.log.stat().st_size > LOG_BYTES:
            shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)

    def _write_secret(self, path: Path, text: str) -> None:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            os.fchown(file.fileno(), self.account.uid, self.account.gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def failed(what: str, words: str) -> EmbeddedError:
    """`what` has failed, as Postgres says it, with what helps where that is known."""
    helps = ""
    if "No space left on device" in words:
        helps = "\nMake room on that disk, or start from a folder on another one."
        if "shared memory segment" in words:  # in the same words
            helps = "\nGive this machine or container more shared memory, or remove what others have left (ipcs -m)."
    return EmbeddedError(f"{what}:\n{words}{helps}")


def quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _settle(directory: Path) -> tuple[Path, Account]:
    """The folder of the data, and the user that runs the server."""
    if os.geteuid():
        account = find_account(None)
        _make(directory, 0o700)
        return directory, account
    if (directory / "data").exists():
        account = find_account((directory / "data").stat().st_uid)
        if account.can_enter(directory):
            return directory, account
        raise EmbeddedError(f"The data in {directory} belongs to the user {account.name!r}, which cannot reach it.")

    account = find_account(None)
    others = [folder / _digest(directory) for folder in ELSEWHERE]
    used = [other for other in others if (other / "data").exists()]
    nearest = next(path for path in (directory, *directory.parents) if path.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(nearest))
    if not used and account.can_enter(nearest):
        _make(directory, 0o711)
        return directory, account
    for other in used or others:
        with contextlib.suppress(OSError):
            _make(other, 0o711)
            # Where every user may create files, the name may belong to another one.
            if other.stat().st_uid == other.parent.stat().st_uid == 0 and account.can_enter(other):
                return other, account
    raise EmbeddedError(
        f"The user {account.name!r}, which runs Postgres for root, can reach neither {directory} nor "
        f"{' nor '.join(map(str, ELSEWHERE))}. Start from another folder, or set DATABASE_URL."
    )


def _make(folder: Path, mode: int) -> None:
    """Create the missing parts of the path, with `mode` whatever the umask."""
    for path in (*reversed(folder.parents), folder):
        if not path.exists():
            path.mkdir()
            path.chmod(mode)


def _socket_folder(data: Path) -> Path:
    """The data folder, or, if its name is too long or too odd for a socket's address, a short one of its own."""
    address = str(data / SOCKET)
    if len(address) <= LONGEST_SOCKET and address.isascii() and "," not in address:
        return data
    # Not tempfile.gettempdir(): processes with another TMPDIR have to find the same folder.
    return Path("/tmp") / f"notifier-{_digest(data)}"  # noqa: S108  # its owner is checked


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _sync(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
