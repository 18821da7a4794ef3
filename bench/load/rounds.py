"""What the load client is asked to do, a function each: with the crowd of its process, with a few clients, in SQL."""

import asyncio
import json
import random
import time
from collections import Counter

import asyncpg

from bench.load.crowd import Crowd, Member
from bench.load.dialects import DIALECTS
from bench.load.http import Client, request

# Bounds a hang: 15,000 at 1 ms each take 15 s.
FAN_OUT_S = 30.0
GROW_S = 60.0
PUBLISHED_S = 10.0
MESSAGE_S = 10.0

# Of a client that sends one small request again and again.
ANSWER_S = 20.0

WARM_UP_S = 0.2
APPEND = "call notifier.append_and_flush($1::text[], $2::bytea[], $3::text[], $3, $3, 0, 0, null, null, null, null)"

_crowds: list[Crowd] = []
_probes: list[asyncio.Task[dict[str, object]]] = []
_stopping = asyncio.Event()


async def crowd_open(
    port: int, dialect: str, topics: list[str], tokens: bool, first: int = 0, cursor: str = ""
) -> None:
    """A new crowd without clients yet, its topics made; they begin at `cursor`, or where the topics end."""
    crowd = Crowd(DIALECTS[dialect](), port, topics, tokens=tokens, first=first)
    publisher = await Client.open(port)
    crowd.cursor = cursor.encode() or await crowd.dialect.begin(publisher, topics)
    publisher.close()
    _crowds.append(crowd)


def crowd_now() -> Crowd:
    return _crowds[0]


async def crowd_grow(count: int) -> dict[str, object]:
    """Until there are `count` clients, all polling."""
    async with asyncio.timeout(GROW_S):
        await _crowds[0].grow(count)
    return state()


async def crowd_expect() -> None:
    """Another process is about to publish a message for all."""
    _crowds[0].expect_one_each()


async def crowd_arrived() -> dict[str, object]:
    """Wait until each client has what is expected. `ended`: when the last got it (CLOCK_MONOTONIC)."""
    return {"ended": await _arrived(), **state()}


async def crowd_fan_out(topic: str = "") -> dict[str, object]:
    """Publish one message on the one topic, or on `topic`. `all_s`: from its first byte, when it `began`, until it
    `ended`, when the last client has it; `cpu_s`: what this process used meanwhile."""
    crowd = _crowds[0]
    publisher = await Client.open(crowd.port)
    crowd.expect_one_each()
    post = crowd.dialect.publish(topic or crowd.topics[0], crowd.newest)
    cpu, start = time.process_time(), time.perf_counter()
    published = publisher.send(post)
    end = await _arrived() or start
    try:
        status, _ = await asyncio.wait_for(published, PUBLISHED_S)
        if not 200 <= status < 300:
            crowd.complain(f"a publish was answered with {status}")
    except (TimeoutError, ConnectionError) as error:
        crowd.complain(f"a publish was not answered: {error!r}")
    finally:
        publisher.close()
    cpu = time.process_time() - cpu
    return {"all_s": end - start, "began": start, "ended": end, "cpu_s": cpu, **state()}


async def _arrived() -> float:
    """When all have it; 0 if some do not get it."""
    crowd = _crowds[0]
    try:
        return await crowd.arrived(FAN_OUT_S)
    except TimeoutError:
        crowd.complain("a fan-out was not finished")
        crowd.inquest([member for member in crowd.members.values() if member.seen < crowd.newest])
        return 0.0


async def crowd_inboxes(rate: float, seconds: float, publishers: int, seed: int) -> dict[str, object]:
    """Publish to topics at random, `rate` messages a second, evenly spaced. `ms`: from the moment a message is to be
    sent until its client has it; if none of the publishers' connections is free, that waiting counts too."""
    crowd = _crowds[0]
    chance = random.Random(seed)
    clock = time.perf_counter
    numbers = Counter({member.number: member.seen for member in crowd.members.values()})
    sent: dict[tuple[int, int], float] = {}
    ms: list[float] = []
    late: list[float] = []

    def on_message(member: Member, got: tuple[int, ...]) -> None:
        now = clock()
        ms.extend((now - sent.pop((member.number, number), now)) * 1000 for number in got)

    connections = [await Client.open(crowd.port) for _ in range(publishers)]
    free: asyncio.LifoQueue[Client] = asyncio.LifoQueue()
    for connection in connections:
        free.put_nowait(connection)
    waiting: set[asyncio.Task[None]] = set()

    async def publish(topic: int, number: int) -> None:
        publisher = await free.get()
        status, _ = await publisher.send(crowd.dialect.publish(crowd.topics[topic], number))
        free.put_nowait(publisher)
        if not 200 <= status < 300:
            crowd.complain(f"a publish was answered with {status}")

    crowd.on_message = on_message
    count = int(rate * seconds)
    crowd.expect(count)
    cpu, start = time.process_time(), clock()
    try:
        for turn in range(count):
            due = start + turn / rate
            if (pause := due - clock()) > 0:
                await asyncio.sleep(pause)
            late.append((clock() - due) * 1000)
            topic = chance.randrange(len(crowd.topics))
            numbers[topic] += 1
            sent[topic, numbers[topic]] = clock()
            task = asyncio.create_task(publish(topic, numbers[topic]))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        await crowd.arrived(PUBLISHED_S)
        await asyncio.wait_for(asyncio.gather(*waiting), PUBLISHED_S)
    except TimeoutError:
        crowd.inquest([member for member in crowd.members.values() if member.seen < numbers[member.number]])
    finally:
        crowd.on_message = None
        for publisher in connections:
            publisher.close()
    took, cpu = clock() - start, time.process_time() - cpu
    return {"ms": ms, "s": took, "cpu_s": cpu, "late_ms": max(late), **state()}


