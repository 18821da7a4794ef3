"""Publishers learn what became of their message, wherever the database or they themselves went away."""

import asyncio
import signal
import socket

import asyncpg
import pytest
from aiohttp import ClientResponse
from conftest import Running, Server, Start, data, until
from support.by_hand import request
from support.halting import eventually
from support.log import APPEND_AND_FLUSH, APPEND_ONCE_AND_FLUSH, backends, numbers, order_lock, waiting
from support.tcp_proxy import TcpProxy

from notifier.core.errors import Unavailable, Unprocessable
from notifier.core.messages import NewMessage
from notifier.postgres import writer


class Attempt:
    """One publish over HTTP, under way."""

    def __init__(self, app: Running, body: int) -> None:
        self._task = asyncio.create_task(self._post(app, body))

    async def _post(self, app: Running, body: int) -> ClientResponse:
        async with app.client.post("/v1/topics/orders", json=body) as response:
            await response.read()
            return response

    async def assert_unavailable(self) -> None:
        """503: nothing was stored, try again."""
        response = await self._task
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
        assert (await response.json())["code"] == "unavailable"

    async def assert_outcome_unknown(self) -> None:
        """504: the outcome is unknown, and a blind retry might publish it twice, so there is no Retry-After."""
        response = await self._task
        assert response.status == 504
        assert "Retry-After" not in response.headers
        assert (await response.json())["code"] == "outcome_unknown"

    async def assert_stored(self) -> None:
        assert (await self._task).status == 201

    async def status(self) -> int:
        return (await self._task).status


async def on_each_connection(app: Running, sql: asyncpg.Connection) -> list[Attempt]:
    """Publishes of 1, 2 ... that wait for the order lock: as many as are sent before the next waits in this process."""
    attempts = []
    for number in range(1, 1 + writer.CONNECTIONS):
        attempts.append(Attempt(app, number))
        await waiting(sql, number)
    return attempts


@pytest.mark.rule("P-20", "P-19")
async def test_an_unconfirmed_commit_is_unknown_and_the_publishes_behind_it_are_not_stored(
    start: Start, proxy: TcpProxy, database: str, sql: asyncpg.Connection
) -> None:
    app = await start(proxy.url, listen_url=database)
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    async with order_lock(sql):
        committed = await on_each_connection(app, sql)
        proxy.replies.close()
    await eventually(lambda: numbers(sql), lambda found: found == [1, 2])
    behind = [Attempt(app, 3), Attempt(app, 4)]
    await until(lambda: app.service.writer._messages == 2)
    proxy.refuses = True
    await proxy.cut()
    for attempt in committed:
        await attempt.assert_outcome_unknown()
    for attempt in behind:
        await attempt.assert_unavailable()
    assert data(await poll)[0] == 1  # it was stored indeed
    await Attempt(app, 5).assert_unavailable()  # nothing to send it on
    assert await numbers(sql) == [1, 2]
    proxy.heal()
    await until(lambda: app.service.writer.up)
    await Attempt(app, 6).assert_stored()
    assert await numbers(sql) == [1, 2, 6]


