"""The commands that work on the database: serve, migrate and source."""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from notifier.cli.status import FAILED, OK, UNAVAILABLE, USAGE, notice

if TYPE_CHECKING:
    from notifier.settings import Settings

MAX_SECRET = 4096


def serve(_: argparse.Namespace) -> int:
    from notifier.web import app

    return _with_settings(app.serve)


def migrate(_: argparse.Namespace) -> int:
    from notifier.postgres import migrations

    async def work(url: str) -> int:
        applied = await migrations.migrate(url)
        sys.stdout.writelines(f"applied {name}\n" for name in applied)
        if not applied:
            sys.stdout.write("The schema is up to date.\n")
        return OK

    return _with_database(work)


def add_source(arguments: argparse.Namespace) -> int:
    from notifier.core.errors import InvalidSource
    from notifier.core.webhooks import check_source
    from notifier.postgres import sources

    secrets = [_line_of_stdin() if given == "-" else given for given in arguments.secrets]
    try:
        source = check_source(arguments.name, arguments.scheme, arguments.topic, secrets)
    except InvalidSource as error:
        notice(str(error))
        return USAGE

    async def work(url: str) -> int:
        await sources.add_source(url, source)
        sys.stdout.write(f"POST /hooks/{source.name} publishes to {source.topic}\n")
        return OK

    return _with_database(work)


def list_sources(_: argparse.Namespace) -> int:
    from notifier.postgres import sources

    async def work(url: str) -> int:
        for source in await sources.list_sources(url):
            sys.stdout.write(f"{source.name}\t{source.scheme}\t{source.topic}\t{len(source.secrets)}\n")
        return OK

    return _with_database(work)


def remove_source(arguments: argparse.Namespace) -> int:
    from notifier.postgres import sources

    async def work(url: str) -> int:
        if await sources.remove_source(url, arguments.name):
            return OK
        notice(f"There is no source {arguments.name}.")
        return FAILED

    return _with_database(work)


def _line_of_stdin() -> str:
    # A byte that is no UTF-8 becomes a surrogate, which no secret may hold.
    return sys.stdin.buffer.readline(MAX_SECRET).decode(errors="surrogateescape").rstrip("\r\n")


def _with_settings(work: Callable[["Settings"], int]) -> int:
    from notifier.settings import Settings, SettingsError

    try:
        return work(Settings.from_env(os.environ))
    except SettingsError as error:
        notice(str(error))
        return USAGE


def _with_database(work: Callable[[str], Awaitable[int]]) -> int:
    import asyncpg

    from notifier.core.errors import NotifierError
    from notifier.postgres.database import AWAY, database_url, describe
    from notifier.postgres.embedded import EmbeddedError
    from notifier.postgres.migrations import MigrationError

    async def run(settings: "Settings") -> int:
        async with database_url(settings, announce=notice) as url:
            return await work(url)

    try:
        return _with_settings(lambda settings: asyncio.run(run(settings)))
    except AWAY as error:
        notice(f"The database cannot be reached: {describe(error)}.")
        return UNAVAILABLE
    except (NotifierError, MigrationError, EmbeddedError) as error:
        notice(str(error))
    except asyncpg.PostgresError as error:
        notice(f"The database refused: {describe(error)}.")
    return FAILED
