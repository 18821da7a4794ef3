"""What the processes share."""

import os
import socket
from collections.abc import Mapping, Sequence

from gunicorn.app.base import BaseApplication

from notifier.settings import Settings
from notifier.web.listeners import bound
from notifier.web.workers.place import KEEPER


class Plan(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """What the processes have in common: gunicorn's configuration, our settings, the slots."""

    def __init__(
        self,
        settings: Settings,
        listeners: Sequence[list[socket.socket]],
        gunicorn: Mapping[str, object],
        variable: str,
    ) -> None:
        self.gunicorn = gunicorn
        self.settings = settings
        self.variable = variable  # in the environment of each process: its place
        self.listeners = dict(enumerate(listeners, KEEPER + 1))
        self.slots = list(self.listeners)
        if settings.database_url is None:
            self.slots.insert(0, KEEPER)
        # All processes except the keeper hold the writing end: it breaks when the last of them is gone, for any reason.
        self.reading, self.lifeline = os.pipe()
        super().__init__(prog="notifier")

    def all_listeners(self) -> list[socket.socket]:
        # Those that were handed over are all slots', and must not be closed twice.
        return list({sock for sockets in self.listeners.values() for sock in sockets})

    def renew(self, slot: int) -> None:
        """Stop listening for this slot until it has a worker."""
        if self.settings.listen_fds:
            return  # one for all, which the platform keeps
        for number, sock in enumerate(self.listeners.get(slot, [])):
            self.listeners[slot][number] = bound(sock.family, sock.getsockname(), shared=True)
            sock.close()

    def load_config(self) -> None:
        for name, value in self.gunicorn.items():
            self.cfg.set(name, value)
