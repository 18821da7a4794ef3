"""What the processes share."""

import mmap
import os
import socket
from collections.abc import Mapping, Sequence

from gunicorn.app.base import BaseApplication

from notifier.settings import Settings
from notifier.web.workers.listeners import bound

# The slot of the process that keeps the embedded database.
KEEPER = 0

# The state of a slot: one of these, or the exit code of a process that could not start there (1 to 3).
STARTING, READY = 0, 255


class Plan(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """What the processes have in common: gunicorn's configuration, our settings, the slots."""

    def __init__(
        self, settings: Settings, listeners: Sequence[list[socket.socket]], gunicorn: Mapping[str, object]
    ) -> None:
        self.gunicorn = gunicorn
        self.settings = settings
        self.listeners = dict(enumerate(listeners, KEEPER + 1))
        self.slots = list(self.listeners)
        if settings.database_url is None:
            self.slots.insert(0, KEEPER)
        self.states = mmap.mmap(-1, len(listeners) + 1)  # a byte for each slot, shared with the workers
        # All processes except the keeper hold the writing end: it breaks when the last of them is gone, for any reason.
        self.reading, self.lifeline = os.pipe()
        super().__init__(prog="notifier")

    def all_listeners(self) -> list[socket.socket]:
        return [sock for sockets in self.listeners.values() for sock in sockets]

    def renew(self, slot: int) -> None:
        """Stop listening for this slot until it has a worker."""
        for number, sock in enumerate(self.listeners.get(slot, [])):
            self.listeners[slot][number] = bound(sock.family, sock.getsockname(), shared=True)
            sock.close()

    def load_config(self) -> None:
        for name, value in self.gunicorn.items():
            self.cfg.set(name, value)
