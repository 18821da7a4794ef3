"""Followers: each keeps a cursor, and does with it what clients do, and what they should not."""

import asyncio
import json
import random
import time
from collections.abc import Sequence

from chaos.http import BROKEN, Connection, Hung, Response, encoded, request
from chaos.oracle import Asked
from chaos.recorder import Recorder
from chaos.topics import CROWD, Topics, some_topics


class Routes:
    """The ports that lead to the service: straight to one of its servers, or through nginx."""

    def __init__(self, straight: Sequence[int], proxied: Sequence[int]) -> None:
        self.straight = straight
        self.proxied = proxied

    def some(self, rng: random.Random) -> int:
        return rng.choice([*self.straight, *self.straight, *self.proxied])

    def may_fail(self, port: int, response: Response) -> bool:
        """Whether this is an error that a client has to expect while things break."""
        if response.status == 503 and response.problem() == "unavailable":
            return "retry-after" in response.headers
        if response.status == 408 and response.problem() == "slow_request":
            return True  # a server that was frozen for long takes the time for the client's
        return port in self.proxied and response.status in {502, 503, 504} and response.problem() is None


class Follower:
    """Follows lists that change, on connections that break."""

    def __init__(self, name: str, seed: str, routes: Routes, recorder: Recorder) -> None:
        self.name = name
        self.rng = random.Random(f"{seed} {name}")
        self.routes = routes
        self.recorder = recorder
        self.cursor: int | None = None
        self.steady = False  # only polls, one after the other: to come to the end
        self.sleepy = False  # now and then away for longer than retention keeps what it missed
        self.topics = some_topics(self.rng)
        self.limit = 100
        self.longest_wait_s = 6.0
        self.longest_pause_s = 0.3
        self._connection: Connection | None = None
        self._port = 0

    async def run(self) -> None:
        try:
            while True:
                await self._step()
        finally:
            self._hang_up()

    async def _step(self) -> None:
        try:
            await self._act()
        except Hung:
            self.recorder.fault(f"{self.name} got no answer from port {self._port} on {self.topics}")
            self._hang_up()
        except BROKEN:
            self.recorder.counts["connections that broke"] += 1
            self._hang_up()
            await asyncio.sleep(self.rng.uniform(0.02, self.longest_pause_s))

    async def _act(self) -> None:
        rng = self.rng
        if self.steady or self.cursor is None:
            await self._poll()
            return
        self._change_mind()
        act = rng.random()
        if act < 0.08:
            await self._pipeline()
        elif act < 0.16:
            await self._poll(in_pieces=True)
        elif act < 0.22:
            await self._abort()
        elif act < 0.25:
            await self._begin_anew()
        elif act < 0.28:
            self._hang_up()
        elif act < 0.31:
            await self._stream()
        elif act < (0.5 if self.sleepy else 0.36):
            await asyncio.sleep(rng.uniform(5, 9) if self.sleepy else rng.uniform(0, 1.5))
        else:
            await self._poll()

    def _change_mind(self) -> None:
        if self.rng.random() < 0.06:
            self.topics = some_topics(self.rng)
        if self.rng.random() < 0.08:
            self.limit = self.rng.choice([1, 2, 5, 100, 100, 1000])

    async def _poll(self, *, in_pieces: bool = False) -> None:
        connection = await self._connected()
        asked, wait_s, data = self._ask()
        asked_at = time.monotonic()
        if in_pieces:
            await connection.send_in_pieces(data, self.rng)
        else:
            connection.send(data)
        await self._take(connection, asked, wait_s, asked_at)

    def _ask(self, longest_wait_s: float | None = None) -> tuple[Asked, float, bytes]:
        rng = self.rng
        longest_wait_s = self.longest_wait_s if longest_wait_s is None else longest_wait_s
        # In round figures: a re-poll that is the same but for the cursor is the service's fast path.
        wait_s = rng.choice([longest_wait_s, longest_wait_s, longest_wait_s, 0, 0.3])
        asked = Asked(self.topics, self.limit, self.cursor)
        return asked, wait_s, self._request(asked, wait_s)

    def _request(self, asked: Asked, wait_s: float, *, accept: str | None = None, **begin: int | str) -> bytes:
        query = {**begin, "wait": wait_s, "limit": asked.limit}
        headers = {"Accept": accept} if accept else {}
        if asked.after is not None:
            if self.rng.random() < 0.2:
                headers["Last_Event_ID"] = str(asked.after)
            else:
                query = {"after": asked.after, **query}
        if self.rng.random() < 0.1:
            headers["X_Request_Id"] = f"{self.rng.getrandbits(64):x}"
        path = encoded(asked.topics, self.rng) + "?" + "&".join(f"{name}={value}" for name, value in query.items())
        return request("GET", path, **headers)

    async def _take(self, connection: Connection, asked: Asked, wait_s: float, asked_at: float) -> None:
        response = await connection.answer(wait_s)
        self.recorder.timed(asked_at + wait_s, f"{response.status} from port {self._port}")
        if response.status == 200:
            self.cursor = self.recorder.saw(self.name, asked, response.body).cursor
        elif self.routes.may_fail(self._port, response):
            self.recorder.counts[f"polls told {response.status}"] += 1
            await asyncio.sleep(self.rng.uniform(0.05, 0.4))
        else:
            self.recorder.fault(f"{self.name} asked {asked} at {self._port} and got {response}")
        if response.closes:
            self._hang_up()

    async def _pipeline(self) -> None:
        """Several requests behind one another; the answers come in their order."""
        connection = await self._connected()
        polls = []
        data = b""
        for _ in range(self.rng.randint(2, 4)):
            poll = self._ask(longest_wait_s=1.0)
            polls.append(poll)
            data += poll[2]
            if self.rng.random() < 0.3:
                data += request("GET", "/healthz")
                polls.append(None)
            self._change_mind()
        await connection.send_in_pieces(data, self.rng)
        self.recorder.counts["pipelines"] += 1
        due_s = 0.0
        asked_at = time.monotonic()
        for poll in polls:
            if poll is None:
                response = await connection.answer(due_s)
                if response.status != 200 and not self.routes.may_fail(self._port, response):
                    self.recorder.fault(f"/healthz in a pipeline: {response}")
            else:
                due_s += poll[1]
                await self._take(connection, poll[0], due_s, asked_at)
            if self._connection is not connection:
                return  # the server has closed it; what it had not answered is asked again

    async def _stream(self) -> None:
        """Follow a stream for a while: each event is what a poll from the one before it could be told."""
        connection = await self._connected()
        asked = Asked(self.topics, self.limit, self.cursor)
        connection.send(self._request(asked, 0.3, accept="text/event-stream"))
        response = await connection.answer()
        if response.status != 200:
            if not self.routes.may_fail(self._port, response):
                self.recorder.fault(f"{self.name} asked for a stream at {self._port} and got {response}")
            self._hang_up()
            return
        self.recorder.counts["streams"] += 1
        gap = None
        async for event in connection.events(self.rng.uniform(0.1, 6.0)):
            if event.get("event") == "gap":
                gap = json.loads(event["data"])
                if int(gap["after"]) > (self.cursor or 0):
                    # A stream has read on, and not said so because nothing matched: up to there there was nothing.
                    told = json.dumps({"messages": [], "cursor": gap["after"]}).encode()
                    self.cursor = self.recorder.saw(self.name, Asked(self.topics, self.limit, self.cursor), told).cursor
            elif "id" in event:
                messages = [json.loads(event["data"])] if "data" in event else []
                answer = {"messages": messages, "cursor": event["id"]} | ({"gap": gap} if gap else {})
                gap = None
                asked = Asked(self.topics, self.limit, self.cursor)
                self.cursor = self.recorder.saw(self.name, asked, json.dumps(answer).encode()).cursor
                self.recorder.counts["events"] += 1
        self._hang_up()

    async def _abort(self) -> None:
        """Go away in the midst of a request, of the wait, or of the answer."""
        connection = await self._connected()
        _, _, data = self._ask()
        connection.send(data[: self.rng.choice([len(data), len(data), self.rng.randint(1, len(data))])])
        await connection.some_bytes(self.rng.choice([1, 40, 300]), self.rng.choice([0.01, 0.3, 2.0]))
        self.recorder.counts["aborts"] += 1
        self._hang_up()

    async def _begin_anew(self) -> None:
        """Poll without the cursor."""
        connection = await self._connected()
        begin: dict[str, int | str]
        asked = Asked(self.topics, self.limit)
        match self.rng.choice(["latest", "last", "since", "earliest"]):
            case "latest":
                begin = self.rng.choice([{}, {"after": "latest"}])
            case "last":
                asked = Asked(self.topics, self.limit, last=self.rng.choice([1, 3, 20]))
                begin = {"last": asked.last or 0}
            case "since":
                begin = {"since": self.rng.choice(["1s", "10s", "1m"])}
            case _:
                asked = Asked(self.topics, 20, after=0)
                begin = {}
        connection.send(self._request(asked, 0.3, **begin))
        before = self.cursor
        await self._take(connection, asked, 0.3, time.monotonic())
        if asked.after == 0:
            self.cursor = before  # or most of the log would be read again, one small answer after the other

    async def _connected(self) -> Connection:
        if self._connection is None:
            self._port = self.routes.some(self.rng)
            self._connection = await Connection.open(self._port)
        return self._connection

    def _hang_up(self) -> None:
        if self._connection:
            self._connection.abort()
            self._connection = None


class OneOfACrowd(Follower):
    """One of many that poll for the same, as browsers do that show the same page."""

    def __init__(self, name: str, seed: str, routes: Routes, recorder: Recorder) -> None:
        super().__init__(name, seed, routes, recorder)
        self.topics = Topics([CROWD])
        self.longest_pause_s = 2.0  # hundreds that come back at once would be all there is
        self.steady = True

    def _ask(self, longest_wait_s: float | None = None) -> tuple[Asked, float, bytes]:
        asked = Asked(self.topics, self.limit, self.cursor)
        after = "" if self.cursor is None else f"&after={self.cursor}"
        return asked, 20.0, request("GET", f"/v1/topics/{CROWD}?wait={0 if not after else 20}{after}")
