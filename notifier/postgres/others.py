"""Other processes that follow the log: where there is none, nobody has to be notified of what this one commits."""

import asyncpg

from notifier.postgres.database import Connection, Database, application_name

# Whether this is the only session of that name. Where its own is hidden, those of others may be.
ALONE = """
select array[pg_backend_pid()] = array(
    select a.pid from pg_stat_activity a where a.datname = current_database() and a.application_name = $1
)
"""


class Others:
    """`none`: there was none when the tail last looked, and none has come since. A process that begins to follow the
    log tries whether it hears notifications, and the others hear that too."""

    def __init__(self) -> None:
        self.none = False
        self._came = 0

    def come(self, *_: object) -> None:
        """One is about to follow the log, or this process itself."""
        self.none = False
        self._came += 1

    async def look(self, database: Database, connection: Connection, name: str) -> None:
        """`connection` follows the log, as those of that name do."""
        came = self._came
        try:
            async with database.calls(connection):
                alone = await connection.fetchval(ALONE, application_name(name))
        except asyncpg.InsufficientPrivilegeError:
            return  # some hide what others do
        self.none = alone and came == self._came
