"""What the manager of workers overrides and uses of gunicorn's Arbiter. When one of these fails, compare
web/workers/manager.py with the new gunicorn."""

import inspect
from importlib.metadata import version

from gunicorn import arbiter
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker as BaseWorker
from gunicorn.workers.workertmp import WorkerTmp

from notifier.web.workers import manager
from notifier.web.workers.manager import Child, Log, Manager
from notifier.web.workers.plan import Plan

OVERRIDDEN = {
    Manager: (
        Arbiter,
        {
            "init_signals": "(self)",
            "spawn_worker": "(self)",
            "manage_workers": "(self)",
            "stop": "(self, graceful=True)",
            "kill_worker": "(self, pid, sig)",
            "handle_usr1": "(self)",
            "handle_hup": "(self)",
        },
    ),
    Child: (BaseWorker, {"init_process": "(self)"}),
    Plan: (BaseApplication, {"load_config": "(self)"}),
    Log: (Logger, {"setup": "(self, cfg)"}),
}


def source(thing: object) -> str:
    return " ".join(inspect.getsource(thing).split())


def test_gunicorn_is_of_the_release_that_was_read() -> None:
    assert version("gunicorn").startswith("27."), "read notifier/web/workers, then allow the new release here"


def test_what_is_overridden_is_there_and_takes_what_it_took() -> None:
    for ours, (theirs, methods) in OVERRIDDEN.items():
        shared = {
            name
            for name, thing in vars(ours).items()
            if inspect.isfunction(thing) and hasattr(theirs, name) and name != "__init__"
        }
        assert shared == methods.keys(), ours
        for name, signature in methods.items():
            assert str(inspect.signature(getattr(theirs, name))) == signature, (theirs, name)


def test_the_arbiter_calls_what_is_overridden() -> None:
    run = source(Arbiter.run)
    assert "self.start()" in run
    assert "self.manage_workers()" in run
    assert "except (StopIteration, KeyboardInterrupt): self.halt()" in run
    assert "self.init_signals()" in source(Arbiter.start)
    assert "self.stop()" in source(Arbiter.halt)
    assert "self.kill_worker(" in source(Arbiter.kill_workers)
    assert "self.kill_workers(" in source(Arbiter.stop)
    assert 'getattr(self, "handle_%s" % signame' in run or 'getattr(self, "handle_%s"' in run


def test_a_worker_gets_its_slot_before_it_is_forked_and_ends_by_system_exit() -> None:
    spawn = source(Arbiter.spawn_worker)
    hook, fork, init = (
        spawn.index(part) for part in ("self.cfg.pre_fork(self, worker)", "os.fork()", ".init_process()")
    )
    assert hook < fork < init
    assert "sys.exit(" in spawn
    assert "self.WORKERS[pid] = worker" in spawn
    assert "return pid" in spawn
    reap = source(Arbiter.reap_workers)
    assert "self.cfg.child_exit(self, worker)" in reap
    assert "exitcode == self.WORKER_BOOT_ERROR" in reap
    assert "exitcode == self.APP_LOAD_ERROR" in reap


def test_the_arbiter_has_the_state_that_the_manager_uses() -> None:
    made = source(Arbiter.__init__) + source(Arbiter.setup) + source(arbiter)
    for name in ("LISTENERS", "WORKERS", "SIGNALS"):
        assert hasattr(Arbiter, name), name
    assert isinstance(Arbiter.num_workers, property)
    assert "self.app = app" in made
    worker = source(BaseWorker.__init__)
    for name in ("self.age", "self.ppid", "self.app", "self.timeout", "self.tmp"):
        assert f"{name} = " in worker, name
    assert "def notify(self):" in source(BaseWorker)
    signs = source(WorkerTmp)
    assert "os.utime(self._tmp.fileno(), (new_time, new_time))" in signs
    assert "new_time = time.monotonic()" in signs


def test_every_setting_of_gunicorn_that_is_given_exists() -> None:
    config = Config()
    for name in manager._gunicorn():
        assert name in config.settings, name
