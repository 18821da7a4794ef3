"""A database that is away costs the log a line now and then, however often it is asked for."""

import asyncio
import logging

import asyncpg
import pytest
from conftest import Running
from support.log import end_connections

from notifier.postgres import failures, scheduled
from notifier.postgres.connecting import Connection
from notifier.postgres.database import Database
from notifier.postgres.failures import Complaints

# What anybody can ask for, or who may do nothing but one of these.
REQUESTS = (
    ("GET", "/v1/topics?limit={n}"),
    ("GET", "/v1/messages/{n}"),
    ("POST", "/hooks/source-{n}"),
    ("POST", "/v1/topics/t?delay=1h"),
)


async def test_requests_that_fail_by_the_hundred_are_a_few_lines(
    app: Running, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def connect(*_: object, **__: object) -> Connection:
        raise ConnectionRefusedError("nothing listens there")

    async def ask(n: int) -> int:
        method, path = REQUESTS[n % len(REQUESTS)]
        async with app.client.request(method, path.format(n=n + 1), data=None if method == "GET" else b"1") as response:
            return response.status

    await app.publish("t")
    monkeypatch.setattr(Database, "connect", connect)
    await end_connections(sql, "history", "scheduled", "tail")
    caplog.set_level(logging.INFO)
    for _ in range(5):
        assert set(await asyncio.gather(*map(ask, range(40)))) == {503}
    lines = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len([line for line in lines if line.startswith("history: ")]) in {1, 2}, lines
    assert len([line for line in lines if line.startswith("scheduled: ")]) in {1, 2}, lines
    assert len(lines) < 20, lines
    assert scheduled.log.name in {record.name for record in caplog.records}


def test_what_had_no_line_is_counted_in_the_next(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    complaints = Complaints(logging.getLogger("test"), "reads", lambda: now)
    refused, full = ConnectionRefusedError("refused"), asyncpg.TooManyConnectionsError("full")
    for error in (refused, refused, full, refused):
        complaints.warn(error)
    now = failures.LINE_S
    complaints.warn(refused)
    complaints.warn(refused)
    said = [record.message for record in caplog.records]
    assert said == [
        "reads: The database cannot be reached: ConnectionRefusedError: refused.",
        "reads: The database is busy: TooManyConnectionsError: full.",
        "reads: The database cannot be reached: ConnectionRefusedError: refused. (2 more since the last such line)",
    ]
