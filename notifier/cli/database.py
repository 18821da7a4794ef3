"""What the commands that work on the database have in common."""

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from notifier.cli.status import FAILED, UNAVAILABLE, USAGE, notice

if TYPE_CHECKING:
    from notifier.settings import Settings


def with_settings(work: Callable[["Settings"], int]) -> int:
    from notifier.settings import Settings, SettingsError

    try:
        return work(Settings.from_env(os.environ))
    except SettingsError as error:
        notice(str(error))
        return USAGE


def with_database(work: Callable[[str], Awaitable[int]]) -> int:
    import asyncio

    import asyncpg

    from notifier.core.database_urls import InvalidDatabaseURL
    from notifier.core.errors import NotifierError
    from notifier.embedded import EmbeddedError, database_url
    from notifier.postgres import failures
    from notifier.postgres.migrations import MigrationError

    async def run(settings: "Settings") -> int:
        async with database_url(settings, announce=notice) as url:
            return await work(url)

    try:
        return with_settings(lambda settings: asyncio.run(run(settings)))
    except (NotifierError, MigrationError, EmbeddedError) as error:
        notice(str(error))
    except InvalidDatabaseURL as error:
        notice(failures.explain(error))
        return USAGE
    except (*failures.UNAVAILABLE, asyncpg.PostgresError) as error:
        notice(failures.explain(error))
        if isinstance(error, (*failures.AWAY, *failures.BUSY)):
            return UNAVAILABLE
    return FAILED
