"""Clients that come back: all at once after a restart, with nothing known of them, and far behind the log."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from bench import procs
from bench.database import counting, database, fetchval, reads
from bench.figures import Figure, Measured, percentile
from bench.load import Load, loading
from bench.stage import HERE, OURS, Checkout, Crowd, Side, Stage, crowd, ours, served, theirs
from bench.watching import corrected, during, probing

PARKED, READS = "until all are parked", "reads of the table"
HEALTH = "health request, p99 meanwhile"
PARKED_BEFORE = f"{PARKED}, beside another revision"
NOTHING_MISSED = "nothing missed"
UNKNOWN, KNOWN = (f"CPU per client that comes back, {what}" for what in ("nothing known of it", "known"))
BEHIND, COMMON = "messages per second to clients far behind, a topic each", "one common topic"

# More than a herd takes at an older revision.
WATCHED_S = 60.0
# Health requests every so often are less than a server must do that is not called quiet.
PAUSE_MS = 20.0
QUIET_SHARE = 0.05
# Another revision is compared only so far: beyond what its window holds it refuses, and takes more than a minute.
MOST_MISSED = 5000

# Messages of each of those far behind; and what is published after them is more than the window holds in bytes.
MESSAGES = 10
LARGE = 512 * 1024
LARGE_COUNT = 80


@dataclass
class Returns:
    """Of one side, for one number of missed messages."""

    seconds: list[float] = field(default_factory=list)
    reads: list[float] = field(default_factory=list)
    health_ms: list[float] = field(default_factory=list)
    void: list[str] = field(default_factory=list)


class Herd:
    """A crowd with a topic each, at a server that is killed and started again."""

    def __init__(self, stage: Stage, source: Checkout, url: str, prober: Load, *, counts: bool) -> None:
        self.name = source.name
        self.returns = {missed: Returns() for missed in stage.scale.missed}
        self._scale = stage.scale
        self._source = source
        self._url = url
        self._prober = prober
        self._counts = counts
        self._server = AsyncExitStack()
        self.crowd: Crowd

    async def start(self) -> Side:
        return await self._server.enter_async_context(served(self._url, self._source))

    async def stop(self) -> None:
        await self._server.aclose()

    async def come_back(self, missed: int) -> None:
        """All hang up, `missed` messages are published, the server is killed, and when it serves again all come."""
        clients, scale, returns = self.crowd, self._scale, self.returns[missed]
        await clients.load.run("crowd_leave")
        await clients.load.run("publish_past", port=clients.side.port, count=missed)
        await self.stop()
        clients.side = side = await self.start()
        before = await reads(self._url) if self._counts else 0
        async with probing(self._prober, clients, WATCHED_S, PAUSE_MS) as end:
            come = {"port": side.port, "seconds": scale.return_s, "count": clients.count, "deliveries": missed}
            done = clients.check(await clients.load.run("crowd_come", **come))
            # It may also wait for the database.
            since = await procs.quiet(lambda: [*side.pids(), *side.beside()], QUIET_SHARE)
            if not since:
                clients.void.append(f"{side.name} did not become quiet")
            probed = await end(now=True)
        finished = max(done["ended"], since)
        returns.seconds.append(finished - done["began"])
        returns.health_ms.append(percentile(corrected(during(probed, done["began"], finished), PAUSE_MS), 0.99))
        if self._counts:
            returns.reads.append(await reads(self._url) - before)
        void, clients.void = clients.void, []
        returns.void += void
        if void:
            raise RuntimeError(f"{missed} missed: {'; '.join(sorted(set(void))[:5])}")


@asynccontextmanager
async def herd_of(stage: Stage, source: Checkout, prober: Load) -> AsyncIterator[Herd]:
    """All parked."""
    [count] = stage.clients
    async with database(stage.postgres, stage.flush, source.root) as url:
        herd = Herd(stage, source, url, prober, counts=await counting(url))
        try:
            side = await herd.start()
            async with crowd(side, [f"herd/{number}" for number in range(count)]) as herd.crowd:
                await herd.crowd.park(count)
                yield herd
        finally:
            await herd.stop()


async def herd(stage: Stage) -> Measured:
    [count] = stage.clients
    failed = []
    async with AsyncExitStack() as stack:
        prober = await stack.enter_async_context(loading())
        sources = [HERE, *(peer for peer in stage.opponents if isinstance(peer, Checkout))]
        herds = [await stack.enter_async_context(herd_of(stage, source, prober)) for source in sources]
        for missed in list(stage.scale.missed) * stage.scale.herds:
            for each in list(herds):
                if each.name == OURS or missed <= MOST_MISSED:
                    try:
                        await each.come_back(missed)
                    except (RuntimeError, TimeoutError) as error:
                        failed.append(f"{each.name}: {error or 'took too long'}")
                        if each.name == OURS:
                            return Measured([], failed=failed)
                        herds.remove(each)
    mine, *others = [each.returns for each in herds]
    figures = []
    for missed in stage.scale.missed:
        where, our = f"{missed:,}", mine[missed]
        none = mine[stage.scale.missed[0]]
        void = [*our.void, *none.void]
        figures += [
            Figure(PARKED, where, "s", our.seconds, none.seconds if missed else (), void, NOTHING_MISSED),
            Figure(HEALTH, where, "ms", our.health_ms, void=our.void),
        ]
        if our.reads:
            figures.append(Figure(READS, where, "reads", our.reads, void=our.void))
        for each, other in zip(herds[1:], others, strict=True):
            if their := other[missed].seconds:
                void = [*our.void, *other[missed].void]
                figures.append(Figure(PARKED_BEFORE, where, "s", our.seconds, their, void, each.name))
    figures.sort(key=lambda figure: (PARKED, PARKED_BEFORE, READS, HEALTH).index(figure.what))
    return Measured(figures, f"{count:,} clients, within {stage.scale.return_s:g} s.", failed)


async def coming(stage: Stage) -> Measured:
    """New clients with new topics each time; the same ones again at once, which ours still knows."""
    [count] = stage.clients
    figures, failed = [], []
    for peer in stage.opponents:
        async with AsyncExitStack() as stack:
            try:
                sides = [await stack.enter_async_context(ours(stage))]
                sides.append(await stack.enter_async_context(theirs(stage, peer)))
                new: list[list[float]] = [[], []]
                known: list[list[float]] = [[], []]
                void: list[str] = []
                for turn in range(-1, stage.scale.pairs):  # the first to warm up
                    for number, side in enumerate(sides):
                        topics = [f"{turn + 1}-{client}" for client in range(count)]
                        async with crowd(side, topics) as clients:
                            first = await _come(clients, count, stage.scale.return_s)
                            await clients.load.run("crowd_leave")
                            await clients.quiet()
                            again = await _come(clients, count, stage.scale.return_s)
                            void += clients.void
                        await procs.quiet(side.pids)
                        if turn >= 0:
                            new[number].append(first)
                            known[number].append(again)
            except (RuntimeError, TimeoutError) as error:
                failed.append(f"{peer.name}: {error or 'took too long'}")
                continue
            where = f"{count:,}"
            figures += [
                Figure(UNKNOWN, where, "µs", new[0], new[1], void, peer.name),
                Figure(KNOWN, where, "µs", known[0], known[1], void, peer.name),
            ]
    return Measured(figures, failed=failed)


async def _come(clients: Crowd, count: int, seconds: float) -> float:
    """The server's CPU in µs for each."""
    pids = clients.side.pids()
    before = procs.cpu_s(pids)
    come = {"port": clients.side.port, "seconds": seconds, "count": count, "deliveries": 0}
    clients.check(await clients.load.run("crowd_come", **come))
    clients.count = count
    await clients.quiet()
    return (procs.cpu_s(pids) - before) / count * 1e6


