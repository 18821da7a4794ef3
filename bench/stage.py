"""What is measured on: how much of it, the servers that are compared, ours and a peer's, and the crowd at each."""

import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import peers, procs
from bench.database import NATIVE, Flush, database, postmaster
from bench.load import Load, loading
from bench.load.dialects import SECRET, TOPIC
from bench.peers.peer import MOST
from bench.server import NOTIFIER, ROOT, running

OURS = "Notifier"

# Parked before memory is first looked at, so that what a server loads with its first clients is not theirs.
FEW = 10
# The peers in JavaScript need some until they are compiled, also of small crowds.
WARM_UPS = 5


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    `messages` of a latency round; `seconds` of any other, `sql_seconds` of pgbench's. Crowds are of `clients`; those
    whose last client is waited for, of `last`; `lists` have one each; `inboxes` get messages in rounds of `inbox_s`;
    `idle_s` is one period of waiting, and `watch_s` how long a health request is asked again and again while clients
    are parked. What is compared with another revision is started `repeats` times. A `herd` comes back within
    `return_s`, `herds` times for each number of messages that it has `missed`; `behind` are far behind the log. Of
    publishers in SQL `commits` are timed, and `asks` of small requests; so many topics are `known`. A round of webhooks
    lasts `hook_s`. Of what is published later so much is `due` at once.
    """

    pairs: int
    messages: int
    seconds: float
    sql_seconds: int
    clients: tuple[int, ...]
    last: int
    lists: int
    inboxes: int
    inbox_s: float
    rate: int
    idle_s: float
    watch_s: float
    hang_ups: int
    repeats: int
    herd: int
    herds: int
    missed: tuple[int, ...]
    return_s: float
    behind: int
    commits: int
    asks: int
    known: int
    hook_s: float
    due: int

    def of(self, clients: tuple[int, ...]) -> "Scale":
        """With crowds of `clients`, and none that is larger."""
        most = max(clients)
        smaller = {name: min(most, getattr(self, name)) for name in ("last", "lists", "inboxes", "herd", "behind")}
        return replace(self, clients=clients, **smaller)


FULL = Scale(
    pairs=5,
    messages=300,
    seconds=0.7,
    sql_seconds=2,
    clients=(5_000, 15_000),
    last=10_000,
    lists=10_000,
    inboxes=5_000,
    inbox_s=2.0,
    rate=500,
    idle_s=26.0,  # waits of 25 s end at most one second late
    watch_s=3.0,
    hang_ups=3,
    repeats=3,
    herd=10_000,
    herds=3,
    missed=(0, 100, 5_000, 6_000, 20_000),
    return_s=2.0,
    behind=1_000,
    commits=150,
    asks=400,
    known=1_000_000,
    hook_s=3.0,
    due=100_000,
)
QUICK = Scale(
    pairs=1,
    messages=30,
    seconds=0.2,
    sql_seconds=3,
    clients=(100, 200),
    last=200,
    lists=200,
    inboxes=100,
    inbox_s=0.3,
    rate=200,
    idle_s=0.5,
    watch_s=0.3,
    hang_ups=1,
    repeats=1,
    herd=100,
    herds=1,
    missed=(0, 6_000, 20_000),
    return_s=0.1,
    behind=50,
    commits=10,
    asks=60,
    known=1_000,
    hook_s=0.5,
    due=2_000,
)


@dataclass(frozen=True, slots=True)
class Checkout:
    """Notifier's source, this one or that of another revision, to which this one is compared as to a peer."""

    name: str
    root: Path
    most: int = MOST


HERE = Checkout(OURS, ROOT)

# A server that verifies tokens, and lets publishers and the bench's own requests in without one.
VERIFYING = {"NOTIFIER_JWT_SECRET": SECRET, "NOTIFIER_PUBLIC_SUBSCRIBE": "**", "NOTIFIER_PUBLIC_PUBLISH": "**"}


