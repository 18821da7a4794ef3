"""After a power cut, and where there is hardly any memory or disk: the database starts, or says what helps."""

import asyncio
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from support.actors import kill_all, nothing_runs

from notifier.embedded import EmbeddedError
from notifier.embedded.cluster import Cluster, failed


@pytest.mark.parametrize("left", [b"", b"\0" * 64], ids=["empty", "zeros"])
async def test_a_pid_file_that_a_power_cut_has_emptied_does_no_harm(folder, start, connect, left):
    first = await start(folder)
    database = await connect(await first.dsn())
    await database.execute("create table kept ()")
    kill_all(folder)
    await nothing_runs(folder)
    for file in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        (folder / "data" / file).write_bytes(left)
    second = await start(folder)
    database = await connect(await second.dsn())
    assert await database.fetchval("select to_regclass('kept')")
    await second.leave()


async def test_a_lost_version_can_be_put_back_by_the_command_of_the_sentence(folder, start, connect):
    home = folder / "a space"
    first = await start(home)
    database = await connect(await first.dsn())
    await database.execute("create table kept ()")
    await first.leave()
    (home / "data" / "PG_VERSION").write_bytes(b"")
    second = await start(home)
    sentence, _, command = (await second.said())["error"].partition(". Put it back: ")
    assert "PG_VERSION does not hold a version, as after a power cut" in sentence
    spare = home / "data" / "base" / "1" / "PG_VERSION"
    kept = spare.read_bytes()
    spare.write_bytes(b"\0\0\0")
    with pytest.raises(EmbeddedError, match="Restore the folder, or move it away"):
        Cluster(home).major()
    spare.write_bytes(kept)
    subprocess.run(["/bin/sh", "-c", command], check=True)
    third = await start(home)
    database = await connect(await third.dsn())
    assert await database.fetchval("select to_regclass('kept')")
    await third.leave()


@pytest.mark.usefixtures("mounting")
async def test_with_hardly_any_shared_memory_a_database_is_made_and_runs(folder, start, connect):
    tiny = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    first = await start(folder, mounts=tiny)
    database = await connect(await first.dsn())
    assert await database.fetchval("show dynamic_shared_memory_type") == "mmap"
    # What needs shared memory between processes.
    await database.execute("set debug_parallel_query = on")
    assert await database.fetchval("select count(*) from pg_class") > 100
    await first.leave()
    second = await start(folder)
    database = await connect(await second.dsn())
    assert await database.fetchval("select 1") == 1
    await second.leave()


@pytest.mark.usefixtures("mounting")
async def test_a_full_disk_is_told_with_what_helps(folder, start):
    small = folder / "disk"
    small.mkdir()
    actor = await start(small, mounts=f"mount -t tmpfs -o size=8m,mode=777 tmpfs {small}")
    said = (await actor.said())["error"]
    assert "No space left on device" in said
    assert "Make room on that disk" in said


def test_used_up_shared_memory_is_not_taken_for_a_full_disk():
    said = failed("No database", "FATAL:  could not create shared memory segment: No space left on device")
    assert "shared memory, or remove" in str(said)
    assert "Make room" not in str(said)


async def test_a_command_without_a_database_url_says_which_database_it_works_on(folder):
    """Who forgets it in a deployment would wonder where all the tables are."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "NOTIFIER_"))}
    made = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "notifier", "migrate"),
        cwd=folder,
        env=env | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await made.communicate()
    assert (made.returncode, out[:8]) == (0, b"applied ")
    [line] = said.decode().splitlines()
    assert line.startswith("notifier: There is no DATABASE_URL. Embedded Postgres 18, data in ")
