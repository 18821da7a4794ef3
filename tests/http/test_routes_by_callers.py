"""Each route, asked by each caller, on each way that a request can take. The table is in support/callers.py."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from conftest import DEADLINE_S, Running, Server, Start, until
from support.callers import (
    ADMIN,
    ANOTHER,
    APP,
    LISTS,
    OPEN_REQUESTS,
    OUTCOMES,
    READ_REQUESTS,
    REQUESTS,
    STREAMS,
    Callers,
    expected,
)
from support.halting import eventually
from support.keys import seen
from support.nginx import documented, nginx
from support.protocol import Answer, Line, line
from support.seam import connections

from notifier import polling
from notifier.core.messages import NewMessage
from notifier.web import listing
from notifier.web.handover import ParkedConnection

SECRET = b'"a secret"'
TOPICS = ("user/7/inbox", "user/7/a/x", "user/8/inbox", "jobs/1")
NUMBER = itertools.count()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of requests read the table, on machines that are shared."""
    monkeypatch.setattr(polling, "GRACE_S", DEADLINE_S)
    monkeypatch.setattr(listing, "GRACE_S", DEADLINE_S)


class Subject:
    """A server, its callers, and what there is to read. `door` is where requests go, if not to the server itself."""

    def __init__(self, app: Running, callers: Callers, ids: dict[str, str], door: Any = None) -> None:
        self.app = app
        self.door = door or app
        self.callers = callers
        self.ids = ids

    async def wake(self) -> None:
        await self.app.service.publish([NewMessage(topic, SECRET) for topic in (*TOPICS, "woken")])

    def request(self, route: str, caller: str, *more: str, version: str = "1.1") -> bytes:
        first, headers, body = (REQUESTS | READ_REQUESTS | OPEN_REQUESTS)[route]
        length = ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
        first = first.format(**self.ids)
        return raw(f"{first} HTTP/{version}", *self.callers.headers[caller], *headers, *length, *more, body=body)

    def poll(self, route: str, caller: str, after: str, *more: str) -> bytes:
        """As `request` for a list, but it waits."""
        return raw(f"GET /v1/topics/{LISTS[route]}?after={after} HTTP/1.1", *self.callers.headers[caller], *more)

    @property
    def head(self) -> str:
        return str(self.app.service.window.head)

    def held(self, *lines: Line) -> list[ParkedConnection]:
        """The connections of these that the hand-over holds."""
        ports = [line.writer.get_extra_info("sockname")[1] for line in lines]
        return [one for one in connections(self.app) if one.transport.get_extra_info("peername")[1] in ports]

    def handled(self) -> int:
        """How many requests aiohttp has handled."""
        return self.app.client.server.runner.server.requests_count


def raw(*lines: str | bytes, body: bytes = b"") -> bytes:
    first, *headers = [line.encode() if isinstance(line, str) else line for line in lines]
    return b"\r\n".join([first, b"Host: localhost", *headers, b"", body])


def number() -> str:
    """What a proxy adds."""
    return f"X-Request-ID: {next(NUMBER)}"


def outcome(answer: Answer) -> str:
    """A word of the table. A refusal shows nothing of what it refuses."""
    if answer.status < 300:
        return "ok"
    assert SECRET not in answer.body
    return OUTCOMES.get((answer.status, json.loads(answer.body)["code"]), f"{answer.status} {answer.body!r}")


async def start_with(start: Start, callers: Callers, **settings: object) -> Subject:
    app = await start(admin_keys=(ADMIN,), tokens=callers.tokens, origins=frozenset({APP}), **settings)
    seqs = await app.service.publish([NewMessage(topic, SECRET) for topic in TOPICS])
    ids = {"own": str(seqs[0]), "other": str(seqs[2]), "after": str(seqs[0] - 1)}
    return Subject(app, callers, ids)


@pytest_asyncio.fixture
async def callers(sql, tmp_path: Path) -> Callers:
    callers = Callers(tmp_path)
    await callers.store(sql)
    return callers


