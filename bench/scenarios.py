"""The table of scenarios, in the order of the report: who is compared with ours, how many clients, what is required."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench import duels, pages, publish_costs, publishing, returning, scheduled, waiting, watched, watching, webhooks
from bench.database import FLUSHES, NATIVE, SLOW, Flush
from bench.figures import Aim, Figure, Measured, at_least, at_most, same
from bench.load.dialects import TOKEN_BYTES
from bench.peers import PEERS
from bench.publishing import BATCH_PUBLISHERS, BATCH_ROWS, SQL_PUBLISHERS
from bench.stage import FEW, OURS, Scale, Stage

ALL = tuple(peer.slug for peer in PEERS)
# The slug of another revision, which is compared only when it is named.
BASE = "base"


@dataclass(frozen=True, slots=True)
class Bound:
    """What is required of the figure `what`, and aimed at: of the one beside `peer` (None: any), at `where`."""

    what: str
    required: Aim | None = None
    aim: Aim | None = None
    peer: str | None = ""
    where: str = ""

    def fits(self, figure: Figure) -> bool:
        beside = self.peer is None or self.peer == figure.peer
        return beside and self.what == figure.what and self.where in {"", figure.where}


@dataclass(frozen=True, slots=True)
class Scenario:
    """`text` says what is compared. `measure` is called for each of the flushes, with crowds of `clients` and
    with those of `peers` (slugs) that can run here."""

    name: str
    title: str
    text: str
    measure: Callable[[Stage], Awaitable[Measured]]
    peers: tuple[str, ...] = ()
    clients: Callable[[Scale], tuple[int, ...]] = lambda _: ()
    bounds: tuple[Bound, ...] = ()
    flushes: tuple[Flush, ...] = (NATIVE,)
    tells: str = "clients"

    @property
    def where(self) -> str:
        """What the figures' `where` tells apart."""
        return "flush" if self.flushes == FLUSHES else self.tells

    def judged(self, measured: Measured) -> Measured:
        """The same, with what is required of each figure."""
        for figure in measured.figures:
            for bound in self.bounds:
                if bound.fits(figure):
                    figure.required, figure.aim = bound.required, bound.aim
        return measured


def every(scale: Scale) -> tuple[int, ...]:
    return scale.clients


def smallest(scale: Scale) -> tuple[int, ...]:
    return scale.clients[:1]


def largest(scale: Scale) -> tuple[int, ...]:
    return scale.clients[-1:]


