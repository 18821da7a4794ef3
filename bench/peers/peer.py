"""A peer: another way to build long-polling, measured beside Notifier on the same work in the same run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

FOLDER = Path(__file__).resolve().parent

Dialect = Literal["plain", "nchan", "socketio", "durable-streams", "notifier"]

# As many clients as any peer is asked to hold: below the open files that most machines allow a process.
MOST = 15_000


class Runtime(Protocol):
    """What a peer runs on: how that gets here, and how the peer is started on it."""

    def missing(self, packages: Sequence[str], /) -> str | None:
        """None if programs that use `packages` can run here, otherwise what is missing."""

    def install(self) -> None:
        """Bring it, quietly; nothing where it is there already. RuntimeError: it cannot be had here."""

    def version(self, packages: Sequence[str], /) -> str:
        """Of what it has installed, and its own: express 5.3.0 on node 20.20.2."""

    def command(self, program: Sequence[str], port: int, folder: Path, /) -> Sequence[str]:
        """What serves `program` on `port` of the loopback in the foreground. It may write into `folder`."""


@dataclass(frozen=True)
class Peer:
    """`most` is how many clients it is asked to hold at most. `durable`: what it has accepted survives its process."""

    name: str
    slug: str
    dialect: Dialect
    runtime: Runtime = field(repr=False)
    program: tuple[str, ...] = field(repr=False)
    packages: tuple[str, ...] = field(default=(), repr=False)
    most: int = MOST
    durable: bool = False

    def missing(self) -> str | None:
        """None if it can run here, otherwise what is missing."""
        return self.runtime.missing(self.packages)

    def version(self) -> str:
        """For people: express 5.3.0 on node 20.20.2."""
        return self.runtime.version(self.packages)

    def command(self, port: int, folder: Path) -> Sequence[str]:
        return self.runtime.command(self.program, port, folder)


@dataclass(frozen=True)
class Served:
    """A peer that serves. `pids` are all its processes, now: masters and workers."""

    port: int
    pids: Callable[[], list[int]]
