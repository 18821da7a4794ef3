"""`notifier subscribe --once --state FILE`: what came since last time, whatever happens in between."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from conftest import Server
from support.follower import Follower

from notifier.cli import connection, cursor_file, main
from notifier.cli.cursor_file import CursorFile
from notifier.client import Client, NotifierClientError


def publish(server: Server, data: str) -> str:
    with urllib.request.urlopen(f"{server.url}/v1/topics/t", data.encode(), timeout=20) as response:
        return json.load(response)["id"]


def once(server: Server, *arguments: str, output: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "notifier", "subscribe", "t", "--once", *arguments]
    return subprocess.run(
        command, env=server.env, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )


def data(done: subprocess.CompletedProcess[str]) -> list[object]:
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line)["data"] for line in done.stdout.splitlines()]


@pytest.mark.rule("L-7", "C-16")
def test_each_run_prints_what_came_since_the_one_before(server: Server, tmp_path: Path) -> None:
    state = str(tmp_path / "cursor")
    for number in "123":
        publish(server, number)
    assert data(once(server)) == data(once(server, "--limit", "2")) == [1, 2, 3]
    assert data(once(server, "--last", "2", "--state", state)) == [2, 3]
    assert data(once(server, "--last", "2", "--state", state)) == []
    last = publish(server, "4")
    assert data(once(server, "--state", state, "--count", "1")) == [4]
    assert Path(state).read_text() == f"{last}\n"
    publish(server, "5")
    assert data(once(server, "--state", state)) == [5]
    assert sorted(tmp_path.glob("cursor*")) == [Path(state)]
    # What could not be written comes again.
    publish(server, "6")
    with open("/dev/full", "wb") as full:
        done = once(server, "--state", state, output=full.fileno())
    assert (done.returncode, done.stderr) == (1, "notifier: The output cannot be written: No space left on device.\n")
    assert data(once(server, "--state", state)) == [6]


@pytest.mark.rule("L-7")
def test_a_follower_that_is_killed_goes_on_and_skips_nothing(server: Server, tmp_path: Path) -> None:
    state = str(tmp_path / "cursor")
    ids = [publish(server, "1")]
    seen = []
    for number in "23":
        follower = Follower(server.env, tmp_path, "t", "--after", "earliest", "--state", state)
        while ids[-1] not in seen:
            seen.append(follower.message()["id"])
        follower.process.send_signal(signal.SIGKILL)
        follower.close()
        ids.append(publish(server, number))
    seen += [json.loads(line)["id"] for line in once(server, "--state", state).stdout.splitlines()]
    assert sorted(set(seen)) == ids


def steps_that_can_fail(monkeypatch: pytest.MonkeyPatch, fails: int) -> list[str]:
    """From the one numbered `fails` on, no step of saving a cursor works; the steps that did."""
    done: list[str] = []

    def guarded(name: str, real: object) -> object:
        def step(*arguments: object) -> object:
            if len(done) >= fails:
                raise OSError(28, "No space left on device")
            done.append(name)
            return real(*arguments)  # type: ignore[operator]

        return step

    monkeypatch.setattr(cursor_file.os, "fsync", guarded("fsync", os.fsync))
    monkeypatch.setattr(cursor_file.Path, "replace", guarded("replace", Path.replace))
    return done


@pytest.mark.rule("L-7")
@pytest.mark.parametrize(("fails", "held"), [(0, "41"), (1, "41"), (2, "42"), (3, "42")])
def test_wherever_saving_ends_the_file_has_the_old_cursor_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int, held: str
) -> None:
    path = tmp_path / "cursor"
    path.write_text("41\n")
    file = CursorFile(str(path))
    assert file.load() == "41"
    with monkeypatch.context() as patched:
        done = steps_that_can_fail(patched, fails)
        try:
            file.save("42")
        except OSError:
            assert fails < 3
        assert done == ["fsync", "replace", "fsync"][:fails]  # the file, its name, the name's folder
    assert CursorFile(str(path)).load() == held
    file.save("43")
    assert CursorFile(str(path)).load() == "43"


def test_a_link_to_the_file_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "cursor")
    file = CursorFile(str(tmp_path / "link"))
    assert file.load() is None
    file.save("7")
    assert (tmp_path / "cursor").read_text() == "7\n"


@pytest.mark.rule("L-1", "L-7")
@pytest.mark.parametrize("content", ["", "yesterday", "12\n13\n", "-1"])
def test_a_file_without_a_cursor_is_refused_and_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (tmp_path / "notes").write_text(content)
    assert main(["subscribe", "t", "--state", str(tmp_path / "notes")]) == 2
    assert "does not hold a cursor" in capsys.readouterr().err
    assert (tmp_path / "notes").read_text() == content


def test_a_file_that_could_not_be_written_is_refused_before_anything_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["subscribe", "t", "--state", str(tmp_path / "absent" / "cursor")]) == 2
    assert "No such file or directory" in capsys.readouterr().err


@pytest.mark.rule("L-1", "L-7")
def test_once_gives_up_when_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], unused_tcp_port: int
) -> None:
    monkeypatch.setattr(connection, "ONCE_PATIENCE_S", 0.0)
    assert main(["subscribe", "t", "--once", "--url", f"http://127.0.0.1:{unused_tcp_port}"]) == 3
    assert "cannot be reached" in capfd.readouterr().err


def test_the_wait_and_the_limit_are_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, object]] = []

    def refused(client: Client, topics: list[str], **options: object) -> None:
        given.append(options)
        raise NotifierClientError(400, "refused", "Refused.")

    monkeypatch.setattr(Client, "subscribe", refused)
    assert main(["subscribe", "t", "--wait", "7", "--limit", "5"]) == 1
    assert main(["subscribe", "t"]) == 1
    assert [(options["wait"], options["limit"]) for options in given] == [(7, 5), (None, 100)]


@pytest.mark.rule("L-1")
@pytest.mark.parametrize(
    "arguments",
    [["--limit", "1001"], ["--limit", "0"], ["--wait", "0"], ["--wait", "soon"], ["--last-each", "11"]],
)
def test_options_out_of_bounds_end_it_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["subscribe", "t", *arguments])
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.rule("L-1")
def test_an_argument_that_is_no_text_ends_it_with_2(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["subscribe", "\udcff"]) == 2
    assert main(["publish", "t", "1", "--title", "\udcff"]) == 2
    assert capfd.readouterr().err == "notifier: An argument is not text in UTF-8.\n" * 2
