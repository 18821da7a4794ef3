"""Installations that happen once: again when what they are made from has changed."""

import fcntl
import hashlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# A registry that answers slowly still answers; one that does not must not hold up the bench forever.
INSTALL_S = 600.0

# Of what went wrong, in one line: npm and pip go on for pages.
COMPLAINT = 300


def once(made: Path, source: Path, make: Callable[[], object]) -> None:
    """Call `make`, which makes the folder `made` from the file `source`, unless that is done already.

    Another process that does the same is waited for: tests run in several.
    """
    mark = made / ".made-from"
    with source.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        digest = hashlib.sha256(file.read()).hexdigest()
        if is_made(made) and mark.read_text() == digest:
            return
        make()
        mark.write_text(digest)


def is_made(made: Path) -> bool:
    return (made / ".made-from").exists()


def said(
    command: Sequence[str | Path], folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """What a command that ends says. RuntimeError with its complaint when it fails, or is not there."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=INSTALL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(str(error)) from error
    if done.returncode:
        complaint = " ".join(done.stderr.decode(errors="replace").split())
        raise RuntimeError(complaint[:COMPLAINT] or f"{command[0]} failed")
    return done.stdout.decode(errors="replace").strip()
