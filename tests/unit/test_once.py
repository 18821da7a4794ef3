"""Installations that happen once, also when several processes want them at the same moment."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError

from bench.peers.once import once


def test_two_at_the_same_moment_make_it_once(tmp_path: Path) -> None:
    source = tmp_path / "lock"
    source.write_text("versions")
    made = tmp_path / "made"
    both = Barrier(2)
    calls = []

    def make() -> None:
        calls.append(1)
        with suppress(BrokenBarrierError):
            both.wait(0.5)  # lasts as long as this, unless the other one makes it, too
        made.mkdir(exist_ok=True)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(once, made, source, make) for _ in range(2)]:
            done.result()
    assert len(calls) == 1


def test_a_change_of_the_source_makes_it_again(tmp_path: Path) -> None:
    source = tmp_path / "lock"
    made = tmp_path / "made"
    calls = []

    def make() -> None:
        calls.append(1)
        made.mkdir(exist_ok=True)

    for text in ("one", "one", "two"):
        source.write_text(text)
        once(made, source, make)
    assert len(calls) == 2
