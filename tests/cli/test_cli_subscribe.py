"""`notifier subscribe`, a real process, follows a real server."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import jwt
import pytest
from conftest import Server, run
from support.follower import DEADLINE_S, Follower

Follow = Callable[..., Follower]


@pytest.fixture
def follow(server: Server, tmp_path: Path) -> Iterator[Follow]:
    followers: list[Follower] = []

    def follow(*arguments: str, **env: str) -> Follower:
        followers.append(Follower(server.env | env, tmp_path, *arguments))
        return followers[-1]

    yield follow
    for follower in followers:
        follower.close()


def publish(server: Server, topic: str, data: str = "1") -> str:
    request = urllib.request.Request(
        f"{server.url}/v1/topics/{topic}", data.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as response:
        return json.load(response)["id"]


def stored(server: Server, topics: str) -> list[str]:
    """The ids of everything in the log."""
    ids: list[str] = []
    cursor = "0"
    while True:
        url = f"{server.url}/v1/topics/{topics}?after={cursor}&wait=0&limit=1000"
        with urllib.request.urlopen(url, timeout=DEADLINE_S) as response:
            answer = json.load(response)
        if not answer["messages"]:
            return ids
        ids += [message["id"] for message in answer["messages"]]
        cursor = answer["cursor"]


class Publisher(threading.Thread):
    """Publishes without pause, whatever becomes of the server, until it is told to stop."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._enough = threading.Event()
        self._progress = threading.Condition()
        self.acknowledged: list[str] = []

    def run(self) -> None:
        number = 0
        while not self._enough.is_set():
            number += 1
            try:
                id_ = publish(self._server, f"orders/{number % 3}", str(number))
            except OSError:  # also what urllib makes of a 503
                self._enough.wait(0.02)
                continue
            with self._progress:
                self.acknowledged.append(id_)
                self._progress.notify_all()

    def progress(self, count: int) -> None:
        """Return when `count` more messages are acknowledged."""
        with self._progress:
            wanted = len(self.acknowledged) + count
            assert self._progress.wait_for(lambda: len(self.acknowledged) >= wanted, DEADLINE_S)

    def stop(self) -> None:
        self._enough.set()
        self.join(DEADLINE_S)


WAYS = pytest.mark.parametrize("way", [(), ("--stream",)], ids=["by polls", "by streams"])


@WAYS
@pytest.mark.rule("C-1", "C-30")
@pytest.mark.rule("L-3")
def test_no_line_is_lost_or_repeated_while_the_server_is_killed_and_restarted(server, follow, way):
    follower = follow("orders/*", "end", "--after", "earliest", *way)
    publisher = Publisher(server)
    publisher.start()
    try:
        publisher.progress(20)
        server.kill()
        server.start()
        publisher.progress(20)
        server.stop(signal.SIGTERM)
        server.start()
        publisher.progress(20)
        server.kill()
        server.start()
        publisher.progress(1)
    finally:
        publisher.stop()
    publish(server, "end")
    lines = [follower.message()]
    while lines[-1]["topic"] != "end":
        lines.append(follower.message())
    assert [line["id"] for line in lines] == stored(server, "orders/*,end")
    assert set(publisher.acknowledged) < {line["id"] for line in lines}
    assert follower.left() == 0
    assert "Trying again" in follower.errors()


def test_it_waits_for_a_server_that_is_not_there_yet(server, follow):
    first = publish(server, "t")
    server.stop(signal.SIGINT)
    follower = follow("t", "--after", "0")
    follower.said("Trying again")
    server.start()
    assert follower.message()["id"] == first


@WAYS
@pytest.mark.rule("L-3")
def test_a_line_is_the_message_as_the_server_sent_it(server, follow, way):
    follower = follow("t", "--after", "0", *way)
    publish(server, "t", '{"a": 1e308,\r\n "b": 0.10, "c": "é\\n\\u2028", "d": 123456789012345678901234567890}')
    line = follower.line()
    assert '"a": 1e308,' in line
    assert '"b": 0.10, "c": "é\\n\\u2028", "d": 123456789012345678901234567890' in line
    assert json.loads(line)["topic"] == "t"


@pytest.mark.rule("S-33")
def test_the_headers_of_webhooks_are_printed_where_they_are_asked_for(server: Server, follow: Follow) -> None:
    add = ("source", "add", "ci", "--scheme", "none", "--topic", "ci")
    hook = run(sys.executable, "-m", "notifier", *add, env=server.env).stdout.split()[1]
    webhook = urllib.request.Request(f"{server.url}{hook}", b"{}", {"X-Event": "built"})
    with urllib.request.urlopen(webhook, timeout=DEADLINE_S):
        pass
    asks, asks_not = follow("ci", "--last", "1", "--headers"), follow("ci", "--last", "1")
    message = asks.message()
    assert ["X-Event", "built"] in message.pop("headers")
    assert message == asks_not.message()


