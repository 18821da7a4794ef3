"""The lot, the window and the search, in thousands of random steps beside a model that only knows the log.

Clients park, come back, leave and are dismissed while messages, holes and failures come, with bounds so small that
each of them cuts. Whatever a client is told must be what the log has after its cursor; and when the lot rests, nobody
waits who has something to be told.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn

import pytest

from notifier import deadlines, parking
from notifier.core import window as windows
from notifier.core.messages import Message
from notifier.core.polls import Answer
from notifier.core.topics import TopicList
from notifier.core.window import Window
from notifier.parking import Parked, ParkingLot

if TYPE_CHECKING:
    from notifier.core.hub import Group

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TOPICS = ["a", "b", "c", "x/1", "x/2", "x/1/y", "z/1", "x/3/y"]
ITEMS = ["a", "b", "c", "x/1", "x/2", "x/1/y", "x/*", "x/**", "*", "**", "*/1", "*/*/y", "*/1/*"]
MAX_CLIENTS = 60
STEPS = 300
# So many turns after it had to be answered, a poll is said to starve, whatever else comes.
PATIENCE = 25
# A turn that is smaller than that may answer one poll only.
FAIR_TURN = 200


class Clock:
    """What the lot uses of an event loop, with a time that the simulation sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._soon: list[Callable[[], None]] = []
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def time(self) -> float:
        return self.now

    def call_soon(self, call: Callable[[], None]) -> None:
        self._soon.append(call)

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        self._later.append((self.now + delay, next(self._count), call))

    def turn(self) -> None:
        self._later.sort(key=lambda timer: timer[:2])
        while self._later and self._later[0][0] <= self.now:
            self._soon.append(self._later.pop(0)[2])
        calls, self._soon = self._soon, []
        for call in calls:
            call()


class Client:
    """A connection: parked, or idle between its polls, until the lot expires it or it hangs up."""

    work = parking.ANSWERED

    def __init__(self, simulation: "Simulation", topics: TopicList, position: int) -> None:
        self.simulation = simulation
        self.streams = simulation.random.random() < 0.3  # it stays parked while it can take more
        self.topics = topics
        self.position = position  # the cursor of its next poll, or of the one that is parked
        self.limit = simulation.random.choice([1, 2, 5, 100])
        self.address = ""
        self.ended = False
        self.deadline = 0.0
        self.late = 0  # turns since it had to be answered
        self.cursor = self.due = self.tick = 0
        self.group: Group[Parked] | None = None
        self.waits = False

    def answer(self, answer: Answer) -> bool:
        assert self.waits
        self.waits = False
        self.late = 0
        window = self.simulation.window
        if self.streams and not (self.ended or self.simulation.ending) and answer.cursor >= window.start:
            assert answer.messages or answer.cursor > self.cursor or answer.cursor == window.head
            self.told(answer.messages, answer.cursor)
            self.cursor = answer.cursor
            # From time to time it does not read, and goes on later.
            self.waits = self.simulation.random.random() < 0.9
            if self.waits:
                self.deadline = self.simulation.clock.now + self.simulation.random.choice([0.1, 30])
                self.simulation.lot.watch(self, self.deadline)
            else:
                self.simulation.watch(self)
            return self.waits
        if self.ended:
            self.told((), self.cursor)
        else:
            self.told(answer.messages, answer.cursor)
        self.simulation.watch(self)
        return False

    def told(self, messages: Sequence[Message], cursor: int) -> None:
        assert self.position <= cursor <= max(self.position, self.simulation.window.head)
        assert [message.seq for message in messages] == self.simulation.logged(self, cursor)
        assert len(messages) <= self.limit
        self.position = cursor

    def expire(self) -> None:
        assert not self.waits
        self.simulation.hang_up(self)


