"""Many processes behind one port: gunicorn starts them, watches them, puts others in their place, and stops them.

Each worker has a slot, and the slot a listener. All listeners are bound to one address with SO_REUSEPORT, so the kernel
deals new connections out by a hash, evenly; from one listener that all share, whoever wakes first takes all that wait.
The parent keeps the listeners open: who comes after a worker that died has its slot, and takes what has waited there.
(macOS gives nearly all connections to one listener of such a group: there it works, and spreads nothing.)

Without DATABASE_URL one more process, in slot 0, keeps the embedded database, and is the last to go.
"""

from notifier.web.workers.manager import manage

__all__ = ["manage"]
