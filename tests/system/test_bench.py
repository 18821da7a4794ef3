"""The bench works: it measures every row, loses nothing, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from conftest import DEADLINE_S, ROOT

# Bounds a hang; half a minute is usual.
BENCH_S = 180.0

ROWS = (
    "publish → delivered, p50",
    "publish → delivered, p99",
    "publishes, 1 at once",
    "publishes, 32 at once",
    "publishes, 256 at once",
    "messages in batches of 100",
    "transactions, insert into notifier.inbox",
    "transactions, notifier.publish()",
)


def start_bench(output: Path) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return subprocess.Popen(
        [sys.executable, "-m", "bench", "--quick", "--output", str(output)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_quick_run_reports_every_row_with_both_flushes_and_no_void(tmp_path: Path) -> None:
    output = tmp_path / "results.md"
    bench = start_bench(output)
    _, errors = bench.communicate(timeout=BENCH_S)
    assert bench.returncode == 0, errors
    report = output.read_text()
    assert "void**" not in report
    assert "| void |" not in report
    for row in ROWS:
        for flush in ("2 ms", "native"):
            assert f"| {row} | {flush} |" in report
    assert str(ROOT) not in report
    assert "127.0.0.1" not in report


def test_an_interrupted_run_ends_what_it_has_started(tmp_path: Path) -> None:
    bench = start_bench(tmp_path / "results.md")
    try:
        assert bench.stdout
        while "publish → delivered" not in (line := bench.stdout.readline()):
            assert line, bench.communicate(timeout=DEADLINE_S)[1]
        started = psutil.Process(bench.pid).children(recursive=True)
        assert len(started) > 3  # Postgres, its guard, a server, the load client, ...
        bench.send_signal(signal.SIGINT)
        _, errors = bench.communicate(timeout=BENCH_S)
    finally:
        bench.kill()
        bench.wait()
    assert bench.returncode == 130, errors
    assert "Traceback" not in errors
    assert not any(process.is_running() for process in started)
