"""A Postgres of our own, where no DATABASE_URL is set.

Any number of processes may share one folder. The one that holds its lock runs the server, the others connect; when the
holder is gone, for whatever reason, one of them takes over. The server outlives its owner by no more than its own
shutdown, and no commit is lost.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from notifier.embedded.account import EmbeddedError
from notifier.embedded.server import embedded_postgres
from notifier.settings import Settings

__all__ = ["EmbeddedError", "database_url", "embedded_postgres"]


@asynccontextmanager
async def database_url(settings: Settings, announce: Callable[[str], None] | None = None) -> AsyncIterator[str]:
    """The database that `settings` name: the given one, or the embedded one, kept running meanwhile."""
    if settings.database_url:
        yield settings.database_url
    else:
        # Somebody may have forgotten to set it.
        async with embedded_postgres(
            settings.directory, announce=announce and (lambda text: announce(f"There is no DATABASE_URL. {text}"))
        ) as url:
            yield url
