"""What runs on Ruby: Rails on Puma, from the packages of Debian or Ubuntu."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.peers.once import said
from bench.peers.peer import FOLDER

PACKAGES = ("ruby-railties", "puma")


@dataclass(frozen=True)
class Ruby:
    def missing(self, _: Sequence[str] = ()) -> str | None:
        there = shutil.which("puma", path="/usr/bin") and Path("/usr/share/doc/ruby-railties").exists()
        return None if there else f"Rails on Puma (Debian's packages {' and '.join(PACKAGES)})"

    def install(self) -> None:
        if self.missing():
            said(["sh", FOLDER / "install.sh", *PACKAGES])

    def version(self, _: Sequence[str]) -> str:
        return rails_version()

    def command(self, program: Sequence[str], _port: int, _folder: Path) -> Sequence[str]:
        """`program` is a configuration of Puma, which reads PORT, and options."""
        config, *options = program
        return ("/usr/bin/puma", f"--config={FOLDER / 'apps' / config}", *options)


@cache
def rails_version() -> str:
    rails, puma = said(["dpkg-query", "--show", "--showformat=${Version} ", *PACKAGES]).split()
    return f"rails {rails.partition(':')[2]}, puma {puma}"


RUBY = Ruby()
