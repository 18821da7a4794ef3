"""The arguments of every command, and the help for them."""

import argparse
import os
import re
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

from notifier import __version__
from notifier.cli.key import change_key, create_key, list_keys, revoke_key
from notifier.cli.migrate import migrate
from notifier.cli.publish import TEXT, publish
from notifier.cli.serve import serve
from notifier.cli.source import add_source, list_sources, remove_source, rotate_source, show_source, test_source
from notifier.cli.status import EXPLAINED
from notifier.cli.subscribe import subscribe
from notifier.cli.token import token

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  it has no other name
Command: TypeAlias = Callable[[argparse.Namespace], int]

ENVIRONMENT_OF_CLIENTS = """
environment:
  NOTIFIER_URL  the server, unless --url is given; default http://127.0.0.1:PORT (8080)
  NOTIFIER_KEY  a key or a token, if the server needs one; default the first NOTIFIER_ADMIN_KEY
"""

ENVIRONMENT_OF_SERVERS = """
environment:
  DATABASE_URL  the database; else the embedded one in ./.notifier
  HOST, PORT    where it listens (127.0.0.1, 8080)
  ...           the README has the table of all settings
"""

DATABASE = """
environment:
  DATABASE_URL  the database; else the embedded one in ./.notifier
"""

PUBLISH = """examples:
  notifier publish orders/42 '{"status": "paid"}' --title Paid --priority 4 --tags money
  make 2>&1 | notifier publish builds/main - --text
  notifier publish cameras/door - --type image/jpeg < door.jpg
  notifier publish reminders 'Take out the bins' --delay 12h
"""

SUBSCRIBE = """No message is lost or printed twice across reconnects and restarts of the server. The id in
a line is a cursor: to continue later, give the last one as --after, or let --state keep it.
Notices about gaps and retries go to standard error. It ends at Ctrl-C, when its output is
closed, after --count messages, or with --once when all that was there is printed.

examples:
  notifier subscribe 'orders/*' builds/main
  notifier subscribe 'orders/**' --since 10m | jq --unbuffered .data
  notifier subscribe orders/42 --last 1 --count 1
  notifier subscribe 'orders/*' --once --state orders.cursor >> orders.ndjson
"""

ADD_SOURCE = """examples:
  openssl rand -hex 20 | tee secret.txt | notifier source add github --scheme github --secret - \\
      --topic 'github/{repository.full_name}/{header:X-GitHub-Event}'
  notifier source add pay --scheme stripe --secret whsec_… --topic 'stripe/{type}'
  notifier source add sms --scheme twilio --secret … --set url=https://example.com/hooks/sms --topic 'sms/{form:From}'
  notifier source add shop --scheme hmac --set header=X-Sign --set encoding=base64 --secret … --topic shop
  notifier source add alerts --scheme token --secret … --topic alerts
  notifier source add ci --scheme none --topic 'ci/{project}'

schemes:
  hmac      options: header (needed), prefix, separator, signed ("{timestamp}.{body}"), digest, encoding (hex, base64),
            key (text, base64, hex), timestamp (a header, json:FIELD, item:PREFIX), unit (s, ms), tolerance, id
  token     a header that holds the secret; options: header, as (bearer, basic, plain)
  standard  Standard Webhooks, and Svix
  none      nothing is checked; 16 random characters are added to the name
  alertmanager bitbucket cloudevents discord dropbox gitea github gitlab grafana (header, timestamp) heroku linear meta
  pagerduty sentry shopify slack stripe twilio (url, needed) woocommerce x zoom
"""

TEST_SOURCE = """The body is read from standard input, byte for byte. Nothing is published.

example:
  notifier source test github --header 'X-Hub-Signature-256: sha256=…' < body.json
"""

ROTATE = """No webhook is refused meanwhile: enter the new secret at the sender before the old one stops counting.

example:
  openssl rand -hex 20 | tee secret.txt | notifier source rotate github --secret -
"""

CREATE_KEY = """The key alone goes to standard output, once; only its hash is stored. Send it as
Authorization: Bearer KEY. Patterns: * is one segment, ** at the end all the rest.

examples:
  notifier key create shop --publish 'orders/**' --publish stock
  notifier key create wallboard --subscribe 'builds/*' --expires 90d
  notifier key create operator --admin
"""

CHANGE_KEY = """The key may do what is given here and nothing else. Its polls that wait end within a second.

examples:
  notifier key change shop --publish 'orders/**'
"""

