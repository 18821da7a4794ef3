"""A Postgres of our own, for whoever sets no DATABASE_URL.

Any number of processes may use one folder. The one that holds the lock on it runs the server, the others connect; when
the holder is gone, whichever way, one of them takes over. The server outlives its owner by no more than its own
shutdown, and nothing committed is lost.
"""

from notifier.postgres.embedded.account import EmbeddedError
from notifier.postgres.embedded.server import embedded_postgres

__all__ = ["EmbeddedError", "embedded_postgres"]
