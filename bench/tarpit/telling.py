"""What the command says, as it happens and in the end."""

from bench.tarpit.asking import PATIENCE_S
from bench.tarpit.held import Held


def say(text: str = "") -> None:
    print(text, flush=True)


def say_health(clients: int, health_ms: float | None) -> None:
    who = f"{clients:,} clients wait" if clients else "Nobody waits"
    if health_ms is None:
        say(f"  {who}: the health request has no answer. We gave up after {PATIENCE_S:.0f} s.")
    else:
        say(f"  {who}: the health request is answered in {health_ms:.1f} ms.")


def say_held(rows: list[Held]) -> None:
    say(f"{'While they wait':20}{'clients':>9}{'health':>12}{'processes':>11}{'threads':>9}{'memory':>10}{'CPU':>8}")
    for row in rows:
        health = "no answer" if row.health_ms is None else f"{row.health_ms:.1f} ms"
        clients = f"{row.clients:9,}{health:>12}" if row.clients else " " * 21
        cost = f"{row.processes:11,}{row.threads:9,}{size(row.memory):>10}{row.cpu:8.1%}"
        say(f"{row.name:20}{clients}{cost}")


def size(count: float) -> str:
    """In the unit that reads best."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
