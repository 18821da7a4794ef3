"""notifier source add | list | show | test | rotate | remove"""

import argparse
import os
import secrets
import string
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from notifier.cli.database import with_database
from notifier.cli.status import FAILED, OK, USAGE, notice

if TYPE_CHECKING:
    from notifier.core.webhooks import receive
    from notifier.postgres.sealing import Seal

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
        await sources.add_source(url, source, _seal())
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


def show_source(arguments: argparse.Namespace) -> int:
    from notifier.cli.vendors import HINTS
    from notifier.postgres import sources

    async def work(url: str) -> int:
        source = await sources.find_source(url, arguments.name, _seal())
        secrets = str(len(source.secrets))
        if source.old_until and len(source.secrets) > 1:
            secrets += f", the older until {source.old_until:%Y-%m-%d %H:%M:%S} UTC"
        base = os.environ.get("NOTIFIER_URL", "").strip().rstrip("/") or "https://YOUR-HOST"
        lines = {
            "name": source.name,
            "scheme": source.scheme,
            "topic": source.topic,
            "options": " ".join(f"{name}={value}" for name, value in source.options.items()),
            "secrets": secrets,
            "URL": source.options.get("url") or f"{base}/hooks/{source.name}",
        }
        sys.stdout.writelines(f"{name:<8} {value}\n" for name, value in lines.items() if value)
        sys.stdout.write(f"\n{HINTS.get(source.scheme, '')}\n")
        return OK

    return with_database(work)


def test_source(arguments: argparse.Namespace) -> int:
    from notifier.core.errors import BadSignature, NotifierError
    from notifier.core.webhooks import receive
    from notifier.core.webhooks.delivery import Delivery
    from notifier.postgres import sources

    headers = [_header(text) for text in arguments.headers]
    if None in headers:
        notice("A header is NAME: VALUE.")
        return USAGE
    given = [header for header in headers if header]
    body = sys.stdin.buffer.read()

    async def work(url: str) -> int:
        source = await sources.find_source(url, arguments.name, _seal())
        delivery = Delivery(given, body, arguments.query.encode(errors="surrogateescape"))
        try:
            found = receive.read(source, delivery, time.time())
        except BadSignature as error:
            notice(f"It would be refused ({error.reason}): {error}")
            for what, other in (
                ("one more line feed", body + b"\n"),
                ("no line feed at its end", body.rstrip(b"\r\n")),
            ):
                if other != body and receive.fits(source, Delivery(given, other, delivery.query), time.time()):
                    notice(f"It fits the body with {what}: the bytes must be those that were sent.")
            return FAILED
        except NotifierError as error:
            notice(f"It would be refused: {error}")
            return FAILED
        if isinstance(found, receive.Reply):
            sys.stdout.write(f"It is a handshake, and would be answered: {found.body.decode()}\n")
        else:
            sys.stdout.write(f"It would be published to {found.message.topic}\n")
            await _tell_delivery(url, source.name, found)
        return OK

    return with_database(work)


async def _tell_delivery(url: str, name: str, found: "receive.Read") -> None:
    """Its id, and the message that it is stored as."""
    from notifier.core.idempotency import AGE
    from notifier.postgres import sources

    if found.once is None:
        sys.stdout.write("It has no delivery id that counts: sent again, it would be stored again\n")
        return
    # In a terminal; it comes from whoever has sent it.
    shown = " ".join(ascii(part.decode(errors="replace"))[1:-1] for part in found.id)
    seq = await sources.delivered(url, found.once)
    sys.stdout.write(f"Its delivery id is {shown}\n")
    if seq is None:
        sys.stdout.write(f"It is not stored: no webhook of {name} with this id has come in {AGE.days} days\n")
    else:
        sys.stdout.write(f"It is stored already, as message {seq}, and would be answered as a duplicate\n")


def rotate_source(arguments: argparse.Namespace) -> int:
    from notifier.postgres import sources

    secret = _line_of_stdin() if arguments.secret == "-" else arguments.secret  # noqa: S105
    keep = timedelta(0) if arguments.at_once else arguments.keep

    async def work(url: str) -> int:
        source = await sources.rotate_source(url, arguments.name, secret, keep, _seal())
        until = f"the older ones count until {source.old_until:%Y-%m-%d %H:%M:%S} UTC"
        sys.stdout.write(f"{source.name} has a new secret; {until if keep else 'no other counts any more'}\n")
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


def _seal() -> "Seal":
    from notifier.postgres.sealing import Seal
    from notifier.settings import Settings

    return Seal(Settings.from_env(os.environ).seal_keys)


def _option(text: str) -> tuple[str, str]:
    from notifier.core.errors import InvalidSource

    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidSource("An option is NAME=VALUE.")
    return name, value


def _header(text: str) -> tuple[bytes, bytes] | None:
    name, colon, value = text.partition(":")
    return (name.strip().encode(), value.strip().encode(errors="surrogateescape")) if colon else None


def _line_of_stdin() -> str:
    # A byte that is not UTF-8 becomes a surrogate, which no secret may contain.
    return sys.stdin.buffer.readline(MAX_SECRET).decode(errors="surrogateescape").rstrip("\r\n")
