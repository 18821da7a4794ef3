"""The bench works: it measures every row, loses nothing, and leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil
import pytest
from conftest import DEADLINE_S, ROOT

from bench.scenarios import SCENARIOS

# Bounds a hang; a minute is usual.
BENCH_S = 400.0

ROWS = (
    "signed webhooks, 32 at once",
    "webhook → answered, p99 at 200 a second",
    "webhook → answered, p99 beside a large one",
    "health request, p99 while 256 publish",
    "SQL, commit returned → delivered, p50",
    "publish → delivered, p50",
    "publish → delivered, p99",
    "publishes, 1 at once",
    "publishes, 32 at once",
    "publishes, 256 at once",
    "messages in batches of 100",
    "transactions, insert into notifier.outbox",
    "transactions, notifier.publish()",
)

WORKS = (
    "| CPU per delivery | 100 |",
    "| CPU per delivery | 200 |",
    "| memory per parked client | 200 |",
    "| time until all have it | 200 |",
    "| threads, compared with 10 clients | 200 |",
    "| Postgres' CPU per delivery, beside ours | 200 |",
    "| memory per parked client, a token each | 200 |",
    "| health request, longest during a fan-out to so many lists | 200 |",
    "| CPU per delivery, a list each | 200 |",
    "| CPU with nobody publishing | 200 |",
    "| health request, p99 during a fan-out, against the time to all | 200 |",
    "| health request, longest while all hang up | 200 |",
    "| publish → delivered, inboxes, p50 | 100 |",
    "| memory per stream | 100 |",
    "| until all are parked | 6,000 |",
    "| reads of the table | 20,000 |",
    "| CPU per client that comes back, nothing known of it | 100 |",
    "| messages per second to clients far behind, a topic each | 50 |",
    "| CPU per page load with last=10, a pattern | 12,000 |",
    "| CPU per publish, one publisher | 1 publisher |",
    "| Postgres' CPU per publish, by topics known | 1,000 topics |",
    "| the crowd's CPU per delivery | 200 |",
    "| blocks per look for what is due | 1,000 waiting |",
    "| publish → answered, p99 while many fall due | 2,000 due |",
)


def start_bench(output: Path, *options: str) -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return subprocess.Popen(
        [sys.executable, "-m", "bench", "--quick", "--output", str(output), *options],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_quick_run_reports_every_row_and_no_void(tmp_path: Path) -> None:
    output = tmp_path / "results.md"
    bench = start_bench(output)
    said, errors = bench.communicate(timeout=BENCH_S)
    assert bench.returncode == 0, said + errors
    report = output.read_text()
    assert "void**" not in report
    assert "failed**" not in report
    assert "| void |" not in report
    for row in ROWS:
        for flush in ("2 ms", "native"):
            assert f"| {row} | {flush} |" in report
    for row in WORKS:
        assert row in report
    assert str(ROOT) not in report
    assert "127.0.0.1" not in report
    figures = json.loads(output.with_suffix(".json").read_text())["figures"]
    assert {("parking", "CPU per delivery", "aiohttp"), ("latency", "publish → delivered, p50", None)} <= {
        (figure["section"], figure["what"], figure.get("peer")) for figure in figures
    }
    judged = {(figure["section"], figure["what"]) for figure in figures if "required" in figure or "aim" in figure}
    elsewhere = {"before", "proxy", "last", "tokens", "coming", "streams"}  # another revision, nginx, nchan, node
    assert judged >= {
        (scenario.name, bound.what)
        for scenario in SCENARIOS
        for bound in scenario.bounds
        if scenario.name not in elsewhere and not bound.what.endswith("beside another revision")
    }
    assert ET.parse(output.with_suffix(".svg")).getroot().tag.endswith("svg")


def test_another_revision_is_measured_as_a_peer_in_the_same_run(tmp_path: Path) -> None:
    output = tmp_path / "results.md"
    bench = start_bench(output, "--only", "before,lists,herd,costs", "--base", "HEAD")
    said, errors = bench.communicate(timeout=BENCH_S)
    assert bench.returncode == 0, said + errors
    head = revision("rev-parse", "--short", "HEAD")
    figures = json.loads(output.with_suffix(".json").read_text())["figures"]
    beside = {
        (figure["section"], figure["what"], figure["where"], figure.get("required"))
        for figure in figures
        if figure.get("peer") == head and len(figure["ours"]) == len(figure["theirs"])
    }
    assert {
        ("before", "CPU per delivery", "100", "≤ 1.03x"),
        ("before", "CPU per delivery", "200", "≤ 1.03x"),
        ("before", "memory per parked client", "200", "≤ 1.03x"),
        ("lists", "CPU per delivery, a list each", "200", None),
        ("herd", "until all are parked, beside another revision", "0", "≤ 1x"),
        ("costs", "CPU per publish, one publisher, beside another revision", "1 publisher", "≤ 0.7x"),
    } <= beside
    assert f"`make bench BASE={head}`" in output.read_text()
    assert head not in revision("worktree", "list").partition("\n")[2]


def test_a_revision_that_is_not_there_is_refused_in_a_sentence(tmp_path: Path) -> None:
    bench = start_bench(tmp_path / "results.md", "--base", "no-such-revision")
    _, errors = bench.communicate(timeout=BENCH_S)
    assert bench.returncode == 1
    assert "no-such-revision" in errors
    assert "Traceback" not in errors


def revision(*arguments: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("section", "sign"),
    [("latency,publish", "| publish → delivered"), ("parking", "200 clients parked")],
)
def test_an_interrupted_run_ends_what_it_has_started(tmp_path: Path, section: str, sign: str) -> None:
    bench = start_bench(tmp_path / "results.md", "--only", section)
    try:
        assert bench.stdout
        while sign not in (line := bench.stdout.readline()):
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
    assert not [process for process in started if runs(process)]


def runs(process: psutil.Process) -> bool:
    """Orphans that have ended may wait for their burial."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