async def crowd_state() -> dict[str, object]:
    return state()


async def crowd_hang_up() -> None:
    """All clients at once."""
    _crowds.pop().hang_up()


def state() -> dict[str, object]:
    """How many clients have the newest message (`has`); and since the last look the answers that were `empty`, and all
    that was `wrong` (`wrongs` of them)."""
    crowd = _crowds[0]
    has = sum(member.seen >= crowd.newest for member in crowd.members.values())
    found = {"has": has, "empty": crowd.empty, "wrong": crowd.wrong, "wrongs": crowd.wrongs}
    crowd.empty, crowd.wrong, crowd.wrongs = 0, [], 0
    return found


async def probe_begin(port: int, target: str, seconds: float, pause_s: float) -> None:
    """From now on ask back to back on one connection, with a pause between two; returns after the first answer."""
    client = await Client.open(port)
    get = request("GET", target)
    asked: list[float] = []
    ms: list[float] = []
    failures: list[str] = []

    async def ask() -> None:
        start = time.perf_counter()
        async with asyncio.timeout(ANSWER_S):
            status, _ = await client.send(get)
        asked.append(start)
        ms.append((time.perf_counter() - start) * 1000)
        if status != 200:
            failures.append(f"{target} was answered with {status}")

    async def go_on() -> dict[str, object]:
        end = time.perf_counter() + seconds
        try:
            while time.perf_counter() < end and not _stopping.is_set():
                await asyncio.sleep(pause_s)
                await ask()
        finally:
            client.close()
        return {"asked": asked, "ms": ms, "failures": failures}

    _stopping.clear()
    await ask()
    _probes.append(asyncio.create_task(go_on()))


async def probe_end(now: bool = False) -> dict[str, object]:
    """When the time is over, or `now`: what was `asked` when (CLOCK_MONOTONIC), and how many `ms` it took."""
    if now:
        _stopping.set()
    return await _probes.pop()


async def http_latency(port: int, topic: str, count: int) -> dict[str, object]:
    """Publish over HTTP to a topic on which a poll is parked. `ms` each until the poll's answer is here."""
    publisher, subscriber = await Client.open(port), await Client.open(port)
    failures: list[str] = []
    times: list[float] = []
    try:
        _, body = await subscriber.send(request("GET", f"/v1/topics/{topic}?wait=0"))
        cursor = json.loads(body)["cursor"]
        for number in range(count):
            post = request("POST", f"/v1/topics/{topic}", b'{"number": %d}' % number)
            async with asyncio.timeout(MESSAGE_S):
                poll = subscriber.send(request("GET", f"/v1/topics/{topic}?after={cursor}&wait=25"))
                # The poll came first, so once this is answered it has been parked.
                await publisher.send(request("GET", "/healthz"))
                start = time.perf_counter()
                published = publisher.send(post)
                _, body = await poll
                times.append((time.perf_counter() - start) * 1000)
                status, created = await published
            answer = json.loads(body)
            messages = [(message["id"], message["data"]) for message in answer["messages"]]
            if status != 201 or messages != [(json.loads(created)["id"], {"number": number})]:
                failures.append(f"message {number}: {status}, delivered {messages}")
            cursor = answer["cursor"]
    finally:
        publisher.close()
        subscriber.close()
    return {"ms": times, "failures": failures}


async def bare_latency(database: str, table: str, count: int) -> dict[str, object]:
    """Insert and NOTIFY in one transaction, and in one round trip. `ms` each until the listener's callback runs."""
    publisher, subscriber = await asyncpg.connect(database), await asyncpg.connect(database)
    failures: list[str] = []
    times: list[float] = []
    heard: asyncio.Future[str]

    def on_notification(*notification: object) -> None:
        heard.set_result(str(notification[-1]))

    try:
        await subscriber.add_listener(table, on_notification)
        insert = await publisher.prepare(
            f"with new as (insert into {table} (topic, body) values ($1, $2) returning id) "
            f"select pg_notify('{table}', id::text), id from new"
        )
        for number in range(count):
            heard = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(MESSAGE_S):
                start = time.perf_counter()
                inserted = asyncio.ensure_future(insert.fetchrow(table, b'{"number": %d}' % number))
                got = await heard
                times.append((time.perf_counter() - start) * 1000)
                row = await inserted
            if row is None or got != str(row["id"]):
                failures.append(f"message {number}: inserted {row}, notified of {got}")
    finally:
        publisher.terminate()
        subscriber.terminate()
    return {"ms": times, "failures": failures}


async def append(database: str, topic: str, body: str, rows: int, publishers: int, seconds: float) -> dict[str, object]:
    """Call the procedure that appends `rows` messages to the log, again and again. `per_s`: calls while the clock ran;
    `done`: all of them; `cpu`: the share of one processor that this process used."""
    arguments = ([topic] * rows, [body.encode()] * rows, [None] * rows)
    connections = [await asyncpg.connect(database) for _ in range(publishers)]
    done = 0
    stopping = False

    async def publisher(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        nonlocal done
        prepared = await connection.prepare(APPEND)
        while not stopping:
            await prepared.fetch(*arguments)
            done += 1

    try:
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(publisher(connection))
            await asyncio.sleep(WARM_UP_S)
            start, cpu, before = time.perf_counter(), time.process_time(), done
            await asyncio.sleep(seconds)
            took, cpu, counted = time.perf_counter() - start, time.process_time() - cpu, done - before
            stopping = True
    finally:
        for connection in connections:
            connection.terminate()
    return {"per_s": counted / took, "done": done, "cpu": cpu / took}
