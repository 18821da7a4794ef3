"""The lives of the database, as one server knows them."""

from notifier.core.cursors import Epoch, Epochs
from notifier.postgres.database import Connection


async def begin_epoch(connection: Connection, seen: int) -> Epochs:
    """Begin a new epoch if this is not the database that issued `seen`, and return all epochs."""
    await connection.execute(f"select notifier.begin_epoch({seen:d})")
    rows = await connection.fetch("select start_seq, last_seq from notifier.epoch")
    return Epochs(Epoch(*row) for row in rows)
