"""`notifier forward`, a real process, between a real server and a receiver that fails in each way."""

import asyncio
import io
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote_plus

import aiohttp
import asyncpg
import pytest
import pytest_asyncio
from conftest import DEADLINE_S, Server, free_port
from support.receiver import Receiver, receiver

from notifier.cli import connection, main
from notifier.core.webhooks.sources import check_source
from notifier.postgres.sources import add_source

HOOK = "/hooks/ci"
FORM = "application/x-www-form-urlencoded"


@dataclass
class Done:
    status: int
    lines: list[str]
    errors: str


class Forwarder:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def done(self) -> Done:
        async with asyncio.timeout(3 * DEADLINE_S):
            out, errors = await self.process.communicate()
        return Done(self.process.returncode or 0, out.decode().splitlines(), errors.decode())


Start = Callable[..., "asyncio.Task[Forwarder]"]


class World:
    """A server with a source, a receiver, and forwarders between them."""

    def __init__(self, server: Server, to: Receiver, folder: Path) -> None:
        self.server = server
        self.receiver = to
        self.state = folder / "cursor"
        self.forwarders: list[Forwarder] = []

    async def start(self, *arguments: str, topics: str = "**", url: str | None = None) -> Forwarder:
        command = (sys.executable, "-m", "notifier", "forward", topics, url or self.receiver.url, *arguments)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, env=self.server.env, stdout=pipe, stderr=pipe)
        self.forwarders.append(Forwarder(process))
        return self.forwarders[-1]

    async def run(self, *arguments: str, **how: str) -> Done:
        return await (await self.start(*arguments, **how)).done()

    async def post(self, path: str, body: bytes, **headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.server.url}{path}", data=io.BytesIO(body), headers=named) as response,
        ):
            assert response.status in {200, 201}, await response.text()
            return (await response.json())["id"]

    async def hook(self, body: bytes = b"{}", **headers: str) -> str:
        return await self.post(HOOK, body, **({"Content_Type": "application/json"} | headers))

    async def publish(self, topic: str, body: bytes = b"1") -> str:
        return await self.post(f"/v1/topics/{topic}", body, Content_Type="application/json")

    def cursor(self) -> str | None:
        return self.state.read_text().strip() if self.state.exists() else None

    async def close(self) -> None:
        for forwarder in self.forwarders:
            if forwarder.process.returncode is None:
                forwarder.process.kill()
                await forwarder.process.communicate()


@pytest_asyncio.fixture
async def world(server: Server, database: str, tmp_path: Path) -> AsyncIterator[World]:
    await add_source(database, check_source("ci", "none", "ci/{query:topic}"))
    async with receiver() as to:
        made = World(server, to, tmp_path)
        yield made
        await made.close()


# What is sent


@pytest.mark.rule("L-8")
async def test_each_message_arrives_as_it_came(world: World) -> None:
    form = b"payload=" + quote_plus('{"a":  1}').encode()
    bodies = {
        await world.hook(body, Content_Type=content_type, X_GitHub_Event="push"): (body, content_type)
        for body, content_type in (
            (b'{\r\n  "a":  1e400,\n  "\\u00e9": "\xc3\xa9"\n}\n', "application/json"),
            (b'{"a": 1}', "application/json; charset=utf-8"),
            (b'\xef\xbb\xbf{"a": "\xe9"}', "application/json"),
            (form, FORM),
            (b"From=%2B1&Body=a%20b", FORM),
            (b"caf\xe9\r\n", "text/plain; charset=iso-8859-1"),
            (b"a", "text/plain"),
            (b"\x00\x01" * 100, "text/plain"),
            (b"\x89PNG\r\n\x1a\n\x00\xff", "image/png"),
            (b"", "text/plain"),
            (b"", "application/json"),
            (b"", "image/png"),
        )
    }
    published = await world.publish("orders/42?title=Paid", b'{"status":  "paid"}')
    bodies[published] = (b'{"status":  "paid"}', "application/json")
    done = await world.run("--once")
    assert (done.status, done.errors) == (0, "")
    assert world.receiver.ids == list(bodies)
    assert done.lines == [f"{each.id} {each.header('Notifier-Topic')} 204" for each in world.receiver.arrived]
    for each in world.receiver.arrived:
        assert (each.body, each.header("Content-Type")) == bodies[str(each.id)]
        assert (each.method, each.target) == ("POST", "/webhooks?token=hunter2")
        assert each.header("X-GitHub-Event") == (None if each.id == published else "push")
        names = [name.lower() for name, _ in each.headers]
        assert len(set(names)) == len(names)
    assert world.receiver.arrived[-1].header("Notifier-Topic") == "orders/42"


