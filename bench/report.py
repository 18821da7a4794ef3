"""The report: what was measured, where, and what of it can be trusted."""

import json
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bench.figures import RATIO, Figure, Measured
from bench.scenarios import Scenario
from bench.stage import Scale

Section = tuple[Scenario, Sequence[Measured]]

COLUMNS = "| | {} | Notifier | compared with | ratio (lowest to highest pair) | required | aim | |"
RULE = "|---|---|---|---|---|---|---|---|"

INTRODUCTION = """\
# Measured

Most figures are a ratio to something simpler, or to another way to do it, on the same machine in the same run: rounds
alternate, each pair gives one ratio, and the median counts. A figure is void when anything was lost, repeated or
refused. Read the ratios; the absolute numbers are those of one machine on which clients, servers and Postgres share the
processors. [results.json](results.json) has every value.
"""

CHART = """\
![CPU per delivery and memory per parked client, for Notifier and each peer](results.svg)
"""

AGAIN = """\
`make bench{base}` ({took_s:.0f} s here: {scale.pairs} pairs; a round is {scale.messages} messages for latency, \
{scale.seconds:g} s for throughput, {scale.sql_seconds} s for publishers in SQL, one message to all for fan-outs). One \
section or some peers again: `python -m bench --only {only} --peers {peers}`. It brings its own database; \
`DATABASE_URL` names another server (as a superuser, because of `commit_delay`), on which it makes \
and drops databases of its own.

The 2 ms flush is `commit_delay = 2000, commit_siblings = 0`: the backend that leads a group of commits sleeps 2 ms \
before it flushes for all of them, as a network volume would make it. Crowds wait with the native flush, but for \
inboxes.
"""


def machine(
    postgres: str, busy: tuple[float, float], commits: Sequence[tuple[str, float]], peers: Sequence[tuple[str, str]]
) -> list[str]:
    """Where it was measured, in lines; no names or addresses. `busy`: the load average before and after."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("aiohttp", "asyncpg", "uvloop"))
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    before, after = busy
    return [
        f"- {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} processors ({_processor()}), {system}",
        f"- load average {before:.1f} before and {after:.1f} after",
        f"- Python {platform.python_version()}, {packages}; {postgres}",
        *(f"- with the {name} flush one small commit takes {ms:.2f} ms" for name, ms in commits),
        *(f"- {name}: {what}" for name, what in peers),
    ]


def write(
    sections: Sequence[Section], where: Sequence[str], scale: Scale, took_s: float, base: str = "", *, chart: bool
) -> str:
    """The whole report as Markdown. `base`: the revision that ours was compared with, if it was."""
    lines = [INTRODUCTION, *where, "", *([CHART] if chart else []), *_required(sections)]
    for scenario, measured in sections:
        lines += [f"## {scenario.title}", "", scenario.text, "", *header(scenario)]
        lines += [row(figure) for part in measured for figure in part.figures]
        lines += [""]
        lines += [f"- {part.note}" for part in measured if part.note]
        lines += [f"- **failed**: {reason}" for part in measured for reason in part.failed]
        lines += [
            f"- **void** ({figure.what}, {figure.where}{figure.peer and f', {figure.peer}'}): {reason}"
            for part in measured
            for figure in part.figures
            for reason in sorted(set(figure.void))
        ]
        lines += [""]
    base = base and f" BASE={base}"
    again = AGAIN.format(base=base, took_s=took_s, scale=scale, only="parking", peers="nchan,node")
    return "\n".join([*lines, "## Again", "", again]).replace("\n\n\n", "\n\n")


def raw(sections: Iterable[Section], where: Sequence[str]) -> str:
    """All values as JSON, a line for each figure."""
    figures = [
        json.dumps(_plain(scenario, figure), ensure_ascii=False)
        for scenario, measured in sections
        for part in measured
        for figure in part.figures
    ]
    place = json.dumps([line.removeprefix("- ") for line in where], ensure_ascii=False, indent=1)
    return f'{{"where": {place},\n"figures": [\n' + ",\n".join(figures) + "\n]}\n"


def header(scenario: Scenario) -> list[str]:
    """Of a section's table."""
    return [COLUMNS.format(scenario.where), RULE]


def row(figure: Figure) -> str:
    ratios = figure.ratios if figure.theirs else []
    cells = (
        figure.what,
        figure.where,
        f"{_value(figure.ours)} {figure.unit}",
        f"{figure.peer} {_value(figure.theirs)}".strip() if ratios else "",
        f"**{_ratio(figure.ratio)}x** ({_ratio(min(ratios))} to {_ratio(max(ratios))})" if ratios else "",
        str(figure.required or ""),
        str(figure.aim or ""),
        figure.verdict,
    )
    return f"| {' | '.join(cells)} |"


def _required(sections: Sequence[Section]) -> list[str]:
    """All that is required, in one table."""
    figures = [f for _, measured in sections for part in measured for f in part.figures if f.required]
    if not figures:
        return []
    lines = ["## Required", "", "| | with | measured | required | aim | |", "|---|---|---|---|---|---|"]
    for figure in figures:
        ratio = figure.required is not None and figure.required.unit == RATIO
        measured = (
            f"{_ratio(figure.ratio)}x {figure.peer}" if ratio else f"{_number(median(figure.ours))} {figure.unit}"
        )
        if ratio and figure.aim and figure.aim.unit != RATIO:
            measured += f", {_number(median(figure.ours))} {figure.unit}"
        cells = (figure.what, figure.where, measured, str(figure.required), str(figure.aim or ""), figure.verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _plain(scenario: Scenario, figure: Figure) -> dict[str, Any]:
    found = {
        "section": scenario.name,
        "what": figure.what,
        "where": figure.where,
        "unit": figure.unit,
        "ours": [float(f"{value:.4g}") for value in figure.ours],
        "peer": figure.peer,
        "theirs": [float(f"{value:.4g}") for value in figure.theirs],
        "required": str(figure.required or ""),
        "aim": str(figure.aim or ""),
        "verdict": figure.verdict,
        "void": sorted(set(figure.void)),
    }
    return {name: value for name, value in found.items() if value}


def _value(values: Sequence[float]) -> str:
    """The median, and the spread if there is one."""
    if len(values) == 1:
        return _number(values[0])
    return f"{_number(median(values))} ({_number(min(values))} to {_number(max(values))})"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


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
