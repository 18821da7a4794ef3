"""Folders with odd names and odd contents, and what is said when there can be no database."""

import os
import stat
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from support.actors import eventually, kill_all, nothing_runs, pids, postmaster, running


def socket_folder(dsn: str) -> Path:
    return Path(parse_qs(urlsplit(dsn).query)["host"][0])


@pytest.mark.parametrize("name", ["a space", "quotes ' \" and $HOME; a, comma & %41", "ünï", "/".join(["long"] * 30)])
async def test_a_folder_may_have_any_name(folder, start, connect, name):
    owner = await start(folder / name)
    dsn = await owner.dsn()
    database = await connect(dsn)
    assert await database.fetchval("select 1") == 1
    other = await start(folder / name, env={"TMPDIR": str(folder)})
    assert await other.dsn() == dsn
    await owner.leave()
    await other.leave()
    sockets = socket_folder(dsn)
    assert sockets == folder / name / "data" or not sockets.exists()


async def test_a_socket_folder_that_others_may_enter_is_refused(folder, start):
    long = folder / "/".join(["long"] * 30)
    first = await start(long)
    sockets = socket_folder(await first.dsn())
    await first.leave()
    sockets.mkdir()
    sockets.chmod(0o777)
    try:
        second = await start(long)
        assert "belongs to another user" in (await second.said())["error"]
    finally:
        sockets.rmdir()


async def test_a_stale_pid_that_another_program_has_by_now_does_no_harm(folder, start, connect):
    first = await start(folder)
    await first.dsn()
    stale = folder / "data" / "postmaster.pid"
    owner_of_data = stale.stat().st_uid
    kill_all(folder)
    await nothing_runs(folder)
    lines = stale.read_text().split("\n")
    stranger = subprocess.Popen(["sleep", "1000"], **({"user": owner_of_data} if os.geteuid() == 0 else {}))
    try:
        stale.write_text("\n".join([str(stranger.pid), *lines[1:]]))
        lock = folder / "data" / ".s.PGSQL.5432.lock"
        lock.write_text("\n".join([str(stranger.pid), *lines[1:]]))
        second = await start(folder)
        database = await connect(await second.dsn())
        assert await database.fetchval("select 1") == 1
        assert stranger.poll() is None
        await second.leave()
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_creation_that_was_killed_half_way_starts_over(folder, start, connect):
    first = await start(folder)
    await eventually(lambda: list(folder.glob("new-*/data/base")), "initdb is at work")
    kill_all(folder)
    await first.kill()
    assert not (folder / "data").exists()
    await nothing_runs(folder)

    second = await start(folder)
    database = await connect(await second.dsn())
    assert await database.fetchval("select 1") == 1
    assert not list(folder.glob("new-*"))
    await second.leave()


async def test_a_creation_that_fails_says_why_and_can_be_tried_again(folder, start):
    first = await start(folder)
    await eventually(lambda: list(folder.glob("new-*/data/base")), "initdb is at work")
    for process in running(folder, "bin/initdb"):
        process.kill()
    assert "No database could be created" in (await first.said())["error"]
    second = await start(folder)
    assert await second.dsn()
    await second.leave()


async def test_the_environment_of_another_postgres_changes_nothing(folder, start, connect):
    foreign = {"PGPORT": "1", "PGDATA": "/nowhere", "PGTZ": "Asia/Tokyo", "PGPASSWORD": "wrong", "LC_ALL": "C.UTF-8"}
    actor = await start(folder, env=foreign)
    database = await connect(await actor.dsn())
    assert await database.fetchval("show timezone") == "UTC"
    await actor.leave()


async def test_the_password_is_in_the_dsn_and_in_one_closed_file_only(folder, start):
    actor = await start(folder)
    password = (await actor.dsn()).split("@")[0].rpartition(":")[2]
    assert len(password) >= 32
    assert actor.announced == [f"Embedded Postgres 18, data in {folder}"]
    holders = [file for file in folder.rglob("*") if file.is_file() and password.encode() in file.read_bytes()]
    assert holders == [folder / "data" / "pgpass"]
    assert stat.S_IMODE(holders[0].stat().st_mode) == 0o600
    assert running(folder)
    assert not running(folder, password)
    await actor.leave()


async def test_the_password_is_required(folder, start):
    actor = await start(folder)
    dsn = await actor.dsn()
    password = dsn.split("@")[0].rpartition(":")[2]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(dsn.replace(password, "wrong"))
    await actor.leave()


async def test_the_server_stops_when_its_folder_is_deleted(folder, start):
    actor = await start(folder / "data home")
    await actor.dsn()
    server = postmaster(folder / "data home")
    (folder / "data home").rename(folder / "elsewhere")
    await eventually(lambda: server not in pids(folder), "the server stops")
    await actor.leave()


async def test_a_setting_that_postgres_refuses_is_reported_in_its_words(folder, start):
    actor = await start(folder, shared_buffers="plenty")
    assert 'invalid value for parameter "shared_buffers": "plenty"' in (await actor.said())["error"]


async def test_data_of_an_unavailable_version_is_left_alone(folder, start):
    first = await start(folder)
    await first.dsn()
    await first.leave()
    (folder / "data" / "PG_VERSION").write_text("99\n")
    second = await start(folder)
    error = (await second.said())["error"]
    assert error.startswith("The data needs PostgreSQL 99; found: ")
    assert "DATABASE_URL" in error
    assert (folder / "data" / "base").exists()
