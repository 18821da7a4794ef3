"""The same behind nginx, which numbers each request and puts clients on connections as they come."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from bench import procs
from bench.figures import Figure, Measured, at_most
from bench.peers.serving import free_port, started
from bench.setup import Stage
from bench.sides import FEW, WARM_UPS, Crowd, FanOut, Side, crowd, ours, theirs

TITLE = "Behind nginx"
TEXT = (
    "Fan-out through nginx as a reverse proxy with keep-alive connections to the server, which adds an `X-Request-Id` "
    "to each request: so no request has the same bytes as the one before, and a client's next poll comes on any "
    "connection. CPU is the server's only."
)
WHERE = "clients"

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")

CONFIG = """\
daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {folder}/pid; error_log {folder}/error.log; {user}
events {{ worker_connections 19000; }}
http {{
    access_log off;
    {temporary}
    upstream server {{ server 127.0.0.1:{upstream}; keepalive {keepalive}; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /health {{ return 200; }}
        location / {{
            proxy_pass http://server;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Request-Id $request_id;
            proxy_read_timeout 60s;
        }}
    }}
}}
"""


@asynccontextmanager
async def proxied(side: Side, keepalive: int) -> AsyncIterator[tuple[Side, procs.Pids]]:
    """The same server at the port of a proxy, and the proxy's processes."""
    assert NGINX
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="notifier-bench-") as folder:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        config = Path(folder, "nginx.conf")
        config.write_text(
            CONFIG.format(
                folder=folder,
                port=port,
                upstream=side.port,
                keepalive=keepalive,
                user="user root;" if os.geteuid() == 0 else "",
                temporary="".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds),
            )
        )
        command = [NGINX, "-e", f"{folder}/error.log", "-p", folder, "-c", str(config)]
        async with started(command, port, Path(folder)) as served:
            yield replace(side, port=port, health="/health"), served.pids


async def measure(stage: Stage) -> Measured:
    count = stage.scale.clients[0]
    figures: list[Figure] = []
    failed = []
    if NGINX is None:
        return Measured([], "nginx is not here.")
    for peer in stage.some("aiohttp"):
        try:
            async with (
                ours(stage) as us,
                theirs(peer) as them,
                proxied(us, count) as (front, our_nginx),
                proxied(them, count) as (their_front, their_nginx),
                crowd(front) as mine,
                crowd(their_front) as others,
            ):
                both = ((mine, our_nginx), (others, their_nginx))
                for each, _ in both:
                    await each.park(FEW)
                    await each.park(count)
                for _ in range(WARM_UPS):
                    for each, _ in both:
                        await each.fan_out()
                rounds = [[await _fan_out(*each) for each in both] for _ in range(stage.scale.pairs)]
        except (RuntimeError, TimeoutError) as error:
            failed.append(f"{peer.name}: {error or 'took too long'}")
            continue
        void = [*mine.void, *others.void]
        left, right = zip(*rounds, strict=True)
        where = f"{count:,}"
        figures += [
            Figure(
                "CPU per delivery behind nginx",
                where,
                "µs",
                [fan.cpu_us for fan, _ in left],
                [fan.cpu_us for fan, _ in right],
                at_most(0.35),
                void,
                at_most(0.5),
                peer.name,
            ),
            Figure(
                "nginx' own CPU per delivery, beside",
                where,
                "µs",
                [nginx for _, nginx in left],
                [nginx for _, nginx in right],
                void=void,
                peer=peer.name,
            ),
        ]
    return Measured(figures, failed=failed)


async def _fan_out(each: Crowd, nginx: procs.Pids) -> tuple[FanOut, float]:
    """And nginx' CPU in µs for each delivery. It is quiet when the server is, for all have polled again then."""
    before = procs.cpu_s(nginx())
    fan = await each.fan_out()
    await procs.quiet(nginx)
    return fan, (procs.cpu_s(nginx()) - before) / each.count * 1e6
