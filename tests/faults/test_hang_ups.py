"""Clients that hang up, at the worst moments: they are forgotten at once, and take nothing from the others."""

import asyncio

import pytest
from conftest import Running, ids, until
from support.by_hand import calling
from support.halting import Halt

from notifier import parking

pytestmark = pytest.mark.both_paths


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.rule("S-27")
async def test_a_client_that_disconnects_while_parked_is_forgotten(app: Running, reset: bool) -> None:
    with calling(app, 20) as clients:
        for client in clients:
            client.send("GET", "/v1/topics/orders,orders/*?wait=20")
        await app.parked(20)
        for client in clients[:15]:
            client.hang_up(reset=reset)
        await app.parked(5)
        for client in clients[15:]:
            client.hang_up(reset=reset)
        await app.parked(0)
    hub = app.service.lot._hub
    assert not hub._groups
    assert not hub._exact
    assert not hub._patterns
    assert not app.service.lot._deadlines


@pytest.mark.rule("S-27")
async def test_clients_that_disconnect_during_the_wake_take_nothing_from_the_others(
    app: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "TURN", 1)
    with calling(app, 10) as leaving:
        for client in leaving:
            client.send("GET", "/v1/topics/orders?wait=20")
        staying = [app.start_poll("orders", wait=20) for _ in range(10)]
        await app.parked(20)
        on_messages = app.service.tail._on_messages

        def at_once(messages: list) -> None:
            for client in leaving:
                client.hang_up(reset=True)
            on_messages(messages)

        app.service.tail._on_messages = at_once
        published = await app.publish("orders")
        for poll in staying:
            assert ids(await poll) == [published]
        await app.parked(0)


@pytest.mark.rule("S-27")
async def test_a_client_that_disconnects_while_the_table_is_read_is_never_parked(app: Running) -> None:
    halt = Halt()
    app.service.history.read = halt.after(app.service.history.read)
    look = app.service.polling.look
    ended = asyncio.Event()

    async def watched(*args: object) -> object:
        try:
            return await look(*args)
        finally:
            ended.set()

    app.service.polling.look = watched
    with calling(app, 1) as [client]:
        client.send("GET", "/v1/topics/orders?after=earliest&wait=20")
        await halt.reached()
        client.hang_up(reset=True)
        await until(ended.is_set)
        halt.go_on.set()
    await app.publish("orders")
    assert len(app.service.lot) == 0
