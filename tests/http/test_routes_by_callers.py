"""Each route, asked by each caller, on each way that a request can take. The table is in support/callers.py."""

import asyncio
import itertools
import json
import re
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from conftest import ROOT, Running, Server, Start, until
from support.callers import ADMIN, ANOTHER, APP, LISTS, OPEN, OUTCOMES, REQUESTS, Callers, expected
from support.halting import eventually
from support.keys import seen
from support.nginx import nginx
from support.protocol import Answer, Line, line
from support.seam import connections

from notifier.core.messages import NewMessage

SECRET = b'"a secret"'
TOPICS = ("user/7/inbox", "user/7/a/x", "user/8/inbox", "jobs/1")
NUMBER = itertools.count()


class Subject:
    """A server, its callers, and what there is to read."""

    def __init__(self, app: Running, callers: Callers, ids: dict[str, str]) -> None:
        self.app = app
        self.callers = callers
        self.ids = ids

    async def wake(self) -> None:
        await self.app.service.publish([NewMessage(topic, SECRET) for topic in TOPICS])

    def lines(self, route: str, caller: str, *more: str, after: str = "", version: str = "1.1") -> list[str | bytes]:
        first = REQUESTS[route][0].format(**self.ids | ({"after": after} if after else {}))
        return [f"{first} HTTP/{version}", *self.callers.headers[caller], *self._body(REQUESTS[route][1]), *more]

    def open_lines(self, route: str, caller: str) -> tuple[list[str | bytes], bytes]:
        first, headers, body, _ = OPEN[route]
        return [f"{first} HTTP/1.1", *self.callers.headers[caller], *headers, *self._body(body)], body

    @staticmethod
    def _body(body: bytes) -> list[str]:
        return ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []


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


# Ways. Each asks `route` as `caller`, and returns what comes back.


async def plainly(subject: Subject, route: str, caller: str) -> Answer:
    async with line(subject.app) as raw:
        await raw.send(*subject.lines(route, caller), body=REQUESTS[route][1])
        return await raw.answer()


async def by_http_1_0(subject: Subject, route: str, caller: str) -> Answer:
    async with line(subject.app) as raw:
        await raw.send(*subject.lines(route, caller, version="1.0"), body=REQUESTS[route][1])
        answer = await raw.answer()
        assert await raw.reader.read() == b""
        return answer


async def behind_a_parked_poll(subject: Subject, route: str, caller: str) -> Answer:
    """One with another token, on one connection with it."""
    async with line(subject.app) as raw:
        await raw.send("GET /v1/topics/woken HTTP/1.1", *subject.callers.headers[ANOTHER])
        await subject.app.parked()
        await raw.send(*subject.lines(route, caller), body=REQUESTS[route][1])
        await until(lambda: connections(subject.app)[0].behind is not None)
        await subject.app.service.publish([NewMessage("woken", b"1")])
        first = await raw.answer()
        assert first.status == 200
        assert b'"woken"' in first.body
        return await raw.answer()


def repoll(route: str, after: str, lines: list[str | bytes]) -> list[str | bytes]:
    """The same request, but for a wait."""
    return [f"GET /v1/topics/{LISTS[route]}?after={after} HTTP/1.1", *lines[1:]]


async def known(subject: Subject, raw: Line, route: str, caller: str, *numbers: str) -> str | Answer:
    """Let `caller` wait and be woken on this connection, so that its polls are known. The cursor from before the wake;
    or the answer, if it is refused."""
    after = str(subject.app.service.window.head)
    await raw.send(*repoll(route, after, subject.lines(route, caller, *numbers)))
    answering = asyncio.create_task(raw.answer())
    while not answering.done() and not len(subject.app.service.lot):
        await asyncio.sleep(0.001)
    if answering.done():
        return await answering
    await subject.wake()
    assert (await answering).status == 200
    return after


async def again(subject: Subject, route: str, caller: str, number: Callable[[], list[str]]) -> Answer:
    """By the same caller on the same connection: a re-poll if the first was allowed."""
    async with line(subject.app) as raw:
        first = await known(subject, raw, route, caller, *number())
        if isinstance(first, Answer):
            await raw.send(*subject.lines(route, caller, *number()))
            answer = await raw.answer()
            assert outcome(answer) == outcome(first)
            return answer
        [held] = connections(subject.app)
        await raw.send(*repoll(route, first, subject.lines(route, caller, *number())))
        answer = await raw.answer()
        assert connections(subject.app) == [held]  # aiohttp has not seen it
        return answer