class Simulation:
    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.random = choose = random.Random(seed)
        self.clock = Clock()
        bounds = {
            (parking, "TURN"): [4, 8, 12, 30, 60, 200, 2400],
            (parking, "MAX_TOPICS"): [2, 4, 10_000],
            (parking, "MAX_SHARED"): [1, 1000],
            (parking, "STEPS_PER_UNIT"): [1, 3],
            (windows, "MAX_RESPONSE"): [300, 1000, 10**6],
            (windows, "MAX_SCAN"): [2, 5, 4000],
            (windows, "NEAR"): [1, 64],
            (windows, "MAX_PICK"): [0, 2, 1000],
            (windows, "FEW"): [1, 32],
        }
        for (module, name), values in bounds.items():
            monkeypatch.setattr(module, name, choose.choice(values))
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self.clock)
        monkeypatch.setattr(parking.log, "exception", self._not_caught)
        self.window = Window(max_count=choose.choice([5, 20, 1000]))
        self.first = choose.choice([0, 50])
        self.window.reset(self.first)
        self.lot = ParkingLot(self.window, max_parked=10**6)
        self.log: list[tuple[int, str]] = []
        self.messages: list[Message] = []
        self.lists = [TopicList(choose.sample(ITEMS, choose.randint(1, 4))) for _ in range(choose.choice([2, 5, 15]))]
        self.clients: dict[Client, None] = {}
        self.ending = False

    @staticmethod
    def _not_caught(_: str) -> NoReturn:
        """The lot goes on after an error; what a client asserts must end the test."""
        raise

    def logged(self, client: Client, to: int) -> list[int]:
        """What the log has for `client`, up to `to`."""
        return [seq for seq, topic in self.log if client.position < seq <= to and client.topics.matches(topic)]

    def hang_up(self, client: Client) -> None:
        client.waits = False
        self.lot.forget(client)
        del self.clients[client]

    def watch(self, client: Client) -> None:
        self.lot.watch(client, self.clock.now + self.random.choice([1, 95]))

    # --- what may happen

    def arrive(self) -> None:
        if len(self.clients) < MAX_CLIENTS:
            behind = self.random.choice([0, 0, 0, 2, 10])
            client = Client(self, self.random.choice(self.lists), max(0, self.window.head - behind))
            self.clients[client] = None
            self.poll(client)

    def come_back(self) -> None:
        idle = [client for client in self.clients if not client.waits]
        for client in self.random.sample(idle, min(len(idle), self.random.choice([1, 20, 60]))):
            self.poll(client)

    def poll(self, client: Client) -> None:
        """As `Polling` does: from the table, from the window, or parked."""
        window = self.window
        if client.ended:
            self.hang_up(client)
            return
        if client.position < window.start:
            missed = self.logged(client, window.head)
            if missed:
                client.position = missed[: client.limit][-1] if len(missed) > client.limit else window.head
                self.watch(client)
                return
            client.position = window.head
        deadline = self.clock.now + self.random.choice([0, 0.1, 0.5, 30, 30, 30])
        read = True
        if client.position < window.head:
            if (self.lot.busy or client.streams) and self.random.random() < 0.8:
                read = False
            else:
                found = window.read(client.topics, client.position, client.limit)
                client.told(*found)
                if found.messages or found.cursor < window.head:
                    self.watch(client)
                    return
        client.cursor = client.position
        client.waits = True
        client.deadline = deadline
        self.lot.park(client.topics, client, deadline, read=read)

    def leave(self) -> None:
        if self.clients:
            self.hang_up(self.random.choice(list(self.clients)))

    def end_access(self) -> None:
        for client in self.random.sample(list(self.clients), min(3, len(self.clients))):
            client.ended = True
        self.lot.dismiss()

    def pass_time(self) -> None:
        self.clock.now += self.random.choice([0.01, 0.1, 0.25, 0.3])

    def _messages(self, count: int) -> list[Message]:
        seq, messages = self.window.head, []
        for _ in range(count):
            seq += self.random.choice([1, 1, 1, 3])
            body = b"x" * self.random.choice([1, 1, 50, 400])
            messages.append(Message(seq, self.random.choice(TOPICS), NOON, body))
            self.log.append((seq, messages[-1].topic))
        self.messages += messages
        return messages

    def publish(self) -> None:
        before = self.window.head
        messages = self._messages(self.random.choice([1, 1, 2, 5, 12]))
        self.window.extend(messages)
        self.lot.wake(messages, before)

    def fill(self) -> None:
        """What comes before the window is read after all."""
        older = [message for message in self.messages if message.seq <= self.window.start]
        count = self.random.randint(0, 7)
        messages, rest = older[max(0, len(older) - count) :], older[: max(0, len(older) - count)]
        self.window.prepend(messages, rest[-1].seq if rest else self.first, whole=not rest)

    def hole(self) -> None:
        """Messages that this process never reads."""
        before = self.window.head
        self._messages(self.random.randint(0, 5))
        self.window.reset(max([before, *(seq for seq, _ in self.log)]))
        self.lot.reset(before)

    def fail(self) -> None:
        """Messages of which only some come into the window, and not all polls are told of those."""
        before = self.window.head
        messages = self._messages(self.random.randint(1, 6))
        self.window.extend(messages[: self.random.randint(0, len(messages))])
        if self.window.head == messages[-1].seq and self.random.random() < 0.5:
            self.lot.wake(messages, before)
        self.window.reset(messages[-1].seq)
        self.lot.reset(before)

    # --- the course of it

    def turn(self) -> None:
        self.clock.turn()
        if parking.TURN >= FAIR_TURN:
            over = self.clock.now - deadlines.TICK_S
            for client in self.clients:
                if client.waits and (client.ended or client.deadline < over):
                    client.late += 1
                    assert client.late < PATIENCE

    def settle(self) -> None:
        self.turn()
        self.turn()
        for _ in range(100_000):
            if not self.lot.busy:
                break
            self.turn()
        assert not self.lot.busy
        for client in self.clients:
            if client.waits:
                assert not self.logged(client, self.window.head)
                assert not client.ended
                assert client.deadline > self.clock.now - 2 * deadlines.TICK_S

    def run(self) -> None:
        happenings = {
            self.arrive: 25,
            self.come_back: 25,
            self.publish: 22,
            self.fill: 3,
            self.hole: 1,
            self.fail: 1,
            self.leave: 8,
            self.end_access: 3,
            self.pass_time: 7,
            lambda: None: 8,
        }
        for _ in range(STEPS):
            [happening] = self.random.choices(list(happenings), list(happenings.values()))
            happening()
            for _ in range(self.random.choice([0, 0, 0, 0, 1, 1, 2, 6])):
                self.turn()
            if self.random.random() < 0.02:
                self.settle()
        self.settle()
        if self.random.random() < 0.5:
            self.publish()
            self.ending = True
            self.lot.end(retry_after_s=1)
            self.settle()
            assert not any(client.waits for client in self.clients)
        for _ in range(3):
            self.clock.now += 100
            self.settle()
        assert not any(client.waits for client in self.clients if not client.streams)
        while self.clients:
            self.leave()
        lot, hub = self.lot, self.lot._hub
        left = [lot._deadlines, lot._queue, lot._deadlines.overdue, lot._suspects, lot._shared, lot._search]
        assert not any(map(len, [*left, hub, hub._groups, hub._exact]))
        assert not hub._patterns


@pytest.mark.parametrize("first", range(0, 200, 20))
def test_everybody_is_told_what_the_log_has_and_nobody_is_forgotten(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(first, first + 20):
        with monkeypatch.context() as patch:
            simulation = Simulation(seed, patch)
            try:
                simulation.run()
            except BaseException as error:
                error.add_note(f"seed {seed}")
                raise