async def behind(stage: Stage) -> Measured:
    """The same messages for as many clients, all from the table: on a topic each, and on a common one."""
    [count] = stage.clients
    own = [f"behind/{number}" for number in range(count)]
    common = ["common"]
    rates: dict[str, list[float]] = {"own": [], "common": []}
    void: list[str] = []
    async with ours(stage) as side:
        cursor = str(await fetchval(side.database, "select last_value from notifier.message_seq"))
        for topics in (own, common):
            async with crowd(side, topics) as clients:
                await clients.load.run("publish_past", port=side.port, count=len(topics) * MESSAGES)
        async with loading() as load:
            large = {"topic": "large", "count": LARGE_COUNT, "size": LARGE}
            await load.run("publish_large", port=side.port, **large)
        for _ in range(stage.scale.pairs):
            for name, topics in (("own", own), ("common", common)):
                async with crowd(side, topics, cursor=cursor) as clients:
                    rates[name].append(await _catch_up(clients, count))
                    void += clients.void
    figure = Figure(BEHIND, f"{count:,}", "per second", rates["own"], rates["common"], void, COMMON)
    return Measured([figure])


async def _catch_up(clients: Crowd, count: int) -> float:
    """Messages per second, all together."""
    messages = count * MESSAGES
    come = {"port": clients.side.port, "seconds": 0.0, "count": count, "deliveries": messages}
    done = clients.check(await clients.load.run("crowd_come", **come))
    await clients.quiet()
    return messages / (float(done["ended"]) - float(done["began"]))
