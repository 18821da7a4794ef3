"""Many processes behind one port: evenly loaded, replaced when they die or hang, stopped in order."""

import asyncio
import contextlib
import json
import resource
import signal
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
import psutil
import pytest
import pytest_asyncio
from conftest import DEADLINE_S, Server, admin, run, until
from support.by_hand import Client, ask
from support.log import numbers
from support.workers import SERVE, Workers, gone, put_away

from notifier.client import Client as Publisher
from notifier.client import NotifierClientError
from notifier.postgres.migrations import Migration, Schema, migrate, read_schema
from notifier.web.listeners import bind

# With gunicorn's patience with a worker that hangs made short.
IMPATIENT = """
import sys
from notifier.cli import main
from notifier.web.workers import manager
manager.TIMEOUT_S = 2
sys.exit(main(["serve"]))
"""

# The number of a migration that this version does not know.
NEXT = 9999


@pytest_asyncio.fixture
async def workers(database: str, tmp_path: Path) -> AsyncIterator[Workers]:
    """Four workers on the test's database, not yet started."""
    server = Workers(database, tmp_path, 4)
    yield server
    await put_away(server)


@pytest_asyncio.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[Workers]:
    """Two workers without a DATABASE_URL, not yet started."""
    server = Workers(None, tmp_path, 2)
    yield server
    await put_away(server)