@contextmanager
def checkout(revision: str) -> Iterator[Checkout]:
    """A worktree of a revision, in a temporary folder; it runs on the packages of this one. RuntimeError: there is none
    of that name."""
    name = git("rev-parse", "--short", f"{revision}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="notifier-bench-") as folder:
        tree = Path(folder, name)
        git("worktree", "add", "--detach", str(tree), name)
        try:
            yield Checkout(name, tree)
        finally:
            git("worktree", "remove", "--force", str(tree))


def git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


Opponent = peers.Peer | Checkout


@dataclass(frozen=True, slots=True)
class Stage:
    """What a scenario gets: a Postgres for our servers, peers to compare them with, crowds of `clients`, and how long a
    commit takes."""

    scale: Scale
    postgres: str
    opponents: Sequence[Opponent] = ()
    clients: tuple[int, ...] = ()
    flush: Flush = NATIVE


@dataclass(frozen=True)
class Side:
    """A server, and how one talks to it. `beside`: processes that work for it and are no part of it, our Postgres if it
    is on this machine, or the proxy in front of it."""

    name: str
    dialect: str
    port: int
    pids: procs.Pids
    health: str = "/health"
    beside: procs.Pids = list
    database: str = ""
    proxied: bool = False


@asynccontextmanager
async def ours(stage: Stage, source: Checkout = HERE, *, verifying: bool = False) -> AsyncIterator[Side]:
    """Notifier as shipped, on a database of its own; `verifying`: with tokens."""
    async with (
        database(stage.postgres, stage.flush, source.root) as url,
        served(url, source, verifying=verifying) as side,
    ):
        yield side


@asynccontextmanager
async def served(url: str, source: Checkout = HERE, *, verifying: bool = False) -> AsyncIterator[Side]:
    """Notifier on the database `url`."""
    async with running(NOTIFIER, url, source.root, **(VERIFYING if verifying else {})) as server:
        master = await postmaster(url)
        yield Side(
            source.name,
            "notifier",
            server.port,
            server.pids,
            "/healthz",
            lambda: procs.family(master) if master else [],
            url,
        )


@asynccontextmanager
async def theirs(stage: Stage, opponent: Opponent) -> AsyncIterator[Side]:
    if isinstance(opponent, Checkout):
        async with ours(stage, opponent) as side:
            yield side
    else:
        async with peers.serving(opponent) as served:
            yield Side(opponent.name, opponent.dialect, served.port, served.pids)


@asynccontextmanager
async def proxied(side: Side) -> AsyncIterator[Side]:
    """The same server at the port of nginx, whose processes are beside it."""
    async with peers.serving(peers.proxy(side.port)) as front:
        yield replace(side, port=front.port, health="/health", beside=front.pids, proxied=True)


@dataclass(frozen=True, slots=True)
class FanOut:
    """One message for all. CPU in µs for each delivery: the server's (until all have polled again and it is quiet),
    what is `beside` it, and the crowd's. `all_ms` until the last had it; `began` and `ended`: CLOCK_MONOTONIC."""

    cpu_us: float
    beside_us: float
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

    async def fan_out(self, topic: str = "") -> FanOut:
        """On the one topic of all, or on `topic`, which is in all lists."""
        pids, beside = self.side.pids(), self.side.beside()
        cpu, other = procs.cpu_s(pids), procs.cpu_s(beside)
        done = self.check(await self.load.run("crowd_fan_out", topic=topic))
        await self.quiet()
        after = self.check(await self.load.run("crowd_state"))  # something may have come twice
        if done["wrongs"] or after["wrongs"]:  # nothing that follows would say anything
            raise RuntimeError("; ".join(self.void))
        each = 1e6 / self.count
        return FanOut(
            (procs.cpu_s(pids) - cpu) * each,
            (procs.cpu_s(beside) - other) * each,
            done["cpu_s"] * each,
            done["cpu_s"] / done["all_s"],
            done["all_s"] * 1000,
            done["began"],
            done["ended"],
        )

    async def quiet(self) -> None:
        if not await procs.quiet(self.side.pids):
            self.void.append(f"{self.side.name} did not become quiet")
        if self.side.proxied:  # once all have polled again, it soon is
            await procs.quiet(self.side.beside)

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
async def crowd(
    side: Side, topics: Sequence[str] = (TOPIC,), *, tokens: bool = False, first: int = 0, cursor: str = ""
) -> AsyncIterator[Crowd]:
    """No clients yet. They hang up before their server is stopped. `first`: the number of the first one, where several
    crowds share a server. They begin at `cursor`, or with what is published from now on."""
    async with loading() as load:
        begin = {"topics": topics, "tokens": tokens, "first": first, "cursor": cursor}
        await load.run("crowd_open", port=side.port, dialect=side.dialect, **begin)
        yield Crowd(side, load)
