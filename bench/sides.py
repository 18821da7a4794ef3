"""The servers that are compared, ours and a peer, each with a crowd of its own."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bench import peers, procs
from bench.database import FLUSHES, Flush, database, postmaster
from bench.load import Load, loading
from bench.server import NOTIFIER, running
from bench.setup import Stage

OURS = "Notifier"
TOPIC = "bench"

# Parked before memory is first looked at, so that what a server loads with its first clients is not theirs.
FEW = 10
# The peers in JavaScript need some until they are compiled, also of small crowds.
WARM_UPS = 5

_, NATIVE = FLUSHES


@dataclass(frozen=True)
class Side:
    """A server, and how one talks to it. `postgres` are the processes of our database if they are on this machine."""

    name: str
    dialect: str
    port: int
    pids: procs.Pids
    health: str = "/health"
    postgres: procs.Pids = list
    database: str = ""


@asynccontextmanager
async def ours(stage: Stage, flush: Flush = NATIVE) -> AsyncIterator[Side]:
    """Notifier as shipped, on a database of its own."""
    async with database(stage.postgres, flush) as url, running(NOTIFIER, url) as server:
        master = await postmaster(url)
        yield Side(
            OURS,
            "notifier",
            server.port,
            lambda: procs.family(server.pid),
            "/healthz",
            lambda: procs.family(master) if master else [],
            url,
        )


@asynccontextmanager
async def theirs(peer: peers.Peer) -> AsyncIterator[Side]:
    async with peers.serving(peer) as served:
        yield Side(peer.name, peer.dialect, served.port, served.pids)


@dataclass(frozen=True, slots=True)
class FanOut:
    """One message for all. CPU in µs for each delivery: the server's (until all have polled again and it is quiet), our
    Postgres' and the crowd's. `all_ms` until the last client had it; `began` and `ended` are CLOCK_MONOTONIC."""

    cpu_us: float
    postgres_us: float
    crowd_us: float
    crowd_share: float
    all_ms: float
    began: float
    ended: float


@dataclass
class Crowd:
    """The clients of one side, in a process of their own. `void`: what they lost, got twice, or were refused."""

    side: Side
    load: Load
    void: list[str] = field(default_factory=list)
    count: int = 0
    empty: int = 0

    async def park(self, count: int) -> None:
        """Until there are `count` clients, all of them parked."""
        self.check(await self.load.run("crowd_grow", count=count))
        self.count = count
        await self.quiet()

    async def fan_out(self) -> FanOut:
        pids, postgres = self.side.pids(), self.side.postgres()
        cpu, beside = procs.cpu_s(pids), procs.cpu_s(postgres)
        done = self.check(await self.load.run("crowd_fan_out"))
        await self.quiet()
        after = self.check(await self.load.run("crowd_state"))  # something may have come twice
        if done["wrongs"] or after["wrongs"]:  # nothing that follows would say anything
            raise RuntimeError("; ".join(self.void))
        each = 1e6 / self.count
        return FanOut(
            (procs.cpu_s(pids) - cpu) * each,
            (procs.cpu_s(postgres) - beside) * each,
            done["cpu_s"] * each,
            done["cpu_s"] / done["all_s"],
            done["all_s"] * 1000,
            done["began"],
            done["ended"],
        )

    async def quiet(self) -> None:
        if not await procs.quiet(self.side.pids):
            self.void.append(f"{self.side.name} did not become quiet")

    def check(self, result: dict[str, Any]) -> dict[str, Any]:
        """Keep what was wrong; the result."""
        self.empty += result["empty"]
        self.void += [f"{self.side.name}: {what}" for what in result["wrong"]]
        if result["wrongs"] > len(result["wrong"]):
            self.void.append(f"{self.side.name}: {result['wrongs']} losses, duplicates and errors in all")
        return result

    def memory(self) -> int:
        return procs.memory(self.side.pids())


@asynccontextmanager
async def crowd(side: Side, topics: Sequence[str] = (TOPIC,), *, tokens: bool = False) -> AsyncIterator[Crowd]:
    """No clients yet. They hang up before their server is stopped."""
    async with loading() as load:
        await load.run("crowd_open", port=side.port, dialect=side.dialect, topics=topics, tokens=tokens)
        yield Crowd(side, load)
