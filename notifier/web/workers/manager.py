"""The parent of the workers."""

import logging
import os
import signal
import sys
import time

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from notifier.settings import Settings
from notifier.web import run
from notifier.web.workers.listeners import bind
from notifier.web.workers.plan import READY, STARTING, Plan
from notifier.web.workers.worker import Worker

log = logging.getLogger(__name__)

# An event loop that has not turned for so long hangs: the longest known turns take some tenths of a second, and a
# worker that starts keeps turning while it waits for its database.
TIMEOUT_S = 30
# A stop of one process takes 10 s at most.
STOP_S = 12
# A worker that fails as soon as it starts is tried again after this, and then after twice as long each time.
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 30.0


def manage(settings: Settings) -> int:
    """Serve with `settings.processes` workers until SIGTERM or SIGINT. The exit code, as of one process; OSError when
    the address is not available."""
    manager = Manager(Plan(settings, bind(settings.host, settings.port, settings.processes), _gunicorn()))
    try:
        manager.run()
    except SystemExit as end:
        # From here on a signal must not make an ordered stop look like a kill.
        for number in Manager.SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        return manager.code or int(end.code or 0)
    raise AssertionError("gunicorn ends by SystemExit")


class Log(Logger):  # type: ignore[misc]
    """gunicorn's warnings, among ours."""

    def setup(self, _: object) -> None:
        self.error_log.setLevel(logging.WARNING)
        self.error_log.propagate = True


class Manager(Arbiter):  # type: ignore[misc]
    """The parent. It starts one worker, and the others once that one is ready, so that an error that keeps all of them
    from starting is reported once. Until all have been ready, a failure ends everything. Later a worker that cannot
    start is tried again, whatever the reason, while the others serve on."""

    # USR1 comes from workers that are ready. Changing their number (TTIN, TTOU) would leave a listener unserved.
    SIGNALS = (*run.STOPS, signal.SIGUSR1)
    IGNORED = (signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2)

    app: Plan
    num_workers: int

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.LISTENERS = plan.all_listeners()
        self.code = 0
        self._port: int = self.LISTENERS[0].getsockname()[1]
        self._served = False
        self._stopping = False
        self._not_before = 0.0
        self._pause_s = FIRST_PAUSE_S

    def init_signals(self) -> None:
        super().init_signals()
        for number in self.IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def choose_slot(self, worker: Worker) -> None:
        taken = {other.slot for other in self.WORKERS.values()}
        worker.slot = next(slot for slot in self.app.slots if slot not in taken)
        self.app.states[worker.slot] = STARTING

    def spawn_worker(self) -> None:
        # A stop that came before the worker has its handlers would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, run.STOPS)
        try:
            super().spawn_worker()
        except SystemExit as end:
            # The worker ends here: the frames below are the parent's, and must not run in this process.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)
        except OSError as error:
            log.critical("no worker can be started: %s", error)
            self._failed()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, run.STOPS)

    def manage_workers(self) -> None:
        if time.monotonic() >= self._not_before:
            super().manage_workers()

    def handle_usr1(self) -> None:
        """A worker is ready."""
        ready = sum(self.app.states[slot] == READY for slot in self.app.slots)
        # The second may be the first that serves: the one before it keeps the database.
        self.num_workers = max(self.num_workers, min(2 * ready, len(self.app.slots)))
        if ready == len(self.app.slots):
            self._pause_s = FIRST_PAUSE_S
            if not self._served:
                self._served = True
                run.greet(self.app.settings, self._port)

    def missed(self, worker: Worker) -> None:
        """A worker has ended."""
        if self._stopping:
            return
        state = self.app.states[worker.slot]
        if state == READY and self._served:
            log.warning("worker %d (pid %s) has ended: another one takes its place", worker.slot, worker.pid)
        else:
            self._failed(0 if state == READY else state)
            # No process accepts connections on this slot, perhaps for long: leave them to the others, which do listen.
            self.app.renew(worker.slot)
            self.LISTENERS = self.app.all_listeners()

    def _failed(self, code: int = 0) -> None:
        """A worker could not start and ended with this exit code; 0: without one of ours."""
        if not self._served:
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
        "worker_class": Worker,
        "logger_class": Log,
        "timeout": TIMEOUT_S,
        "graceful_timeout": STOP_S,
        # The sign of life is a file's time; on a disk, touching it can take as long as the disk likes.
        "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # noqa: S108
        "control_socket_disable": True,
        "pre_fork": Manager.choose_slot,
        "child_exit": Manager.missed,
    }
