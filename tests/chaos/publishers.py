"""Publishers by HTTP: one message, batches, webhooks; some break off in the midst of what they send."""

import asyncio
import json
import random
from typing import Any

from chaos.followers import Routes
from chaos.http import BROKEN, Connection, Hung, Response, request
from chaos.ledger import Fate, Ledger, Message
from chaos.oracle import Asked
from chaos.recorder import Recorder
from chaos.topics import CROWD, TOPICS, Topics

SOURCE = "chaos"
# Of what has a key: the longest outage takes fewer.
KEYED_TRIES = 200


class Publisher:
    def __init__(self, name: str, seed: str, routes: Routes, recorder: Recorder, ledger: Ledger, hooks: str) -> None:
        self.name = name
        self.rng = random.Random(f"{seed} {name}")
        self.routes = routes
        self.recorder = recorder
        self.ledger = ledger
        self.hooks = hooks  # the path of the webhooks' source
        self.pause_s = 0.25
        self.ends = False
        self._connection: Connection | None = None
        self._port = 0

    async def run(self) -> None:
        """Until `ends`: then what has been sent has been answered."""
        try:
            while not self.ends:
                await self.publish()
                await asyncio.sleep(self.rng.expovariate(1 / self.pause_s))
        finally:
            self.hang_up()

    def _topic(self) -> str:
        return self.rng.choices([*TOPICS, "load/hot"], [*([1] * len(TOPICS)), 6])[0]

    async def publish(self) -> None:
        kind = self.rng.random()
        if kind < 0.65:
            await self._one(self._topic())
        elif kind < 0.85:
            await self._batch()
        else:
            await self._hook()

    async def _one(self, topic: str) -> None:
        message = some_message(self.rng, topic, self.ledger.token())
        await self._send("publish", f"/v1/topics/{topic}", message.body, [message], headers_of(message), may_look=True)

    async def _batch(self) -> None:
        messages = [
            some_message(self.rng, self._topic(), self.ledger.token(), only_json=True)
            for _ in range(self.rng.choice([1, 2, 3, 10, 40]))
        ]
        texts = [
            b'{"topic": "%b", "data": %b%b}'
            % (
                message.topic.encode(),
                message.body,
                b"".join(f', "{name}": {json.dumps(value)}'.encode() for name, value in message.fields.items()),
            )
            for message in messages
        ]
        lines = self.rng.random() < 0.5
        body = b"\n".join(texts) if lines else b"[" + b",".join(texts) + b"]"
        headers = {"Content_Type": "application/x-ndjson" if lines else "application/json"}
        await self._send("batch", "/v1/messages", body, messages, headers)

    async def _hook(self) -> None:
        token = self.ledger.token()
        body = json.dumps({"kind": f"k{token % 3}", "text": f"<{token}>"}).encode()
        message = Message(token, f"hooks/k{token % 3}", body, same_json=True)
        await self._send("webhook", self.hooks, body, [message], {"Content_Type": "application/json"})

    async def _send(
        self, how: str, path: str, body: bytes, messages: list[Message], headers: dict[str, str], may_look: bool = False
    ) -> None:
        """Send it; with a key, until its outcome is known."""
        floor = self.ledger.told
        look_at = messages[0].topic if may_look else ""
        how, fate, ids = await self._outcome(how, path, body, messages[0].token, headers, look_at)
        self.ledger.add(how, messages, fate, floor, ids)

    async def _outcome(
        self, how: str, path: str, body: bytes, token: int, headers: dict[str, str], look_at: str = ""
    ) -> tuple[str, Fate, list[int]]:
        """How it was sent, and what became of it."""
        keyed = how != "webhook" and self.rng.random() < 0.3
        if keyed:
            how, headers = f"{how} with a key", {**headers, "Idempotency_Key": f"key-{token}"}
        fate: Fate = "refused"
        ids: list[int] = []
        for _ in range(KEYED_TRIES if keyed else 1):
            now, ids = await self._attempt(request("POST", path, body, **headers), look_at)
            # Refused this time: what came before may be there all the same.
            fate = now if now == "stored" or fate == "refused" else fate
            if fate in {"refused", "unknown"}:
                await asyncio.sleep(self.rng.uniform(0.02, 0.3))
            if fate != "unknown" or self.ends:
                break
        return how, fate, ids

    async def _attempt(self, data: bytes, look_at: str) -> tuple[Fate, list[int]]:
        """What became of a request."""
        sent_whole = False
        try:
            connection = await self._connected()
            if self.rng.random() < 0.03:
                connection.send(data[: self.rng.randint(0, len(data) - 1)])
                await asyncio.sleep(self.rng.choice([0, 0.05]))
                self.hang_up()  # what has not come whole is not published
                return "refused", []
            sent_whole = True
            if self.rng.random() < 0.1:
                await connection.send_in_pieces(data, self.rng)
            else:
                connection.send(data)
            if self.rng.random() < 0.03:
                await connection.some_bytes(20, self.rng.choice([0, 0.01]))
                self.hang_up()
                return "unknown", []
            response = await connection.answer()
            fate, ids = self._fate(response)
            if fate == "stored" and look_at and self._port in self.routes.straight:
                await self._look(connection, look_at, ids[0])
            if response.closes:
                self.hang_up()
        except Hung:
            self.recorder.fault(f"{self.name} got no answer from port {self._port}")
            self.hang_up()
        except BROKEN:
            self.hang_up()
            await asyncio.sleep(self.rng.uniform(0.02, 0.3))
        else:
            return fate, ids
        return ("unknown" if sent_whole else "refused"), []

    def _fate(self, response: Response) -> tuple[Fate, list[int]]:
        if response.status in {200, 201}:
            answer: Any = json.loads(response.body)
            return "stored", [int(seq) for seq in answer.get("ids") or [answer["id"]]]
        if self.routes.may_fail(self._port, response):
            return ("unknown" if response.problem() is None else "refused"), []
        if response.status != 504 or response.problem() != "outcome_unknown":
            self.recorder.fault(f"{self.name} got {response}")
        return "unknown", []

    async def _look(self, connection: Connection, topic: str, seq: int) -> None:
        """What is stored, a poll to the same process sees."""
        if self.rng.random() > 0.1:
            return
        asked = Asked(Topics([topic]), 1, seq - 1)
        connection.send(request("GET", f"/v1/topics/{topic}?after={seq - 1}&limit=1&wait=0"))
        try:
            response = await connection.answer()
        except BROKEN:
            self.hang_up()
            return
        if response.status == 200:
            answer = self.recorder.saw(self.name, asked, response.body)
            self.recorder.counts["own messages looked for"] += 1
            if not answer.messages and not answer.gap:
                self.recorder.not_seen(f"{self.name} published {seq} and did not see it at once: {response.body!r}")
        elif not self.routes.may_fail(self._port, response):
            self.recorder.fault(f"{self.name} looked for {seq} and got {response}")

    async def _connected(self) -> Connection:
        if self._connection is None:
            self._port = self.routes.some(self.rng)
            self._connection = await Connection.open(self._port)
        return self._connection

    def hang_up(self) -> None:
        if self._connection:
            self._connection.abort()
            self._connection = None