async def ready(start: Start, callers: Callers, sql, **settings: object) -> Subject:
    """A server that has been running while things were revoked."""
    subject = await start_with(start, callers, **settings)
    await callers.revoke(sql)
    await seen(sql, subject.app)
    return subject


# Ways. Each asks for `routes` as `caller`, each on a connection of its own, and returns what comes back.

Way = Callable[[Subject, str, Sequence[str]], Awaitable[list[Answer]]]


@asynccontextmanager
async def each(subject: Subject, routes: Sequence[str]) -> AsyncIterator[list[Line]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(line(subject.door)) for _ in routes]


def goes_on(route: str, answer: Answer) -> bool:
    return route in STREAMS and answer.status == 200


async def answers(lines: Iterable[Line]) -> list[Answer]:
    return [await one.answer() for one in lines]


async def plainly(subject: Subject, caller: str, routes: Sequence[str]) -> list[Answer]:
    async with each(subject, routes) as lines:
        for one, route in zip(lines, routes, strict=True):
            one.writer.write(subject.request(route, caller))
        return await answers(lines)


async def by_http_1_0(subject: Subject, caller: str, routes: Sequence[str]) -> list[Answer]:
    async with each(subject, routes) as lines:
        for one, route in zip(lines, routes, strict=True):
            one.writer.write(subject.request(route, caller, version="1.0"))
        found = await answers(lines)
        ended = [one for one, route, answer in zip(lines, routes, found, strict=True) if not goes_on(route, answer)]
        assert [await one.reader.read() for one in ended] == [b""] * len(ended)
        return found


async def pipelined(subject: Subject, caller: str, routes: Sequence[str]) -> list[Answer]:
    """In one write with requests that another may make, before it and behind it."""
    async with each(subject, routes) as lines:
        for one, route in zip(lines, routes, strict=True):
            before, behind = (subject.request(name, ANOTHER) for name in ("other", "own"))
            one.writer.write(before + subject.request(route, caller) + behind)
        found = []
        for one, route in zip(lines, routes, strict=True):
            before, answer = [await one.answer() for _ in range(2)]
            assert before.status == 200
            if not goes_on(route, answer):
                assert (await one.answer()).status == 200
            found.append(answer)
        return found


async def behind_a_parked_poll(subject: Subject, caller: str, routes: Sequence[str]) -> list[Answer]:
    """One with another token, on one connection with it."""
    async with each(subject, routes) as lines:
        for one in lines:
            one.writer.write(raw("GET /v1/topics/woken HTTP/1.1", *subject.callers.headers[ANOTHER]))
        await subject.app.parked(len(lines))
        for one, route in zip(lines, routes, strict=True):
            one.writer.write(subject.request(route, caller))
        await until(lambda: all(held.behind for held in subject.held(*lines)))
        await subject.wake()
        assert all(b'"woken"' in first.body for first in await answers(lines))
        return await answers(lines)


async def known(
    subject: Subject, caller: str, routes: Sequence[str], lines: Sequence[Line], *numbers: str
) -> tuple[str, list[Answer]]:
    """Let `caller` wait for the lists and be woken, so that its polls are known. The cursor from before, and what it is
    told."""
    after = subject.head
    for one, route in zip(lines, routes, strict=True):
        one.writer.write(subject.poll(route, caller, after, *numbers))
    answering = [asyncio.create_task(one.answer()) for one in lines]
    await until(lambda: len(subject.app.service.lot) + sum(task.done() for task in answering) == len(lines))
    await subject.wake()
    return after, [await task for task in answering]


async def again(subject: Subject, caller: str, routes: Sequence[str], *numbers: Callable[[], str]) -> list[Answer]:
    """By the same caller on the same connections: re-polls where the first was allowed."""
    async with each(subject, routes) as lines:
        after, first = await known(subject, caller, routes, lines, *(one() for one in numbers))
        handled = subject.handled()
        for one, route in zip(lines, routes, strict=True):
            one.writer.write(subject.poll(route, caller, after, *(one() for one in numbers)))
        found = await answers(lines)
        assert list(map(outcome, found)) == list(map(outcome, first))
        refused = sum(answer.status != 200 for answer in first)
        assert subject.handled() - handled == refused
        return found


