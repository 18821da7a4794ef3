"""notifier serve"""

import argparse
import os
from typing import TYPE_CHECKING

from notifier.cli.database import with_settings

if TYPE_CHECKING:
    from notifier.settings import Settings

# Tells a process that it is a worker, and all that its parent has for it.
WORKER = "NOTIFIER_WORKER"


def serve(_: argparse.Namespace) -> int:
    place = os.environ.pop(WORKER, None)
    return with_settings(_start if place is None else lambda settings: _work(settings, place))


def _start(settings: "Settings") -> int:
    from notifier.web import process

    def work() -> int:
        from notifier.web.listeners import listen

        # First of all, because connections wait there.
        located, listeners = listen(settings)
        if located.processes == 1:
            from notifier.web import run

            return run.serve(located, listeners[0])
        from notifier.web.workers.manager import manage

        return manage(located, listeners, WORKER)

    return process.start(work)


def _work(settings: "Settings", place: str) -> int:
    from notifier.web.workers.worker import work

    return work(settings, place)
