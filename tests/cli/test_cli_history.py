"""`notifier history`: what was, back from now or from an id."""

import json
import os
import subprocess
import sys
import urllib.request

import pytest
from conftest import Server, run


def publish(server: Server, data: str) -> str:
    with urllib.request.urlopen(f"{server.url}/v1/topics/t", data.encode(), timeout=20) as response:
        return json.load(response)["id"]


def history(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "notifier", "history", *arguments, env=server.env)


def data(done: subprocess.CompletedProcess[str]) -> list[object]:
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line)["data"] for line in done.stdout.splitlines()]


@pytest.mark.rule("L-10")
def test_the_newest_are_printed_and_those_before_an_id(server: Server) -> None:
    published = [publish(server, str(number)) for number in range(5)]
    assert data(history(server, "t")) == [0, 1, 2, 3, 4]
    newest = history(server, "none", "*", "--last", "2")
    assert data(newest) == [3, 4]
    first = json.loads(newest.stdout.splitlines()[0])["id"]
    assert data(history(server, "t", "--before", first, "--last", "2")) == [1, 2]
    assert data(history(server, "t", "--before", published[0])) == []
    foreign = history(server, "t", "--before", "7")
    assert (foreign.returncode, foreign.stdout) == (0, "")
    assert "another database" in foreign.stderr
    refused = history(server, "t", "--before", "x")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "is not a cursor" in refused.stderr


@pytest.mark.rule("L-10")
def test_pages_that_are_cut_are_put_together(server: Server) -> None:
    """Three of them fit into one answer."""
    for number in range(5):
        publish(server, json.dumps(str(number) * 1_000_000))
    assert [text[0] for text in data(history(server, "t", "--last", "4"))] == ["1", "2", "3", "4"]


@pytest.mark.rule("L-10", "L-1")
def test_what_cannot_be_read_or_written_is_told(server: Server) -> None:
    publish(server, "1")
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "notifier", "history", "t"]
        done = subprocess.run(
            command, env=server.env, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stderr) == (1, "notifier: The output cannot be written: No space left on device.\n")
    away = run(
        sys.executable, "-m", "notifier", "history", "t", env=server.env | {"NOTIFIER_URL": "http://127.0.0.1:9"}
    )
    assert away.returncode == 3
    assert os.linesep in away.stderr
