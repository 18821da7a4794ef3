"""Many processes behind one port: gunicorn starts, watches, replaces and stops them.

Each worker has a slot, and the slot a listener. All listeners are bound to one address with SO_REUSEPORT, so the kernel
distributes new connections evenly, by a hash; from one shared listener, the worker that wakes first would take all that
wait. The parent keeps the listeners open: the successor of a worker that died gets its slot and accepts the connections
that waited there. (macOS gives nearly all connections to one listener of such a group: it works there, but unevenly.)

A worker is the same program, executed again: it gets its place (`place`) from the parent, and runs the code that is
installed when it starts. So SIGHUP, which replaces the workers one by one, brings a new version into service. The
parent loads little, and keeps what it has loaded.

Without DATABASE_URL one more process, in slot 0, runs the embedded database, and is the last to stop.
"""