SCENARIOS = (
    Scenario(
        "parking",
        "Parking and fan-out",
        "Thousands of clients, each on a keep-alive connection of its own with a browser's headers, wait on one topic; "
        "one message is published, each gets it and polls again. **CPU per delivery** is the server's, user and "
        "system, from the publish until everybody has polled again and it is quiet. **Memory per parked client** is "
        f"PSS of all its processes, less what it had with {FEW} clients. Ours is durable (a commit for each message); "
        "what Postgres uses for that is a row of its own. The peers keep messages in memory. Both servers hold their "
        "clients at the same time, and rounds alternate. The time to all is bounded by the crowd too, which shares the "
        "machine.",
        duels.parking,
        ALL,
        every,
        (
            Bound(duels.MEMORY, at_most(2500, "bytes"), at_most(2000, "bytes")),
            Bound(duels.THREADS, same(), peer=OURS),
            Bound(duels.CPU, at_most(0.95), at_most(0.82), "nchan"),
            Bound(duels.CPU, at_most(0.45), peer="node:http"),
            Bound(duels.CPU, at_most(0.15), peer="aiohttp"),
        ),
    ),
    Scenario(
        "streams",
        "Streams",
        "As above, with our clients on streams of Server-Sent Events: no request follows a message. Beside them as "
        "many clients that poll, at a server of ours and at nchan's.",
        duels.streams,
        ("nchan",),
        smallest,
        (
            Bound(duels.STREAM_CPU, at_most(0.75), at_most(0.6), "nchan"),
            Bound(duels.STREAM_MEMORY, at_most(1.1), peer=duels.POLLS),
        ),
    ),
    Scenario(
        "before",
        "Compared with another revision",
        "As above, beside the same server of another revision of this repository, on the same packages. Each row has "
        "several starts of both: so much memory depends on where a start puts things.",
        duels.before,
        (BASE,),
        every,
        (Bound(duels.CPU, at_most(1.03), peer=None), Bound(duels.MEMORY, at_most(1.03), peer=None)),
    ),
    Scenario(
        "tokens",
        "Parking clients with a token each",
        f"As under *Parking and fan-out*, and each client's requests have a token of {TOKEN_BYTES} bytes of its own in "
        "`Authorization`. Ours verifies them; the peers read past them. Nothing is published.",
        duels.tokens,
        ("nchan", "node", "express", "fastapi", "aiohttp", "flask"),
        every,
        (Bound(duels.TOKENS, at_most(3500, "bytes"), peer="nchan"),),
    ),
    Scenario(
        "access",
        "A token and a topic each",
        f"Each client waits on its own list, `bench,user/N`, with a token of {TOKEN_BYTES} bytes that allows it. One "
        "message is published to `bench`. Beside it, the same clients at an open server. The first poll "
        "of each client verifies its token; the CPU per delivery has the next poll of each in it, which does not.",
        duels.access,
        clients=lambda scale: (scale.last,),
        bounds=(
            Bound(duels.OWN, at_most(3200, "bytes"), at_most(2800, "bytes"), duels.OPEN),
            Bound(duels.OWN_LATER, at_most(3500, "bytes"), at_most(2800, "bytes")),
            Bound(duels.OWN_CPU, at_most(1.1), peer=duels.OPEN),
        ),
    ),
    Scenario(
        "proxy",
        "Behind nginx",
        "Fan-out through nginx as a reverse proxy with keep-alive connections to the server, which adds an "
        "`X-Request-Id` to each request: so no request has the same bytes as the one before, and a client's next poll "
        "comes on any connection. CPU is the server's only.",
        duels.proxy,
        ("aiohttp",),
        smallest,
        (Bound(duels.PROXIED, at_most(0.5), at_most(0.35), "aiohttp"),),
    ),
    Scenario(
        "last",
        "Until the last has it",
        "From the first byte of the publish until the last client has the message: ours with its commit, nchan from "
        "memory. Clients that have it poll again meanwhile.",
        duels.last,
        ("nchan",),
        lambda scale: (scale.last,),
        (Bound(duels.TIME, at_most(1.15), at_most(1.0), "nchan"),),
    ),
    Scenario(
        "lists",
        "A list each",
        f"Each client has a token of {TOKEN_BYTES} bytes and waits on a list of its own, `bench,user/N`; one message "
        "is published to `bench`, which is in all of them. Compared with as many clients, each with its token, that "
        "wait on `bench` alone. Meanwhile one client asks for `/healthz` again and again with pauses of a "
        "millisecond.",
        watching.lists,
        (BASE,),
        lambda scale: (scale.lists,),
        (
            Bound(watching.LISTS, at_most(60, "ms"), at_most(20, "ms")),
            Bound(watching.LISTS_CPU, at_most(1.5), at_most(1.25), watching.ONE_LIST),
        ),
    ),
    Scenario(
        "herd",
        "Back after a restart",
        "Clients with a topic each wait; the server is killed, messages are published to their topics in turn, and "
        "once it serves again all come back within two seconds, each with the cursor that it had, and ask for what "
        "they have missed. Until everybody has all of it, and is parked, and server and database have nothing more to "
        "do. A client that is refused or told to come back later makes the figure void.",
        returning.herd,
        (BASE,),
        lambda scale: (scale.herd,),
        (
            Bound(returning.PARKED_BEFORE, at_most(1.0), at_most(0.7), None),
            Bound(returning.PARKED, at_most(15, "s"), at_most(8, "s"), returning.NOTHING_MISSED, "6,000"),
            Bound(returning.PARKED, at_most(2.0), at_most(1.3), returning.NOTHING_MISSED, "20,000"),
            Bound(returning.READS, at_most(50, "reads"), at_most(20, "reads"), where="20,000"),
            Bound(returning.HEALTH, at_most(100, "ms")),
        ),
        tells="missed",
    ),
    Scenario(
        "coming",
        "Coming back",
        "Clients with a topic each connect and poll, evenly spread over two seconds, and are parked: with topics that "
        "the server has never heard of; then all hang up, and come again with the same requests.",
        returning.coming,
        ("node", "aiohttp"),
        smallest,
        (
            Bound(returning.UNKNOWN, at_most(1.2), at_most(0.8), "node:http"),
            Bound(returning.KNOWN, aim=at_most(0.35), peer="node:http"),
        ),
    ),
    Scenario(
        "behind",
        "Far behind",
        f"Clients ask for {returning.MESSAGES} messages each, all older than what is in memory: on a topic each, and, "
        "compared with that, all on one topic.",
        returning.behind,
        clients=lambda scale: (scale.behind,),
        bounds=(Bound(returning.BEHIND, at_least(0.5), at_least(0.8), returning.COMMON),),
    ),
    Scenario(
        "pages",
        "Page loads",
        f"While the window is full, {pages.PAGES} pages ask in turn for the newest ten messages of their own topics: a "
        f"list of {pages.TOPICS}, or one pattern for all that begin alike. CPU is the server's, one request at a time.",
        pages.pages,
        bounds=(
            Bound(pages.LOAD, at_most(12), at_most(6), pages.HEALTH),
            Bound(pages.PATTERN, at_most(12), at_most(6), pages.HEALTH),
        ),
        tells="messages",
    ),
    Scenario(
        "idle",
        "Idle",
        "Nothing is published. Each poll ends after 25 s without a message, and its client polls again. Share of one "
        "processor over a whole period of that, both servers at the same time.",
        waiting.idle,
        ("node",),
        largest,
        (Bound(waiting.IDLE, at_most(3, "%"), at_most(2, "%"), None),),
    ),
    Scenario(
        "health",
        "Responsiveness",
        "One client asks for `/healthz` (peers: `/health`) again and again with pauses of a millisecond: while all are "
        "parked, during fan-outs to all, and while all hang up at once (their process is killed; *in one instant*: the "
        "server was stopped meanwhile, by a signal, and hears of all of them when it goes on). A request that takes "
        "longer than a millisecond stands also for those that would have been sent meanwhile (correction for "
        "coordinated omission). One server after the other.",
        watching.health,
        ("node", "aiohttp"),
        largest,
        (
            Bound(watching.FAN_OUT, at_most(0.1), at_most(10, "ms"), "the time to all"),
            Bound(f"health request, {watching.HANG_UP}", at_most(50, "ms")),
        ),
    ),
    Scenario(
        "inboxes",
        "Inboxes",
        "Each client waits on a topic of its own, and messages are published over HTTP to topics at random, evenly "
        "spaced; from the moment a message is to be sent until its client has it. Ours waits for a commit with a flush "
        "of 2 ms each time; one that comes while another's flush waits shares it, where a disk would make it wait for "
        "the next. Compared with the bare database (insert and notify, one at a time, at the same flush, as under "
        "*Publish → delivered*), and with peers that keep messages in memory.",
        waiting.inboxes,
        ("node", "nchan"),
        lambda scale: (scale.inboxes,),
        (Bound(waiting.P50, at_most(1.5), at_most(1.2), waiting.BARE),),
        (SLOW,),
    ),
    Scenario(
        "client",
        "The crowd itself",
        "The crowd against a bare protocol that reads nothing and has one fixed answer for all: the least that could "
        "hold it. No server can be faster to all than that on this machine.",
        duels.client,
        clients=every,
        bounds=(Bound(duels.CLIENT, aim=at_most(8, "µs")),),
    ),
    Scenario(
        "latency",
        "Publish → delivered",
        "One message at a time: from the first byte of the `POST` until a parked poll's answer is in the client. "
        "Compared with the least that Postgres can do: one `insert` with `pg_notify` in one statement (one "
        "transaction, one round trip) on one asyncpg connection, until the callback of a listener on another one runs. "
        "One process does both.",
        publishing.latency,
        bounds=(Bound(publishing.P50, aim=at_most(1.5), where=SLOW.name),),
        flushes=FLUSHES,
    ),
    Scenario(
        "publish",
        "Durable publishes over HTTP",
        "Publishers that each wait for their 201 before they send again, one keep-alive connection each, 100 bytes of "
        "JSON. Compared with the same server with batches of one (group commit off), on a database of its own.",
        publishing.publish,
        bounds=(Bound(publishing.AT_ONCE[publishing.MOST], aim=at_least(5), where=SLOW.name),),
        flushes=FLUSHES,
    ),
    Scenario(
        "costs",
        "What a publish costs",
        "One publisher as above; CPU of the server, and of all of Postgres, for each publish. Compared with another "
        f"revision where one is named; and a database that knows many topics, of which {publish_costs.TARGETS} are "
        "published to, with one that knows few.",
        publish_costs.costs,
        (BASE,),
        bounds=(
            Bound(publish_costs.OURS_CPU + publish_costs.BEFORE, at_most(0.7), at_most(0.6), None),
            Bound(publish_costs.POSTGRES_CPU + publish_costs.BEFORE, at_most(0.55), at_most(0.4), None),
            Bound(publish_costs.KNOWN_CPU, at_most(1.2), peer=f"{publish_costs.FEW_KNOWN} topics"),
        ),
        tells="with",
    ),
    Scenario(
        "crowded",
        "Beside many publishers",
        f"One client asks for `/healthz` again and again while {publishing.MOST} publish as above; corrected for "
        "coordinated omission.",
        publish_costs.crowded,
        bounds=(Bound(publish_costs.HEALTH, at_most(25, "ms"), at_most(10, "ms"), where=NATIVE.name),),
        flushes=FLUSHES,
    ),
    Scenario(
        "committed",
        "Committed in SQL → delivered",
        "One transaction at a time, `select notifier.publish(…)`, less than a hundred a second: from the return of the "
        "commit until a parked poll's answer is in the client.",
        publish_costs.committed,
        bounds=(Bound(publish_costs.COMMITTED, at_most(2, "ms"), at_most(1, "ms"), where=NATIVE.name),),
        flushes=FLUSHES,
    ),
    Scenario(
        "batches",
        "Batches",
        f"`POST /v1/messages` with {BATCH_ROWS} messages of 100 bytes, {BATCH_PUBLISHERS} publishers. Compared with "
        f"the SQL procedure beneath, `append_and_flush`, called from asyncpg with {BATCH_ROWS} rows on "
        f"{BATCH_PUBLISHERS} connections. Over HTTP several batches may share one commit; the procedure cannot.",
        publishing.batches,
        bounds=(Bound(publishing.BATCHES, aim=at_least(0.3)),),
        flushes=FLUSHES,
    ),
    Scenario(
        "webhooks",
        "Webhooks",
        f"Signed as GitHub signs, {webhooks.SIZE:,} bytes, each with a delivery id of its own, and verified; compared "
        "with the same bodies published as they are. Then at a steady rate, from when each was due.",
        webhooks.webhooks,
        bounds=(
            Bound(webhooks.PER_S, at_least(0.5), at_least(0.7), webhooks.AS_IT_IS),
            Bound(webhooks.P99, at_most(50, "ms"), at_most(15, "ms")),
        ),
        flushes=FLUSHES,
    ),
    Scenario(
        "large",
        "Beside a large webhook",
        f"{webhooks.RATE} webhooks a second as above, while one of {webhooks.LARGE:,} bytes comes; compared with the "
        "same without it.",
        webhooks.large,
        bounds=(Bound(webhooks.BESIDE, at_most(10), at_most(3), webhooks.WITHOUT),),
        flushes=FLUSHES,
    ),
    Scenario(
        "sql",
        "Publishers in SQL",
        f"{SQL_PUBLISHERS} connections, one publish in each transaction, while a server pumps what they commit into "
        "the log. Compared with a plain `INSERT` of the same row into a copy of the table with the same constraints "
        "and index, without the trigger, from which nobody pumps.",
        publishing.sql,
        bounds=(Bound(publishing.INSERT, aim=at_least(0.85), where=SLOW.name),),
        flushes=FLUSHES,
    ),
    Scenario(
        "watch",
        "Writers to a watched table",
        "Updates of a table with `notifier.watch()`, while a server pumps; compared with the same updates "
        f"of a table like it that is not watched. First {watched.WRITERS} connections, one row by primary key in each "
        f"transaction, then one statement that changes {watched.ROWS:,} rows. A message has the old and the new row; "
        "the pump makes it, on the same processors.",
        watched.watched,
        bounds=(
            Bound(watched.SINGLE, at_least(0.6), where=SLOW.name),
            Bound(watched.SINGLE, aim=at_least(0.6), where=NATIVE.name),
        ),
        flushes=FLUSHES,
    ),
    Scenario(
        "scheduled",
        "Published later",
        "What the pump does while nobody publishes, and a million messages wait for their time; compared with a server "
        "for which none does. Then publishes over HTTP at a steady rate while 100,000 fall due at once, which have to "
        "come in their order; compared with the same before that.",
        scheduled.scheduled,
        tells="messages",
        bounds=(
            Bound(scheduled.LOOK, at_most(10, "blocks"), peer=scheduled.NOTHING),
            Bound(scheduled.IDLE_CPU, at_most(1.5), at_most(1.2), scheduled.NOTHING),
            Bound(scheduled.P99, aim=at_most(5), peer=scheduled.BEFORE),
        ),
    ),
)

NAMES = [scenario.name for scenario in SCENARIOS]
