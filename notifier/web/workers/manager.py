"""The parent of the workers."""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.util import getcwd
from gunicorn.workers.base import Worker as BaseWorker

from notifier.settings import Settings
from notifier.web.process import RETIRE, STOPS, greet, on_terminal
from notifier.web.workers.place import KEEPER, READY, STARTING, Place, state_of
from notifier.web.workers.plan import Plan

log = logging.getLogger(__name__)

# An event loop that has not turned for so long hangs: the longest known turns take some tenths of a second, and a
# worker that starts keeps turning while it waits for its database.
TIMEOUT_S = 30
# Beside it, a worker that starts may take this to load its modules, from a slow disk for instance.
LOAD_S = 30
# A stop of one process takes 10 s at most.
STOP_S = 12
# Where the program was started, as its user named it.
HERE = getcwd()
# A worker that fails as soon as it starts is tried again after this, and then after twice as long each time.
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 30.0
# Of the workers, until all have been ready once, so many may be killed while others serve: a machine that is short of
# memory takes one, and then has enough. More would say that it never has.
MAX_KILLED = 4


def manage(settings: Settings, listeners: Sequence[list[socket.socket]], variable: str) -> int:
    """Serve with `settings.processes` workers, one on each of `listeners`, until SIGTERM or SIGINT. The exit code, as
    of one process. Each worker is this program again, with `variable` in its environment."""
    manager = Manager(Plan(settings, listeners, _gunicorn(), variable))
    try:
        manager.run()
    except SystemExit as end:
        # From here on a signal must not make an ordered stop look like a kill.
        for number in Manager.SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        return manager.code or int(end.code or 0)
    raise AssertionError("gunicorn ends by SystemExit")


class Child(BaseWorker):  # type: ignore[misc]
    """A worker, as the parent sees it. Forked, it becomes a program of its own, so it runs the code that is installed
    when it starts."""

    slot: int
    app: Plan

    def __init__(self, *args: Any) -> None:  # noqa: ANN401
        super().__init__(*args)
        self._sign = os.dup(self.tmp.fileno())  # gunicorn closes the other one before it tells that the worker ended

    def init_process(self) -> None:
        """In the forked process."""
        slot = self.slot
        place = Place(
            slot=slot,
            parent=self.ppid,
            timeout=self.timeout,
            sign=self.tmp.fileno(),
            listeners=tuple(sock.fileno() for sock in self.app.listeners.get(slot, [])),
            pipe=self.app.reading if slot == KEEPER else self.app.lifeline,
        )
        place.inherit()
        loaded_by = time.monotonic() + LOAD_S
        os.utime(place.sign, (loaded_by, loaded_by))  # the first sign of life
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
        with suppress(OSError):
            os.chdir(HERE)  # which may be a symbolic link to another release by now
        arguments = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, arguments, os.environ | {self.app.variable: str(place)})  # noqa: S606

    @property
    def state(self) -> int:
        return state_of(self._sign)

    def end(self) -> int:
        """Its last state."""
        state = self.state
        os.close(self._sign)
        return state


class Log(Logger):  # type: ignore[misc]
    """gunicorn's warnings, among ours."""

    def setup(self, _: object) -> None:
        self.error_log.setLevel(logging.WARNING)
        self.error_log.propagate = True


