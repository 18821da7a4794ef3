"""One server per folder, whatever the number of processes and whichever of them dies."""

import asyncio
import os
import signal

import pytest
from support.actors import EVERY_USER, eventually, is_open, kill_all, nothing_runs, pids, postmaster, running

as_every_user = pytest.mark.parametrize("user", EVERY_USER)

KEEP = "create table if not exists kept (n int)"


@as_every_user
async def test_a_new_folder_becomes_a_database_and_the_next_start_finds_its_rows(folder, start, connect):
    first = await start(folder)
    database = await connect(await first.dsn())
    await database.execute(KEEP)
    await database.execute("insert into kept values (1)")
    await database.close()
    await first.leave()
    await nothing_runs(folder)

    second = await start(folder)
    database = await connect(await second.dsn())
    assert await database.fetchval("select n from kept") == 1
    await second.leave()


async def test_processes_that_start_at_once_share_one_new_folder(folder, start, connect):
    actors = [await start(folder) for _ in range(3)]
    dsns = [await actor.dsn() for actor in actors]
    assert len(set(dsns)) == 1
    database = await connect(dsns[0])
    assert await database.fetchval("select pg_postmaster_start_time()") is not None
    assert len(running(folder, "postgres -D")) == 1
    for actor in actors:
        await actor.leave()


async def test_when_the_owner_leaves_another_process_takes_over(folder, start, connect):
    owner = await start(folder)
    dsn = await owner.dsn()
    other = await start(folder)
    assert await other.dsn() == dsn
    before = postmaster(folder)
    await owner.leave()
    database = await connect(dsn)
    assert await database.fetchval("select 1") == 1
    assert postmaster(folder) != before
    await other.leave()


@as_every_user
async def test_when_the_owner_is_killed_another_process_takes_over(folder, start, connect):
    owner = await start(folder)
    dsn = await owner.dsn()
    other = await start(folder)
    await other.dsn()
    database = await connect(dsn)
    await database.execute(KEEP)
    await database.execute("insert into kept values (1)")
    await owner.kill()
    await eventually(database.is_closed, "the old server stops")
    database = await connect(dsn)
    assert await database.fetchval("select n from kept") == 1
    await other.leave()


@as_every_user
async def test_when_the_only_process_is_killed_the_server_shuts_down_cleanly(folder, start, connect):
    owner = await start(folder)
    await connect(await owner.dsn())
    await owner.kill()
    await nothing_runs(folder)
    assert "database system is shut down" in (folder / "postgres.log").read_text()
    assert not (folder / "data" / "postmaster.pid").exists()


async def test_a_process_killed_at_any_moment_of_its_start_leaves_nothing_running(folder, start):
    for milliseconds in (0, 40, 120, 250):
        actor = await start(folder)
        await eventually(lambda: (folder / "owner.lock").exists(), "it begins")
        await asyncio.sleep(milliseconds / 1000)
        await actor.kill()
        await nothing_runs(folder)
    survivor = await start(folder)
    await survivor.dsn()
    assert not list(folder.glob("new-*"))
    await survivor.leave()


@as_every_user
async def test_a_killed_server_is_started_again(folder, start, connect):
    owner = await start(folder)
    dsn = await owner.dsn()
    database = await connect(dsn)
    await database.execute(KEEP)
    await database.execute("insert into kept values (1)")
    before = postmaster(folder)
    os.kill(before, signal.SIGKILL)
    await eventually(database.is_closed, "the connection breaks")
    database = await connect(dsn)
    assert await database.fetchval("select n from kept") == 1
    assert postmaster(folder) != before
    await owner.leave()


async def test_a_backend_still_busy_after_its_server_was_killed_delays_the_next_start_and_no_more(
    folder, start, connect
):
    first = await start(folder)
    dsn = await first.dsn()
    database, watcher = await connect(dsn), await connect(dsn)
    loop = "while clock_timestamp() < start + interval '1.5s' loop end loop"
    busy = asyncio.create_task(
        database.execute(f"do $$ declare start timestamptz = clock_timestamp(); begin {loop}; end $$")
    )
    while not await watcher.fetchval("select true from pg_locks where pid = $1", database.get_server_pid()):
        await asyncio.sleep(0.01)
    await asyncio.to_thread(kill_all, folder, spare=database.get_server_pid())
    assert not busy.done()

    second = await start(folder)
    database = await connect(await second.dsn())
    assert await database.fetchval("select 1") == 1
    await asyncio.wait([busy])
    busy.exception()
    await second.leave()


@as_every_user
async def test_rows_acknowledged_before_everything_was_killed_are_there_afterwards(folder, start, connect):
    owner = await start(folder)
    database = await connect(await owner.dsn())
    await database.execute(KEEP)
    acknowledged = 0

    async def write():
        nonlocal acknowledged
        while True:
            await database.execute("insert into kept values ($1)", acknowledged + 1)
            acknowledged += 1

    writer = asyncio.create_task(write())
    await eventually(lambda: acknowledged > 200, "rows are written")
    await asyncio.to_thread(kill_all, folder)
    await asyncio.wait([writer])
    assert writer.exception() is not None

    again = await start(folder)
    database = await connect(await again.dsn())
    kept = {row["n"] for row in await database.fetch("select n from kept")}
    assert kept >= set(range(1, acknowledged + 1))
    await again.leave()


@as_every_user
async def test_a_server_orphaned_because_its_guard_was_killed_too_is_replaced(folder, start, connect):
    owner = await start(folder)
    dsn = await owner.dsn()
    orphan = postmaster(folder)
    for guard in running(folder, "kill -INT"):
        guard.kill()
    await owner.kill()
    assert orphan in pids(folder)

    heir = await start(folder)
    assert await heir.dsn() == dsn
    assert postmaster(folder) != orphan
    assert orphan not in pids(folder)
    await heir.leave()


async def test_no_child_inherits_the_lock(folder, start):
    owner = await start(folder)
    await owner.dsn()
    lock = str(folder / "owner.lock")
    assert {process.pid for process in running(folder) if is_open(process, lock)} == {owner.process.pid}
    await owner.leave()
