"""`notifier scheduled` against a real server."""

import json
import subprocess
import sys

import pytest
from conftest import Server, free_port, run

NOTIFIER = [sys.executable, "-m", "notifier"]
AT = "2101-01-01T00:00:00.000000Z"


def scheduled(server: Server, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return run(*NOTIFIER, "scheduled", *arguments, env=server.env | more)


def publish(server: Server, topic: str, at: str = AT) -> str:
    return run(*NOTIFIER, "publish", topic, "1", "--at", at, env=server.env).stdout.strip()


@pytest.mark.rule("L-9")
def test_what_is_scheduled_is_listed_and_taken_back(server: Server) -> None:
    later, first, other = (
        publish(server, topic, at)
        for topic, at in (("a/1", AT.replace("2101", "2102")), ("a/2", AT), ("b", AT.replace("2101", "2103")))
    )
    listed = scheduled(server, "list")
    lines = [f"{first}\ta/2\t{AT}", f"{later}\ta/1\t2102{AT[4:]}", f"{other}\tb\t2103{AT[4:]}"]
    assert (listed.returncode, listed.stdout.splitlines(), listed.stderr) == (0, lines, "")
    assert scheduled(server, "list", "a/*").stdout.splitlines() == lines[:2]
    assert json.loads(scheduled(server, "list", "b", "--json").stdout) == {
        "id": other,
        "topic": "b",
        "at": lines[2][-27:],
    }
    done = scheduled(server, "cancel", first, other)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # What can be taken back is, whatever is before it.
    done = scheduled(server, "cancel", first, later)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == f"notifier: Nothing is scheduled under {first}: it was published or taken back, or never was.\n"
    )
    assert scheduled(server, "list").stdout == ""


@pytest.mark.rule("L-1")
def test_what_is_refused_or_not_there_has_a_status_of_its_own(server: Server) -> None:
    refused = scheduled(server, "list", "a*")
    assert (refused.returncode, refused.stdout, "not a pattern" in refused.stderr) == (1, "", True)
    away = f"http://127.0.0.1:{free_port()}"
    for arguments in (["list"], ["cancel", "7"]):
        done = scheduled(server, *arguments, NOTIFIER_URL=away)
        assert (done.returncode, done.stdout) == (3, "")
        assert len(done.stderr.splitlines()) == 1