@pytest.mark.rule("P-20")
async def test_a_publish_that_never_reached_the_database_is_unknown_too(
    start: Start, proxy: TcpProxy, database: str, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = await start(proxy.url, listen_url=database)
    proxy.requests.close()
    attempt = Attempt(app, 1)
    await until(lambda: app.service.writer._open and not app.service.writer._waiting)
    await proxy.cut()
    await attempt.assert_outcome_unknown()
    assert await numbers(sql) == []


@pytest.mark.rule("P-20")
async def test_a_publish_that_the_database_does_not_answer_in_time_is_unknown(
    start: Start, proxy: TcpProxy, database: str, sql: asyncpg.Connection, impatient: None
) -> None:
    app = await start(proxy.url, listen_url=database)
    async with order_lock(sql):
        attempt = Attempt(app, 1)
        await waiting(sql)
        proxy.black_hole()
    await attempt.assert_outcome_unknown()
    assert await numbers(sql) == [1]
    proxy.heal()


@pytest.mark.rule("P-19")
async def test_a_publish_while_the_connection_closes_is_not_sent(
    connections: dict[str, list[asyncpg.Connection]], start: Start, sql: asyncpg.Connection
) -> None:
    app = await start()
    attempts = []
    service = app.service

    def publish(_: object) -> None:
        assert service.writer.up
        attempts.append(asyncio.create_task(service.publish([NewMessage("orders", b"1")])))

    for connection in connections["writer"]:
        connection.add_termination_listener(publish)
    for connection in connections["writer"]:
        connection.terminate()
    await until(lambda: len(attempts) == len(connections["writer"]))
    for attempt in attempts:
        with pytest.raises(Unavailable):
            await attempt
    assert await numbers(sql) == []


@pytest.mark.rule("P-19")
async def test_a_commit_that_the_database_cancels_before_it_has_appended_is_not_stored(
    app: Running, sql: asyncpg.Connection
) -> None:
    async with order_lock(sql):
        attempt = Attempt(app, 1)
        for pid in await waiting(sql):
            await sql.execute("select pg_cancel_backend($1)", pid)
        await attempt.assert_unavailable()
    assert await numbers(sql) == []
    await until(lambda: app.service.writer.up)
    await Attempt(app, 2).assert_stored()


async def go_on_with(sql: asyncpg.Connection, statement: str, source_of: str = APPEND_AND_FLUSH) -> str:
    """Have append_and_flush() run `statement` once it has committed what it appends. The source without it."""
    source = await sql.fetchval(source_of)
    assert "commit;" in source
    await sql.execute(source.replace("commit;", f"commit; {statement};"))
    return source


@pytest.mark.rule("P-20")
@pytest.mark.parametrize(
    "sqlstate",
    ["42501", "57014", "53200", "53100", "54000", "22012", "23514", "55P03", "25006", "XX000", "P0001"],
)
async def test_an_error_after_a_message_is_stored_is_unknown_whatever_it_says(
    app: Running, sql: asyncpg.Connection, sqlstate: str
) -> None:
    source = await go_on_with(sql, f"raise 'as the test wants it' using errcode = '{sqlstate}'")
    await Attempt(app, 1).assert_outcome_unknown()
    await sql.execute(source)
    assert await numbers(sql) == [1]
    await until(lambda: app.service.not_ready() is None)
    await Attempt(app, 2).assert_stored()


@pytest.mark.rule("P-44", "P-20")
async def test_what_has_an_unknown_outcome_is_sent_again_with_its_key_and_stored_once(
    app: Running, sql: asyncpg.Connection
) -> None:
    headers = {"Idempotency-Key": "a", "Content-Type": "application/json"}

    async def publish() -> tuple[int, dict]:
        async with app.client.post("/v1/topics/orders", data="1", headers=headers) as response:
            return response.status, await response.json()

    source = await go_on_with(sql, "perform 1 / 0", APPEND_ONCE_AND_FLUSH)
    assert (await publish())[0] == 504
    await sql.execute(source)
    await until(lambda: app.service.not_ready() is None)
    status, answer = await publish()
    assert (status, answer["duplicate"]) == (200, True)
    assert [str(row["seq"]) for row in await sql.fetch("select seq from notifier.message")] == [answer["id"]]
    assert await numbers(sql) == [1]


@pytest.mark.rule("P-20")
async def test_a_batch_that_fails_after_it_is_stored_is_not_stored_again(app: Running, sql: asyncpg.Connection) -> None:
    async with order_lock(sql):
        before = await on_each_connection(app, sql)
        batch = [Attempt(app, body) for body in (6, 7, 8)]
        await until(lambda: app.service.writer._messages == 3)
        await go_on_with(sql, "perform 1 / 0")  # from the next call on
    for attempt in before:
        await attempt.assert_stored()
    for attempt in batch:
        await attempt.assert_outcome_unknown()
    assert sorted(await numbers(sql)) == [1, 2, 6, 7, 8]


@pytest.mark.rule("P-19")
async def test_an_error_at_the_commit_itself_stores_nothing(app: Running, sql: asyncpg.Connection) -> None:
    await sql.execute(
        """
        create function refuse() returns trigger language plpgsql as $$ begin raise 'as the test wants it'; end $$;
        create constraint trigger refuse after insert on notifier.message
            deferrable initially deferred for each row execute function refuse();
        """
    )
    await Attempt(app, 1).assert_unavailable()
    assert await numbers(sql) == []


async def test_a_message_that_cannot_be_sent_takes_none_of_its_batch_with_it(
    app: Running, sql: asyncpg.Connection
) -> None:
    writing = await backends(sql, "writer")
    async with order_lock(sql):
        before = await on_each_connection(app, sql)
        odd = asyncio.create_task(app.service.publish([NewMessage("orders\ud800", b"7")]))
        batch = [Attempt(app, body) for body in (6, 8)]
        await until(lambda: app.service.writer._messages == 3)
    with pytest.raises(Unprocessable):
        await odd
    for attempt in (*before, *batch):
        await attempt.assert_stored()
    assert sorted(await numbers(sql)) == [1, 2, 6, 8]
    assert await backends(sql, "writer") == writing


@pytest.mark.rule("P-20")
async def test_a_commit_whose_connection_the_database_ends_is_unknown(app: Running, sql: asyncpg.Connection) -> None:
    async with order_lock(sql):
        attempt = Attempt(app, 1)
        for pid in await waiting(sql):
            await sql.execute("select pg_terminate_backend($1)", pid)
        await attempt.assert_outcome_unknown()
    assert await numbers(sql) == []


async def test_a_connection_that_the_database_ends_takes_no_publish_on_another_with_it(
    app: Running, sql: asyncpg.Connection
) -> None:
    async with order_lock(sql):
        ended = Attempt(app, 1)
        [pid] = await waiting(sql)
        other = Attempt(app, 2)
        await waiting(sql, 2)
        await sql.execute("select pg_terminate_backend($1)", pid)
        await ended.assert_outcome_unknown()
    await other.assert_stored()
    await until(lambda: app.service.writer.up)
    await Attempt(app, 3).assert_stored()
    assert await numbers(sql) == [2, 3]


async def test_every_idle_connection_is_checked(
    start: Start, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "HEARTBEAT_S", 0.01)
    await start()
    asked = "select pid, state_change from pg_stat_activity where pid = any ($1)"
    pids = await backends(sql, "writer")
    before = dict(await sql.fetch(asked, pids))
    assert len(before) == writer.CONNECTIONS

    async def silent() -> list[int]:
        now = dict(await sql.fetch(asked, pids))
        return [pid for pid in before if now[pid] == before[pid]]

    await eventually(silent, lambda found: not found)


@pytest.mark.rule("P-21")
async def test_a_message_that_the_database_rejects_takes_no_other_with_it(
    app: Running, sql: asyncpg.Connection
) -> None:
    await sql.execute("alter table notifier.message add constraint no_seven check (convert_from(body, 'UTF8') <> '7')")
    async with order_lock(sql):
        before = await on_each_connection(app, sql)
        batch = [Attempt(app, body) for body in (6, 7, 8)]
        await until(lambda: app.service.writer._messages == 3)
    assert [await attempt.status() for attempt in (*before, *batch)] == [201, 201, 201, 422, 201]
    assert sorted(await numbers(sql)) == [1, 2, 6, 8]  # they came on several connections


@pytest.mark.rule("P-19")
async def test_publishes_that_wait_for_a_slow_database_are_bounded(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 3)
    async with order_lock(sql):
        before = await on_each_connection(app, sql)
        behind = [Attempt(app, body) for body in (3, 4, 5)]
        await until(lambda: app.service.writer._messages == 3)
        await Attempt(app, 6).assert_unavailable()
    for attempt in (*before, *behind):
        await attempt.assert_stored()
    assert sorted(await numbers(sql)) == [1, 2, 3, 4, 5]  # they came on several connections


@pytest.mark.rule("P-15")
async def test_a_publish_is_done_even_if_its_client_disconnects_right_after_sending(
    server: Server, sql: asyncpg.Connection
) -> None:
    server.process.send_signal(signal.SIGSTOP)  # it finds requests and hang-ups all at once
    for n in range(50):
        with socket.create_connection(("127.0.0.1", server.port)) as sock:
            sock.sendall(request("POST", "/v1/topics/orders", str(n)).encode())
    server.process.send_signal(signal.SIGCONT)
    await eventually(lambda: numbers(sql), lambda found: sorted(found) == list(range(50)))


@pytest.mark.rule("P-15")
async def test_a_publish_is_done_even_if_its_client_disconnects_during_the_commit(
    app: Running, sql: asyncpg.Connection
) -> None:
    poll = app.start_poll("orders", wait=20)
    await app.parked()
    async with order_lock(sql):
        attempt = Attempt(app, 1)
        await waiting(sql)
        attempt._task.cancel()
        await asyncio.wait([attempt._task])
        await hung_up(app)
    assert data(await poll) == [1]
    assert await numbers(sql) == [1]


async def hung_up(app: Running) -> None:
    """Return when the server has noticed that its publisher has hung up."""
    server = app.client.server.runner.server
    await until(lambda: len(server.connections) == 1)  # the poll's
