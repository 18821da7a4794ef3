"""The client, and a server that does to it what a script says."""

import pytest
from support.scripted import scripted_server

from notifier.client import Client
from notifier.client.pace import Backoff


@pytest.fixture
async def scripted():
    async with scripted_server() as server:
        yield server


@pytest.fixture
async def client(scripted):
    async with Client(scripted.url, "the-key-of-this-test") as client:
        yield client


@pytest.fixture
def _hasty(monkeypatch):
    """Failures follow each other quickly; how long a client really waits has tests of its own."""
    monkeypatch.setattr("notifier.client.pace.BACKOFF_FIRST_S", 0.001)


@pytest.fixture
def waits(monkeypatch):
    """What the subscription would have waited: (failures before, Retry-After)."""
    waits = []
    real = Backoff.delay_s

    def at_once(backoff, now, retry_after_s, *, nobody):
        waits.append((backoff._failures, retry_after_s))
        real(backoff, now, retry_after_s, nobody=nobody)
        return 0.0

    monkeypatch.setattr(Backoff, "delay_s", at_once)
    return waits
