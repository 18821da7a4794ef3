"""notifier migrate"""

import argparse
import sys

from notifier.cli.database import with_database
from notifier.cli.status import OK, notice


def migrate(_: argparse.Namespace) -> int:
    from notifier.postgres import migrations

    async def work(url: str) -> int:
        applied = await migrations.migrate(url)
        sys.stdout.writelines(f"applied {name}\n" for name in applied.names)
        if applied.left:
            notice(applied.left)
        elif not applied.names:
            sys.stdout.write("The schema is up to date.\n")
        return OK

    return with_database(work)