@pytest.mark.rule("L-8")
async def test_large_bodies_arrive_whole_and_in_bounded_memory(world: World, sql: asyncpg.Connection) -> None:
    bodies = [os.urandom(2**20), b'{"a": "%b"}' % (b"x" * 2**19), b"payload=" + os.urandom(2**19)]
    ids: list[str] = []
    for body, content_type in zip(bodies, ("image/png", "application/json", FORM), strict=True):
        ids.append(await world.hook(body, Content_Type=content_type))
    # Past the server, for which a busy machine may be too slow to store it in time; then it is read from the window.
    bodies.append(b'{"a": "%b"}' % (b"x" * 26_000_000))
    append = (
        "select first_seq from notifier.append(array['ci'], array[$1::bytea], array[null], array[null], array[null])"
    )
    ids.append(str(await sql.fetchval(append, bodies[-1])))
    to = world.receiver
    to.answers(200, 200, 200)
    to.hangs()
    forwarder = await world.start("--after", "earliest")
    await to.count(len(bodies), 9 * DEADLINE_S)  # a server that is too busy to read it is asked again, ever later
    status = Path(f"/proc/{forwarder.process.pid}/status").read_text()
    assert to.ids == ids
    # Not the bodies themselves: pytest would look for what differs in them for minutes.
    assert [sha256(each.body).digest() for each in to.arrived] == [sha256(body).digest() for body in bodies]
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    assert int(peak[1]) < 300_000


@pytest.mark.rule("L-8")
async def test_headers_are_added_and_none_of_the_webhook_is_taken_for_one_of_the_request(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "secrets").write_text("X-Gitlab-Token: top secret\nX-Other: a: b\n")
    await world.hook(
        X_Gitlab_Token="stripped",
        X_Event="push",
        X_Replaced="by the sender",
        Notifier_Id="7",
        Notifier_Topic="admin",
        TE="trailers",
        Proxy_Authorization="x",
        X_Long="\x80\xff",
    )
    given = ("--header", f"@{tmp_path / 'secrets'}", "--header", "x-replaced:by us", "--header", "Host: app.test")
    done = await world.run("--once", *given)
    assert done.status == 0
    [each] = world.receiver.arrived
    names = [name.lower() for name, _ in each.headers]
    assert len(set(names)) == len(names)
    assert (each.header("X-Gitlab-Token"), each.header("X-Other")) == ("top secret", "a: b")
    assert each.header("X-Event") == "push"
    assert (each.header("X-Replaced"), each.header("Host")) == ("by us", "app.test")
    assert (each.id, each.header("Notifier-Topic")) == (done.lines[0].split()[0], "ci/_")
    assert not {"te", "proxy-authorization", "transfer-encoding"} & set(names)
    assert "secret" not in done.errors + "".join(done.lines)


# What the receiver answers


@pytest.mark.rule("L-8")
@pytest.mark.parametrize(
    ("fails", "told"),
    [
        (lambda to: to.answers(500, 503), "The receiver answers HTTP 500."),
        (lambda to: to.answers(429, 503, Retry_After="0"), "The receiver answers HTTP 429."),
        (lambda to: to.answers(408, 425), "The receiver answers HTTP 408."),
        (lambda to: to.hangs(), "The receiver did not answer for 1 s."),
        (lambda to: to.sends(b""), "The receiver gave no answer"),
        (lambda to: to.sends(b"HTTP/1.1 20"), "The receiver gave no answer"),
        (lambda to: to.sends(b"SSH-2.0-OpenSSH\r\n\r\n"), "The receiver gave an answer that is not HTTP."),
    ],
    ids=["5xx", "429", "408", "silence", "closes", "closes in its answer", "not HTTP"],
)
async def test_what_may_pass_is_tried_again_and_nothing_behind_it_goes_first(
    world: World, fails: Callable[[Receiver], None], told: str
) -> None:
    first, second = await world.hook(b"[1]"), await world.hook(b"[2]")
    fails(world.receiver)
    tries = len(world.receiver.steps)
    done = await world.run("--once", "--state", str(world.state), "--timeout", "1")
    assert world.receiver.ids == [first] * (tries + 1) + [second]
    assert {each.body for each in world.receiver.arrived[:-1]} == {b"[1]"}
    assert (done.status, [line.split()[0] for line in done.lines]) == (0, [first, second])
    assert told in done.errors
    assert done.errors.count("\n") == 1
    assert "hunter2" not in done.errors
    assert world.cursor() == second


@pytest.mark.rule("L-8")
async def test_an_answer_counts_by_its_head(world: World) -> None:
    sent = await world.hook()
    world.receiver.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhal")
    done = await world.run("--once", "--state", str(world.state))
    assert (done.status, done.errors, world.receiver.ids, world.cursor()) == (0, "", [sent], sent)


