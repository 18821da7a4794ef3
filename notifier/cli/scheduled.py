"""notifier scheduled list | cancel"""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from notifier.cli.connection import with_client
from notifier.cli.status import FAILED, OK, notice

if TYPE_CHECKING:
    from notifier.client import Client


def list_scheduled(arguments: argparse.Namespace) -> int:
    async def show(client: "Client") -> int:
        async for one in client.scheduled(arguments.match):
            line = json.dumps(one._asdict()) if arguments.json else "\t".join(one)
            sys.stdout.write(f"{line}\n")
        return OK

    return with_client(arguments.url, show)


def cancel_scheduled(arguments: argparse.Namespace) -> int:
    async def cancel(client: "Client") -> int:
        status = OK
        for scheduled_id in arguments.ids:
            if not await client.take_back(scheduled_id):
                notice(f"Nothing is scheduled under {scheduled_id}: it was published or taken back, or never was.")
                status = FAILED
        return status

    return with_client(arguments.url, cancel)
