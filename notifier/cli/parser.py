"""The arguments of every command, and the help for them."""

import argparse
import os
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

from notifier import __version__
from notifier.cli import values
from notifier.cli.forward import forward
from notifier.cli.help_texts import (
    ADD_SOURCE,
    CANCEL_SCHEDULED,
    CHANGE_KEY,
    CREATE_KEY,
    DATABASE,
    ENVIRONMENT_OF_CLIENTS,
    ENVIRONMENT_OF_SERVERS,
    FORWARD,
    HISTORY,
    LIST_SCHEDULED,
    PUBLISH,
    ROTATE,
    SIGN,
    SUBSCRIBE,
    TEST_SOURCE,
)
from notifier.cli.history import history
from notifier.cli.key import change_key, create_key, list_keys, revoke_key
from notifier.cli.migrate import migrate
from notifier.cli.publish import TEXT, publish
from notifier.cli.scheduled import cancel_scheduled, list_scheduled
from notifier.cli.serve import serve
from notifier.cli.source import add_source, list_sources, remove_source, rotate_source, show_source, test_source
from notifier.cli.status import EXPLAINED
from notifier.cli.subscribe import subscribe
from notifier.cli.token import token

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  it has no other name
Command: TypeAlias = Callable[[argparse.Namespace], int]


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
    _add_history(commands)
    _add_forward(commands)
    _add_scheduled(commands)
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
        "--idempotency-key",
        type=values.visible,
        metavar="KEY",
        help="such as a random UUID: repeats with it are stored once",
    )
    command.add_argument(
        "--timeout", type=values.positive, default=90, metavar="S", help="give up after so many seconds; default 90"
    )
    _add_url(command)


def _add_subscribe(commands: Commands) -> None:
    purpose = "follow topics forever and print each message as one line of JSON"
    command = _add(commands, "subscribe", purpose, SUBSCRIBE + ENVIRONMENT_OF_CLIENTS, subscribe)
    _add_topics(command)
    begin = _add_begin(command)
    begin.add_argument(
        "--last-each",
        type=values.few,
        metavar="N",
        help="begin with the newest N messages of each topic, 1-10: their state",
    )
    command.add_argument("--count", type=values.positive, metavar="N", help="end after N messages")
    command.add_argument(
        "--once", action="store_true", help="print what is there (without a beginning: all), and end; for cron"
    )
    command.add_argument(
        "--state",
        metavar="FILE",
        help="go on after the cursor in FILE, if there is one, and keep it there once the output is written",
    )
    command.add_argument(
        "--wait",
        type=values.positive,
        metavar="S",
        help="seconds that a poll may wait, at most 28; it adapts by itself",
    )
    command.add_argument("--stream", action="store_true", help="in one response that does not end, not poll by poll")
    command.add_argument(
        "--limit", type=values.limit, default=100, metavar="N", help="most messages in one answer, 1-1000; default 100"
    )
    _add_url(command)


def _add_history(commands: Commands) -> None:
    purpose = "print the newest messages of topics, or those before an id, as lines of JSON"
    command = _add(commands, "history", purpose, HISTORY + ENVIRONMENT_OF_CLIENTS, history)
    _add_topics(command)
    command.add_argument("--before", metavar="CURSOR", default="latest", help="end just before this id; default latest")
    command.add_argument(
        "--last", type=values.limit, default=100, metavar="N", help="the newest N of them, 1-1000; default 100"
    )
    _add_url(command)


def _add_forward(commands: Commands) -> None:
    purpose = "send webhooks on to another server, as they came"
    command = _add(commands, "forward", purpose, FORWARD + ENVIRONMENT_OF_CLIENTS, forward)
    command.add_argument("topics", metavar="LIST", help="topics and patterns, separated by commas")
    command.add_argument("receiver", metavar="URL", help="where each message is posted to")
    command.add_argument(
        "--header",
        action="append",
        default=[],
        dest="headers",
        metavar="NAME:VALUE",
        help="add one, such as a credential, which is never kept; @FILE reads one a line; may be repeated",
    )
    begin = _add_begin(command)
    begin.add_argument(
        "--id",
        action="append",
        default=[],
        type=values.id_,
        dest="ids",
        metavar="ID",
        help="send this message and end; may be repeated",
    )
    command.add_argument(
        "--once", action="store_true", help="send what is there (without a beginning: all), and end; for cron"
    )
    command.add_argument(
        "--state", metavar="FILE", help="go on after the cursor in FILE, if there is one; it moves after each 2xx"
    )
    command.add_argument("--strict", action="store_true", help="end at the first message that is refused")
    command.add_argument(
        "--timeout",
        type=values.positive,
        default=30,
        metavar="S",
        help="seconds of silence until it is tried again; default 30",
    )
    _add_url(command)


def _add_topics(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "topics", metavar="TOPIC", nargs="+", help="a topic or pattern: * is one segment, ** at the end all the rest"
    )
    command.add_argument("--headers", action="store_true", help="with the headers of messages that came as webhooks")


def _add_begin(command: argparse.ArgumentParser) -> "argparse._MutuallyExclusiveGroup":
    begin = command.add_mutually_exclusive_group()
    begin.add_argument("--after", metavar="CURSOR", help="begin after this id; or latest (the default), earliest")
    begin.add_argument("--since", metavar="TIME", help="begin 30s, 10m, 2h or 7d ago, or at an RFC 3339 time")
    begin.add_argument("--last", type=values.positive, metavar="N", help="begin with the newest N messages")
    return begin


def _add_scheduled(commands: Commands) -> None:
    scheduled = _add(commands, "scheduled", "manage what is published later", "").add_subparsers(
        metavar="ACTION", required=True
    )
    purpose = "list what waits for its time, next first: id, topic, time"
    listed = _add(scheduled, "list", purpose, LIST_SCHEDULED + ENVIRONMENT_OF_CLIENTS, list_scheduled)
    listed.add_argument("match", metavar="TOPIC", nargs="?", default="**", help="a topic or pattern; default **")
    listed.add_argument("--json", action="store_true", help="print one object a line")
    _add_url(listed)
    purpose = "never publish what is scheduled"
    cancel = _add(scheduled, "cancel", purpose, CANCEL_SCHEDULED + ENVIRONMENT_OF_CLIENTS, cancel_scheduled)
    cancel.add_argument(
        "ids", metavar="ID", nargs="+", type=values.id_, help="what `publish --delay` or `list` has printed"
    )
    _add_url(cancel)


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
        "--keep",
        type=values.span,
        default=timedelta(days=1),
        metavar="SPAN",
        help="how long the old ones count; default 1d",
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
    create.add_argument("--expires", type=values.span, metavar="SPAN", help="refuse it after 30s, 10m, 12h or 90d")
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
        "--expires",
        type=values.span,
        default=timedelta(hours=1),
        metavar="SPAN",
        help="30s, 10m, 12h or 1d; default 1h",
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