class PublisherToTheCrowd(Publisher):
    """Seldom, since each of its messages is hundreds of answers."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.pause_s = 4.0

    async def publish(self) -> None:
        await self._one(CROWD)


def headers_of(message: Message) -> dict[str, str]:
    headers: dict[str, str] = {"Content_Type": message.content_type or "application/json"}
    for name, value in message.fields.items():
        headers[name.title()] = ",".join(value) if isinstance(value, list) else str(value)
    return headers


def some_message(rng: random.Random, topic: str, token: int, *, only_json: bool = False) -> Message:
    """JSON as its reader must get it back byte for byte, text, or bytes; with and without fields."""
    fields: dict[str, Any] = {}
    if rng.random() < 0.2:
        fields = {"title": f"Title {token}", "priority": rng.randint(1, 5), "tags": ["a", f"t{token}"]}
    padding = "x" * rng.choice([0, 0, 0, 10, 300, 5000])
    kind = "json" if only_json else rng.choice(["json", "json", "json", "text", "bytes"])
    if kind == "text":
        text = f'<{token}> Grüße, "{padding}"'
        return Message(token, topic, text.encode(), "text/plain; charset=utf-8", fields)
    if kind == "bytes":
        return Message(token, topic, b"\x00\xff<%d>" % token + padding.encode(), "application/octet-stream", fields)
    body = f'{{"t":  "<{token}>", "n": 1.50, "e": 1e3, "pad": "{padding}\\u00e9"}}'
    return Message(token, topic, body.encode(), None, fields)
