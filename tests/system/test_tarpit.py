"""The tarpit works: it shows what it says, and leaves nothing behind."""

import signal
import subprocess
import sys
from collections.abc import Callable

import psutil
import pytest
from conftest import ROOT

from bench.peers.python import PYTHON
from bench.peers.ruby import RUBY
from bench.peers.serving import runs

pytestmark = pytest.mark.all

# Bounds a hang; twenty seconds are usual.
TARPIT_S = 120.0


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    PYTHON.install()
    RUBY.install()


class Tarpit:
    """A run of it. `started` are the processes that were seen below it."""

    def __init__(self, clients: int) -> None:
        self.started: set[psutil.Process] = set()
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.tarpit", "--clients", str(clients)],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def read(self, enough: Callable[[str], bool] = lambda _: False) -> None:
        """Until a line is enough, or the end."""
        assert self._process.stdout
        for line in self._process.stdout:
            self.lines.append(line.rstrip())
            self.started |= set(psutil.Process(self._process.pid).children(recursive=True))
            if enough(line):
                return

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Its exit code, and what it complained of."""
        try:
            _, errors = self._process.communicate(timeout=TARPIT_S)
        finally:
            self._process.kill()
        return self._process.returncode, errors


def test_waiting_clients_stop_servers_with_workers_and_not_ours() -> None:
    tarpit = Tarpit(clients=500)
    tarpit.read()
    code, errors = tarpit.end()
    assert (code, errors) == (0, "")
    for line in (
        "Flask: 4 waiting clients stop it.",
        "Django: 4 waiting clients stop it.",
        "Flask on uWSGI: 4 waiting clients stop it.",
        "Rails: 5 waiting clients stop it.",
        "Notifier: 500 waiting clients do not.",
    ):
        assert line in tarpit.lines
    assert len(tarpit.started) > 10  # workers, Postgres, a server, the crowd, ...
    assert not any(runs(process) for process in tarpit.started)


@pytest.mark.parametrize("at", ["Flask,", "Nobody waits", "Notifier,"])
def test_an_interrupted_tarpit_ends_what_it_has_started(at: str) -> None:
    tarpit = Tarpit(clients=500)
    tarpit.read(lambda line: at in line)
    tarpit.interrupt()
    tarpit.read()
    code, errors = tarpit.end()
    assert (code, errors) == (130, "")
    assert not any(runs(process) for process in tarpit.started)