async def as_the_same_bytes(subject: Subject, caller: str, routes: Sequence[str]) -> list[Answer]:
    return await again(subject, caller, routes)


async def numbered_by_a_proxy(subject: Subject, caller: str, routes: Sequence[str]) -> list[Answer]:
    return await again(subject, caller, routes, number)


async def where_another_was(
    subject: Subject, caller: str, routes: Sequence[str], *, pipelined: bool = False
) -> list[Answer]:
    """On connections on which polls of the same lists with another token, numbered by a proxy, are known."""
    lists = [route if route in LISTS else "equal" for route in routes]
    async with each(subject, routes) as lines:
        after, first = await known(subject, ANOTHER, lists, lines, number())
        assert {answer.status for answer in first} == {200}
        assert len(subject.held(*lines)) == len(lines)
        for one, route, like in zip(lines, routes, lists, strict=True):
            if pipelined:
                one.writer.write(subject.poll(like, ANOTHER, after, number()))
            asked = subject.poll(route, caller, after, number()) if route in LISTS else subject.request(route, caller)
            one.writer.write(asked)
        if pipelined:
            assert {answer.status for answer in await answers(lines)} == {200}
        return await answers(lines)


async def in_one_write_with_a_known_poll(subject: Subject, caller: str, routes: Sequence[str]) -> list[Answer]:
    return await where_another_was(subject, caller, routes, pipelined=True)


ALL_ROUTES = (
    plainly,
    by_http_1_0,
    pipelined,
    behind_a_parked_poll,
    where_another_was,
    in_one_write_with_a_known_poll,
)
POLLS = (as_the_same_bytes, numbered_by_a_proxy)


async def differences(
    subject: Subject, way: Way, routes: Collection[str] | None = None, *, but: Collection[str] = ()
) -> list[str]:
    """Where it is not as the table says."""
    return [
        f"{caller}, {route}: {found} and not {row[route]}"
        for caller, row in expected().items()
        if caller not in but
        for asked in [[route for route in row if routes is None or route in routes]]
        for route, answer in zip(asked, await way(subject, caller, asked), strict=True)
        if (found := outcome(answer)) != row[route]
    ]


@pytest.mark.rule("A-6", "A-32")
@pytest.mark.parametrize("way", ALL_ROUTES, ids=lambda way: way.__name__)
async def test_each_caller_gets_what_its_grant_allows(start: Start, callers: Callers, sql, way: Way) -> None:
    """And what needs no credential, whatever it shows."""
    subject = await ready(start, callers, sql)
    assert await differences(subject, way) == []


@pytest.mark.rule("A-32")
@pytest.mark.parametrize("way", POLLS, ids=lambda way: way.__name__)
async def test_each_caller_gets_what_its_grant_allows_when_it_comes_back(
    start: Start, callers: Callers, sql, way: Way
) -> None:
    subject = await ready(start, callers, sql)
    assert await differences(subject, way, LISTS) == []


@pytest.mark.rule("A-32")
async def test_the_same_without_the_hand_over(start: Start, callers: Callers, sql) -> None:
    subject = await ready(start, callers, sql, fast=False)
    assert await differences(subject, plainly) == []


SILENT = "create or replace function notifier.may_notify() returns boolean language sql as 'select false'"


@pytest.mark.rule("A-32")
async def test_the_same_on_two_processes_that_are_told_of_nothing(start: Start, callers: Callers, sql) -> None:
    """What was revoked while they ran, and the key made then, are found without a NOTIFY."""
    await sql.execute(SILENT)
    first = await start_with(start, callers)
    second = Subject((await start_with(start, callers)).app, callers, first.ids)
    await sql.execute("delete from notifier.key where name = 'publish-only key'")
    await callers.store_key(sql, "publish-only key")
    await callers.revoke(sql)
    await seen(sql, first.app, second.app)
    for subject in (first, second):
        assert await differences(subject, plainly) == []
        assert await differences(subject, as_the_same_bytes, LISTS) == []


