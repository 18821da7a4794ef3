"""`python -m chaos`: break everything for a while, and compare every answer with the log.

Exit status: 0, nothing was wrong; 1, something was, and what; 2, the run itself has failed.
"""

import argparse
import asyncio
import logging
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from chaos.faults import Breaking, Step, schedule
from chaos.tampering import WAYS, Tampering
from chaos.world import World

SHOWN = 1500  # characters of each thing that is wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="how long things are broken (default 600)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="of an earlier run: the same schedule")
    parser.add_argument("--only", help="faults, separated by commas")
    parser.add_argument("--tamper", choices=[*WAYS], help="change one answer, which has to be noticed")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    arguments = parser.parse_args()
    only = set(arguments.only.split(",")) if arguments.only else None
    # Not below a folder that only root can enter: the database has a user of its own.
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    folder.chmod(0o711)
    say(f"seed {arguments.seed}, {arguments.seconds:.0f} s, logs in {folder}")
    keep = True
    try:
        wrong = asyncio.run(run(folder, arguments.seed, arguments.seconds, only, Tampering(arguments.tamper)))
        keep = arguments.keep or (wrong and not arguments.tamper)
        return int(wrong)
    except (KeyboardInterrupt, asyncio.CancelledError) as error:
        keep = arguments.keep
        return 128 + (signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
    except Exception:
        logging.exception("The run itself has failed")
        return 2
    finally:
        if keep:
            say(f"the logs stay in {folder}")
        else:
            shutil.rmtree(folder)


async def run(folder: Path, seed: str, seconds: float, only: set[str] | None, tampering: Tampering) -> bool:
    """Whether something was wrong."""
    task = asyncio.current_task()
    assert task
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    world = World(folder, seed, tampering)
    async with world.running():
        started = time.monotonic()
        breaking = Breaking(world)
        await world.watch(2)
        for step in schedule(seed):
            if only and step.fault not in only:
                continue
            await world.watch(step.after)
            if world.recorder.faults or time.monotonic() - started > seconds:
                break
            say(f"{time.monotonic() - started:6.1f} s  {step.fault}{f' with {step.beside}' if step.beside else ''}")
            await _broken(breaking, step)
        if not world.recorder.faults:
            say(f"{time.monotonic() - started:6.1f} s  the end: everybody catches up")
            await world.finish()
        report(world, breaking, seed)
        return bool(world.recorder.faults)


async def _broken(breaking: Breaking, step: Step) -> None:
    """A fault that hangs must not hang the run."""
    async with asyncio.timeout(120):
        await breaking.carry_out(step)


def report(world: World, breaking: Breaking, seed: str) -> None:
    record, counts = world.recorder.record, world.recorder.counts
    say(f"faults: {', '.join(f'{count} {name}' for name, count in sorted(breaking.done.items()))}")
    rows = sum(len(life.rows) for life in record.lives)
    say(f"log: {rows} messages in {len(record.lives)} lives; {world.proxy.lost} notifications lost on purpose")
    for life in record.lives[1:]:
        before = life.parent.head if life.parent else 0
        say(f"a life from {life.start} on; the one before ended at {before} and left {life.fork} ({life.issued})")
    say("publishes: " + ", ".join(f"{count} {name}" for name, count in sorted(world.ledger.counts.items())))
    say("followers: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    say("latest answer: {:.1f} s after its wait{}".format(*world.recorder.latest))
    for fault in world.recorder.faults[:12]:
        say(f"WRONG: {fault[:SHOWN]}")
    say(f"{len(record.faults)} wrong (seed {seed})")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