SIGN = """The token alone goes to standard output. It is for trying things out, and for scripts: for their
logged-in users, applications sign tokens themselves, with any JWT library.

examples:
  notifier token 7 --subscribe 'user/7/**' --subscribe news
  notifier token sensor --publish 'sensors/*' --expires 10m

environment:
  NOTIFIER_JWT_SECRET  what to sign with, as the server has it; of several, the first
  NOTIFIER_JWT_...     the other settings for tokens, which are kept to
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser; its result has `command`, the function to call with it."""
    parser = argparse.ArgumentParser(
        prog="notifier",
        description="Long-polling notifications over plain HTTP, with Postgres as the only dependency.",
        epilog=f"`notifier COMMAND --help` has examples.\n{EXPLAINED}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"notifier {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    serves = "run the service, with the settings in the environment"
    _add(commands, "serve", serves, ENVIRONMENT_OF_SERVERS, serve)
    _add(commands, "migrate", "bring the schema of the database up to date", DATABASE, migrate)
    _add_publish(commands)
    _add_subscribe(commands)
    _add_source(commands)
    _add_key(commands)
    _add_token(commands)
    return parser


def _add(
    commands: Commands, name: str, purpose: str, epilog: str, command: Command | None = None
) -> argparse.ArgumentParser:
    added = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(command=command)
    return added


def _add_publish(commands: Commands) -> None:
    purpose = "publish one message and print its id"
    command = _add(commands, "publish", purpose, PUBLISH + ENVIRONMENT_OF_CLIENTS, publish)
    command.add_argument("topic", metavar="TOPIC", help="such as orders/42; it needs no creation")
    # Not optional: argparse would no longer find it after an option.
    command.add_argument("data", metavar="DATA", help="JSON; anything else is sent as text; - reads standard input")
    kind = command.add_mutually_exclusive_group()
    kind.add_argument(
        "--text", action="store_const", const=TEXT, dest="type", help="send it as text, even if it is JSON"
    )
    kind.add_argument("--type", metavar="TYPE", help="its content type; with application/json it must be JSON")
    command.add_argument("--title", help="a title to show")
    command.add_argument("--click", metavar="URL", help="where a click on it leads")
    command.add_argument("--priority", type=int, metavar="1-5", help="5 is the most urgent")
    command.add_argument("--tags", metavar="A,B", default="", help="words, separated by commas")
    later = command.add_mutually_exclusive_group()
    later.add_argument("--delay", metavar="SPAN", help="publish it 90s, 10m, 2h or 30d from now")
    later.add_argument("--at", metavar="TIME", help="publish it then, at an RFC 3339 time")
    command.add_argument(
        "--timeout", type=_positive, default=90, metavar="S", help="give up after so many seconds; default 90"
    )
    _add_url(command)


def _add_subscribe(commands: Commands) -> None:
    purpose = "follow topics forever and print each message as one line of JSON"
    command = _add(commands, "subscribe", purpose, SUBSCRIBE + ENVIRONMENT_OF_CLIENTS, subscribe)
    command.add_argument(
        "topics", metavar="TOPIC", nargs="+", help="a topic or pattern: * is one segment, ** at the end all the rest"
    )
    begin = command.add_mutually_exclusive_group()
    begin.add_argument("--after", metavar="CURSOR", help="begin after this id; or latest (the default), earliest")
    begin.add_argument("--since", metavar="TIME", help="begin 30s, 10m, 2h or 7d ago, or at an RFC 3339 time")
    begin.add_argument("--last", type=_positive, metavar="N", help="begin with the newest N messages")
    begin.add_argument(
        "--last-each", type=_few, metavar="N", help="begin with the newest N messages of each topic, 1-10: their state"
    )
    command.add_argument("--count", type=_positive, metavar="N", help="end after N messages")
    command.add_argument(
        "--once", action="store_true", help="print what is there (without a beginning: all), and end; for cron"
    )
    command.add_argument(
        "--state",
        metavar="FILE",
        help="go on after the cursor in FILE, if there is one, and keep it there once the output is written",
    )
    command.add_argument(
        "--wait", type=_positive, metavar="S", help="seconds that a poll may wait, at most 28; it adapts by itself"
    )
    command.add_argument("--headers", action="store_true", help="with the headers of messages that came as webhooks")
    command.add_argument(
        "--limit", type=_limit, default=100, metavar="N", help="most messages in one answer, 1-1000; default 100"
    )
    _add_url(command)


def _add_source(commands: Commands) -> None:
    sources = _add(commands, "source", "manage the senders of webhooks", "").add_subparsers(
        metavar="ACTION", required=True
    )
    add = _add(sources, "add", "accept webhooks at POST /hooks/NAME", ADD_SOURCE + DATABASE, add_source)
    add.add_argument("name", metavar="NAME", help="a-z 0-9 _ and -")
    add.add_argument(
        "--scheme", required=True, help="how it signs: the name of a vendor, or hmac, token, standard, none"
    )
    add.add_argument(
        "--secret",
        action="append",
        default=[],
        dest="secrets",
        metavar="SECRET",
        help="what it signs with, or - to read a line of stdin (other users can see arguments); may be repeated",
    )
    add.add_argument(
        "--set",
        action="append",
        default=[],
        dest="options",
        metavar="NAME=VALUE",
        help="what the scheme leaves open; may be repeated",
    )
    add.add_argument(
        "--topic",
        required=True,
        help="a topic; braces hold JSON fields, {header:NAME}, {form:NAME} or {query:NAME}, alternatives with |",
    )
    _add(sources, "list", "list the sources: name, scheme, topic, number of secrets", DATABASE, list_sources)
    show = _add(sources, "show", "show a source, its URL, and where to enter that", DATABASE, show_source)
    show.add_argument("name", metavar="NAME")
    test = _add(sources, "test", "say what would become of a webhook, or why not", TEST_SOURCE + DATABASE, test_source)
    test.add_argument("name", metavar="NAME")
    test.add_argument("--header", action="append", default=[], dest="headers", metavar="NAME:VALUE", help="one it had")
    test.add_argument("--query", default="", metavar="QUERY", help="what stood behind the ? of its URL")
    rotate = _add(sources, "rotate", "use a new secret, and the old ones for a while", ROTATE + DATABASE, rotate_source)
    rotate.add_argument("name", metavar="NAME")
    rotate.add_argument("--secret", required=True, metavar="SECRET", help="the new one, or - to read a line of stdin")
    until = rotate.add_mutually_exclusive_group()
    until.add_argument(
        "--keep", type=_span, default=timedelta(days=1), metavar="SPAN", help="how long the old ones count; default 1d"
    )
    until.add_argument(
        "--at-once", action="store_true", help="from now on the new one alone counts: the old ones leaked"
    )
    remove = _add(sources, "remove", "accept no more webhooks from a source", DATABASE, remove_source)
    remove.add_argument("name", metavar="NAME")


def _add_key(commands: Commands) -> None:
    keys = _add(commands, "key", "manage the keys of programs and people", "").add_subparsers(
        metavar="ACTION", required=True
    )
    create = _add(keys, "create", "make a key and print it", CREATE_KEY + DATABASE, create_key)
    create.add_argument("name", metavar="NAME", help="what it is for, such as the name of the program")
    _add_rights(create)
    create.add_argument("--expires", type=_span, metavar="SPAN", help="refuse it after 30s, 10m, 12h or 90d")
    create.add_argument("--json", action="store_true", help="print an object with the key and all about it")
    listed = _add(keys, "list", "list the keys: what they may do, and when they were used last", DATABASE, list_keys)
    listed.add_argument("--json", action="store_true", help="print one object a line")
    change = _add(keys, "change", "change what a key may do", CHANGE_KEY + DATABASE, change_key)
    change.add_argument("name", metavar="NAME")
    _add_rights(change)
    revoke = _add(keys, "revoke", "refuse a key from now on", DATABASE, revoke_key)
    revoke.add_argument("name", metavar="NAME|ID")


def _add_token(commands: Commands) -> None:
    command = _add(commands, "token", "sign a token for one user and print it", SIGN, token)
    command.add_argument("subject", metavar="SUBJECT", help="who it is for, such as the id of a user")
    _add_patterns(command)
    command.add_argument(
        "--expires", type=_span, default=timedelta(hours=1), metavar="SPAN", help="30s, 10m, 12h or 1d; default 1h"
    )


def _add_rights(parser: argparse.ArgumentParser) -> None:
    _add_patterns(parser)
    parser.add_argument("--admin", action="store_true", help="it may do everything")


def _add_patterns(parser: argparse.ArgumentParser) -> None:
    for name in ("publish", "subscribe"):
        parser.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="PATTERN",
            help=f"a topic or pattern that it may {name} to; may be repeated",
        )


def _add_url(parser: argparse.ArgumentParser) -> None:
    url = os.environ.get("NOTIFIER_URL") or f"http://127.0.0.1:{os.environ.get('PORT') or 8080}"
    parser.add_argument("--url", default=url, help="the server (%(default)s)")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _limit(text: str) -> int:
    if (limit := _positive(text)) > 1000:
        raise argparse.ArgumentTypeError("it is at most 1000")
    return limit


def _few(text: str) -> int:
    if (number := _positive(text)) > 10:
        raise argparse.ArgumentTypeError("it is at most 10")
    return number


def _span(text: str) -> timedelta:
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text, re.ASCII)
    span = timedelta(**{units[found[2]]: int(found[1])}) if found else timedelta(0)
    if not timedelta(0) < span <= timedelta(days=36500):
        raise argparse.ArgumentTypeError(f"{text!r} is not a span such as 30s, 10m, 12h or 90d")
    return span