def test_without_a_beginning_only_what_is_new_is_printed(server, follow):
    old = publish(server, "t")
    follower = follow("t", "--count", "1")
    ends = time.monotonic() + DEADLINE_S
    while follower.process.poll() is None:
        assert time.monotonic() < ends, follower.errors()
        publish(server, "t")
    assert follower.wait() == 0
    assert int(follower.message()["id"]) > int(old)


@pytest.mark.parametrize(
    ("beginning", "expected"),
    [
        (["--after", "earliest"], ["1", "2", "3"]),
        (["--last", "2"], ["2", "3"]),
        (["--last-each", "1"], ["3"]),
        (["--since", "1h"], ["1", "2", "3"]),
    ],
)
def test_it_begins_where_the_options_say(server, follow, beginning, expected):
    for number in ("1", "2", "3"):
        publish(server, "t", number)
    follower = follow("t", *beginning)
    assert [str(follower.message()["data"]) for _ in expected] == expected
    publish(server, "t", "4")
    assert follower.message()["data"] == 4


def test_the_id_of_a_line_is_where_to_resume(server, follow):
    for number in ("1", "2", "3"):
        publish(server, "t", number)
    first = follow("t", "--after", "0", "--count", "2")
    first.line()
    last = first.message()
    assert first.wait() == 0
    assert first.left() == 0
    assert follow("t", "--after", last["id"]).message()["data"] == 3


def test_a_gap_is_reported_on_standard_error(server, follow):
    id_ = publish(server, "t")
    follower = follow("t", "--after", str(int(id_) + 10**15))
    follower.said("notifier: gap: ")
    publish(server, "t", '"now"')
    while follower.message()["data"] != "now":
        pass


@pytest.mark.rule("L-1", "L-3")
def test_ctrl_c_ends_it_with_130_and_no_traceback(server, follow):
    publish(server, "t")
    follower = follow("t", "--after", "0")
    follower.line()
    follower.process.send_signal(signal.SIGINT)
    assert follower.wait() == 130
    assert follower.errors() == ""


@pytest.mark.rule("L-3")
def test_a_closed_pipe_ends_it_quietly_even_on_a_quiet_topic(server):
    publish(server, "t")
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as lines:
        process = subprocess.Popen(
            [sys.executable, "-m", "notifier", "subscribe", "t", "--after", "0"],
            env=server.env,
            stdout=write_end,
            stderr=subprocess.PIPE,
        )
        os.close(write_end)
        assert json.loads(lines.readline())["topic"] == "t"
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (0, b"")


def test_writing_to_a_closed_pipe_ends_it_quietly(server):
    for _ in range(3):
        publish(server, "t")
    # `head` ends before the second line is written, or while it is.
    command = f"'{sys.executable}' -m notifier subscribe t --after 0 | head -n 1"
    done = run("bash", "-o", "pipefail", "-c", command, env=server.env)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["topic"] == "t"


@pytest.mark.rule("L-1")
def test_a_permanent_refusal_ends_it_with_1(server):
    done = run(sys.executable, "-m", "notifier", "subscribe", "a//b", env=server.env)
    assert done.returncode == 1
    assert done.stderr.startswith("notifier: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_key_ends_it_with_1_and_a_right_one_is_used(database, tmp_path):
    server = Server(database, tmp_path / "serve.log")
    server.env["NOTIFIER_ADMIN_KEY"] = "correct-horse-battery another-for-the-rotation"
    server.start()
    try:
        with pytest.raises(urllib.error.HTTPError):
            publish(server, "t")
        published = run(sys.executable, "-m", "notifier", "publish", "t", "1", env=server.env)
        assert (published.returncode, published.stderr) == (0, "")
        wrong = run(
            sys.executable, "-m", "notifier", "subscribe", "t", env=server.env | {"NOTIFIER_KEY": "wrong-key-here"}
        )
        assert wrong.returncode == 1
        assert "wrong-key-here" not in wrong.stderr
        follower = Follower(server.env, tmp_path, "t", "--last", "1", "--count", "1")
        assert follower.message()["id"] == published.stdout.strip()
        assert follower.wait() == 0
        follower.close()
    finally:
        server.close()


def test_a_token_that_ends_ends_it_with_1_and_the_reason(database: str, tmp_path: Path) -> None:
    secret = "what-the-application-signs-with-32-bytes"
    server = Server(database, tmp_path / "serve.log")
    server.env["NOTIFIER_JWT_SECRET"] = secret
    server.start()
    try:
        claims = {"sub": "7", "exp": int(time.time()) + 3, "notifier": {"publish": ["t"], "subscribe": ["t"]}}
        token = jwt.encode(claims, secret, "HS256")
        follower = Follower(server.env | {"NOTIFIER_KEY": token}, tmp_path, "t")
        assert follower.wait() == 1
        assert "The token expired" in follower.errors()
        assert token not in follower.errors()
        follower.close()
    finally:
        server.close()
