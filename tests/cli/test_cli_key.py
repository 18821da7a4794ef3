"""`notifier key` on a real database."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from conftest import ROOT, free_port, run

NOTIFIER = [sys.executable, "-m", "notifier"]


def key(database: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"DATABASE_URL": database, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return run(*NOTIFIER, "key", *arguments, env=env)


def listed(database: str) -> dict[str, dict]:
    done = key(database, "list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return {found["name"]: found for found in map(json.loads, done.stdout.splitlines())}


@pytest.mark.rule("L-5")
async def test_a_key_is_printed_once_and_only_its_hash_is_stored(database, sql):
    done = key(database, "create", "the shop", "--publish", "orders/**", "--publish", "stock", "--subscribe", "a/*")
    assert done.returncode == 0
    [text] = done.stdout.splitlines()
    found = re.fullmatch(r"nk_([a-z0-9]{12})_([A-Za-z0-9]{32})", text)
    assert "shown only now" in done.stderr
    row = await sql.fetchrow("select * from notifier.key")
    assert (row["id"], row["name"], row["hash"]) == (found[1], "the shop", sha256(text.encode()).digest())
    assert (row["publish"], row["subscribe"], row["admin"]) == (["orders/**", "stock"], ["a/*"], False)
    assert row["expires_at"] is row["used_at"] is None
    for again in (key(database, "list"), key(database, "list", "--json")):
        assert found[1] in again.stdout
        assert found[2] not in again.stdout + again.stderr


@pytest.mark.rule("L-5")
async def test_an_expiring_admin_key_as_json(database, sql):
    done = key(database, "create", "operator", "--admin", "--expires", "30d", "--json")
    made = json.loads(done.stdout)
    assert made.pop("key").startswith(f"nk_{made['id']}_")
    assert made == listed(database)["operator"]
    assert (made["publish"], made["subscribe"], made["admin"], made["used_at"]) == ([], [], True, None)
    now = await sql.fetchval("select now()")
    expires = datetime.fromisoformat(made["expires_at"])
    assert timedelta(days=29, hours=23) < expires - now < timedelta(days=30)
    assert datetime.fromisoformat(made["created_at"]).tzinfo is not None


@pytest.mark.rule("L-5")
async def test_the_list_is_a_table(database, sql):
    assert key(database, "list").stdout == "NAME  ID  PUBLISH  SUBSCRIBE  CREATED  EXPIRES  LAST USED\n"
    key(database, "create", "wall", "--subscribe", "builds/*", "--subscribe", "all", "--expires", "1d")
    key(database, "create", "admin", "--admin")
    key(database, "create", "old", "--publish", "a", "--expires", "1s")
    key(database, "create", "much", *(argument for i in range(12) for argument in ("--publish", f"t/{i}")))
    await sql.execute(
        "update notifier.key set created_at = '2026-11-01 10:00Z', expires_at = '2026-11-02 10:00Z' where name = 'old';"
        "update notifier.key set used_at = '2026-11-03 12:34Z' where name = 'admin'"
    )
    title, *rows = key(database, "list").stdout.splitlines()
    starts = [found.start() for found in re.finditer(r"(?<=  )\S|^\S", title)]
    cells = [[row[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for row in rows]
    assert [row[0] for row in cells] == ["admin", "much", "old", "wall"]
    assert [row[2:4] for row in cells] == [
        *(["everything"] * 2, ["t/0 t/1 t/2 t/3 t/4 +7", "-"]),
        *(["a", "-"], ["-", "builds/* all"]),
    ]
    assert cells[2][4:] == ["2026-11-01 10:00Z", "expired", "never"]
    assert cells[0][5:] == ["never", "2026-11-03 12:34Z"]
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert timedelta(0) <= tomorrow - datetime.fromisoformat(cells[3][5]) < timedelta(minutes=5)


@pytest.mark.rule("L-5")
def test_a_key_is_revoked_by_its_name_its_id_or_itself(database):
    for name in ("one", "two", "three"):
        key(database, "create", name, "--publish", name)
    whole = key(database, "create", "four", "--admin").stdout.strip()
    ids = {name: found["id"] for name, found in listed(database).items()}
    for shown in ("one", ids["two"], f"nk_{ids['three']}", whole):
        done = key(database, "revoke", shown)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert listed(database) == {}


def test_a_name_that_looks_like_an_id_is_a_name_first(database):
    key(database, "create", "one", "--admin")
    [other] = [found["id"] for found in listed(database).values()]
    key(database, "create", other, "--admin")
    assert key(database, "revoke", other).returncode == 0
    assert list(listed(database)) == ["one"]


@pytest.mark.rule("L-5")
async def test_what_a_key_may_do_is_changed_as_a_whole(database, sql):
    key(database, "create", "k", "--publish", "a", "--subscribe", "b", "--expires", "1d")
    before = listed(database)["k"]
    assert key(database, "change", "k", "--subscribe", "c/*").returncode == 0
    assert listed(database)["k"] == before | {"publish": [], "subscribe": ["c/*"]}
    assert key(database, "change", "k", "--admin").returncode == 0
    assert listed(database)["k"] == before | {"publish": [], "subscribe": [], "admin": True}
    assert await sql.fetchval("select count(*) from notifier.access_change where kind = 'key'") == 3


@pytest.mark.rule("L-1")
def test_what_cannot_be_done_is_status_1_with_a_sentence(database):
    key(database, "create", "k", "--publish", "a")
    before = listed(database)
    whole = "nk_abcdefghijkl_" + "s" * 32
    for arguments, sentence in (
        (["create", "k", "--admin"], "There is a key k already."),
        (["change", "x", "--admin"], "There is no key x."),
        (["revoke", "x"], "There is no key x."),
        (["revoke", whole], "There is no key nk_abcdefghijkl."),
    ):
        done = key(database, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert sentence in done.stderr
        assert "sss" not in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert listed(database) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["create", "k"], "may do nothing"),
        (["create", "k", "--admin", "--publish", "a"], "may do everything"),
        (["create", "k", "--publish", "a/**/b"], "is not a pattern"),
        (["create", "", "--admin"], "name of a key"),
        (["create", "a\nb", "--admin"], "name of a key"),
        (["change", "k"], "may do nothing"),
        (["change", "k", "--subscribe", "a b"], "is not a topic"),
    ],
)
def test_what_is_malformed_is_status_2_with_a_sentence(arguments, sentence):
    # No database is asked for that.
    done = key(f"postgres://127.0.0.1:{free_port()}/db", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr


def test_keys_need_a_migrated_database(empty_database):
    done = key(empty_database, "list")
    assert done.returncode == 1
    assert "notifier migrate" in done.stderr