async def as_the_same_bytes(subject: Subject, route: str, caller: str) -> Answer:
    return await again(subject, route, caller, list)


async def numbered_by_a_proxy(subject: Subject, route: str, caller: str) -> Answer:
    return await again(subject, route, caller, lambda: [f"X-Request-ID: {next(NUMBER)}"])


async def where_another_was(subject: Subject, route: str, caller: str) -> Answer:
    """On a connection on which polls of the same list with another token, numbered by a proxy, are known."""
    async with line(subject.app) as raw:
        first = await known(subject, raw, route, ANOTHER, f"X-Request-ID: {next(NUMBER)}")
        assert isinstance(first, str)
        lines = subject.lines(route, caller, f"X-Request-ID: {next(NUMBER)}")
        await raw.send(*repoll(route, first, lines))
        return await raw.answer()


Way = Callable[[Subject, str, str], Awaitable[Answer]]
ALL_ROUTES = (plainly, by_http_1_0, behind_a_parked_poll)
POLLS = (as_the_same_bytes, numbered_by_a_proxy, where_another_was)


async def differences(subject: Subject, way: Way, *, but: Collection[str] = ()) -> list[str]:
    """Where it is not as the table says."""
    return [
        f"{caller}, {route}: {found} and not {wanted}"
        for caller, row in expected().items()
        for route, wanted in row.items()
        if caller not in but and (way not in POLLS or route in LISTS)
        if (found := outcome(await way(subject, route, caller))) != wanted
    ]


@pytest.mark.rule("A-32")
@pytest.mark.parametrize("way", [*ALL_ROUTES, *POLLS], ids=lambda way: way.__name__)
async def test_each_caller_gets_what_its_grant_allows_on(start: Start, callers: Callers, sql, way: Way) -> None:
    subject = await ready(start, callers, sql)
    assert await differences(subject, way) == []


@pytest.mark.rule("A-32")
async def test_the_same_without_the_hand_over(start: Start, callers: Callers, sql) -> None:
    subject = await ready(start, callers, sql, fast=False)
    assert await differences(subject, plainly) == []


@pytest.mark.rule("A-6")
async def test_what_needs_no_credential_is_there_for_everybody_whatever_they_show(
    start: Start, callers: Callers, sql
) -> None:
    subject = await ready(start, callers, sql)
    found: dict[str, dict[str, str]] = {}
    for caller in expected():
        found[caller] = {}
        for route in OPEN:
            async with line(subject.app) as raw:
                lines, body = subject.open_lines(route, caller)
                await raw.send(*lines, body=body)
                found[caller][route] = outcome(await raw.answer())
    assert found == {caller: {route: row[3] for route, row in OPEN.items()} for caller in expected()}


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
        assert await differences(subject, as_the_same_bytes) == []


# Behind nginx, whose connections to the two processes of the server are shared by all callers.


async def through_nginx(subject: Subject, route: str, caller: str) -> Answer:
    """Polls wait and come back first, so that they are known."""
    if route in LISTS:
        position = int(await publish_by_http(subject))
        async with line(subject.app) as raw:
            await raw.send(*repoll(route, str(position), subject.lines(route, caller)))
            await publish_by_http(subject)
            first = await raw.answer()
            await raw.send(*repoll(route, str(position), subject.lines(route, caller)))
            answer = await raw.answer()
            assert outcome(first) == outcome(answer)
            return answer
    return await plainly(subject, route, caller)


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
    [block] = re.findall(r"^  ```nginx\n(.*?)^  ```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    try:
        server.start()
        with nginx(block.replace("127.0.0.1:8080", f"127.0.0.1:{server.port}"), tmp_path) as url:
            address = urlsplit(url)
            there = SimpleNamespace(client=SimpleNamespace(host=address.hostname, port=address.port))
            subject = Subject(there, callers, {})
            await eventually(lambda: listens(address.port))
            last = int(await publish_by_http(subject))
            # In one commit, so one after another.
            subject.ids = {"own": str(last - 3), "other": str(last - 1), "after": str(last - 4)}
            twice = ("two headers", "two good headers")
            assert await differences(subject, through_nginx, but=twice) == []
            for caller in twice:  # nginx takes one at most
                assert (await plainly(subject, "exact", caller)).status == 400
    finally:
        server.close()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True
