"""The report: what was measured, where, and what of it can be trusted."""

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from bench.figures import Figure, Measured
from bench.setup import Scale

HEADER = (
    "| | flush | Notifier | compared with | ratio (lowest to highest pair) | aim | |",
    "|---|---|---|---|---|---|---|",
)

INTRODUCTION = """\
# Measured

Each figure is a ratio to something simpler on the same machine in the same run: rounds alternate, each pair gives one
ratio, and the median counts. A figure is void when anything was lost, repeated or refused: what was acknowledged is
counted again in the table. Read the ratios; the absolute numbers are those of one machine on which clients, server and
Postgres share the processors.
"""

AGAIN = """\
`make bench` ({took_s:.0f} s here: {scale.pairs} pairs; a round is {scale.messages} messages for latency, \
{scale.seconds:g} s for throughput, {scale.sql_seconds} s for publishers in SQL). It brings its own database; \
`DATABASE_URL` names another server (as a superuser, because of `commit_delay`), on which it makes \
and drops databases of its own.

The 2 ms flush is `commit_delay = 2000, commit_siblings = 0`: the backend that leads a group of commits sleeps 2 ms \
before it flushes for all of them, as a network volume would make it.
"""


def machine(postgres: str, busy: float, commits: Sequence[tuple[str, float]]) -> list[str]:
    """Where it was measured, in lines; no names or addresses. `busy`: the load average before."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "asyncpg", "uvloop"))
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return [
        f"- {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} processors ({_processor()}), {system}; load {busy:.1f}",
        f"- Python {platform.python_version()}, {packages}; {postgres}",
        *(f"- with the {name} flush one small commit takes {ms:.2f} ms" for name, ms in commits),
    ]


def write(
    sections: Iterable[tuple[ModuleType, Sequence[Measured]]], where: Sequence[str], scale: Scale, took_s: float
) -> str:
    """The whole report as Markdown. Of a section's module the TITLE and the TEXT are shown."""
    lines = [INTRODUCTION, *where, ""]
    for module, measured in sections:
        lines += [f"## {module.TITLE}", "", module.TEXT, "", *HEADER]
        lines += [row(figure) for part in measured for figure in part.figures]
        lines += [""]
        lines += [f"- {part.note}" for part in measured if part.note]
        lines += [
            f"- **void** ({figure.what}, {figure.flush} flush): {reason}"
            for part in measured
            for figure in part.figures
            for reason in sorted(set(figure.void))
        ]
        lines += [""]
    lines += ["## Again", "", AGAIN.format(took_s=took_s, scale=scale)]
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def row(figure: Figure) -> str:
    ratios = figure.ratios
    spread = f"**{figure.ratio:.2f}x** ({min(ratios):.2f} to {max(ratios):.2f})"
    cells = (
        figure.what,
        figure.flush,
        f"{_value(figure.ours)} {figure.unit}",
        _value(figure.theirs),
        spread,
        str(figure.aim or ""),
        figure.verdict,
    )
    return f"| {' | '.join(cells)} |"


def _value(values: Sequence[float]) -> str:
    """The median, and the spread."""
    return f"{_number(sorted(values)[len(values) // 2])} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


def _processor() -> str:
    """Linux tells the model; elsewhere the architecture must do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
