"""`python -m bench`: measure, print what is measured as it comes, write the report."""

import argparse
import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from bench import batches, chart, latency, peers, publish, quick, report, sql
from bench.database import FLUSHES, commit_ms, database, fetchval, postgres
from bench.figures import Measured
from bench.load import loading
from bench.server import NOTIFIER, ROOT, running
from bench.setup import FULL, QUICK, Scale, Setup, Stage
from bench.works import client, health, idle, inboxes, last, parking, proxy, tokens

# In the order of the report. A module says TITLE and TEXT, and has `measure(setup) -> Measured` for one flush.
MEASUREMENTS = (latency, publish, batches, sql)
# The same, with crowds of clients: `measure(stage) -> Measured`.
WORKS = (parking, tokens, proxy, last, idle, health, inboxes, client)
NAMES = [module.__name__.rpartition(".")[2] for module in (*WORKS, *MEASUREMENTS)]

VERSION = """
select format(
    'PostgreSQL %s, fsync %s, synchronous_commit %s',
    split_part(current_setting('server_version'), ' ', 1),
    current_setting('fsync'),
    current_setting('synchronous_commit')
)
"""

RESULTS = ROOT / "bench" / "RESULTS.md"


@dataclass(frozen=True, slots=True)
class Report:
    """`valid`: nothing was lost, repeated or refused. `svg` is empty where there is nothing to draw."""

    text: str
    raw: str
    svg: str
    valid: bool


async def measure(scale: Scale, only: Sequence[str], opponents: Sequence[peers.Peer]) -> Report:
    start = time.monotonic()
    busy = os.getloadavg()[0]
    commits: list[tuple[str, float]] = []
    sections: list[report.Section] = []
    async with postgres() as server_url:
        version = str(await fetchval(server_url, VERSION))
        for work in chosen(WORKS, only):
            say(*report.header(work))
            try:
                part = await work.measure(Stage(scale, server_url, opponents))
            except (RuntimeError, TimeoutError) as error:  # the other works can still be measured
                part = Measured([], failed=[str(error) or "took too long"])
            show(part)
            sections.append((work, [part]))
        if measurements := chosen(MEASUREMENTS, only):
            sections += await measure_flushes(scale, server_url, measurements, commits)
    versions = [(peer.name, peer.version()) for peer in opponents]
    where = report.machine(version, (busy, os.getloadavg()[0]), commits, versions)
    svg = chart.draw(sections)
    text = report.write(sections, where, scale, time.monotonic() - start, chart=bool(svg))
    return Report(text, report.raw(sections, where), svg, all(part.valid for _, parts in sections for part in parts))


async def measure_flushes(
    scale: Scale, server_url: str, measurements: Sequence[ModuleType], commits: list[tuple[str, float]]
) -> list[report.Section]:
    """Each with both flushes. What one commit takes goes to `commits`."""
    measured: dict[str, list[Measured]] = {module.__name__: [] for module in measurements}
    say(*report.header(measurements[0]))
    async with loading() as load:
        for flush in FLUSHES:
            async with database(server_url, flush) as url, running(NOTIFIER, url) as server:
                commits.append((flush.name, await commit_ms(url)))
                setup = Setup(scale, flush, server_url, url, server, load)
                for module in measurements:
                    part = await module.measure(setup)
                    measured[module.__name__].append(part)
                    show(part)
    return [(module, measured[module.__name__]) for module in measurements]


def chosen(modules: Sequence[ModuleType], only: Sequence[str]) -> list[ModuleType]:
    return [module for module in modules if not only or module.__name__.rpartition(".")[2] in only]


def show(part: Measured) -> None:
    say(*(report.row(figure) for figure in part.figures), *filter(None, [part.note]), *part.failed)


def say(*lines: str) -> None:
    print("\n".join(lines), flush=True)


async def interruptible(scale: Scale, only: Sequence[str], opponents: Sequence[peers.Peer]) -> Report:
    """Ctrl-C and SIGTERM end everything that we have started."""
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await measure(scale, only, opponents)


def opponents(wanted: Sequence[str]) -> list[peers.Peer]:
    """The peers that can run here, of those that are wanted (all if none is named). What is missing is installed."""
    peers.install()
    return [peer for peer in peers.PEERS if (not wanted or peer.slug in wanted) and not peer.missing()]


def names(choices: Sequence[str], text: str) -> list[str]:
    found = text.split(",")
    for name in found:
        if name not in choices:
            raise argparse.ArgumentTypeError(f"{name!r} is none of: {', '.join(choices)}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a look at whether it works, in half a minute: no numbers to cite"
    )
    parser.add_argument(
        "--only",
        type=lambda text: names(NAMES, text),
        default=[],
        help=f"some of: {','.join(NAMES)} (writes no report)",
    )
    slugs = [peer.slug for peer in peers.PEERS]
    parser.add_argument(
        "--peers",
        type=lambda text: names(slugs, text),
        default=[],
        help=f"some of: {','.join(slugs)} (writes no report)",
    )
    parser.add_argument(
        "--clients",
        type=lambda text: tuple(sorted(int(count) for count in text.split(","))),
        help="the sizes of crowds (default: 5000,15000)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="where the report goes, and beside it .json and .svg (default: bench/RESULTS.md if all is measured)",
    )
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    if arguments.clients:
        most = max(arguments.clients)
        scale = replace(scale, clients=arguments.clients, last=min(most, scale.last), inboxes=min(most, scale.inboxes))
    part = scale is not FULL or arguments.only or arguments.peers
    output = arguments.output or (None if part else RESULTS)
    # Each connection is a file, here and in what we start.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    there = quick.peers() if arguments.quick and not arguments.peers else opponents(arguments.peers)
    try:
        found = asyncio.run(interruptible(scale, arguments.only, there))
    except asyncio.CancelledError:
        return 130
    if output:
        output.write_text(found.text)
        stem = output.with_name(output.stem.lower())
        stem.with_suffix(".json").write_text(found.raw)
        if found.svg:
            stem.with_suffix(".svg").write_text(found.svg)
        print(f"\nwritten to {os.path.relpath(output)}")
    if not found.valid:
        print("Void: something was lost, repeated or refused, or failed; the report says what.", file=sys.stderr)
    return 0 if found.valid else 1


if __name__ == "__main__":
    sys.exit(main())
