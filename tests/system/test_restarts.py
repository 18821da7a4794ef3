"""Restarts: nobody is refused, what is parked is answered, and a version that cannot start replaces none."""

import asyncio
import contextlib
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import termios
from asyncio import FIRST_COMPLETED
from collections.abc import AsyncIterator, Iterator
from fcntl import ioctl
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from conftest import DEADLINE_S, ROOT, Server, free_port, until
from support.by_hand import ask
from support.workers import Workers, put_away

from bench.restarts import HAND_OVER, SOURCE, Process, Reloadable, sending
from notifier.settings import Settings, SettingsError
from notifier.web import listeners

# A worker that has been replaced leaves when its last client does, however slow this machine is.
PATIENT = """
import sys
from notifier.cli import main
from notifier.web import run
run.NOTICE_S = run.STOP_S = 600
sys.exit(main(["serve"]))
"""


@pytest_asyncio.fixture
async def workers(database: str, tmp_path: Path) -> AsyncIterator[Workers]:
    """Two workers on the test's database, not yet started."""
    server = Workers(database, tmp_path, 2)
    yield server
    await put_away(server)


@pytest.mark.parametrize(
    "make",
    [
        Reloadable,
        lambda *where: Process(*where, handed_over=True, how=signal.SIGINT),
        lambda *where: Reloadable(*where, handed_over=True),
    ],
    ids=["SIGHUP", "LISTEN_FDS", "both"],
)
@pytest.mark.rule("H-5")
async def test_restarts_refuse_none_of_those_that_try_once(
    make: type[Process], database: str, sql: asyncpg.Connection, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    await sql.execute(SOURCE)
    port = free_port()
    server = make(database, port, tmp_path / "log")
    restarts = 1 if "both" in request.node.name else 3
    async with sending(server, f"http://127.0.0.1:{port}") as senders:
        for _ in range(restarts):
            had = len(senders.stored)
            await server.restart()
            await until(lambda: len(senders.stored) > had + 20)  # noqa: B023
    assert senders.failures == []
    assert "Traceback" not in server.said()


# The first request of a connection may come late, where nobody is refused meanwhile.
SLOW_SENDERS = """
import sys
from notifier.cli import main
from notifier.web import run
run.FIRST_REQUEST_S, run.FIRST_REQUEST_KEPT_S = 0, 600
sys.exit(main(["serve"]))
"""


@pytest.mark.rule("H-5")
async def test_a_sender_that_was_accepted_last_of_all_is_answered_before_a_kept_socket_changes_hands(
    database: str, tmp_path: Path
) -> None:
    server = Server(database, tmp_path / "log")
    with socket.create_server(("127.0.0.1", server.port)) as kept, server.log.open("wb") as log:
        serve = (sys.executable, "-c", HAND_OVER, str(kept.fileno()), sys.executable, "-c", SLOW_SENDERS)
        server.process = subprocess.Popen(
            serve, env=server.env, stdout=log, stderr=subprocess.STDOUT, pass_fds=[kept.fileno()]
        )
        try:
            await until(lambda: "notifier serves on" in server.log.read_text())
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            assert (await ask(server, "GET", "/readyz"))[0] == 200  # it came later, so the other one is accepted too
            server.process.send_signal(signal.SIGINT)
            await until(lambda: "stopping" in server.log.read_text())
            writer.write(b"POST /v1/topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1")
            assert await asyncio.wait_for(reader.readline(), DEADLINE_S) == b"HTTP/1.1 201 Created\r\n"
            writer.close()
            await until(lambda: server.process.poll() == 0)
        finally:
            server.close()


@pytest.mark.rule("H-5")
async def test_a_worker_that_is_replaced_answers_all_its_clients_and_stays_ready(workers: Workers) -> None:
    await workers.start(("-c", PATIENT))
    before = workers.pids()
    parked = [await workers.parked(pid) for pid in before]
    kept = {pid: await workers.client_of(pid) for pid in before}
    workers.process.send_signal(signal.SIGHUP)
    # One worker's polls are answered, and while it still has a client the other is left alone.
    waiting = [asyncio.create_task(each.answer()) for each in parked]
    [first], [other] = await asyncio.wait(waiting, return_when=FIRST_COMPLETED)
    other.cancel()
    status, headers, _ = first.result()
    assert (status, headers["connection"]) == (200, "close")
    assert set(before) < set(workers.pids())
    for client in kept.values():
        client.send("GET", "/readyz")
    answers = [await client.answer() for client in kept.values()]
    assert [status for status, _, _ in answers] == [200, 200]
    assert [headers.get("connection") for _, headers, _ in answers].count("close") == 1


async def test_new_workers_run_the_new_code_and_one_that_cannot_start_replaces_none(
    workers: Workers, tmp_path: Path
) -> None:
    for folder in ("notifier", "sql", "static", "templates"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    health = tmp_path / "notifier" / "web" / "health.py"
    code = health.read_text()
    workers.env |= {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    await workers.start()
    pids = workers.pids()

    health.write_text(f"{code}\nraise RuntimeError('broken')\n")
    workers.process.send_signal(signal.SIGHUP)
    await until(lambda: "worker 1 cannot be replaced" in workers.said())
    assert workers.pids() == pids
    for _ in range(8):
        assert (await ask(workers, "GET", "/healthz")) == (200, b"ok\n")

    health.write_text(code.replace('"ok\\n"', '"new\\n"'))
    workers.process.send_signal(signal.SIGHUP)
    await until(lambda: len(workers.pids()) == 2 and not set(workers.pids()) & set(pids))
    for _ in range(8):
        assert (await ask(workers, "GET", "/healthz")) == (200, b"new\n")
    workers.process.send_signal(signal.SIGINT)
    assert await workers.ended() == 0


@contextlib.contextmanager
def on_a_terminal(server: Server) -> Iterator[int]:
    """`notifier serve` as in a terminal, whose end is given."""
    ours, theirs = pty.openpty()
    with server.log.open("wb") as log:
        server.process = subprocess.Popen(
            [sys.executable, "-m", "notifier", "serve"],
            env=server.env,
            stdin=theirs,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
        )
    os.close(theirs)
    try:
        yield ours
    finally:
        with contextlib.suppress(OSError):
            os.close(ours)
        server.close()


@pytest.mark.parametrize("count", ["1", "2"])
async def test_a_terminal_that_is_closed_stops_the_server(count: str, database: str, tmp_path: Path) -> None:
    server = Server(database, tmp_path / "log")
    server.env["WEB_CONCURRENCY"] = count
    with on_a_terminal(server) as terminal:
        await until(lambda: "notifier serves on" in server.log.read_text())
        os.close(terminal)
        await until(lambda: server.process.poll() is not None)
        assert server.process.returncode == 0
    assert server.log.read_text().count(" stopped\n") == int(count)


async def test_sighup_without_workers_changes_nothing(server: Server) -> None:
    server.process.send_signal(signal.SIGHUP)
    await until(lambda: "SIGHUP replaces workers" in server.log.read_text())
    assert (await ask(server, "GET", "/readyz"))[0] == 200


def test_connections_wait_from_the_beginning() -> None:
    settings, slots = listeners.listen(Settings(port=0, processes=2))
    port = slots[0][0].getsockname()[1]
    for _ in range(20):  # none may be given to the one that has no process yet
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S).close()
    for sock in (*slots[0], *slots[1]):
        sock.close()
    assert settings.processes == 2


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket, which is taken as what the platform hands over."""
    with socket.socket() as sock:
        monkeypatch.setattr(listeners, "FIRST_HANDED_OVER", os.dup(sock.fileno()))
        yield sock


def test_a_socket_that_was_handed_over_is_as_exposed_as_its_address(handed_over: socket.socket) -> None:
    handed_over.bind(("0.0.0.0", 0))
    handed_over.listen()
    with pytest.raises(SettingsError, match="NOTIFIER_ADMIN_KEY"):
        listeners.listen(Settings(listen_fds=1))


def test_what_was_handed_over_must_listen(handed_over: socket.socket) -> None:
    with pytest.raises(OSError, match="is not a TCP socket that listens"):
        listeners.listen(Settings(listen_fds=1))
    os.close(listeners.FIRST_HANDED_OVER)
    with pytest.raises(OSError, match="is not a socket"):
        listeners.listen(Settings(listen_fds=1))


def test_what_was_handed_over_to_another_process_is_left_alone() -> None:
    assert Settings.from_env({"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}).listen_fds == 1
    assert Settings.from_env({"LISTEN_FDS": "1", "LISTEN_PID": "1"}).listen_fds == 0
    assert Settings.from_env({"LISTEN_FDS": "1"}).listen_fds == 0