@pytest.mark.rule("L-8")
async def test_a_receiver_that_is_not_there_yet_gets_everything_once_it_is(world: World) -> None:
    port = free_port()
    sent = [await world.hook(), await world.hook()]
    url = f"http://127.0.0.1:{port}/webhooks?token=hunter2"
    forwarder = await world.start("--after", "earliest", "--state", str(world.state), url=url)
    assert forwarder.process.stderr
    async with asyncio.timeout(3 * DEADLINE_S):
        said = (await forwarder.process.stderr.readline()).decode()
    assert "The receiver cannot be reached" in said
    assert "hunter2" not in said
    assert world.cursor() is None
    async with receiver(port) as to:
        await to.count(2)
        assert to.ids == sent


@pytest.mark.rule("L-8")
async def test_what_is_refused_is_told_and_left_out_and_the_cursor_moves_with_the_next_2xx(world: World) -> None:
    state = ("--once", "--state", str(world.state))
    ids = [await world.hook() for _ in range(4)]
    world.receiver.answers(200, 400)
    world.receiver.answers(307, Location="https://elsewhere.test/\x1b[1m?token=hunter3")
    world.receiver.answers(404)
    done = await world.run(*state)
    assert (done.status, done.lines) == (1, [f"{ids[0]} ci/_ 200"])
    redirected = "The receiver answers HTTP 307, go to https://elsewhere.test/ [1m: redirects are not followed."
    assert done.errors.splitlines() == [
        f"notifier: {ids[1]} on ci/_ was not delivered. The receiver answers HTTP 400.",
        f"notifier: {ids[2]} on ci/_ was not delivered. {redirected}",
        f"notifier: {ids[3]} on ci/_ was not delivered. The receiver answers HTTP 404.",
    ]
    assert world.receiver.ids == ids
    assert world.cursor() == ids[0]
    # A receiver that refuses all of them, because its secret is another perhaps, gets them again.
    world.receiver.answers(422)
    assert (await world.run(*state)).status == 1
    assert world.receiver.ids[4:] == ids[1:]
    assert world.cursor() == ids[3]


@pytest.mark.rule("L-8")
async def test_strict_ends_at_the_first_that_is_refused(world: World) -> None:
    ids = [await world.hook() for _ in range(3)]
    world.receiver.answers(200, 401)
    done = await world.run("--strict", "--after", "earliest", "--state", str(world.state))
    assert (done.status, world.receiver.ids, world.cursor()) == (1, ids[:2], ids[0])
    done = await world.run("--strict", "--once", "--state", str(world.state))
    assert (done.status, world.receiver.ids[2:], world.cursor()) == (0, ids[1:], ids[2])


# Where it goes on


@pytest.mark.rule("L-8")
async def test_a_forwarder_that_is_killed_between_two_attempts_goes_on_with_the_same_message(world: World) -> None:
    ids = [await world.hook() for _ in range(3)]
    world.receiver.answers(200)
    world.receiver.hangs()
    forwarder = await world.start("--after", "earliest", "--state", str(world.state))
    await world.receiver.count(2)
    forwarder.process.send_signal(signal.SIGKILL)
    await forwarder.process.wait()
    assert world.cursor() == ids[0]
    done = await world.run("--once", "--state", str(world.state))
    assert (done.status, world.receiver.ids) == (0, [ids[0], ids[1], ids[1], ids[2]])
    assert world.cursor() == ids[2]


@pytest.mark.rule("L-8")
async def test_however_often_it_is_killed_nothing_is_skipped_and_only_what_was_under_way_repeats(world: World) -> None:
    ids = [await world.hook(b"[%d]" % n) for n in range(40)]
    kills = 0
    for reached in (3, 11, 24):
        forwarder = await world.start("--after", "earliest", "--state", str(world.state))
        await world.receiver.count(reached)
        forwarder.process.kill()
        await forwarder.process.wait()
        kills += 1
    assert (await world.run("--once", "--state", str(world.state))).status == 0
    arrived = world.receiver.ids
    assert [id_ for at, id_ in enumerate(arrived) if at == 0 or id_ != arrived[at - 1]] == ids
    assert len(arrived) - len(ids) <= kills


@pytest.mark.rule("L-8", "C-1")
async def test_it_goes_on_over_restarts_of_the_server(world: World) -> None:
    sent = [await world.hook()]
    forwarder = await world.start("--after", "earliest")
    await world.receiver.count(1)
    for _ in range(2):
        world.server.restart()
        sent.append(await world.hook())
        await world.receiver.count(len(sent))
    assert world.receiver.ids == sent
    assert forwarder.process.returncode is None


