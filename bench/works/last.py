"""How long until the last of many clients has the message?"""

from dataclasses import replace
from statistics import median

from bench.figures import Figure, Measured, at_most
from bench.setup import Stage
from bench.works.parking import TIME, fight

TITLE = "Until the last has it"
TEXT = (
    "From the first byte of the publish until the last client has the message: ours with its commit, nchan from "
    "memory. Clients that have it poll again meanwhile."
)
WHERE = "clients"

# For each pair of the other works: one round is short, and they differ much.
ROUNDS = 3


async def measure(stage: Stage) -> Measured:
    figures: list[Figure] = []
    failed = []
    notes = []
    stage = replace(stage, scale=replace(stage.scale, pairs=ROUNDS * stage.scale.pairs))
    for peer in stage.some("nchan"):
        try:
            duels = await fight(stage, peer, (stage.scale.last,))
        except (RuntimeError, TimeoutError) as error:
            failed.append(f"{peer.name}: {error or 'took too long'}")
            continue
        figures += [
            duel.figure(TIME, "ms", lambda fan: fan.all_ms, required=at_most(1.2), aim=at_most(1.0)) for duel in duels
        ]
        notes += [
            f"The crowd was busy for {median(mine.crowd_share for mine, _ in duel.rounds):.0%} of our time, and for "
            f"{median(other.crowd_share for _, other in duel.rounds):.0%} of {duel.peer}'s: what it can do bounds both."
            for duel in duels
        ]
    return Measured(figures, " ".join(notes), failed)
