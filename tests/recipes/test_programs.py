"""The recipes without an application: a transaction in psql, and a job of cron."""

import json
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
from conftest import DEADLINE_S, ROOT, Server, run
from support.servers import Postgres

RECIPES = ROOT / "docs" / "recipes"
KEY = "a-key-of-the-job-alone"


def subscribe(server: Server, *arguments: str) -> list[dict]:
    """What `notifier subscribe` prints."""
    command = (sys.executable, "-m", "notifier", "subscribe", *arguments)
    done = run(*command, env=server.env)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_a_transaction_in_psql_is_heard_of_when_it_is_committed(
    server: Server, database: str, sql: asyncpg.Connection, tmp_path: Path
) -> None:
    await sql.execute((RECIPES / "table.sql").read_text())
    await sql.execute("create table payment (order_id int primary key); insert into orders values (42, 'new', 9.9)")
    psql = (Postgres(tmp_path / "unused")._binaries / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-v", "order=42")

    def pay() -> subprocess.CompletedProcess[bytes]:
        command = (*psql, "-f", RECIPES / "pay.sql", database)
        return subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False)

    done = pay()
    assert done.returncode == 0, done.stderr
    assert pay().returncode == 3  # it is paid already: what came before the error is undone
    await sql.execute("select notifier.publish('payments', '\"fence\"')")
    paid, fence = subscribe(server, "payments", "--after", "earliest", "--count", "2")
    assert (paid["data"], paid["title"], paid["tags"]) == ({"order": 42, "total": 9.9}, "Paid: 9.90", ["money"])
    assert fence["data"] == "fence"
    changes = subscribe(server, "orders/42", "--after", "earliest", "--count", "2")
    assert [change["data"]["new"]["status"] for change in changes] == ["new", "paid"]


def test_a_job_reports_how_it_went_and_a_later_one_reads_it(server: Server, database: str, tmp_path: Path) -> None:
    server.env |= {"NOTIFIER_ADMIN_KEY": KEY, "NOTIFIER_KEY": KEY}
    server.restart()
    programs = tmp_path / "bin"
    programs.mkdir()
    # No dump is needed, only what it says and how it ends.
    (programs / "pg_dump").write_text('#!/bin/sh\necho "said: $FAILS" >&2\nprintf 12345 >"$BACKUP"\nexit $FAILS\n')
    (programs / "pg_dump").chmod(0o755)
    given = {"PATH": f"{programs}:{os.environ['PATH']}", "BACKUP": str(tmp_path / "backup"), "DATABASE_URL": database}
    given |= {"NOTIFIER": server.url, "NOTIFIER_KEY": KEY}
    state = str(tmp_path / "cursor")
    for fails, topic, title, priority in (("0", "ok", "Backup: 5 bytes", 2), ("1", "failed", "Backup failed", 5)):
        done = run("sh", str(RECIPES / "backup.sh"), env=os.environ | given | {"FAILS": fails})
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        [message] = subscribe(server, "backup/*", "--once", "--state", state)
        assert (message["topic"], message["data"]) == (f"backup/{topic}", f"said: {fails}")
        assert (message["title"], message["priority"]) == (title, priority)
    assert subscribe(server, "backup/*", "--once", "--state", state) == []
