"""Many processes that start: which of their deaths ends all, and which does not."""

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from support.by_hand import ask
from support.workers import Workers, put_away

# Each takes a second or more to start.
MOST = 1

# `notifier serve`, of which the worker in slot {slot} does {what} before it serves, while the file `left` counts.
SPOILT = """
import json, os, signal, sys
from pathlib import Path
from notifier.cli import main
from notifier.web.workers import manager, worker

manager.FIRST_PAUSE_S = manager.LAST_PAUSE_S = 0.01
manager.MAX_KILLED = {most}
left = Path("left")

def spoil():
    if left.exists() and (number := int(left.read_text())):
        left.write_text(str(number - 1))
        {what}

if json.loads(os.environ.get("NOTIFIER_WORKER", "{{}}")).get("slot") == {slot}:
    {when}
sys.exit(main(["serve"]))
"""
# Bounds a hang: a worker takes a second to begin, more on a busy machine, and a stop three.
ALL_S = 120

KILL = "os.kill(os.getpid(), signal.SIGKILL)"
AT_ONCE = "spoil()"
# Before its parent hears of it.
ONCE_READY = "tell = worker.tell_state; worker.tell_state = lambda *state: (tell(*state), spoil())"


@pytest_asyncio.fixture
async def workers(database: str, tmp_path: Path) -> AsyncIterator[Workers]:
    """Two workers on the test's database, not yet started."""
    server = Workers(database, tmp_path, 2)
    yield server
    await put_away(server)


def spoilt(workers: Workers, times: int, slot: int, when: str = AT_ONCE, what: str = KILL) -> tuple[str, str]:
    (workers.log.parent / "left").write_text(str(times))
    return "-c", SPOILT.format(most=MOST, slot=slot, when=when, what=what)


@pytest.mark.parametrize("when", [AT_ONCE, ONCE_READY], ids=["at once", "when it is ready"])
@pytest.mark.rule("D-6")
async def test_a_worker_that_is_killed_while_others_start_is_replaced(workers: Workers, when: str) -> None:
    await workers.start(spoilt(workers, MOST, 2, when), ALL_S)
    assert workers.said().count("was sent SIGKILL") == MOST
    for pid in workers.pids():
        await workers.client_of(pid)
    assert (await ask(workers, "POST", "/v1/topics/orders", "1"))[0] == 201


def ended(workers: Workers, how: tuple[str, str], code: int) -> str:
    """What is said when all end with this code."""
    command = [sys.executable, *how]
    done = subprocess.run(
        command, env=workers.env, cwd=workers.log.parent, text=True, capture_output=True, timeout=ALL_S, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert "Traceback" not in said
    assert "notifier serves on" not in said
    return said


@pytest.mark.rule("D-6")
def test_one_that_is_killed_too_often_ends_all(workers: Workers) -> None:
    said = ended(workers, spoilt(workers, MOST + 1, 2), 1)
    assert said.count("was sent SIGKILL") == MOST + 1
    assert said.count(" stopped\n") >= 1  # the others, in order


@pytest.mark.rule("D-6")
def test_where_none_serves_the_first_death_ends_all(workers: Workers) -> None:
    assert ended(workers, spoilt(workers, 2, 1), 1).count("was sent SIGKILL") == 1


@pytest.mark.rule("D-6")
def test_one_that_says_why_it_cannot_start_ends_all(workers: Workers) -> None:
    misspelt = 'os.environ["NOTIFIER_POLICY"] = "public.no_such_function"'
    assert ended(workers, spoilt(workers, 1, 2, what=misspelt), 2).count("cannot start") == 1