@pytest.mark.rule("L-8")
async def test_it_follows_what_comes_and_a_first_run_without_a_message_has_a_cursor(world: World) -> None:
    before = await world.hook()
    forwarder = await world.start("--state", str(world.state))
    async with asyncio.timeout(3 * DEADLINE_S):
        while world.cursor() is None:
            await asyncio.sleep(0.01)
    assert int(str(world.cursor())) >= int(before)
    forwarder.process.kill()
    await forwarder.process.wait()
    missed = await world.hook()
    await world.start("--state", str(world.state))
    await world.receiver.count(1)
    live = await world.hook()
    await world.receiver.count(2)
    assert world.receiver.ids == [missed, live]


@pytest.mark.rule("L-8")
async def test_messages_are_delivered_once_more_by_id_count_and_time(world: World) -> None:
    ids = [await world.hook(b"[%d]" % n, X_N=str(n)) for n in range(3)]
    other = await world.publish("other")
    world.state.write_text(f"{ids[0]}\n")
    done = await world.run("--id", ids[1], "--id", ids[0], "--state", str(world.state), topics="ci/*")
    assert (done.status, done.errors, world.receiver.ids) == (0, "", [ids[1], ids[0]])
    assert (world.receiver.arrived[0].body, world.receiver.arrived[0].header("X-N")) == (b"[1]", "1")
    assert world.cursor() == ids[0]  # a redelivery is beside it
    for arguments, sent in (
        (("--last", "2"), ids[1:]),
        (("--since", "1h"), ids),
        (("--after", ids[1]), ids[2:]),
        ((), ids),
    ):
        world.receiver.arrived.clear()
        assert (await world.run("--once", *arguments, topics="ci/*")).status == 0
        assert world.receiver.ids == sent
    world.receiver.arrived.clear()
    done = await world.run("--id", other, "--id", "9" * 18, "--id", ids[2], topics="ci/*")
    assert (done.status, world.receiver.ids) == (1, [ids[2]])
    assert f"There is no message {other} on ci/*" in done.errors
    assert f"There is no message {'9' * 18} on ci/*" in done.errors


@pytest.mark.rule("L-8", "S-20")
async def test_what_can_no_longer_be_delivered_is_told(world: World, sql: asyncpg.Connection) -> None:
    """Before it is found, and between the poll that showed it and the request for its bytes."""
    ids = [await world.hook() for _ in range(4)]
    await sql.execute("delete from notifier.message where seq <= $1", int(ids[1]))
    await sql.execute("update notifier.retention set deleted_seq = $1", int(ids[1]))
    await sql.execute("update notifier.topic set floor_seq = $1", int(ids[1]))
    world.server.restart()
    world.receiver.hangs()
    forwarder = await world.start("--after", ids[0], "--timeout", "1", "--once")
    await world.receiver.count(1)
    await sql.execute("delete from notifier.message where seq = $1", int(ids[3]))
    done = await forwarder.done()
    assert (done.status, world.receiver.ids) == (1, [ids[2], ids[2]])
    assert f"gap: messages after {ids[0]} can no longer be delivered (retention)." in done.errors
    assert f"gap: {ids[3]} on ci/_ can no longer be delivered. There is no message of that id" in done.errors


# Exit statuses


@pytest.mark.rule("L-1", "L-8")
async def test_once_gives_up_on_a_receiver_that_takes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sent = await world.hook()
    monkeypatch.setattr(connection, "ONCE_PATIENCE_S", 0.0)
    for how in (("--once",), ("--id", sent)):
        world.receiver.answers(503)
        arguments = ["forward", "**", world.receiver.url, "--url", world.server.url, *how]
        assert await asyncio.to_thread(main, arguments) == 3
        assert capfd.readouterr().err == "notifier: The receiver answers HTTP 503.\n"


@pytest.mark.rule("L-1", "L-8")
@pytest.mark.parametrize(
    "wrong",
    [
        ["localhost:3000"],
        ["ftp://localhost/"],
        ["http://user:hunter2@localhost/"],
        ["http://localhost:3000/a b"],
        ["http://a..b/"],
        [f"http://{'a' * 64}.example/"],
        ["http://localhost", "--header", "X-Token hunter2"],
        ["http://localhost", "--header", "X Token: hunter2"],
        ["http://localhost", "--header", "X-Token: hunter2\r\nX: y"],
        ["http://localhost", "--header", "Content-Length: 1"],
        ["http://localhost", "--header", "@/no/such/file"],
        ["http://localhost", "--id", "latest"],
        ["http://localhost", "--id", "1", "--last", "1"],
        ["http://localhost", "--timeout", "0"],
    ],
)
def test_wrong_arguments_are_2_and_show_no_secret(capsys: pytest.CaptureFixture[str], wrong: list[str]) -> None:
    try:
        status = main(["forward", "t", *wrong])
    except SystemExit as exit_:
        status = exit_.code
    assert status == 2
    said = capsys.readouterr()
    assert said.err
    assert "UTF-8" not in said.err
    assert "hunter2" not in said.err + said.out