@pytest.fixture
def many_files() -> Iterator[None]:
    """A few thousand connections, where the soft limit is as low as is usual."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def next_version(migration: str) -> Schema:
    """The schema of a version of notifier that comes after this one."""
    ours = read_schema()
    return Schema([*ours.migrations, Migration(NEXT, f"{NEXT}_next.sql", migration)], f"{ours.functions}-- newer")


def json_of(answer: tuple[int, dict[str, str], bytes]) -> dict:
    status, _, body = answer
    assert status in {200, 201}, answer
    return json.loads(body)


@pytest.mark.usefixtures("many_files")
async def test_new_connections_are_spread_evenly(workers: Workers) -> None:
    await workers.start()
    before = workers.files()
    with contextlib.ExitStack() as stack:
        for _ in range(2000):
            stack.enter_context(socket.create_connection(("127.0.0.1", workers.port)))
        await until(lambda: sum(workers.files().values()) - sum(before.values()) >= 2000)
        counts = [count - before[pid] for pid, count in workers.files().items()]
    assert len(counts) == 4
    # Dealt out by chance they are 500 ± 19 each: this would take nearly six times that, on both sides.
    assert max(counts) <= 1.5 * min(counts)


async def test_a_poll_parked_on_one_worker_is_woken_by_a_publish_through_another(workers: Workers) -> None:
    await workers.start()
    for publishing in workers.pids():
        clients = [await workers.parked(pid) for pid in workers.pids() if pid != publishing]
        publisher = await workers.client_of(publishing)
        publisher.send("POST", "/v1/topics/orders", "1")
        message = json_of(await publisher.answer())
        for client in clients:
            [got] = json_of(await client.answer())["messages"]
            assert got["id"] == message["id"]


@pytest.mark.rule("A-22")
@pytest.mark.rule("A-23")
async def test_access_ends_on_every_worker_without_notifications(workers: Workers, database: str) -> None:
    await admin(
        database,
        "insert into notifier.key (id, name, hash, subscribe) values ('one', 'one', sha256('a-key'), '{orders}')",
        "create or replace function notifier.may_notify() returns boolean language sql return false",
    )
    workers.env["NOTIFIER_ADMIN_KEY"] = "another-key"
    await workers.start()
    poll = b"GET /v1/topics/orders?wait=20 HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer a-key\r\n\r\n"
    clients = []
    for pid in workers.pids():
        client = await workers.client_of(pid)
        client._writer.write(poll)
        await workers.has_read(pid)
        clients.append(client)
    await admin(database, "delete from notifier.key", "select notifier.publish('orders', '1')")
    for client in clients:
        assert json_of(await client.answer())["messages"] == []
        client._writer.write(poll)
        status, _, _ = await client.answer()
        assert status == 401


@pytest.mark.rule("C-1")
async def test_a_client_that_moves_between_workers_skips_and_repeats_nothing(workers: Workers) -> None:
    await workers.start()
    clients = [await workers.client_of(pid) for pid in workers.pids()]
    clients[0].send("GET", "/v1/topics/walk?wait=0")
    cursor = json_of(await clients[0].answer())["cursor"]
    for number in range(40):
        publisher, reader, next_reader = (clients[(number + step) % 4] for step in range(3))
        publisher.send("POST", "/v1/topics/walk", str(number))
        # Asked of one that may not have seen it yet, and at once of another that may be behind that one.
        message = json_of(await publisher.answer())
        reader.send("GET", f"/v1/topics/walk?after={cursor}&wait=20")
        answer = json_of(await reader.answer())
        assert [each["data"] for each in answer["messages"]] == [number]
        assert answer["cursor"] == message["id"]
        cursor = answer["cursor"]
        next_reader.send("GET", f"/v1/topics/walk?after={cursor}&wait=0")
        assert json_of(await next_reader.answer()) == {"messages": [], "cursor": cursor}


class Follower:
    """Follows a topic with the client that users have, and keeps the numbers that it gets."""

    def __init__(self, server: Server, topic: str) -> None:
        self.got: list[int] = []
        self._task = asyncio.create_task(self._run(server.url, topic))

    async def _run(self, url: str, topic: str) -> None:
        async with Publisher(url) as client:
            async for message in client.subscribe(topic, after="earliest", on_gap=self._gap, on_retry=lambda *_: None):
                self.got.append(message.data)

    def _gap(self, gap: object) -> None:
        raise AssertionError(gap)

    async def end(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


async def test_a_killed_worker_is_replaced_and_nothing_is_lost(workers: Workers, sql: asyncpg.Connection) -> None:
    await workers.start()
    stored, unknown, codes, ends = [], [], set(), asyncio.Event()

    async def publish() -> None:
        number = 0
        while not ends.is_set():
            # A connection of its own for each: they go to all workers in turn.
            async with Publisher(workers.url) as client:
                try:
                    await client.publish("numbers", number)
                    stored.append(number)
                except NotifierClientError as error:
                    unknown.append(number)
                    codes.add(error.code)
            number += 1

    # These change the number of gunicorn's workers. Ours have a listener each, which no process would serve.
    for number in (signal.SIGTTOU, signal.SIGTTIN):
        workers.process.send_signal(number)
    followers = [Follower(workers, "numbers") for _ in range(40)]
    publishing = asyncio.create_task(publish())
    try:
        for pid in workers.pids()[:3]:
            had = len(stored)
            await until(lambda: len(stored) > had + 20)  # noqa: B023
            psutil.Process(pid).kill()
            await until(lambda: pid not in workers.pids() and len(workers.pids()) == 4)  # noqa: B023
        ends.set()
        await publishing
        log = await numbers(sql)
        for follower in followers:
            await until(lambda: len(follower.got) >= len(log) or follower._task.done())  # noqa: B023
            assert follower.got == log
    finally:
        publishing.cancel()
        for follower in followers:
            await follower.end()
    assert log == sorted(set(log))
    assert codes <= {"outcome_unknown"}
    assert set(stored) <= set(log) <= set(stored) | set(unknown)
    assert workers.said().count("another one takes its place") == 3


async def test_connections_that_a_dead_worker_had_not_accepted_wait_for_the_next_one(workers: Workers) -> None:
    await workers.start()
    pid = workers.pids()[0]
    worker = psutil.Process(pid)
    worker.suspend()
    clients = [await Client.connect(workers) for _ in range(40)]
    for client in clients:
        client.send("GET", "/healthz")
    worker.kill()
    for client in clients:
        assert (await client.answer())[0] == 200
    assert pid not in workers.pids()


async def test_a_worker_that_hangs_is_replaced(workers: Workers) -> None:
    await workers.start(("-c", IMPATIENT))
    pid = workers.pids()[0]
    psutil.Process(pid).suspend()
    await workers.replaced(pid)
    assert f"WORKER TIMEOUT (pid:{pid})" in workers.said()
    assert (await ask(workers, "GET", "/readyz"))[0] == 200


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.rule("H-3")
async def test_a_stop_answers_the_parked_polls_of_all_workers(workers: Workers, how: signal.Signals) -> None:
    await workers.start()
    family = workers.family()
    clients = [await Client.connect(workers) for _ in range(200)]
    for client in clients:
        client.send("GET", "/v1/topics/orders?wait=20")
    for pid in workers.pids():
        await workers.has_read(pid)
    workers.process.send_signal(how)
    cursors = set()
    for client in clients:
        status, headers, body = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        cursors.add(json.loads(body)["cursor"])
        await client.closed()
    assert len(cursors) == 1
    assert await workers.ended() == 0
    await gone(family)
    assert "Traceback" not in workers.said()
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(workers)


async def test_stopping_workers_say_so_and_still_answer(workers: Workers) -> None:
    await workers.start()
    workers.process.send_signal(signal.SIGTERM)
    await until(lambda: workers.said().count("parked polls are answered") == 4)
    for _ in range(8):
        assert (await ask(workers, "GET", "/readyz"))[0] == 503
        assert (await ask(workers, "POST", "/v1/topics/orders", "1"))[0] == 201
    workers.process.send_signal(signal.SIGINT)
    assert await workers.ended() == 0


async def test_more_signals_change_nothing(workers: Workers) -> None:
    await workers.start()
    async with asyncio.timeout(DEADLINE_S):
        while workers.process.poll() is None:
            workers.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.0005)
    assert workers.process.returncode == 0
    assert workers.said().count(" stopped\n") == 4


async def test_a_stop_during_the_start_is_orderly(workers: Workers) -> None:
    starting = asyncio.create_task(workers.start())
    await until(lambda: "worker 1: writer: connected" in (workers.said() if workers.log.exists() else ""))
    family = workers.family()
    workers.process.send_signal(signal.SIGTERM)
    with contextlib.suppress(AssertionError):
        await starting
    assert await workers.ended() == 0
    await gone(family)
    assert "Traceback" not in workers.said()


async def test_workers_do_not_outlive_their_parent(workers: Workers) -> None:
    await workers.start()
    client = await workers.parked(workers.pids()[0])
    family = workers.family()
    assert len(family) == 4
    workers.process.kill()
    assert (await client.answer())[0] == 200
    await gone(family)


def told_once(workers: Workers, code: int, what: str, **env: str) -> None:
    refused = run(sys.executable, *SERVE, env=workers.env | env, cwd=workers.log.parent)
    said = refused.stdout + refused.stderr
    assert refused.returncode == code, said
    assert said.count("cannot start") == 1, said
    assert what in said
    assert "Traceback" not in said
    assert "ended" not in said


def test_a_database_without_our_schema_is_reported_once(workers: Workers, empty_database: str) -> None:
    told_once(workers, 1, "run `notifier migrate` first", DATABASE_URL=empty_database)


async def test_another_database_to_listen_to_is_reported_once(
    workers: Workers, postgres: str, template: str, database: str
) -> None:
    name = f"test_{uuid.uuid4().hex[:12]}"
    await admin(postgres, f"create database {name} template {template}")
    try:
        other = urlsplit(database)._replace(path=f"/{name}").geturl()
        told_once(workers, 2, "another database", LISTEN_DATABASE_URL=other)
    finally:
        await admin(postgres, f"drop database {name} with (force)")


def test_a_refused_password_is_reported_once(workers: Workers, database: str) -> None:
    password = quote(urlsplit(database).password or "")
    told_once(workers, 3, "refuses the connection", DATABASE_URL=database.replace(f":{password}@", ":wrong@"))


def test_unsafe_settings_are_reported_once(workers: Workers) -> None:
    told_once(workers, 2, "there is no NOTIFIER_ADMIN_KEY", HOST="0.0.0.0")


async def test_a_port_in_use_is_reported_once_even_if_it_could_be_shared(workers: Workers) -> None:
    await workers.start()
    told_once(workers, 1, "address already in use")


def test_a_folder_that_cannot_hold_a_database_is_reported_once(embedded: Workers) -> None:
    (embedded.log.parent / ".notifier").write_text("in the way")
    told_once(embedded, 1, ".notifier")


@pytest.mark.rule("D-3")
async def test_a_worker_killed_between_migrate_and_the_new_code_comes_back(workers: Workers, database: str) -> None:
    await workers.start()
    await migrate(database, next_version("alter table notifier.message add column extra int;"))
    for pid in workers.pids():
        psutil.Process(pid).kill()
        await workers.replaced(pid)
    assert (await ask(workers, "POST", "/v1/topics/orders", "1"))[0] == 201


@pytest.mark.rule("D-3")
async def test_a_worker_that_is_refused_does_not_stop_its_neighbours(
    workers: Workers, sql: asyncpg.Connection, database: str
) -> None:
    await workers.start()
    pid, other, *_ = workers.pids()
    client = await workers.parked(other)
    await migrate(database, next_version("-- breaking\nalter table notifier.message add column extra int;"))
    psutil.Process(pid).kill()
    await until(lambda: workers.said().count("it was migrated by a newer one") == 2)
    assert len(workers.pids()) in {3, 4}  # it may be trying
    for _ in range(8):  # new connections go to those that serve
        assert (await ask(workers, "POST", "/v1/topics/orders", "1"))[0] == 201
    assert (await client.answer())[0] == 200
    await sql.execute("delete from notifier.migration where number = $1", NEXT)
    await workers.replaced(pid)


async def test_a_worker_that_finds_no_database_is_retried(
    workers: Workers, sql: asyncpg.Connection, database: str
) -> None:
    role = f"role_{uuid.uuid4().hex[:12]}"
    await sql.execute(f"create role {role} superuser login password 'secret'")
    try:
        url = urlsplit(database)
        workers.env["DATABASE_URL"] = url._replace(netloc=f"{role}:secret@{url.netloc.rpartition('@')[2]}").geturl()
        await workers.start()
        await sql.execute(f"alter role {role} nologin")
        pid = workers.pids()[0]
        psutil.Process(pid).kill()
        await until(lambda: workers.said().count("refuses the connection") >= 2)
        for _ in range(40):  # new connections go to the others meanwhile
            assert (await ask(workers, "GET", "/healthz"))[0] == 200
        await sql.execute(f"alter role {role} login")
        await until(lambda: len(set(workers.pids()) - {pid}) == workers.count)
    finally:
        await put_away(workers)
        await sql.execute(f"drop role {role}")


async def test_workers_share_an_embedded_database_that_stops_with_them(embedded: Workers) -> None:
    await embedded.start()
    family = embedded.family()
    [postmaster] = [each for each in family if "-D" in each.cmdline()]
    [first, second] = embedded.pids()
    poll = await embedded.client_of(second)
    poll.send("GET", "/v1/topics/orders?wait=20&after=earliest")
    publisher = await embedded.client_of(first)
    publisher.send("POST", "/v1/topics/orders", "1")
    assert (await publisher.answer())[0] == 201
    assert len(json_of(await poll.answer())["messages"]) == 1
    for pid in (first, second):  # whichever dies, the database stays
        psutil.Process(pid).kill()
        await embedded.replaced(pid)
    assert postmaster.is_running()
    family += embedded.family()
    embedded.process.send_signal(signal.SIGTERM)
    assert await embedded.ended() == 0
    assert not any(each.is_running() for each in family)
    assert embedded.said().count("Embedded Postgres") == 1
    assert "Traceback" not in embedded.said()


async def test_an_embedded_database_does_not_outlive_a_parent_that_was_killed(embedded: Workers) -> None:
    await embedded.start()
    family = embedded.family()
    assert len([each for each in family if "-D" in each.cmdline()]) == 1
    embedded.process.kill()
    await gone(family)


async def test_the_keeper_of_the_embedded_database_is_replaced_too(embedded: Workers) -> None:
    await embedded.start()
    [keeper] = [each for each in psutil.Process(embedded.process.pid).children() if each.pid not in embedded.pids()]
    keeper.kill()
    await until(lambda: "worker 0" in embedded.said())
    while (await ask(embedded, "POST", "/v1/topics/orders", "1"))[0] != 201:
        await asyncio.sleep(0.02)
    embedded.process.send_signal(signal.SIGINT)
    assert await embedded.ended() == 0


def test_all_addresses_of_a_name_get_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def two(_: str, *args: Any, **kwargs: Any) -> list:
        return [found for host in ("127.0.0.1", "127.0.0.2") for found in resolve(host, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    slots = bind("a.name", 0, 3)
    try:
        addresses = [[sock.getsockname() for sock in sockets] for sockets in slots]
        assert addresses[0] == addresses[1] == addresses[2]
        [(first, port), (second, same_port)] = addresses[0]
        assert (first, second) == ("127.0.0.1", "127.0.0.2")
        assert port == same_port
    finally:
        for sockets in slots:
            for sock in sockets:
                sock.close()


def test_one_process_needs_no_manager() -> None:
    imports = "import sys, notifier.web.run, notifier.cli; sys.exit('gunicorn' in sys.modules)"
    assert run(sys.executable, "-c", imports).returncode == 0
