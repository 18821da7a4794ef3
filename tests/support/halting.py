"""The means to stop a program at a certain point, and to wait until something holds."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from conftest import DEADLINE_S

from notifier.postgres.database import Database


async def eventually(read: Callable[[], Awaitable[Any]], condition: Callable[[Any], object] = bool) -> Any:
    """What `read` returns once `condition` holds of it. It fails only when that never happens."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition(value := await read()):
            await asyncio.sleep(0.005)
    return value


class Halt:
    """A point at which a program stops until the test lets it go on."""

    def __init__(self) -> None:
        self._reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def reached(self) -> None:
        """Return when the program has come to this point."""
        async with asyncio.timeout(DEADLINE_S):
            await self._reached.wait()

    def before(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def halting(*args: object, **kwargs: object) -> object:
            await self.halt()
            return await function(*args, **kwargs)

        return halting

    def after(self, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def halting(*args: object, **kwargs: object) -> object:
            result = await function(*args, **kwargs)
            await self.halt()
            return result

        return halting

    async def halt(self) -> None:
        self._reached.set()
        await self.go_on.wait()


class Halting:
    """A database to which a connection is made only when the test says so."""

    def __init__(self, database: Database, halt: Halt) -> None:
        self._database = database
        self.connect = halt.before(database.connect)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


class HaltingReads:
    """A database from which what is read arrives only when the test says so."""

    def __init__(self, database: Database, halt: Halt) -> None:
        self._database = database
        self._halt = halt

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    @asynccontextmanager
    async def calls(self, connection: asyncpg.Connection) -> AsyncIterator[Any]:
        async with self._database.calls(connection):
            yield connection
        await self._halt.halt()
