"""What Notifier is measured beside: the same long-polling, each the way its users would write it.

The dialect "plain", which those that are written by hand speak:

    GET  /poll/<topic>?after=<n>   200 {"cursor": "<n>", "messages": [{"id": "<n>", "data": <the JSON published>}, ...]}
                                   waits until the topic has a message above <n>; after 25 s an empty list and <n>
    POST /publish/<topic>          201, JSON body
    GET  /health                   200

The newest 100 messages of each topic are in memory; numbers count up over all topics of a process. One process each.
"""

from collections.abc import Sequence
from dataclasses import replace

from bench.peers.nginx import NGINX
from bench.peers.node import NODE
from bench.peers.peer import Peer, Served
from bench.peers.python import HYPERCORN, PYTHON, THIS, UVICORN, gunicorn
from bench.peers.serving import serving

# Each parked client has a thread of its own: more of them would show the scheduler, not the framework.
THREADED = 2_000
WSGI = gunicorn(threads=THREADED + 48)  # some are for those who publish, and ask for the health, meanwhile

PEERS = (
    Peer("node:http", "node", "plain", NODE, ("http.js",)),
    Peer("Express", "express", "plain", NODE, ("express.js",), ("express",)),
    Peer("FastAPI", "fastapi", "plain", PYTHON, (*UVICORN, "fastapi_app:app"), ("fastapi", "uvicorn")),
    Peer("aiohttp", "aiohttp", "plain", PYTHON, ("aiohttp_app",), ("aiohttp", "uvloop")),
    Peer(
        "Flask (gunicorn, threads)", "flask", "plain", PYTHON, (*WSGI, "flask_app:app"), ("flask", "gunicorn"), THREADED
    ),
    Peer("nchan", "nchan", "nchan", NGINX, ("nchan.conf",), ("libnginx-mod-nchan", "nginx")),
    Peer(
        "Django (gunicorn, threads)",
        "django",
        "plain",
        PYTHON,
        (*WSGI, "django_app:app"),
        ("django", "gunicorn"),
        THREADED,
    ),
    Peer(
        "Flask (Hypercorn)",
        "hypercorn",
        "plain",
        PYTHON,
        (*HYPERCORN, "hypercorn_app:app"),
        ("flask", "hypercorn"),
        THREADED,
    ),
    Peer("NestJS", "nest", "plain", NODE, ("nest.js",), ("@nestjs/core", "express")),
    Peer("Fastify", "fastify", "plain", NODE, ("fastify.js",), ("fastify",)),
    Peer("Socket.IO (polling)", "socketio", "socketio", NODE, ("socketio.js",), ("socket.io",)),
    Peer(
        "Durable Streams",
        "durable-streams",
        "durable-streams",
        NODE,
        ("durable-streams.js",),
        ("@durable-streams/server",),
    ),
)


def install() -> None:
    """Bring what the peers need; nothing where it is there already. Says which of them stay away, and why."""
    for runtime in dict.fromkeys(peer.runtime for peer in PEERS):
        try:
            runtime.install()
        except RuntimeError as error:
            left = [peer.name for peer in PEERS if peer.runtime is runtime and peer.missing()]
            print(f"left out: {', '.join(left) or 'nothing, but what is there is older'} ({error})", flush=True)


def proxy(port: int) -> Peer:
    """nginx in front of the server on `port`."""
    return Peer("nginx", "nginx", "plain", NGINX, ("proxy.conf", f"127.0.0.1:{port}"), ("nginx",))


def installed(wanted: Sequence[str]) -> list[Peer]:
    """The peers that can run here, of those that are wanted (all if none is named). What is missing is installed."""
    install()
    return [peer for peer in PEERS if (not wanted or peer.slug in wanted) and not peer.missing()]


def here() -> list[Peer]:
    """What a quick look has instead: one of them, on the Python that runs here. Nothing is installed."""
    return [replace(peer, runtime=THIS) for peer in PEERS if peer.slug == "aiohttp"]


__all__ = ["PEERS", "Peer", "Served", "here", "install", "installed", "proxy", "serving"]