# Behind nginx, whose connections to the server are shared by all callers.

TWICE = ("two headers", "two good headers")  # nginx takes one at most


@asynccontextmanager
async def behind_nginx(port: int, folder: Path, more: str = "") -> AsyncIterator[Any]:
    """Where it listens. It is configured as docs/operations.md says, and by `more`."""
    block = documented().replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace("location / {", f"location / {{ {more}")
    with nginx(block, folder) as url:
        address = urlsplit(url)
        await eventually(lambda: listens(address.port))
        yield SimpleNamespace(client=SimpleNamespace(host=address.hostname, port=address.port))


async def through_nginx(subject: Subject, caller: str, routes: Sequence[str]) -> list[Answer]:
    """Polls wait and come back first, so that they are known."""
    after = await publish_by_http(subject)
    async with each(subject, routes) as lines:
        polls = [(one, route) for one, route in zip(lines, routes, strict=True) if route in LISTS]
        for one, route in polls:
            one.writer.write(subject.poll(route, caller, after))
        await publish_by_http(subject)
        first = await answers(one for one, _ in polls)
        for one, route in zip(lines, routes, strict=True):
            polled = route in LISTS
            one.writer.write(subject.poll(route, caller, after) if polled else subject.request(route, caller))
        found = dict(zip(routes, await answers(lines), strict=True))
        assert [outcome(found[route]) for _, route in polls] == [outcome(answer) for answer in first]
        return list(found.values())


async def numbered_by_nginx(subject: Subject, caller: str, routes: Sequence[str]) -> list[Answer]:
    """The polls that are allowed are re-polls; then come those that are not, on any of the connections."""
    row = expected()[caller]
    allowed, others = ([route for route in routes if (row[route] == "ok") is wanted] for wanted in (True, False))
    found = dict(zip(allowed, await again(subject, caller, allowed), strict=True))
    async with each(subject, others) as lines:
        for one, route in zip(lines, others, strict=True):
            one.writer.write(subject.poll(route, caller, subject.ids["after"]))
        found |= zip(others, await answers(lines), strict=True)
    return [found[route] for route in routes]


async def publish_by_http(subject: Subject) -> str:
    """The last id."""
    async with line(subject.app) as raw:
        body = json.dumps([{"topic": topic, "data": json.loads(SECRET)} for topic in TOPICS]).encode()
        lines = ["POST /v1/messages HTTP/1.1", f"Authorization: Bearer {ADMIN}", "Content-Type: application/json"]
        await raw.send(*lines, f"Content-Length: {len(body)}", body=body)
        answer = await raw.answer()
        assert answer.status == 201, answer.body
        return json.loads(answer.body)["ids"][-1]


@pytest.mark.all
@pytest.mark.rule("A-32")
async def test_the_same_behind_nginx_and_two_processes(database: str, callers: Callers, sql, tmp_path: Path) -> None:
    await callers.revoke(sql)
    server = Server(database, tmp_path / "serve.log")
    server.env |= callers.env | {"WEB_CONCURRENCY": "2"}
    try:
        server.start()
        async with behind_nginx(server.port, tmp_path) as there:
            subject = Subject(there, callers, {})
            last = int(await publish_by_http(subject))
            # In one commit, so one after another.
            subject.ids = {"own": str(last - 3), "other": str(last - 1), "after": str(last - 4)}
            assert await differences(subject, through_nginx, but=TWICE) == []
            for caller in TWICE:
                assert {answer.status for answer in await plainly(subject, caller, list(LISTS))} == {400}
    finally:
        server.close()


@pytest.mark.all
@pytest.mark.rule("A-32")
async def test_the_same_behind_an_nginx_that_numbers_requests(
    start: Start, callers: Callers, sql, tmp_path: Path
) -> None:
    subject = await ready(start, callers, sql, trusted_proxies=1)
    numbers = "proxy_set_header X-Request-ID $request_id;"
    async with behind_nginx(subject.app.client.port, tmp_path, numbers) as subject.door:
        assert await differences(subject, numbered_by_nginx, LISTS, but=TWICE) == []


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True
