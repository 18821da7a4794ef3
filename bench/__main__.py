"""`python -m bench`: measure, print what is measured as it comes, write the report."""

import argparse
import asyncio
import os
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import chart, peers, report
from bench.database import FLUSHES, commit_ms, fetchval, postgres
from bench.figures import Measured
from bench.scenarios import BASE, NAMES, SCENARIOS, Scenario
from bench.server import ROOT, run
from bench.stage import FULL, QUICK, Checkout, Opponent, Scale, Stage, checkout

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


async def measure(scale: Scale, only: Sequence[str], there: Sequence[peers.Peer], base: Checkout | None) -> Report:
    start = time.monotonic()
    busy = os.getloadavg()[0]
    sections: list[report.Section] = []
    opponents: dict[str, Opponent] = {peer.slug: peer for peer in there}
    if base:
        opponents[BASE] = base
    async with postgres() as server:
        version = str(await fetchval(server, VERSION))
        commits = [(flush.name, await commit_ms(server, flush)) for flush in FLUSHES]
        for scenario in SCENARIOS:
            beside = [opponents[slug] for slug in scenario.peers if slug in opponents]
            needless = scenario.name == "before" and not base
            if (only and scenario.name not in only) or needless:
                continue
            say(*report.header(scenario))
            parts = []
            for flush in scenario.flushes:
                part = await played(scenario, Stage(scale, server, beside, scenario.clients(scale), flush))
                say(*map(report.row, part.figures), part.note, *part.failed)
                parts.append(part)
            sections.append((scenario, parts))
    versions = [(peer.name, peer.version()) for peer in there]
    where = report.machine(version, (busy, os.getloadavg()[0]), commits, versions)
    svg = chart.draw(sections)
    text = report.write(sections, where, scale, time.monotonic() - start, base.name if base else "", chart=bool(svg))
    return Report(text, report.raw(sections, where), svg, all(part.valid for _, parts in sections for part in parts))


async def played(scenario: Scenario, stage: Stage) -> Measured:
    try:
        return scenario.judged(await scenario.measure(stage))
    except (RuntimeError, TimeoutError) as error:  # the other scenarios can still be measured
        return Measured([], failed=[str(error) or "took too long"])


def say(*lines: str) -> None:
    for line in filter(None, lines):
        print(line, flush=True)


def names(choices: Sequence[str], text: str) -> list[str]:
    found = text.split(",")
    for name in found:
        if name not in choices:
            raise argparse.ArgumentTypeError(f"{name!r} is none of: {', '.join(choices)}")
    return found


def arguments() -> argparse.Namespace:
    slugs = [peer.slug for peer in peers.PEERS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a look at whether it works, in a minute: no numbers to cite"
    )
    parser.add_argument(
        "--only",
        type=lambda text: names(NAMES, text),
        default=[],
        help=f"some of: {','.join(NAMES)} (writes no report)",
    )
    parser.add_argument(
        "--peers",
        type=lambda text: names(slugs, text),
        default=[],
        help=f"some of: {','.join(slugs)} (writes no report)",
    )
    parser.add_argument(
        "--base",
        metavar="REVISION",
        help="compare with another revision of this repository too, in the same run: before, lists, herd, costs",
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
    found = parser.parse_args()
    if "before" in found.only and not found.base:
        parser.error("before compares with another revision: say --base REVISION.")
    return found


def main() -> int:
    options = arguments()
    scale = QUICK if options.quick else FULL
    if options.clients:
        scale = scale.of(options.clients)
    part = scale is not FULL or options.only or options.peers
    output = options.output or (None if part else RESULTS)
    # Each connection is a file, here and in what we start.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    there = peers.here() if options.quick and not options.peers else peers.installed(options.peers)
    with ExitStack() as stack:
        try:
            base = stack.enter_context(checkout(options.base)) if options.base else None
            found = run(measure(scale, options.only, there, base))
        except asyncio.CancelledError:
            return 130
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
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