class Manager(Arbiter):  # type: ignore[misc]
    """The parent. It starts one worker, and the others once that one is ready, so that an error that keeps all of them
    from starting is reported once. Until all have been ready, a worker that says why it cannot start ends everything;
    one that is killed is tried again, a few times, if another one serves. Later a worker that cannot start is tried
    again, whatever the reason, while the others serve on.

    SIGHUP replaces the workers, one by one. A successor starts on the listeners of its slot; when it is ready, the one
    before it accepts no more, finishes what it has, and ends. When a successor cannot start, nothing more is replaced.
    """

    # USR1 comes from workers that are ready. Changing their number (TTIN, TTOU) would leave a listener unserved.
    SIGNALS = (*STOPS, signal.SIGUSR1, signal.SIGHUP)
    IGNORED = (signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2)

    # No exit code of a worker ends the parent.
    WORKER_BOOT_ERROR = APP_LOAD_ERROR = -1

    app: Plan
    num_workers: int

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.LISTENERS = plan.all_listeners()
        self.code = 0
        self._port: int = self.LISTENERS[0].getsockname()[1]
        self._served = False
        self._stopping = False
        self._killed = 0
        self._not_before = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._terminal = on_terminal()
        self._next_slot = KEEPER  # of the worker that is started next
        self._stale: list[Child] = []  # to be replaced
        self._successor: Child | None = None  # starts beside the first of these
        self._retiring: Child | None = None

    def init_signals(self) -> None:
        super().init_signals()
        for number in self.IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def choose_slot(self, worker: Child) -> None:
        worker.slot = self._next_slot

    def spawn_worker(self) -> int | None:
        # A stop that came before the worker has its handlers would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            return super().spawn_worker()  # type: ignore[no-any-return]
        except SystemExit as end:
            # The worker ends here: the frames below are the parent's, and must not run in this process.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        except OSError as error:
            log.critical("no worker can be started: %s", error)
            self._failed()
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    def manage_workers(self) -> None:
        if time.monotonic() < self._not_before:
            return
        taken = {worker.slot for worker in self.WORKERS.values() if worker is not self._retiring}
        for slot in self.app.slots[: self.num_workers]:
            if slot not in taken:
                self._spawn(slot)
        if self._served:
            self._replace()

    def _spawn(self, slot: int) -> Child | None:
        self._next_slot = slot
        worker: Child | None = self.WORKERS.get(self.spawn_worker())
        return worker

    def handle_usr1(self) -> None:
        """A worker is ready."""
        ready = {worker.slot for worker in self.WORKERS.values() if worker.state == READY}
        # The second may be the first that serves: the one before it keeps the database.
        self.num_workers = max(self.num_workers, len(self.app.slots) if ready - {KEEPER} else 2)
        if len(ready) == len(self.app.slots):
            self._pause_s = FIRST_PAUSE_S
            if not self._served:
                self._served = True
                greet(self.app.settings, self._port)

    def handle_hup(self) -> None:
        if self._terminal and not on_terminal():
            self.handle_int()  # the terminal was closed
        log.info("SIGHUP: the workers are replaced one by one")
        # The keeper stays: without it, all would lose their database.
        self._stale = [
            worker
            for worker in self.WORKERS.values()
            if worker.slot != KEEPER and worker not in (self._retiring, self._successor)
        ]
        if self._successor:
            self._stale.append(self._successor)  # what it has loaded may be older than the signal

    def _replace(self) -> None:
        """One step: the successor's start, or the end of the one before it."""
        if self._retiring or (self._successor and self._successor.state == STARTING):
            return
        living = self.WORKERS.values()
        if self._successor:
            successor, self._successor = self._successor, None
            log.info("worker %d (pid %s) serves", successor.slot, successor.pid)
            for worker in living:
                if worker.slot == successor.slot and worker is not successor:
                    self._retiring = worker
                    self._stale = [each for each in self._stale if each is not worker]
                    self.kill_worker(worker.pid, RETIRE)
                    return
        self._stale = [worker for worker in self._stale if worker in living]
        # One that starts itself may yet fail, and its slot then gets other listeners.
        if ready := [worker for worker in self._stale if worker.state == READY]:
            self._successor = self._spawn(ready[0].slot)

    def missed(self, worker: Child) -> None:
        """A worker has ended."""
        state = worker.end()
        if self._stopping:
            return
        if worker is self._retiring:
            self._retiring = None
        elif worker is self._successor:
            self._successor = None
            self._stale = []
            log.error("worker %d cannot be replaced: the one before it serves on", worker.slot)
        elif state == READY and self._served:
            log.warning("worker %d (pid %s) has ended: another one takes its place", worker.slot, worker.pid)
        elif state == READY:
            self._failed()
        else:
            self._failed(state)
            # No process accepts connections on this slot, perhaps for long: leave them to the others, which do listen.
            self.app.renew(worker.slot)
            self.LISTENERS = self.app.all_listeners()

    def _failed(self, code: int = 0) -> None:
        """A worker could not start and ended with this exit code; 0: without one of ours, as when it is killed."""
        if not self._served:
            self._killed += 1
            serves = any(worker.slot != KEEPER and worker.state == READY for worker in self.WORKERS.values())
            if code or not serves or self._killed > MAX_KILLED:
                self.code = code or 1
                raise StopIteration  # ends the main loop, and stops the others in order
        self._not_before = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)

    def stop(self, graceful: bool = True) -> None:
        if not self._stopping:
            self._stopping = True
            os.close(self.app.lifeline)
        super().stop(graceful)

    def kill_worker(self, pid: int, sig: int) -> None:
        super().kill_worker(pid, signal.SIGINT if sig == signal.SIGQUIT else sig)


def _gunicorn() -> dict[str, object]:
    """gunicorn's settings."""
    return {
        "workers": 1,
        "worker_class": Child,
        "logger_class": Log,
        "timeout": TIMEOUT_S,
        "graceful_timeout": STOP_S,
        # The sign of life is a file's time; on a disk, touching it can take as long as the disk likes.
        "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # noqa: S108
        "control_socket_disable": True,
        "pre_fork": Manager.choose_slot,
        "child_exit": Manager.missed,
    }
