"""Child programs, which must not outlive us, not even when we are killed."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from notifier.embedded.account import ENVIRONMENT, Account, EmbeddedError

# SIGINT is Postgres's "fast" shutdown; SIGTERM would wait for its clients forever. SIGQUIT leaves the work to the
# recovery at the next start, and a frozen process reacts to nothing but SIGKILL. None of them loses a commit.
STOP = ((signal.SIGINT, 8.0), (signal.SIGQUIT, 4.0), (signal.SIGKILL, 4.0))

GUARD = 'read -r pid && { read -r _ || kill -INT "$pid"; }'
PROGRAM = 'echo $$ >&0; exec "$@" </dev/null'


class Child:
    """A program, and its guard: a shell that waits on a pipe and sends SIGINT to the program when the pipe breaks.

    Only we hold the writing end, so it breaks when we die, even by SIGKILL (plain POSIX, no prctl). The program writes
    its own pid into the pipe before it starts, so it never runs unguarded. Both have sessions of their own, so that a
    Ctrl-C in the terminal reaches neither: the service finishes its writes first.
    """

    def __init__(
        self, command: Sequence[str | Path], account: Account, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start `command` as `account`; its output is appended to `log`."""
        self._log = log
        # Postgres quotes statements when it logs errors, so only its user may read the log.
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._said_before = os.fstat(output).st_size
        reading, self._pipe = os.pipe()

        def spawn(script: str, stdin: int, *arguments: str | Path) -> subprocess.Popen[bytes]:
            return subprocess.Popen(  # noqa: S603  # fixed programs, arguments of our own
                ["/bin/sh", "-c", script, "sh", *arguments],
                stdin=stdin,
                stdout=output,
                stderr=output,
                cwd="/",
                env={**ENVIRONMENT, **(environment or {})},
                start_new_session=True,
                **account.switch,
            )

        try:
            self._guard = spawn(GUARD, reading, log)  # the log's name identifies it in `ps`
            self._program = spawn(PROGRAM, self._pipe, *command)
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(reading)
            os.close(output)
        self.pid = self._program.pid

    def status(self) -> int | None:
        """The exit status; None while it runs."""
        return self._program.poll()

    def runs(self) -> bool:
        return self.status() is None

    async def stop(self) -> None:
        """End the program if it runs, then the guard."""
        try:
            await shut_down(self.pid, self.runs)
            with contextlib.suppress(BrokenPipeError):
                os.write(self._pipe, b"\n")  # a guard that could read a second line does nothing
        finally:
            os.close(self._pipe)
            self._guard.wait()

    def last_words(self) -> str:
        """The end of the program's output."""
        with self._log.open("rb") as log:
            log.seek(max(self._said_before, self._log.stat().st_size - 2000))
            return log.read().decode(errors="replace").strip()


async def shut_down(pid: int, runs: Callable[[], bool]) -> None:
    """Stop a postmaster with ever stronger signals, and return when it no longer `runs`."""
    for sign, patience_s in STOP:
        if runs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        if await until(lambda: not runs(), patience_s):
            return
    raise EmbeddedError(f"The process {pid} (Postgres) cannot be stopped.")


async def until(condition: Callable[[], bool], patience_s: float = math.inf) -> bool:
    """Wait for something that no event reports, such as another program's work. False when the time is up."""
    now = asyncio.get_running_loop().time
    deadline = now() + patience_s
    while not condition():
        if now() >= deadline:
            return False
        await asyncio.sleep(0.005)
    return True
