"""A short run of the chaos, and one that must notice what is wrong."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

COMMAND = [sys.executable, "-m", "chaos"]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}
# It bounds a hang: a run has bounds of its own.
DEADLINE_S = 400.0


def chaos(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *options], env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


@pytest.mark.all
def test_nothing_is_wrong_whatever_breaks() -> None:
    ended = chaos("--seconds", "40")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "\n0 wrong" in ended.stdout


@pytest.mark.all
@pytest.mark.parametrize("how", ["skip", "repeat", "swap"])
def test_one_wrong_answer_is_noticed(how: str) -> None:
    """A client changes one answer before it is looked at."""
    ended = chaos("--seconds", "30", "--only", "kill_worker", "--tamper", how)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "WRONG: " in ended.stdout


@pytest.mark.all
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_nothing_stays_behind_when_it_is_interrupted(how: signal.Signals) -> None:
    with subprocess.Popen(COMMAND, env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        folder = Path(run.stdout.readline().split()[-1])
        for line in run.stdout:
            if line.endswith((" kill_worker\n", " kill_single\n", " crash\n", " fail_over\n", " retention\n")):
                break
        started = psutil.Process(run.pid).children(recursive=True)
        assert started
        run.send_signal(how)
        run.communicate(timeout=DEADLINE_S)
    assert run.returncode == 128 + how
    _, alive = psutil.wait_procs(started, 10)
    assert not alive
    assert not folder.exists()
