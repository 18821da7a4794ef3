"""What does it cost to hold clients that each have a token of their own?"""

from bench.figures import Figure, Measured, at_most
from bench.load.dialects import TOKEN_BYTES
from bench.setup import Stage
from bench.works.parking import fight

TITLE = "Parking clients with a token each"
TEXT = (
    f"As above, and each client's requests have an `Authorization` header of {TOKEN_BYTES} bytes of its own, as with "
    "signed tokens. Nothing is published."
)
WHERE = "clients"

MEMORY = "memory per parked client, a token each"
PEERS = "nchan", "node", "express", "fastapi", "aiohttp", "flask"


async def measure(stage: Stage) -> Measured:
    figures: list[Figure] = []
    failed = []
    most = stage.scale.crowd
    for peer in stage.some(*PEERS):
        try:
            # To the largest crowd only once: ours is the same beside each peer.
            counts = stage.scale.clients if not figures else stage.scale.clients[:1]
            duels = await fight(stage, peer, counts, tokens=True)
        except (RuntimeError, TimeoutError) as error:
            failed.append(f"{peer.name}: {error or 'took too long'}")
            continue
        figures += [
            Figure(
                MEMORY,
                f"{duel.count:,}",
                "bytes",
                duel.memory[:1],
                duel.memory[1:],
                void=duel.void,
                required=at_most(3500, "bytes") if duel.count == most or len(stage.scale.clients) == 1 else None,
                peer=peer.name,
            )
            for duel in duels
        ]
    return Measured(figures, failed=failed)
