"""`notifier migrate` and `notifier source` on a real database."""

import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from conftest import ROOT, at, free_port, run

NOTIFIER = [sys.executable, "-m", "notifier"]
SECRET = "It's a Secret to Everybody"
TOPIC = "github/{repository.full_name}/{header:X-GitHub-Event}"


def env(url: str) -> dict[str, str]:
    return os.environ | {"DATABASE_URL": url, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


def source(database: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return run(*NOTIFIER, "source", *arguments, env=env(database), input=stdin)


def test_migrate_says_what_it_applied_and_then_that_nothing_is_left(empty_database):
    first = run(*NOTIFIER, "migrate", env=env(empty_database))
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("applied 0001_")
    second = run(*NOTIFIER, "migrate", env=env(empty_database))
    assert (second.returncode, second.stdout) == (0, "The schema is up to date.\n")


@pytest.mark.rule("L-1", "A-7")
def test_a_database_that_is_not_there_is_status_3_and_its_password_is_not_shown():
    url = f"postgres://someone:hunter2@127.0.0.1:{free_port()}/db"
    for command in (["migrate"], ["source", "list"]):
        done = run(*NOTIFIER, *command, env=env(url))
        assert (done.returncode, done.stdout) == (3, "")
        assert "The database cannot be reached" in done.stderr
        assert "hunter2" not in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_database_that_refuses_is_status_1(database):
    done = run(*NOTIFIER, "migrate", env=env(at(database, "not_there")))
    assert (done.returncode, done.stdout) == (1, "")
    assert "does not exist" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_sources_need_a_migrated_database(empty_database):
    done = source(empty_database, "list")
    assert done.returncode == 1
    assert "notifier migrate" in done.stderr


@pytest.mark.rule("L-1")
def test_a_malformed_setting_is_status_2():
    done = run(*NOTIFIER, "migrate", env=env("mysql://localhost"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "DATABASE_URL" in done.stderr


@pytest.mark.rule("L-4")
def test_sources_are_added_listed_without_secrets_and_removed(database):
    added = source(
        database, *("add", "github", "--scheme", "github", "--topic", TOPIC), *("--secret", SECRET, "--secret", "old")
    )
    assert (added.returncode, added.stdout) == (0, f"POST /hooks/github publishes to {TOPIC}\n")
    # What is not signed is kept from others by its name.
    added = source(database, "add", "ci", "--scheme", "none", "--topic", "ci")
    name = re.fullmatch(r"POST /hooks/(ci-[a-z0-9]{16}) publishes to ci\n", added.stdout)[1]
    listed = source(database, "list")
    assert (listed.returncode, listed.stdout) == (0, f"{name}\tnone\tci\t0\ngithub\tgithub\t{TOPIC}\t2\n")
    again = source(database, "add", "github", "--scheme", "token", "--secret", "x", "--topic", "other")
    assert (again.returncode, again.stdout) == (1, "")
    assert source(database, "remove", name).returncode == 0
    assert source(database, "remove", name).returncode == 1
    assert source(database, "list").stdout == f"github\tgithub\t{TOPIC}\t2\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["GitHub", "--scheme", "none", "--topic", "x"], "name of a source"),
        (["gl", "--scheme", "subversion", "--topic", "x"], "There is no scheme 'subversion'"),
        (["sms", "--scheme", "twilio", "--topic", "x", "--secret", SECRET], "needs the option url"),
        (["sms", "--scheme", "twilio", "--topic", "x", "--set", "url"], "NAME=VALUE"),
        (["x" * 50, "--scheme", "none", "--topic", "x"], "name of a source"),
        (["gh", "--scheme", "github", "--topic", "x"], "needs the secret"),
        (["gh", "--scheme", "github", "--topic", "x/{", "--secret", SECRET], "braces"),
        (["gh", "--scheme", "github", "--topic", "x", "--secret", "-"], "printable"),
    ],
)
def test_a_malformed_source_is_status_2_with_a_sentence(arguments, sentence):
    # No database is asked for that.
    done = source(f"postgres://127.0.0.1:{free_port()}/db", "add", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert SECRET not in done.stderr


def signed(body: bytes, secret: str) -> dict[str, str]:
    mac = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={mac}", "X-GitHub-Event": "push", "Content-Type": "application/json"}


def deliver(url: str, body: bytes, secret: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, signed(body, secret)), timeout=20) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.rule("L-4")
def test_a_source_with_its_secret_from_standard_input_takes_signed_webhooks(server, database):
    add = ["add", "github", "--scheme", "github", "--topic", TOPIC, "--secret", "-", "--secret", "-"]
    added = source(database, *add, stdin=f"{SECRET}\nthe next one\r\n")
    assert (added.returncode, added.stderr) == (0, "")
    body = b'{"repository": {"full_name": "octo/hello"}}'
    assert deliver(f"{server.url}/hooks/github", body, SECRET) == 200
    rotated = source(database, "rotate", "github", "--secret", "-", stdin="the newest\n")
    assert rotated.stdout.startswith("github has a new secret; the older ones count until 20")
    assert deliver(f"{server.url}/hooks/github", body, "the newest") == 200
    assert deliver(f"{server.url}/hooks/github", body, "the next one") == 200
    shown = source(database, "show", "github")
    assert "\nURL      https://YOUR-HOST/hooks/github\n" in shown.stdout
    assert "secrets  3, the older until 20" in shown.stdout
    assert "Payload URL" in shown.stdout
    mac = hmac.new(b"the newest", body, hashlib.sha256).hexdigest()
    test = ["test", "github", "--header", f"X-Hub-Signature-256: sha256={mac}", "--header", "X-GitHub-Event: push"]
    would = source(database, *test, stdin=body.decode())
    told = (
        "It would be published to github/octo/hello/push\nIt has no delivery id that counts: sent again, it would be "
    )
    assert (would.returncode, would.stdout) == (0, f"{told}stored again\n")
    would = source(database, *test, stdin=body.decode() + "\n")
    assert (would.returncode, would.stdout) == (1, "")
    assert "does not fit the body and the secret" in would.stderr
    assert "It fits the body with no line feed at its end" in would.stderr
    assert not {SECRET, "the newest"} & set((shown.stdout + would.stderr).split("\n"))
    assert deliver(f"{server.url}/hooks/github", body, "another") == 401
    with urllib.request.urlopen(f"{server.url}/v1/topics/github/**?after=0&wait=0", timeout=20) as response:
        messages = json.load(response)["messages"]
    assert [message["topic"] for message in messages] == ["github/octo/hello/push"] * 3


@pytest.mark.rule("L-4", "W-17")
def test_it_says_which_message_a_webhook_is_stored_as(server, database):
    source(database, "add", "github", "--scheme", "github", "--topic", TOPIC, "--secret", SECRET)
    body = b'{"repository": {"full_name": "octo/hello"}}'
    # It is shown in a terminal, and comes from whoever has sent it.
    headers = signed(body, SECRET) | {"X-GitHub-Delivery": "72d3162e\u001b[2J"}
    arguments = [text for name, value in headers.items() for text in ("--header", f"{name}: {value}")]
    told = [
        "It would be published to github/octo/hello/push",
        r"Its delivery id is 72d3162e\x1b[2J",
        "It is not stored: no webhook of github with this id has come in 4 days",
    ]
    would = source(database, "test", "github", *arguments, stdin=body.decode())
    assert (would.returncode, would.stdout.splitlines(), would.stderr) == (0, told, "")
    headers["X-GitHub-Delivery"] = "72d3162e"
    with urllib.request.urlopen(
        urllib.request.Request(f"{server.url}/hooks/github", body, headers), timeout=20
    ) as response:
        stored = json.load(response)["id"]
    arguments = [text for name, value in headers.items() for text in ("--header", f"{name}: {value}")]
    would = source(database, "test", "github", *arguments, stdin=body.decode())
    told[1:] = [
        "Its delivery id is 72d3162e",
        f"It is stored already, as message {stored}, and would be answered as a duplicate",
    ]
    assert (would.returncode, would.stdout.splitlines(), would.stderr) == (0, told, "")
