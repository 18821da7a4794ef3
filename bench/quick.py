"""What a quick look has instead of the peers: one of them, on the Python that runs here. Nothing is installed."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.peers import PEERS, Peer
from bench.peers.peer import FOLDER


@dataclass(frozen=True)
class Here:
    """This interpreter, with what Notifier itself needs."""

    def missing(self, _: Sequence[str], /) -> str | None:
        return None

    def install(self) -> None:
        pass

    def version(self, _: Sequence[str], /) -> str:
        return "on the Python that runs here"

    def command(self, program: Sequence[str], port: int, _: Path, /) -> Sequence[str]:  # noqa: ARG002
        return sys.executable, str(FOLDER / "apps" / f"{program[0]}.py")


def peers() -> list[Peer]:
    return [replace(peer, runtime=Here()) for peer in PEERS if peer.slug == "aiohttp"]
