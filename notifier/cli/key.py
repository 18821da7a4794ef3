"""notifier key create | list | change | revoke"""

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from notifier.cli.database import with_database
from notifier.cli.status import OK, USAGE, notice

if TYPE_CHECKING:
    from notifier.core.keys import Rights
    from notifier.postgres.keys import Key

# In a cell of the table; --json has all.
SHOWN_PATTERNS = 5

TITLES = ("NAME", "ID", "PUBLISH", "SUBSCRIBE", "CREATED", "EXPIRES", "LAST USED")


def create_key(arguments: argparse.Namespace) -> int:
    from notifier.core.errors import InvalidKey
    from notifier.core.keys import check_name, hash_of, make_key
    from notifier.postgres import keys

    try:
        name = check_name(arguments.name)
        rights = _rights(arguments)
    except InvalidKey as error:
        notice(str(error))
        return USAGE
    key_id, text = make_key(secrets.choice)

    async def work(url: str) -> int:
        key = await keys.create_key(url, name, rights, key_id, hash_of(text), arguments.expires)
        # The key alone on standard output, so that a script can catch it.
        sys.stdout.write(f"{json.dumps(_as_json(key) | {'key': text}) if arguments.json else text}\n")
        notice("This key is shown only now: only its hash is stored. Keep it where others cannot read it.")
        return OK

    return with_database(work)


def list_keys(arguments: argparse.Namespace) -> int:
    from notifier.postgres import keys

    async def work(url: str) -> int:
        found = await keys.list_keys(url)
        if arguments.json:
            sys.stdout.writelines(f"{json.dumps(_as_json(key))}\n" for key in found)
        else:
            _write_table([TITLES, *map(_as_row, found)])
        return OK

    return with_database(work)


def change_key(arguments: argparse.Namespace) -> int:
    from notifier.core.errors import InvalidKey
    from notifier.postgres import keys

    try:
        rights = _rights(arguments)
    except InvalidKey as error:
        notice(str(error))
        return USAGE

    async def work(url: str) -> int:
        await keys.change_key(url, arguments.name, rights)
        return OK

    return with_database(work)


def revoke_key(arguments: argparse.Namespace) -> int:
    from notifier.core.keys import id_in
    from notifier.postgres import keys

    async def work(url: str) -> int:
        await keys.revoke_key(url, arguments.name, id_in(arguments.name))
        return OK

    return with_database(work)


def _rights(arguments: argparse.Namespace) -> "Rights":
    from notifier.core.keys import check_rights

    return check_rights(arguments.publish, arguments.subscribe, admin=arguments.admin)


def _as_json(key: "Key") -> dict[str, Any]:
    return {
        "name": key.name,
        "id": key.id,
        "publish": key.rights.publish,
        "subscribe": key.rights.subscribe,
        "admin": key.rights.admin,
        "created_at": _time(key.created_at),
        "expires_at": _time(key.expires_at),
        "used_at": _time(key.used_at),
    }


def _as_row(key: "Key") -> tuple[str, ...]:
    rights = key.rights
    may = ("everything",) * 2 if rights.admin else (_few(rights.publish), _few(rights.subscribe))
    expired = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    return (
        key.name,
        key.id,
        *may,
        _minute(key.created_at),
        "expired" if expired else _minute(key.expires_at, "never"),
        _minute(key.used_at, "never"),
    )


def _few(patterns: Sequence[str]) -> str:
    more = len(patterns) - SHOWN_PATTERNS
    return " ".join((*patterns[:SHOWN_PATTERNS], *([f"+{more}"] if more > 0 else []))) or "-"


def _time(time: datetime | None) -> str | None:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if time else None


def _minute(time: datetime | None, without: str = "") -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M}Z" if time else without


def _write_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")
