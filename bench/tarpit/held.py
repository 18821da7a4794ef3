"""What a server costs while clients wait at it."""

import time
from dataclasses import dataclass

from bench import procs


@dataclass(frozen=True, slots=True)
class Held:
    """`clients` wait, 0 where it is not clients that wait. `health_ms`: until a health request is answered, None if it
    is not. `memory` is PSS in bytes, `cpu` a share of one processor."""

    name: str
    clients: int
    health_ms: float | None
    processes: int
    threads: int
    memory: int
    cpu: float


class Meter:
    """What processes use from now on."""

    def __init__(self, pids: procs.Pids) -> None:
        self._pids = pids
        self._cpu_s, self._start = procs.cpu_s(pids()), time.perf_counter()

    def read(self, name: str, clients: int = 0, health_ms: float | None = None) -> Held:
        pids = self._pids()
        cpu = (procs.cpu_s(pids) - self._cpu_s) / (time.perf_counter() - self._start)
        return Held(name, clients, health_ms, len(pids), procs.threads(pids), procs.memory(pids), cpu)
