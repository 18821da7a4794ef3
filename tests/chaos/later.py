"""Publishers of what is due in a moment; some of it is taken back."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from chaos.http import Response, request
from chaos.ledger import Fate, Message
from chaos.publishers import KEYED_TRIES, Publisher, headers_of, some_message

LATEST_S = 3.0


class PublisherForLater(Publisher):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._status = 0
        self._told: dict[str, str] = {}

    async def publish(self) -> None:
        message = some_message(self.rng, self._topic(), self.ledger.token())
        headers = headers_of(message)
        # Its clock is that of the database.
        now = datetime.now(UTC)
        if self.rng.random() < 0.5:
            seconds = self.rng.randint(0, int(LATEST_S))
            message.not_before = now + timedelta(seconds=seconds)
            headers["Delay"] = f"{seconds}s"
        else:
            message.not_before = now + timedelta(seconds=self.rng.uniform(0, LATEST_S))
            headers["At"] = message.not_before.isoformat(timespec="microseconds")
        how, fate, _ = await self._outcome("later", f"/v1/topics/{message.topic}", message.body, message.token, headers)
        asked = 0.0
        if fate == "stored":
            fate = "committed"
            self._note_time(message)
            if self.rng.random() < 0.4:
                await asyncio.sleep(self.rng.uniform(0, LATEST_S))
                asked = time.monotonic()
                fate = await self._take_back(self._told["scheduled"])
        self.ledger.add(how, [message], fate, 0, asked=asked)

    def _note_time(self, message: Message) -> None:
        at = datetime.fromisoformat(self._told["at"])
        assert message.not_before
        if at < message.not_before:
            self.recorder.fault(f"{self.name} wants {message} at {message.not_before}, and was told {at}")
        message.not_before = at

    async def _take_back(self, scheduled_id: str) -> Fate:
        doubtful = False
        for _ in range(KEYED_TRIES):
            self._status = 0
            now, _ = await self._attempt(request("DELETE", f"/v1/scheduled/{scheduled_id}"), "")
            if self._status == 204:
                return "taken back"
            if self._status == 404:
                break
            doubtful = doubtful or now == "unknown"
            if self.ends:
                break
            await asyncio.sleep(self.rng.uniform(0.02, 0.3))
        # It has gone out, unless an attempt that was not answered took it back.
        return "unknown" if doubtful else "committed"

    def _fate(self, response: Response) -> tuple[Fate, list[int]]:
        self._status = response.status
        if response.status in {200, 202}:
            self._told = json.loads(response.body)
            return "stored", []
        if response.status == 204 or (response.status == 404 and response.problem() == "not_found"):
            return "stored", []
        return super()._fate(response)
