"""notifier serve"""

import argparse
from typing import TYPE_CHECKING

from notifier.cli.database import with_settings

if TYPE_CHECKING:
    from notifier.settings import Settings


def serve(_: argparse.Namespace) -> int:
    from notifier.web import run

    def in_processes(settings: "Settings") -> int:
        if settings.processes == 1:
            return run.serve(settings)
        from notifier.web.workers import manage

        return manage(settings)

    return with_settings(lambda settings: run.start(settings, in_processes))
