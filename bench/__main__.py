"""`python -m bench`: measure, print what is measured as it comes, write the report."""

import argparse
import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import batches, latency, publish, report, sql
from bench.database import FLUSHES, commit_ms, database, fetchval, postgres
from bench.load import loading
from bench.server import NOTIFIER, ROOT, running
from bench.setup import FULL, QUICK, Scale, Setup

if TYPE_CHECKING:
    from bench.figures import Measured

# In the order of the report. A module says TITLE and TEXT, and has `measure(setup) -> Measured` for one flush.
MEASUREMENTS = (latency, publish, batches, sql)

VERSION = """
select format(
    'PostgreSQL %s, fsync %s, synchronous_commit %s',
    split_part(current_setting('server_version'), ' ', 1),
    current_setting('fsync'),
    current_setting('synchronous_commit')
)
"""

RESULTS = ROOT / "bench" / "RESULTS.md"


async def measure(scale: Scale) -> tuple[str, bool]:
    """The report, and whether all of it is valid."""
    start = time.monotonic()
    busy = os.getloadavg()[0]
    measured: dict[str, list[Measured]] = {module.__name__: [] for module in MEASUREMENTS}
    commits = []
    async with postgres() as server_url, loading() as load:
        version = str(await fetchval(server_url, VERSION))
        for flush in FLUSHES:
            async with database(server_url, flush) as url, running(NOTIFIER, url) as server:
                commits.append((flush.name, await commit_ms(url)))
                setup = Setup(scale, flush, server_url, url, server, load)
                for module in MEASUREMENTS:
                    part = await module.measure(setup)
                    measured[module.__name__].append(part)
                    print("\n".join(report.row(figure) for figure in part.figures), flush=True)
    sections = [(module, measured[module.__name__]) for module in MEASUREMENTS]
    where = report.machine(version, busy, commits)
    valid = not any(figure.void for parts in measured.values() for part in parts for figure in part.figures)
    return report.write(sections, where, scale, time.monotonic() - start), valid


async def interruptible(scale: Scale) -> tuple[str, bool]:
    """Ctrl-C and SIGTERM end everything that we have started."""
    task = asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await measure(scale)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a look at whether it works, in half a minute: no numbers to cite"
    )
    parser.add_argument(
        "--output", type=Path, help="where the report goes (default: bench/RESULTS.md; with --quick nowhere)"
    )
    arguments = parser.parse_args()
    output = arguments.output or (None if arguments.quick else RESULTS)
    print("\n".join(report.HEADER), flush=True)
    try:
        text, valid = asyncio.run(interruptible(QUICK if arguments.quick else FULL))
    except asyncio.CancelledError:
        return 130
    if output:
        output.write_text(text)
        print(f"\nwritten to {os.path.relpath(output)}")
    if not valid:
        print("Void: something was lost, repeated or refused; the report says what.", file=sys.stderr)
    return 0 if valid else 1


sys.exit(main())
