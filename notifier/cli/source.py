"""notifier source add | list | remove"""

import argparse
import secrets
import string
import sys

from notifier.cli.database import with_database
from notifier.cli.status import FAILED, OK, USAGE, notice

MAX_SECRET = 4096
RANDOM = string.ascii_lowercase + string.digits


def add_source(arguments: argparse.Namespace) -> int:
    from notifier.core.errors import InvalidSource
    from notifier.core.webhooks.sources import check_source
    from notifier.postgres import sources

    given = [_line_of_stdin() if each == "-" else each for each in arguments.secrets]
    name = arguments.name
    try:
        options = dict(_option(text) for text in arguments.options)
        if arguments.scheme == "none":
            # Nothing but this keeps others from sending.
            check_source(name, "none", arguments.topic, given)
            name += f"-{''.join(secrets.choice(RANDOM) for _ in range(16))}"
        source = check_source(name, arguments.scheme, arguments.topic, given, options)
    except InvalidSource as error:
        notice(str(error))
        return USAGE

    async def work(url: str) -> int:
        await sources.add_source(url, source)
        sys.stdout.write(f"POST /hooks/{source.name} publishes to {source.topic}\n")
        return OK

    return with_database(work)


def list_sources(_: argparse.Namespace) -> int:
    from notifier.postgres import sources

    async def work(url: str) -> int:
        for source in await sources.list_sources(url):
            sys.stdout.write(f"{source.name}\t{source.scheme}\t{source.topic}\t{len(source.secrets)}\n")
        return OK

    return with_database(work)


def remove_source(arguments: argparse.Namespace) -> int:
    from notifier.postgres import sources

    async def work(url: str) -> int:
        if await sources.remove_source(url, arguments.name):
            return OK
        notice(f"There is no source {arguments.name}.")
        return FAILED

    return with_database(work)


def _option(text: str) -> tuple[str, str]:
    from notifier.core.errors import InvalidSource

    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidSource("An option is NAME=VALUE.")
    return name, value


def _line_of_stdin() -> str:
    # A byte that is not UTF-8 becomes a surrogate, which no secret may contain.
    return sys.stdin.buffer.readline(MAX_SECRET).decode(errors="surrogateescape").rstrip("\r\n")
