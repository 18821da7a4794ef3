"""Is it the server that is measured, and not the crowd?"""

from statistics import median

from bench import procs
from bench.figures import Figure, Measured, at_most
from bench.server import BLIND, running
from bench.setup import Stage
from bench.sides import WARM_UPS, Side, crowd

TITLE = "The crowd itself"
TEXT = (
    "The crowd against a bare protocol that reads nothing and has one fixed answer for all: the least that could hold "
    "it. No server can be faster to all than that on this machine."
)
WHERE = "clients"


async def measure(stage: Stage) -> Measured:
    figures = []
    notes = []
    async with running(BLIND) as server:
        side = Side("The bare protocol", "plain", server.port, lambda: procs.family(server.pid))
        async with crowd(side) as clients:
            for count in stage.scale.clients:
                await clients.park(count)
                for _ in range(WARM_UPS):
                    await clients.fan_out()
                fans = [await clients.fan_out() for _ in range(stage.scale.pairs)]
                where = f"{count:,}"
                rows = (
                    ("the crowd's CPU per delivery", "µs", [fan.crowd_us for fan in fans], at_most(8, "µs")),
                    ("the bare protocol's", "µs", [fan.cpu_us for fan in fans], None),
                    ("time until all have it", "ms", [fan.all_ms for fan in fans], None),
                )
                figures += [
                    Figure(what, where, unit, values, aim=aim, void=clients.void) for what, unit, values, aim in rows
                ]
                share = median(fan.crowd_share for fan in fans)
                notes.append(f"With {where} the crowd was busy for {share:.0%} of the time to all.")
    return Measured(figures, " ".join(notes))
