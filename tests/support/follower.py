"""`notifier subscribe` as a process, whose lines are read as they come."""

import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

# Bounds a hang; a client that has failed for long waits up to half a minute between two tries.
DEADLINE_S = 60.0


class Follower:
    def __init__(self, env: dict[str, str], folder: Path, *arguments: str) -> None:
        self._errors = folder / f"subscribe-{id(self)}.stderr"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "notifier", "subscribe", *arguments],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)

    def line(self) -> str:
        """The next line, as it is."""
        try:
            return self._lines.get(timeout=DEADLINE_S).decode()
        except queue.Empty:
            raise AssertionError(f"No line came; standard error: {self.errors()}") from None

    def message(self) -> dict:
        return json.loads(self.line())

    def errors(self) -> str:
        return self._errors.read_text()

    def said(self, words: str) -> None:
        """Return once `words` stand on standard error."""
        deadline = time.monotonic() + DEADLINE_S
        while words not in self.errors():
            assert time.monotonic() < deadline, self.errors()
            time.sleep(0.01)

    def wait(self) -> int:
        """The exit status, once it has ended by itself and everything it wrote has been read."""
        status = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return status

    def left(self) -> int:
        """How many unexpected lines came."""
        return self._lines.qsize()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(DEADLINE_S)
        assert self.process.stdout
        self.process.stdout.close()
