"""The user that the embedded database runs as: Postgres refuses to run as root, and needs a user with a name."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
"""All that our child processes inherit: our PGDATA, PGPORT or PGTZ would change what Postgres does."""


class EmbeddedError(Exception):
    """The embedded database cannot run; the message says why and what helps."""


@dataclass(frozen=True, slots=True)
class Account:
    """The user that the database's processes run as."""

    name: str
    uid: int
    gid: int

    @property
    def switch(self) -> dict[str, Any]:
        """Arguments of `Popen` that start a program as this user; none when we are that user."""
        if os.geteuid() == self.uid:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[bytes]:
        """Run a short program as this user. Raises `OSError` when it cannot be started."""
        return subprocess.run(  # noqa: S603  # fixed programs, arguments of our own
            command, check=False, cwd="/", env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, **self.switch
        )

    def can_enter(self, folder: Path) -> bool:
        """Ask the kernel, as that user: mode bits do not show access lists or the rules of network file systems."""
        try:
            return self.run(["/bin/sh", "-c", 'cd -- "$0"', folder]).returncode == 0
        except OSError as error:
            raise EmbeddedError(
                f"Postgres refuses to run as root, and this root cannot start programs as {self.name!r} ({error}). "
                "Run as an ordinary user, or set DATABASE_URL."
            ) from error


def find_account(owner: int | None) -> Account:
    """The account for data that belongs to the uid `owner` (None: there is no data yet).

    For root it is the data's owner, else an existing `postgres` or `nobody`; no user is ever created.
    """
    uid = os.geteuid()
    users: tuple[int | str, ...] = (uid,) if uid else (owner,) if owner else ("postgres", "nobody")
    for user in users:
        try:
            entry = pwd.getpwnam(user) if isinstance(user, str) else pwd.getpwuid(user)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        f"Postgres must run as a user with a name, and the system has none for {users[0]!r} "
        "(as in containers that run under an arbitrary uid). Set DATABASE_URL."
    )
