"""The bench's own judgement: what a crowd notices, and what that does to a figure."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from xml.etree import ElementTree as ET

import pytest

from bench import chart
from bench.duels import CPU, MEMORY
from bench.figures import Figure, Measured, at_most, pairs
from bench.load import returning, rounds
from bench.load.http import first_answer
from bench.scenarios import SCENARIOS
from bench.stage import OURS, Crowd, Side
from bench.watching import corrected, during

CLIENTS = 5

[PARKING] = [scenario for scenario in SCENARIOS if scenario.name == "parking"]

ANSWERS = (
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", 200, b"hello"),
    (b"HTTP/1.1 204 No Content\r\nDate: now\r\n\r\n", 204, b""),
)


@pytest.mark.parametrize(("data", "status", "body"), ANSWERS)
def test_an_answer_is_found_when_all_of_it_is_there_and_not_before(data: bytes, status: int, body: bytes) -> None:
    assert not any(first_answer(data[:end]) for end in range(len(data)))
    found = first_answer(data + b"HTTP/1.1")
    assert found
    assert (found.status, found.body, found.end) == (status, body, len(data))


class Double:
    """A server of the dialect "plain". `send` answers a parked client, by its number, with messages."""

    def __init__(self) -> None:
        self.parked: dict[int, asyncio.StreamWriter] = {}
        self.polls: list[bytes] = []
        self.published = 0
        self.woken = self.wake_all

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = None
        try:
            while line := await reader.readline():
                length = 0
                while (header := await reader.readline()) != b"\r\n":
                    name, _, value = header.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                await reader.readexactly(length)
                if line.startswith(b"GET /poll"):
                    number = len(self.parked) if number is None else number
                    self.parked[number] = writer
                    self.polls.append(line)
                    continue
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                if line.startswith(b"POST"):
                    self.published += 1
                    await self.woken()
        finally:
            writer.close()

    async def wake_all(self) -> None:
        for number in range(len(self.parked)):
            self.send(number, self.published)

    def send(self, number: int, *messages: int) -> None:
        self.parked[number].write(answer(*messages))


def answer(*messages: int) -> bytes:
    listed = ", ".join(f'{{"id": "{number}", "data": {{"number": {number}}}}}' for number in messages)
    body = f'{{"cursor": "{messages[-1]}", "messages": [{listed}]}}'.encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Here:
    """A load client in this process."""

    async def run(self, round_: str, **arguments: object) -> object:
        return await getattr(rounds, round_)(**arguments)


@asynccontextmanager
async def crowd_of(double: Double, count: int = CLIENTS) -> AsyncIterator[Crowd]:
    """All parked at `double`."""
    server = await asyncio.start_server(double.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await rounds.crowd_open(port, "plain", ["t"], tokens=False)
    crowd = Crowd(Side("double", "plain", port, list), Here())
    try:
        await crowd.park(count)
        while len(double.parked) < count:
            await asyncio.sleep(0)
        yield crowd
    finally:
        await rounds.crowd_hang_up()
        server.close()


async def test_a_fan_out_that_reaches_every_client_counts() -> None:
    async with crowd_of(Double()) as crowd:
        for _ in range(3):
            await crowd.fan_out()
        assert crowd.void == []


async def test_an_answer_in_pieces_counts() -> None:
    double = Double()

    async def woken() -> None:
        for writer in double.parked.values():
            for byte in answer(double.published):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)

    double.woken = woken
    async with crowd_of(double) as crowd:
        await crowd.fan_out()
        assert crowd.void == []


async def test_a_crowd_that_left_comes_back_with_its_polls_and_newcomers_come_with_theirs() -> None:
    double = Double()
    async with crowd_of(double) as crowd:
        await crowd.fan_out()
        await returning.crowd_leave()
        double.parked.clear()
        crowd.check(await returning.crowd_come(crowd.side.port, seconds=0.0, count=0, deliveries=0))
        while len(double.parked) < CLIENTS:
            await asyncio.sleep(0)
        await crowd.fan_out()
        assert [line.split()[1] for line in double.polls[-2 * CLIENTS : -CLIENTS]] == [b"/poll/t?after=1"] * CLIENTS
    newcomers = Double()
    async with crowd_of(newcomers, count=0) as crowd:
        crowd.check(await returning.crowd_come(crowd.side.port, seconds=0.0, count=CLIENTS, deliveries=0))
        crowd.count = CLIENTS
        while len(newcomers.parked) < CLIENTS:
            await asyncio.sleep(0)
        await crowd.fan_out()
        assert crowd.void == []


async def test_what_is_missed_while_a_crowd_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returning, "FAN_OUT_S", 0.1)
    async with crowd_of(Double()) as crowd:
        await returning.crowd_leave()
        crowd.check(await returning.crowd_come(crowd.side.port, seconds=0.0, count=0, deliveries=1))
        assert any("1 messages, of which 0 came" in what for what in crowd.void)


async def lose(double: Double) -> None:
    for number in range(1, CLIENTS):
        double.send(number, double.published)


async def repeat(double: Double) -> None:
    await double.wake_all()
    if double.published == 2:
        double.parked[2].write(answer(1))


async def skip(double: Double) -> None:
    for number in range(CLIENTS):
        double.send(number, double.published + (number == 3))


async def refuse(double: Double) -> None:
    for number in range(1, CLIENTS):
        double.send(number, double.published)
    double.parked[0].write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


async def cut(double: Double) -> None:
    for number in range(1, CLIENTS):
        double.send(number, double.published)
    double.parked[0].close()


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (lose, "1 of 5 clients did not get their message"),
        (repeat, "more than one answer|a message twice"),
        (skip, "client 3 got not the next message"),
        (refuse, "client 0: ValueError"),
        (cut, "client 0: closed by the server"),
    ],
)
async def test_what_is_lost_repeated_or_refused_ends_the_work(
    fault: Callable[[Double], Awaitable[None]],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rounds, "FAN_OUT_S", 1.0)  # how long the crowd waits for what will not come
    double = Double()
    double.woken = lambda: fault(double)
    async with crowd_of(double) as crowd:
        with pytest.raises(RuntimeError, match=what):
            await pairs(3, crowd.fan_out, crowd.fan_out)
    if fault is lose:
        assert "has message 0, 0 bytes to read, 0 not acknowledged; sent last" in capsys.readouterr().err


async def test_more_clients_than_open_files_are_refused_with_a_sentence() -> None:
    async with crowd_of(Double()) as crowd:
        with pytest.raises(RuntimeError, match="need as many open files"):
            await crowd.park(sys.maxsize)


def figure(what: str, peer: str, ours: float, theirs: float, **more: object) -> Figure:
    return Figure(what, "5,000", "µs", [ours], [theirs], peer=peer, **more)


def test_a_figure_with_a_loss_is_void_whatever_its_ratio() -> None:
    assert figure("w", "p", 1, 2, required=at_most(1)).verdict == "met"
    assert figure("w", "p", 3, 2, required=at_most(1)).verdict == "missed"
    assert figure("w", "p", 3, 4, required=at_most(1), aim=at_most(0.5)).verdict == "aim missed"
    assert figure("w", "p", 3, 4, required=at_most(2, "µs")).verdict == "missed"
    lost = figure("w", "p", 1, 2, required=at_most(1), void=["1 lost"])
    assert lost.verdict == "void"
    assert not Measured([lost]).valid
    assert not Measured([], failed=["nchan has ended"]).valid


def test_a_request_that_waits_stands_for_those_that_could_not_be_sent_meanwhile() -> None:
    assert corrected([0.4, 3.5]) == [0.4, 3.5, 2.5, 1.5, 0.5]


@pytest.mark.parametrize(
    ("asked", "ms", "meanwhile"),
    [
        ([0.9, 1.5, 2.5], [200.0, 3.0, 4.0], [200.0, 3.0]),  # the first was under way when it began
        ([0.9, 2.5, 2.6], [50.0, 4.0, 5.0], [4.0]),  # between two requests: the next one
    ],
)
def test_what_a_fan_out_did_to_others_is_told_by_the_requests_that_met_it(
    asked: list[float], ms: list[float], meanwhile: list[float]
) -> None:
    assert during({"asked": asked, "ms": ms}, 1.0, 2.0) == meanwhile


def test_a_fan_out_that_met_no_request_says_nothing_of_others() -> None:
    with pytest.raises(RuntimeError, match="no health request"):
        during({"asked": [0.5], "ms": [1.0]}, 1.0, 2.0)


def test_the_chart_has_a_bar_for_each_peer_and_one_for_us_least_first() -> None:
    figures = [
        figure(what, peer, 10, theirs)
        for what in (CPU, MEMORY)
        for peer, theirs in (("slow & large", 900.0), ("nchan", 15.0))
    ]
    tree = ET.fromstring(chart.draw([(PARKING, [Measured(figures)])]))
    texts = [text.text for text in tree.iter("{http://www.w3.org/2000/svg}text")]
    names = [text for text in texts if text in {"slow & large", "nchan", OURS}]
    assert names == [OURS, "nchan", "slow & large"] * 2


def test_there_is_no_chart_of_nothing() -> None:
    assert chart.draw([(PARKING, [Measured([])])]) == ""
