"""What deploys: the Procfile, the lock files, and the refusal to serve the world by accident."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import DEADLINE_S, ROOT, Server, free_port, run

from notifier.postgres.migrations import Migration, Schema, migrate, read_schema


@pytest.fixture
def env(database: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """As in an activated environment with `notifier` installed."""
    command = tmp_path / "bin" / "notifier"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m notifier "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return Server(database, tmp_path / "log").env | {"PATH": path, "PYTHONUNBUFFERED": "1"}


def test_honcho_starts_the_web_process_of_the_procfile(env: dict[str, str], tmp_path: Path) -> None:
    procfile = (ROOT / "Procfile").read_text()
    assert procfile == "release: notifier migrate\nweb: HOST=0.0.0.0 NOTIFIER_TRUSTED_PROXIES=1 notifier serve\n"
    (tmp_path / "Procfile").write_text(procfile.replace("0.0.0.0", "127.0.0.1"))
    port = str(free_port())
    key = "a-key-for-the-test"
    with subprocess.Popen(
        ["honcho", "-f", str(tmp_path / "Procfile"), "start", "web"],
        env=env | {"PORT": port, "NOTIFIER_ADMIN_KEY": key},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as honcho:
        assert honcho.stdout
        said = ""
        while "notifier serves on" not in said:
            line = honcho.stdout.readline()
            assert line, said
            said += line
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/topics/a", b"1", {"Authorization": f"Bearer {key}"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
            assert response.status == 201
        honcho.send_signal(signal.SIGTERM)
        said += honcho.stdout.read()
        honcho.wait(DEADLINE_S)
    assert key not in said
    assert " stopped" in said  # in order, within the 5 s that honcho gives


async def test_one_step_back_works(server: Server, database: str) -> None:
    """The schema is that of the next version; then the release and the web process of this one run again."""
    ours = read_schema()
    column = Migration(9999, "9999_next.sql", "alter table notifier.message add column extra int;")
    await migrate(database, Schema([*ours.migrations, column], f"{ours.functions}-- newer"))
    server.stop()
    released = run(sys.executable, "-m", "notifier", "migrate", env=server.env)
    assert (released.returncode, released.stdout) == (0, "")
    assert "9999_next.sql, of a newer version of notifier: it was left as it is" in released.stderr
    server.start()
    request = urllib.request.Request(f"{server.url}/v1/topics/a", b"1", method="POST")
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
        assert response.status == 201


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"NOTIFIER_ADMIN_KEY": ""}, "there is no NOTIFIER_ADMIN_KEY"),
        ({"NOTIFIER_ADMIN_KEY": "long-enough", "DATABASE_URL": ""}, "there is no DATABASE_URL"),
        ({"NOTIFIER_ADMIN_KEY": "short"}, "at least 8"),
        ({"PORT": "http"}, "PORT is 'http'"),
        ({"DATABASE_URL": "mysql://root:hunter2@localhost/x"}, "DATABASE_URL: It must be"),
    ],
)
def test_unsafe_or_malformed_settings_are_refused_with_a_sentence(
    env: dict[str, str], tmp_path: Path, changed: dict[str, str], told: str
) -> None:
    refused = run("notifier", "serve", env=env | {"HOST": "0.0.0.0"} | changed, cwd=tmp_path)
    assert refused.returncode == 2
    said = refused.stdout + refused.stderr
    assert told in said
    assert "hunter2" not in said
    assert "Traceback" not in said
    assert not (tmp_path / ".notifier").exists()


def test_a_port_in_use_is_reported(server: Server, env: dict[str, str]) -> None:
    refused = run("notifier", "serve", env=env | {"PORT": str(server.port)})
    assert refused.returncode == 1
    assert "address already in use. Set PORT to another port" in refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr


@pytest.mark.rule("D-2")
def test_an_unmigrated_database_is_refused_and_not_touched(empty_database: str, env: dict[str, str]) -> None:
    refused = run("notifier", "serve", env=env | {"DATABASE_URL": empty_database})
    assert refused.returncode == 1
    assert "run `notifier migrate` first" in refused.stdout
    assert run("notifier", "migrate", env=env | {"DATABASE_URL": empty_database}).returncode == 0


def test_no_lock_file_holds_the_address_of_a_registry() -> None:
    for name in (
        "requirements.txt",
        "requirements-embedded.txt",
        "tests/requirements.txt",
        "tests/package/requirements.txt",
        "tests/recipes/requirements.txt",
        "bench/peers/requirements.txt",
    ):
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|index-url|find-links|file:", text)
        for requirement in re.findall(r"^[a-z].*?(?=^[a-z]|\Z)", text, re.MULTILINE | re.DOTALL):
            assert "==" in requirement
            assert "--hash=sha256:" in requirement
